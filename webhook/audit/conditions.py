"""What a list is asked for, as conditions that indexes find: each alone, and one within another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from webhook.audit import schema
from webhook.audit.schema import key
from webhook.audit.store import SPAN

if TYPE_CHECKING:
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

    from webhook.audit.results import Cursor, Filter

_ROW = schema.record.c
Columns: TypeAlias = "ReadOnlyColumnCollection[str, sa.Column[Any]]"
Condition: TypeAlias = "Callable[[Columns], tuple[sa.ColumnElement[bool], ...]]"
"""Returns parts, each of which one index finds, newest first; a record meets one of them at most.
It is made for the columns of the table or of an alias of it."""


def conditions(wanted: Filter) -> list[Condition]:
    """Return the conditions but for times and the text; the empty list where there are none."""
    found = [
        _equal(column.name, value)
        for column, value in (
            (_ROW.vm, wanted.vm),
            (_ROW.username, wanted.user),
            (_ROW.namespace, wanted.namespace),
        )
        if value
    ]
    if wanted.node:
        found.insert(0, _of_node(wanted.node))
    if wanted.outcomes:
        found.append(_of_outcomes(wanted.outcomes, wanted.rule))
    elif wanted.rule:
        found.append(_equal(_ROW.rule.name, wanted.rule))
    return found


def anything(_: Columns) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition that every record meets."""
    return (sa.true(),)


def _equal(name: str, value: str) -> Condition:
    return lambda columns: (columns[name] == key(value),)


def _of_node(node: str) -> Condition:
    name = key(node)
    return lambda columns: (
        columns.node == name,
        sa.and_(columns.chosen_node == name, columns.node != name),
    )


def _of_outcomes(outcomes: tuple[str, ...], rule: str) -> Condition:
    """Return the condition for outcomes, with the rule where one is wanted: they share an index."""

    def parts(columns: Columns) -> tuple[sa.ColumnElement[bool], ...]:
        of_rule = (columns.rule == key(rule),) if rule else ()
        names = dict.fromkeys(key(outcome) for outcome in outcomes)
        return tuple(sa.and_(columns.outcome == name, *of_rule) for name in names)

    return parts


def within(condition: Condition) -> sa.ColumnElement[bool]:
    """Return a condition on a row that its index answers without reading the row."""
    other = schema.record.alias("other")
    # By the index of the condition: the row itself, to which its id alone leads, lies far away
    # from its neighbours, with a document in it.
    same = (other.c.last_time == _ROW.last_time, other.c.id + 0 == _ROW.id)
    one = sa.select(sa.literal(1)).select_from(other).where(*same).correlate(schema.record)
    return sa.or_(*(one.where(part).exists() for part in condition(other.c)))


def times(wanted: Filter, after: Cursor | None) -> list[sa.ColumnElement[bool]]:
    """Return what every index helps with: the time of a row, and the place behind which it lies."""
    found: list[sa.ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(_ROW.last_time >= wanted.since)
    if wanted.until is not None:
        # No row is longer than that: the index need not be read from its newest end.
        found.append(_ROW.last_time <= wanted.until + 2 * SPAN)
    if after is not None:
        found.append(sa.tuple_(_ROW.last_time, _ROW.id) < sa.tuple_(*after))
    return found


def begun(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    """Return what no index holds: that a row begins before the end of what is wanted."""
    return [_ROW.first_time <= wanted.until] if wanted.until is not None else []
