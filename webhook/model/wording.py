"""How obstacles are told to a person: grouped by node, short, exact."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.model.obstacle import Code, Kind, Obstacle, Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.model.part import Part

LONGEST_REFUSAL = 1000
LONGEST_WARNING = 256
LONGEST_NAME = 80
NAMES = 4
LABELS = 4
CLAUSES = 6
NO_KUBEVIRT = "does not run KubeVirt"

_SOURCE = {
    Origin.VM: "the VM asks for it",
    Origin.NETWORK: "the VM's network needs it",
    Origin.CPU_MODEL: "the VM's CPU model needs it",
    Origin.SOURCE_CPU: "the source node's CPU demands it",
    Origin.REMEMBERED: "remembered from an earlier migration",
    Origin.CHOSEN_TARGET: "the migration's addedNodeSelector asks for it",
    Origin.KUBEVIRT: "KubeVirt asks for it",
    Origin.GUARD: "a hotplugged volume needs it",
}


# Obstacles whose detail says more than their labels.
_IN_OWN_WORDS = frozenset(
    {
        Code.SAME_NODE,
        Code.NO_KUBEVIRT,
        Code.SOURCE_CPU_UNKNOWN,
        Code.TAINT,
        Code.VOLUME_TOPOLOGY,
        Code.NOT_SCHEDULABLE,
    }
)


def escaped(text: str, longest: int = LONGEST_NAME) -> str:
    """Return text from an object so that it can stand in a message: one line, of bounded length."""
    clean = text if text.isprintable() else _printable(text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def listed(names: Sequence[str], most: int = NAMES, *, count: int = 0) -> str:
    """Return "a, b and 3 more"; ``count`` says how many there are where not all are given."""
    shown = [escaped(name) for name in names[:most]]
    rest = max(count, len(names)) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def nodes_named(names: Sequence[str], *, by_name: bool = True, count: int = 0) -> str:
    """Return the nodes of a clause: their names, or their number only."""
    number = max(count, len(names))
    counted = f"{number} node{'s' if number != 1 else ''}"
    if not by_name:
        return counted
    if number > NAMES:
        return f"{listed(names, count=number)} ({counted})"
    return listed(names)


def parts_named(parts: Sequence[Part], *, by_name: bool = True) -> str:
    """Return the nodes of some parts of an assessment, as :func:`nodes_named`."""
    first = sorted(name for part in parts for name in part.first_names(NAMES))[:NAMES]
    return nodes_named(first, by_name=by_name, count=sum(part.count for part in parts))


def phrase(obstacle: Obstacle) -> str:
    """Return an obstacle as a person reads it, labels first and their origin behind them."""
    if obstacle.code is Code.PASSTHROUGH_CPU and obstacle.kind is Kind.RISK:
        return f"has another CPU than the source, without {listed(obstacle.missing, LABELS)}"
    if obstacle.code in _IN_OWN_WORDS:
        return escaped(obstacle.detail, LONGEST_WARNING)
    why = _SOURCE[obstacle.origin]
    if obstacle.missing:
        return f"lacks {listed(obstacle.missing, LABELS)} ({why})"
    if obstacle.present:
        return f"has {listed(obstacle.present, LABELS)}, which it must not ({why})"
    return obstacle.detail


def phrases(obstacles: Iterable[Obstacle]) -> tuple[str, ...]:
    """Return obstacles as a person reads them; labels that lack for one reason are told at once."""
    told: dict[object, Obstacle] = {}
    for obstacle in obstacles:
        plain = obstacle.code not in _IN_OWN_WORDS and obstacle.kind is not Kind.RISK
        key = (obstacle.origin, obstacle.kind) if plain and obstacle.missing else obstacle
        known = told.get(key)
        if known is None or key is obstacle:
            told[key] = obstacle
        else:
            told[key] = replace(known, missing=(*known.missing, *obstacle.missing))
    return tuple(phrase(obstacle) for obstacle in told.values())


def _weight(part: Part) -> tuple[bool, int, int, list[str]]:
    """Order clauses: nodes that lack least first, nodes without KubeVirt last."""
    away = any(o.code is Code.NO_KUBEVIRT for o in part.obstacles)
    lacks = sum(max(1, len(o.missing) + len(o.present)) for o in part.obstacles)
    return away, lacks, -part.count, part.first_names(1)


def clauses(
    parts: Iterable[Part], kinds: frozenset[Kind], *, by_name: bool = True
) -> tuple[str, ...]:
    """Return one clause for each group of nodes with the same obstacles of some kinds.

    Nodes that do not run KubeVirt are one clause, whatever else they lack.
    """
    told: dict[tuple[str, ...], list[Part]] = {}
    away: list[Part] = []
    for part in sorted(parts, key=_weight):
        reasons = [o for o in part.obstacles if o.kind in kinds]
        if any(o.code is Code.NO_KUBEVIRT for o in reasons):
            away.append(part)
        elif reasons:
            told.setdefault(phrases(reasons), []).append(part)
    found = [
        f"{parts_named(alike, by_name=by_name)} {_verb(words, sum(p.count for p in alike))}"
        for words, alike in told.items()
    ]
    if away:
        count = sum(part.count for part in away)
        found.append(f"{parts_named(away, by_name=False)} {_verb((NO_KUBEVIRT,), count)}")
    return tuple(found)


_PLURAL = {"lacks": "lack", "has": "have", "is": "are", "does": "do", "needs": "need"}
_PLURAL |= {"keeps": "keep", "can": "can", "must": "must"}


def _verb(words: tuple[str, ...], count: int) -> str:
    """Join the phrases about some nodes, with the verb that goes with their number."""
    if count == 1:
        return " and ".join(words)
    turned = []
    for text in words:
        first, _, rest = text.partition(" ")
        turned.append(f"{_PLURAL.get(first, first)} {rest}".strip())
    return " and ".join(turned)


def refusal(head: str, body: Sequence[str], advice: str, decision: str) -> str:
    """Return a refusal of at most 1,000 characters.

    The head, the advice and the decision id are kept whole where they can be; clauses give way.
    """
    tail = "".join(f" {part}" for part in (advice, f"Decision {decision}.") if part)
    if len(head) + len(tail) > LONGEST_REFUSAL - 40:
        room = max(0, LONGEST_REFUSAL - 40 - len(head) - len(f" Decision {decision}."))
        tail = (
            f" {advice[: room - 2]}… Decision {decision}." if room > 2 else f" Decision {decision}."
        )
    kept = list(body[:CLAUSES])
    while True:
        left = len(body) - len(kept)
        more = [f"{left} more group{'s' if left != 1 else ''} of nodes lack something else"] * bool(
            left
        )
        text = head + (": " + "; ".join((*kept, *more)) + "." if kept or more else ".") + tail
        if len(text) <= LONGEST_REFUSAL or not kept:
            return text[:LONGEST_REFUSAL]
        if len(kept) == 1 and len(kept[0]) > 200:
            room = len(kept[0]) - (len(text) - LONGEST_REFUSAL) - 1
            if room > 80:
                kept[0] = kept[0][:room] + "…"
                continue
        kept.pop()


def warning(text: str, decision: str = "") -> str:
    """Return a warning that the API server passes on whole: at most 256 characters, one line."""
    tail = f" (decision {decision})" if decision else ""
    return escaped(text, LONGEST_WARNING - len(tail)) + tail


def first_sentence(text: str) -> str:
    """Return a message up to its first full stop that ends a sentence."""
    head, stop, _ = text.partition(". ")
    return head + ("." if stop else "")
