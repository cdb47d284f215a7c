"""The settings, as values; ``Configuration()`` is what holds without a file.

The file's form is in schema.py, and is read by loading.py; docs/configuration.md explains each key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING

from webhook.model.obstacles import PASSING_TAINTS
from webhook.policy.globs import any_matches, matches
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KUBEVIRT_MODEL = "kubevirt"
"""``cpuModel.default``: what the KubeVirt CR says, else host-model."""
COMMON_MODEL = "common"
"""``cpuModel.default``: the newest model that every schedulable node can run."""


class FirstBoot(StrEnum):
    """Whether a VM's first node is chosen with later migrations in mind."""

    OFF = "off"
    PREFER_MIGRATABLE = "prefer-migratable"


class DeadlineMode(StrEnum):
    """Whose limit a migration's deadline follows."""

    GUARD = "guard"
    KUBEVIRT = "kubevirt"


class WhenBlind(StrEnum):
    """What becomes of a user's migration while the facts do not bear a decision."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class NamespaceMode:
    """The mode of a rule in the namespaces whose name fits the glob ``match``."""

    match: str
    mode: Mode


@dataclass(frozen=True, slots=True)
class OriginModes:
    """The modes of a rule by who started the migration; None: the rule's ``mode``."""

    user: Mode | None = None
    evacuation: Mode | None = None
    workload_update: Mode | None = None

    def of(self, origin: MigrationOrigin) -> Mode | None:
        """Return the mode for an origin, None where none is set."""
        if origin is MigrationOrigin.USER:
            return self.user
        if origin is MigrationOrigin.EVACUATION:
            return self.evacuation
        return self.workload_update


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """What is set for one rule."""

    mode: Mode
    origins: OriginModes = OriginModes()
    namespaces: tuple[NamespaceMode, ...] = ()


@dataclass(frozen=True, slots=True)
class CpuModelSettings:
    """``default``: ``kubevirt``, ``common`` or the name of a model."""

    default: str = KUBEVIRT_MODEL


@dataclass(frozen=True, slots=True)
class DeadlineSettings:
    """How long a migration may take; ``seconds_per_gib`` counts in mode ``guard`` only."""

    mode: DeadlineMode = DeadlineMode.GUARD
    seconds_per_gib: Fraction = Fraction(800)


@dataclass(frozen=True, slots=True)
class People:
    """User names (service accounts among them) and group names, each exact or a glob."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def include(self, username: str, groups: Iterable[str]) -> bool:
        """Tell whether this user, or one of the user's groups, is among them."""
        return any_matches((username,), self.users) or any_matches(groups, self.groups)


@dataclass(frozen=True, slots=True)
class FactsSettings:
    """Which facts are kept, and for how long they bear a decision.

    Attributes:
        all_pods: Every pod, not only virtual machines.
        stale_after: Seconds without a sign of life.
        settle_after: For how many seconds labels that KubeVirt writes may still come to a node
            that is new, or lost one. virt-handler writes them again every 3 to 6.6 minutes
            (KubeVirt ``pkg/virt-handler/node-labeller``).
    """

    all_pods: bool = False
    stale_after: int = 180
    settle_after: int = 420


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """``autoscaled``: new nodes may come, so that "no other node" is only a warning."""

    autoscaled: bool = False


@dataclass(frozen=True, slots=True)
class HarvesterSettings:
    """``warn_during_upgrade``: evacuations are not refused while a Harvester upgrade runs."""

    warn_during_upgrade: bool = True


@dataclass(frozen=True, slots=True)
class MessageSettings:
    """``node_names``: messages name nodes; otherwise they only count them."""

    node_names: bool = True


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings.

    Attributes:
        max_mode: No rule does more than this.
        rules: The settings of every rule; those not given get the rule's default.
        exempt: Who is never refused.
        override: Who may write the annotation ``migration-guard.io/override``.
        passing_taints: Globs of taint keys that go by themselves. The KubeVirt CR's
            nodeDrainTaintKey counts too, whatever stands here.
    """

    max_mode: Mode = Mode.ENFORCE
    rules: Mapping[Rule, RuleSettings] = field(default_factory=dict)
    cpu_model: CpuModelSettings = CpuModelSettings()
    first_boot: FirstBoot = FirstBoot.OFF
    deadline: DeadlineSettings = DeadlineSettings()
    exempt: People = People()
    override: People = People(groups=("system:masters",))
    facts: FactsSettings = FactsSettings()
    when_blind: WhenBlind = WhenBlind.ALLOW
    cluster: ClusterSettings = ClusterSettings()
    harvester: HarvesterSettings = HarvesterSettings()
    passing_taints: tuple[str, ...] = PASSING_TAINTS
    messages: MessageSettings = MessageSettings()
    # What mode_for has found out, of rules that do not name namespaces.
    _modes: dict[tuple[Rule, MigrationOrigin, bool], Mode] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Complete the rules, so that equal settings are equal however much was written."""
        complete = {rule: self.rules.get(rule) or RuleSettings(rule.default) for rule in Rule}
        object.__setattr__(self, "rules", MappingProxyType(complete))

    def mode_for(
        self,
        rule: Rule,
        *,
        namespace: str,
        origin: MigrationOrigin = MigrationOrigin.USER,
        upgrading: bool = False,
    ) -> Mode:
        """Return the mode in which a rule reviews an object.

        That of the first namespace entry that matches, else of the origin, else ``mode``; capped
        by ``maxMode``. A rule that refuses never does more than warn about a workload-update
        migration, whatever is set (docs/rules.md, "What no rule may ever do"), nor about an
        evacuation while a Harvester upgrade runs, unless ``harvester.warnDuringUpgrade`` is false.

        Args:
            rule: The rule.
            namespace: The namespace of the object reviewed.
            origin: Who started the migration; leave it out for all other objects.
            upgrading: A Harvester upgrade runs.
        """
        if self.rules[rule].namespaces:
            return self._mode_for(rule, namespace, origin, upgrading=upgrading)
        key = (rule, origin, upgrading)
        known = self._modes.get(key)
        if known is None:
            known = self._modes[key] = self._mode_for(rule, "", origin, upgrading=upgrading)
        return known

    def _mode_for(
        self, rule: Rule, namespace: str, origin: MigrationOrigin, *, upgrading: bool
    ) -> Mode:
        settings = self.rules[rule]
        mode = next((e.mode for e in settings.namespaces if matches(namespace, e.match)), None)
        if mode is None:
            mode = settings.origins.of(origin) or settings.mode
        mode = mode.capped(self.max_mode)
        if not rule.changes and self.only_warned(origin, upgrading=upgrading):
            mode = mode.capped(Mode.WARN)
        return mode

    def only_warned(self, origin: MigrationOrigin, *, upgrading: bool) -> bool:
        """Tell whether nothing may stop a migration, because of who started it."""
        if origin is MigrationOrigin.EVACUATION:
            return upgrading and self.harvester.warn_during_upgrade
        return origin is MigrationOrigin.WORKLOAD_UPDATE

    def is_exempt(self, username: str, groups: Iterable[str]) -> bool:
        """Tell whether a user is never refused; names are exact or globs, and case counts."""
        return self.exempt.include(username, groups)

    def may_override(self, username: str, groups: Iterable[str]) -> bool:
        """Tell whether an override that this user wrote counts; matched like exemptions."""
        return self.override.include(username, groups)
