"""Node selector terms and label selectors, judged as Kubernetes judges them.

Sources, under ``k8s.io``: ``apimachinery/pkg/labels/selector.go`` (``NewRequirement``,
``Requirement.Matches``), ``component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go``
(terms, ``matchFields``), ``apimachinery/pkg/apis/meta/v1/helpers.go``
(``LabelSelectorAsSelector``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import fields, labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.model.fields import Object

METADATA_NAME = "metadata.name"

_SETS = ("In", "NotIn")
_PRESENCE = ("Exists", "DoesNotExist")
_NUMBERS = ("Gt", "Lt")
# A label's value has at most 63 characters.
_INTEGER = re.compile(r"[+-]?[0-9]{1,63}")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Expression:
    """One demand on a label: ``operator`` is In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, marks: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy the demand."""
        at = marks.get(self.key)
        match self.operator:
            case "In":
                return at is not None and at in self.values
            case "NotIn":
                return at is None or at not in self.values
            case "Exists":
                return at is not None
            case "DoesNotExist":
                return at is None
        return at is not None and self._compares(at)

    def _compares(self, at: str) -> bool:
        is_at, wanted = int64(at), int64(self.values[0])
        if is_at is None or wanted is None:
            return False
        return is_at > wanted if self.operator == "Gt" else is_at < wanted

    def missing(self) -> str:
        """Return what is missed where the demand is not satisfied.

        ``key=value`` where just one value would do and it is not "true", else the key.
        """
        if self.operator == "In" and len(self.values) == 1:
            return labels.short(self.key, self.values[0])
        return self.key


@dataclass(frozen=True, slots=True)
class Term:
    """A node selector term: all of it must match; one with nothing in it matches no node.

    Attributes:
        expressions: Demands on the node's labels.
        fields: Demands on the node's name, with the key ``metadata.name``.
    """

    expressions: tuple[Expression, ...] = ()
    fields: tuple[Expression, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The label keys that the answer depends on; ``metadata.name`` stands for the name."""
        return frozenset(expression.key for expression in (*self.expressions, *self.fields))

    def matches(self, node_name: str, marks: Mapping[str, str]) -> bool:
        """Tell whether a node satisfies the term."""
        if not self.expressions and not self.fields:
            return False
        return next(self._unsatisfied(node_name, marks), None) is None

    def unsatisfied(self, node_name: str, marks: Mapping[str, str]) -> tuple[Expression, ...]:
        """Return the demands that a node does not satisfy.

        Nothing for an empty term, though that matches no node.
        """
        return tuple(self._unsatisfied(node_name, marks))

    def _unsatisfied(self, node_name: str, marks: Mapping[str, str]) -> Iterator[Expression]:
        for expression in self.expressions:
            if not expression.matches(marks):
                yield expression
        if self.fields:
            named = {METADATA_NAME: node_name}
            for expression in self.fields:
                if not expression.matches(named):
                    yield expression


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A selector of pods or namespaces by label; one with nothing in it matches all of them."""

    expressions: tuple[Expression, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The label keys that the answer depends on."""
        return frozenset(expression.key for expression in self.expressions)

    def matches(self, marks: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy every demand."""
        return all(expression.matches(marks) for expression in self.expressions)


def any_matches(terms: Iterable[Term], node_name: str, marks: Mapping[str, str]) -> bool:
    """Tell whether a node satisfies at least one term; no terms at all match no node."""
    return any(term.matches(node_name, marks) for term in terms)


def keys(terms: Iterable[Term]) -> frozenset[str]:
    """Return the label keys that the answer of any of the terms depends on."""
    return frozenset(key for term in terms for key in term.keys)


def read_terms(obj: object, *path: str) -> tuple[Term, ...]:
    """Read a list of node selector terms, empty where there is none.

    Args:
        obj: The raw list, for example ``nodeSelectorTerms``.
        path: Where it stands, for errors.

    Raises:
        InvalidObject: Something that the API server refuses too: an operator that there is not, a
            wrong number of values, a field other than ``metadata.name``.
    """
    here = ".".join(path) or "document"
    if obj is None:
        return ()
    if not isinstance(obj, list | tuple):
        raise fields.InvalidObject(here, "a list is wanted here")
    return tuple(_term(item, f"{here}[{index}]") for index, item in enumerate(obj))


def read_label_selector(obj: object, *path: str) -> LabelSelector | None:
    """Read a label selector; None, which selects nothing, where there is none.

    Args:
        obj: The raw selector: ``matchLabels`` and ``matchExpressions``.
        path: Where it stands, for errors.

    Raises:
        InvalidObject: Something that the API server refuses too.
    """
    return None if obj is None else label_selector(obj, *path)


def label_selector(obj: object, *path: str) -> LabelSelector:
    """Read a label selector that is there; an empty one selects everything.

    Arguments and errors as for :func:`read_label_selector`.
    """
    here = ".".join(path) or "document"
    wanted = _map(obj, here)
    try:
        exact = fields.labels(wanted, "matchLabels")
    except fields.InvalidObject as error:
        raise fields.InvalidObject(f"{here}.{error.path}", error.message) from None
    expressions = _expressions(wanted, "matchExpressions", here, (*_SETS, *_PRESENCE))
    return LabelSelector(
        (*(Expression(key, "In", (value,)) for key, value in exact.items()), *expressions)
    )


def int64(text: str) -> int | None:
    """Return the whole number a label's value is, None where it is none or exceeds 64 bits."""
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if number in _INT64 else None


def _map(obj: object, here: str) -> Object:
    if not isinstance(obj, Mapping):
        raise fields.InvalidObject(here, "a mapping is wanted here")
    return obj


def _term(obj: object, here: str) -> Term:
    term = _map(obj, here)
    named = _expressions(term, "matchFields", here, _SETS)
    for index, expression in enumerate(named):
        if expression.key != METADATA_NAME or len(expression.values) != 1:
            raise fields.InvalidObject(
                f"{here}.matchFields[{index}]",
                f"only {METADATA_NAME} can be matched here, with one value",
            )
    every = (*_SETS, *_PRESENCE, *_NUMBERS)
    return Term(_expressions(term, "matchExpressions", here, every), named)


def _expressions(
    obj: Object, name: str, here: str, operators: tuple[str, ...]
) -> tuple[Expression, ...]:
    found = []
    try:
        for index, item in enumerate(fields.items(obj, name)):
            at = f"{name}[{index}]"
            expression = _expression(item, at)
            if expression.operator not in operators:
                raise fields.InvalidObject(
                    f"{at}.operator", f"one of {', '.join(operators)} is wanted here"
                )
            _check_values(expression, f"{at}.values")
            found.append(expression)
    except fields.InvalidObject as error:
        raise fields.InvalidObject(f"{here}.{error.path}", error.message) from None
    return tuple(found)


def _expression(item: Object, at: str) -> Expression:
    try:
        return Expression(
            key=fields.text(item, "key"),
            operator=fields.text(item, "operator"),
            values=fields.strings(item, "values"),
        )
    except fields.InvalidObject as error:
        raise fields.InvalidObject(f"{at}.{error.path}", error.message) from None


def _check_values(expression: Expression, at: str) -> None:
    operator, values = expression.operator, expression.values
    if operator in _SETS and not values:
        raise fields.InvalidObject(at, f"at least one value is wanted with {operator}")
    if operator in _PRESENCE and values:
        raise fields.InvalidObject(at, f"no values are allowed with {operator}")
    # The API server takes any label's value here; with one that is no number nothing matches.
    if operator in _NUMBERS and len(values) != 1:
        raise fields.InvalidObject(at, f"one value is wanted with {operator}")
