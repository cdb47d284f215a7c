"""The audit's database: SQLite in the spool's folder, or PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from webhook.audit.errors import AuditError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

VERSION_TABLE = "audit_version"
VERSION = "0004"
"""The newest step in ``migrations/versions``: the schema that this program reads and writes."""
SQLITE_FILE = "audit.sqlite"
LONGEST_ERROR = 300

_STATEMENT_SECONDS = 30
_WRITER_CACHE_KIB, _READER_CACHE_KIB = 4096, 32768
# Any number, but the same in every version: whoever migrates holds this lock of PostgreSQL.
_MIGRATION_LOCK = 5_823_412_907
_POSTGRESQL = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "migration-guard",
    "options": f"-c statement_timeout={_STATEMENT_SECONDS}s -c lock_timeout=10s "
    "-c idle_in_transaction_session_timeout=60s -c timezone=UTC",
}


def sqlite_url(folder: Path) -> URL:
    """Return the URL of the database in a folder."""
    return URL.create("sqlite", database=str(folder / SQLITE_FILE))


def database_url(text: str) -> URL:
    """Read the URL of a database.

    Raises:
        AuditError: It is none, or of a database that cannot be used. The message has no password.
    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise AuditError(
            "the database's URL cannot be read; postgresql://USER:PASSWORD@HOST/DATABASE is wanted"
        ) from None
    kind = url.get_backend_name()
    if kind in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    raise AuditError(
        f'the database\'s URL names "{kind[:40]}"; postgresql:// or sqlite:///FILE is wanted'
    )


def engine_of(url: URL, *, read_only: bool = False) -> Engine:
    """Return an engine; nothing is connected yet."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, read_only=read_only)
    arguments = dict(_POSTGRESQL)
    if read_only:
        arguments["options"] = f"{arguments['options']} -c default_transaction_read_only=on"
    return sa.create_engine(url, connect_args=arguments, pool_size=2, pool_pre_ping=True)


def _sqlite(url: URL, *, read_only: bool) -> Engine:
    if read_only:
        path = Path(url.database or "").resolve()
        query = {"mode": "ro", "uri": "true"}
        if _is_at_rest(path):
            query["immutable"] = "1"
        url = URL.create("sqlite", database=path.as_uri(), query=query)
    engine = sa.create_engine(url, connect_args={"timeout": 10}, pool_size=2)

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _: object) -> None:
        # BEGIN is ours to say, see below.
        connection.isolation_level = None
        if not read_only:
            # Before the first table, else it has no effect.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            # What is committed is deleted from the spool, so it must be on disk.
            connection.execute("PRAGMA synchronous = FULL")
            # For PRAGMA optimize: it then looks at samples, and holds up no writer.
            connection.execute("PRAGMA analysis_limit = 400")
            # What is written lies close together. A larger cache fills for hours at a time.
            connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        else:
            connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes must hold the lock from the start: SQLite
        # refuses to upgrade one while another has written.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _is_at_rest(path: Path) -> bool:
    """Tell whether nobody can be writing: else SQLite makes files beside it, even to read."""
    return not _is_writable(path.parent) and not _log_of(path).exists()


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=True)


def _log_of(path: Path) -> Path:
    """Return the file in which SQLite has the newest transactions."""
    return path.with_name(f"{path.name}-wal")


def migrate(engine: Engine, revision: str = VERSION) -> None:
    """Bring the schema up to date, from nothing or from an older one; several may try at once.

    Raises:
        AuditError: A newer migration-guard made the database.
        OSError: SQLite's file cannot be made.
        SQLAlchemyError: The database cannot be reached or changed.
    """
    # Only a server that keeps an audit needs Alembic, and importing it takes a while.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    if engine.dialect.name == "sqlite":
        # SQLite would let everybody read a file that it makes.
        Path(str(engine.url.database)).touch(mode=0o600)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Where there are many records, a step takes longer than any other statement may.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            raise AuditError(
                f"the audit's database was made by a newer migration-guard ({error}); run that one"
            ) from error


def why_unread(url: URL, error: Exception) -> str:
    """Return why a database cannot be read, and what to do where that is known."""
    path = Path(url.database or "")
    if url.get_backend_name() == "sqlite" and not _is_writable(path.parent):
        name = _log_of(path).name
        return (
            f"{why(error)} (SQLite writes beside a file whose newest records are in {name}: copy "
            "both into a folder that can be written)"
        )
    return why(error)


def why(error: Exception) -> str:
    """Return an error of the database in one line, without statement, values or password."""
    text = str(getattr(error, "orig", None) or error)
    first = " ".join((text.splitlines() or [""])[0].split())
    return first[:LONGEST_ERROR] or type(error).__name__
