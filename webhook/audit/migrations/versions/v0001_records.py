"""Records, the decision ids that were given, and how far each replica is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_INDEXED = ("outcome", "rule", "namespace", "vm", "username", "node", "chosen_node")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "audit_record",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("fold", sa.String(32), unique=True),
        sa.Column("first_time", sa.BigInteger, nullable=False),
        sa.Column("last_time", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("replica", sa.String(80), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.String(256), nullable=False) for name in _INDEXED),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("audit_record_by_time", "audit_record", ["last_time", "id"])
    for name in _INDEXED:
        op.create_index(f"audit_record_by_{name}", "audit_record", [name, "last_time", "id"])
    op.create_table(
        "audit_decision",
        sa.Column("decision", sa.String(64), primary_key=True),
        sa.Column("record_id", _BIG, primary_key=True, autoincrement=False),
    )
    op.create_index("audit_decision_by_record", "audit_decision", ["record_id"])
    op.create_table(
        "audit_replica",
        sa.Column("replica", sa.String(80), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
