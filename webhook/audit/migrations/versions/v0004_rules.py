"""An index for a rule and an outcome, of which either alone may lead to most of the records."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make it."""
    name = "audit_record_by_rule_and_outcome"
    op.create_index(name, "audit_record", ["rule", "outcome", "last_time", "id"])
