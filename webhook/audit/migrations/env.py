"""Runs the steps on the connection that ``webhook.audit.database`` hands over."""

from __future__ import annotations

from alembic import context

from webhook.audit.database import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
