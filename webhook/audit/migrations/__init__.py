"""From each schema of the database to the next (Alembic)."""
