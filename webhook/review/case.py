"""One pass over one object: what its rules find, and the decision that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.wording import first_sentence, warning
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule
from webhook.review import requester
from webhook.review.decision import Blind, Decision, Outcome, RuleResult, foremost
from webhook.review.memory import RefusalMemory
from webhook.review.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from datetime import datetime

    from webhook.model.placement import Assessment, Conditions
    from webhook.model.requirements import Requirements
    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review

ALL_WARNINGS = 4096
# Of a finding, in the modes that refuse nobody.
_OUTCOME_OF = {Mode.AUDIT: Outcome.AUDITED, Mode.WARN: Outcome.WARNED}


class Case:
    """Collects findings of the rules on one object.

    Attributes:
        mutating: Whether this is the pass that may change the object (it never refuses, and warns
            only of what it leaves unchanged).
        late: Why there is no time to decide; "" where there is.
        decision_id: The id that message, log, annotation and record share.
        patch: What changes.
        assessment: What stands in the way on which node, once judged.
        refusal_follows: The validating pass will refuse what this pass changes.
    """

    def __init__(
        self,
        review: Review,
        snapshot: Snapshot,
        configuration: Configuration,
        now: datetime,
        new_id: Callable[[], str],
        memory: RefusalMemory | None = None,
        *,
        mutating: bool,
        late: str = "",
    ) -> None:
        """Open a case; an id is made at once."""
        self.review = review
        self.snapshot = snapshot
        self.configuration = configuration
        self.now = now
        self.new_id = new_id
        self.memory = memory if memory is not None else RefusalMemory()
        self.mutating = mutating
        self.late = late
        self.decision_id = new_id()
        self.patch = Patch(review.obj or fields.EMPTY)
        self.assessment: Assessment | None = None
        self.origin: MigrationOrigin | None = None
        self.via = ""
        self.override = requester.Override()
        self.refusal_follows = False
        self._speaks = not mutating
        self._results: list[RuleResult] = []
        self._outcomes: list[Outcome] = []
        self._refusals: list[str] = []
        self._told: list[str] = []
        self._warnings: list[str] = []

    def mode(self, rule: Rule) -> Mode:
        """Return the mode in which a rule reviews this object."""
        return self.configuration.mode_for(
            rule,
            namespace=self.review.namespace,
            origin=self.origin or MigrationOrigin.USER,
            upgrading=self.snapshot.upgrading,
        )

    def conditions(self, demanded: Requirements) -> Conditions:
        """Return what judging nodes depends on besides the demands."""
        return self.snapshot.conditions(
            demanded, self.configuration.passing_taints, self.now.timestamp()
        )

    @property
    def blind(self) -> str:
        """Why the facts do not bear a decision that rests on all nodes, "" where they do."""
        return self.snapshot.blind(by_name=self.by_name)

    def blind_to(self, vmi: VirtualMachineInstance) -> str:
        """Say why nothing can be said of where a VMI can go, "" where it can."""
        return self.blind or self.snapshot.blind_to(vmi)

    @property
    def by_name(self) -> bool:
        """Whether messages name nodes."""
        return self.configuration.messages.node_names

    @property
    def exempt(self) -> bool:
        """Whether whoever asks is never refused."""
        return self.configuration.is_exempt(self.review.username, self.review.groups)

    def would_refuse(self, rule: Rule) -> bool:
        """Tell whether a finding of a rule refuses the object in the validating pass."""
        return self.mode(rule) is Mode.ENFORCE and not self.exempt and not self.override.author

    def passed(self, rule: Rule, detail: str = "") -> None:
        """Note that a rule looked and found nothing, or why it did not look."""
        if self.mode(rule) is not Mode.OFF:
            self._note(rule, Outcome.ALLOWED, detail)

    def find(self, rule: Rule, message: str, *, at_most: Mode = Mode.ENFORCE) -> None:
        """Note what a rule found; its mode, and who asks, say what comes of it.

        Args:
            rule: The rule.
            message: In full, as a refusal would say it.
            at_most: What the finding can lead to, whatever the mode.
        """
        mode = self.mode(rule).capped(at_most)
        if mode is Mode.OFF:
            return
        outcome = _OUTCOME_OF.get(mode)
        if outcome is None and self.override.author:
            outcome = Outcome.OVERRIDDEN
        elif outcome is None and self.exempt:
            outcome = Outcome.EXEMPT
        self._note(rule, outcome or Outcome.REFUSED, message)
        self._told.append(message)
        if outcome is None:
            self._refusals.append(message)
        elif outcome is not Outcome.AUDITED:
            self.warn(first_sentence(message), with_id=True)

    def changed(self, rule: Rule, detail: str) -> None:
        """Note that a rule changed the object."""
        self._note(rule, Outcome.CHANGED, detail)

    def would_change(self, rule: Rule, detail: str) -> None:
        """Note what a rule would change in mode enforce; mode warn says so to the user."""
        mode = self.mode(rule)
        if mode is Mode.OFF:
            return
        self._note(rule, Outcome.WARNED if mode is Mode.WARN else Outcome.AUDITED, detail)
        if mode is Mode.WARN:
            self.warn(detail)

    def warn(self, text: str, *, with_id: bool = False) -> None:
        """Tell the user something beside the verdict; a text is said once."""
        said = warning(text, self.decision_id if with_id else "")
        if said not in self._warnings:
            self._warnings.append(said)

    def share_id_of_earlier(self, refusal: Hashable) -> None:
        """Answer who tries again with the decision id of the first identical refusal.

        Args:
            refusal: What makes two refusals identical, beside who asks and on whose behalf.
        """
        key = (self.review.username, self.origin, refusal)
        earlier = self.memory.recall(key, self.now)
        if earlier:
            self.decision_id = earlier
        elif not self.review.dry_run:
            self.memory.keep(key, self.decision_id, self.now)

    def conclude_as(self, outcome: Outcome) -> None:
        """Note what came of the review where no rule speaks of it."""
        self._outcomes.append(outcome)

    def conclude_blind(self, why: str) -> None:
        """Note that nothing was judged, and why."""
        self.conclude_as(Outcome.BLIND)
        self._told.append(f"not judged: {why}")
        self.warn(f"not judged: {why}", with_id=True)

    def leave_unchanged(self, why: str) -> None:
        """Note that the mutating pass changes nothing because nothing is known, and tell of it.

        The validating pass does not say so: it may not be asked, or judge by other facts.
        """
        self.conclude_as(Outcome.BLIND)
        self._told.append(f"nothing changed: {why}")
        self.warn(f"nothing changed: {why}", with_id=True)
        self._speaks = True

    def refuse_blind(self, message: str) -> None:
        """Refuse because nothing is known (``whenBlind: deny``)."""
        self._refusals.append(message)
        self._outcomes.append(Outcome.REFUSED)

    def _note(self, rule: Rule, outcome: Outcome, detail: str) -> None:
        self._results.append(RuleResult(rule, self.mode(rule), outcome, detail))

    def decide(self) -> Decision:
        """Close the case."""
        outcomes = [*self._outcomes, *(r.outcome for r in self._results)]
        outcome = foremost(outcomes)
        if outcome is Outcome.NOT_REVIEWED and self.patch.operations:
            outcome = Outcome.CHANGED
        if self._warnings and outcome in (Outcome.ALLOWED, Outcome.NOT_REVIEWED):
            outcome = Outcome.WARNED
        refused = bool(self._refusals) and not self.mutating
        messages = self._refusals or self._told
        return Decision(
            allowed=not refused,
            outcome=outcome,
            decision_id=self.decision_id,
            message=messages[0] if messages else "",
            warnings=self._fitting_warnings() if self._speaks else (),
            patch=self.patch.operations,
            rules=tuple(self._results),
            assessment=self.assessment,
            origin=self.origin.value if self.origin else "",
            via=self.via,
            overridden_by=self.override.author,
            override_reason=self.override.reason,
            refusal_follows=self.refusal_follows,
            blind=self._blind() if Outcome.BLIND in outcomes else None,
            try_again=self.review.evicts,
        )

    def _blind(self) -> Blind:
        if self.late:
            return Blind.LATE
        if self.snapshot.stale:
            return Blind.STALE_FACTS
        return Blind.NO_NODES if self.snapshot.without_nodes() else Blind.UNREADABLE

    def _fitting_warnings(self) -> tuple[str, ...]:
        """Return the warnings that the API server passes on: 4,096 characters in all."""
        room = ALL_WARNINGS
        kept = []
        for text in self._warnings:
            room -= len(text)
            if room < 0:
                break
            kept.append(text)
        return tuple(kept)
