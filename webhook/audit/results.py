"""What the audit can be asked for, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from webhook.audit.record import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa


class Cursor(NamedTuple):
    """A place in the list, newest first: right behind one row."""

    last_time: int
    row_id: int

    def __str__(self) -> str:
        """Write it as :meth:`read` reads it."""
        return f"{self.last_time}.{self.row_id}"

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Read a cursor.

        Raises:
            ValueError: It is none.
        """
        time, dot, row_id = text.partition(".")
        if not (dot and time.isascii() and time.isdigit() and row_id.isascii()):
            raise ValueError(f"{text[:60]!r} is no place in the list")
        if not row_id.isdigit() or max(len(time), len(row_id)) > 18:
            raise ValueError(f"{text[:60]!r} is no place in the list")
        return cls(int(time), int(row_id))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted: those that meet all of it.

    Attributes:
        since, until: Microseconds since 1970; a record that was repeated counts for its whole time.
        outcomes: Any of them; all where empty.
        rule: The rule that led to the outcome.
        vm: namespace/name.
        node: The source, or the node that was chosen.
        text: Anywhere in the record, whatever its case (ASCII).
    """

    since: int | None = None
    until: int | None = None
    outcomes: tuple[str, ...] = ()
    rule: str = ""
    namespace: str = ""
    vm: str = ""
    user: str = ""
    node: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A row: a record, and how often it was repeated.

    Attributes:
        document: The first record, as ``Record.to_json`` makes it.
    """

    row_id: int
    first_time: int
    last_time: int
    count: int
    replica: str
    sequence: int
    document: Mapping[str, Any]

    @classmethod
    def of(cls, row: sa.Row[Any]) -> Found:
        """Read a row of the table."""
        return cls(
            row.id,
            row.first_time,
            row.last_time,
            row._mapping["count"],
            row.replica,
            row.sequence,
            orjson.loads(row.document),
        )

    @property
    def cursor(self) -> Cursor:
        """The place behind this row."""
        return Cursor(self.last_time, self.row_id)

    def to_json(self) -> dict[str, Any]:
        """Return the record with what is known of its repetitions."""
        return {
            "firstTime": rfc3339(self.first_time),
            "lastTime": rfc3339(self.last_time),
            "count": self.count,
            "replica": self.replica,
            "sequence": self.sequence,
            **self.document,
        }


class Page(NamedTuple):
    """Some records of a list, and the place behind which it goes on; None at the end."""

    found: list[Found]
    behind: Cursor | None


@dataclass(frozen=True, slots=True)
class Sum:
    """How many decisions, and how many records they were folded into, by outcome."""

    value: str
    decisions: int
    records: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stats:
    """What was decided most, over whole days in UTC.

    Attributes:
        since, until: The first and the last day, as YYYY-MM-DD; "" for no end.
        labels: Node labels that were missing: which feature blocks most.
    """

    since: str
    until: str
    rules: Sequence[Sum] = field(default_factory=tuple)
    vms: Sequence[Sum] = field(default_factory=tuple)
    labels: Sequence[Sum] = field(default_factory=tuple)
