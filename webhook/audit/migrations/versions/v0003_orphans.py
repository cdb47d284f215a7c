"""Decision ids whose record is gone: PostgreSQL could keep one that was repeated while it went."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Remove them."""
    given = sa.table("audit_decision", sa.column("record_id"))
    record = sa.table("audit_record", sa.column("id"))
    known = sa.exists().where(record.c.id == given.c.record_id)
    op.get_bind().execute(sa.delete(given).where(~known))
