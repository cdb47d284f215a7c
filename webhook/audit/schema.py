"""The tables of the audit's database, the same in SQLite and PostgreSQL.

What they hold is told to administrators in docs/audit.md; how an older database becomes this one,
in ``migrations/``.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

LONGEST_KEY = 256
"""Characters of a value that is searched by; the document holds all of it."""

ALL_DAYS = -1
"""Stands for a day in ``audit_count``: the sum of all days that are kept."""

metadata = MetaData()
_BIG = BigInteger().with_variant(Integer, "sqlite")


def _key(name: str) -> Column[str]:
    return Column(name, String(LONGEST_KEY), nullable=False)


record = Table(
    "audit_record",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    # Identical decisions share it; NULL where no later one is folded into this row any more.
    Column("fold", String(32), unique=True),
    Column("first_time", BigInteger, nullable=False),
    Column("last_time", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("replica", String(80), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    _key("outcome"),
    _key("rule"),
    _key("namespace"),
    _key("vm"),
    _key("username"),
    _key("node"),
    _key("chosen_node"),
    Column("document", Text, nullable=False),
    Index("audit_record_by_time", "last_time", "id"),
    Index("audit_record_by_outcome", "outcome", "last_time", "id"),
    Index("audit_record_by_rule", "rule", "last_time", "id"),
    Index("audit_record_by_rule_and_outcome", "rule", "outcome", "last_time", "id"),
    Index("audit_record_by_namespace", "namespace", "last_time", "id"),
    Index("audit_record_by_vm", "vm", "last_time", "id"),
    Index("audit_record_by_username", "username", "last_time", "id"),
    Index("audit_record_by_node", "node", "last_time", "id"),
    Index("audit_record_by_chosen_node", "chosen_node", "last_time", "id"),
)

decision = Table(
    "audit_decision",
    metadata,
    Column("decision", String(64), primary_key=True),
    Column("record_id", _BIG, primary_key=True, autoincrement=False),
    Index("audit_decision_by_record", "record_id"),
)

replica = Table(
    "audit_replica",
    metadata,
    Column("replica", String(80), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

count = Table(
    "audit_count",
    metadata,
    Column("dimension", String(16), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("value", String(LONGEST_KEY), primary_key=True),
    Column("outcome", String(32), primary_key=True),
    Column("decisions", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    # The key is all that it is read by, and most of what it holds.
    sqlite_with_rowid=False,
)


def key(text: str) -> str:
    """Return a text as it is searched by: cut, and without what a database cannot hold."""
    return storable(text[:LONGEST_KEY]).replace("\0", "\ufffd")


def storable(text: str) -> str:
    """Return a text without halves of characters, as a command line can hold them."""
    return text.encode(errors="replace").decode()
