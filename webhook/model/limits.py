"""How large the demands of a virtual machine may be to be judged.

Judging takes time with each demand and each kind of node, and one review is answered after the
other: without a limit, one VMI with a node selector of a megabyte would hold up all others. The
limits lie far beyond what real VMs ask for (a host-model guest has some 150 selectors, of its CPU's
features). What exceeds them is no error of its owner, so it is answered as any VM that cannot be
judged (docs/rules.md, "When it cannot know").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model.fields import InvalidObject

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from webhook.model.node_affinity import Term
    from webhook.model.pod_affinity import PodTerm


class TooLarge(InvalidObject):
    """More is demanded than is judged; the object itself is sound."""


MOST_ENTRIES = 1_000
"""Entries of a node selector, CPU features, tolerations."""

MOST_RESOURCES = 50
"""Kinds of resources that a pod asks for: each is looked up on each node."""

MOST_EXPRESSIONS = 250
"""Expressions in all terms of the required node affinity."""

MOST_VALUES = 1_000
"""Values in all expressions of the required node affinity."""

MOST_COMPARISONS = 25_000
"""Expressions times values: each node that a value names may have to be held against each
expression."""

MOST_POD_TERMS = 16
"""Required terms of affinity and anti-affinity to other pods."""

MOST_NAMES = 1_000
"""Namespaces and labels that these name together."""


def hold_entries(path: str, found: Collection[object], most: int = MOST_ENTRIES) -> None:
    """Refuse to judge a node selector or a list of demands that is too long.

    Args:
        path: Where it stands, in dots.
        found: Its entries.
        most: How many there may be.

    Raises:
        TooLarge: There are more.
    """
    if len(found) > most:
        _too_many(path, len(found), "entries", most)


def hold_terms(path: str, terms: Sequence[Term]) -> None:
    """Refuse to judge a required node affinity that is too large.

    Args:
        path: Where its terms stand, in dots.
        terms: All of them.

    Raises:
        TooLarge: There are too many expressions, values, or both together.
    """
    # An empty term is asked like the others.
    expressions = sum(max(1, len(term.expressions) + len(term.fields)) for term in terms)
    values = sum(len(e.values) for term in terms for e in (*term.expressions, *term.fields))
    if expressions > MOST_EXPRESSIONS:
        _too_many(path, expressions, "expressions", MOST_EXPRESSIONS)
    if values > MOST_VALUES:
        _too_many(path, values, "values", MOST_VALUES)
    if expressions * values > MOST_COMPARISONS:
        _too_many(path, expressions * values, "expressions times values", MOST_COMPARISONS)


def hold_pod_terms(path: str, terms: Sequence[PodTerm]) -> None:
    """Refuse to judge a required affinity to pods that is too large.

    Args:
        path: Where it stands, in dots.
        terms: All of its terms.

    Raises:
        TooLarge: There are too many terms, or they name too many namespaces and labels.
    """
    if len(terms) > MOST_POD_TERMS:
        _too_many(path, len(terms), "terms on other pods", MOST_POD_TERMS)
    named = sum(_names(term) for term in terms)
    if named > MOST_NAMES:
        _too_many(path, named, "namespaces and labels", MOST_NAMES)


def _names(term: PodTerm) -> int:
    selectors = (term.selector, term.namespace_selector)
    expressions = [e for s in selectors if s is not None for e in s.expressions]
    return len(term.namespaces) + sum(1 + len(e.values) for e in expressions)


def _too_many(path: str, count: int, what: str, most: int) -> None:
    raise TooLarge(path, f"has {count:,} {what}; at most {most:,} are judged")
