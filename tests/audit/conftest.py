"""The databases that every test of the database runs on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from tests.audit.postgres import Postgres
from tests.audit.spools import Kept
from webhook.audit import schema
from webhook.audit.database import database_url, engine_of, migrate, sqlite_url

SECONDS = 60
"""How long a test waits before it gives up; nothing comes near it."""
_numbers = itertools.count()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def rows_by_decision(engine) -> dict[str, list[int]]:
    """Return the counts of the rows that each decision id leads to."""
    query = sa.select(schema.decision.c.decision, schema.record.c.count).join(
        schema.record, schema.record.c.id == schema.decision.c.record_id
    )
    found: dict[str, list[int]] = {}
    try:
        with engine.connect() as connection:
            for decision, count in connection.execute(query):
                found.setdefault(decision, []).append(count)
    except (sa.exc.OperationalError, sa.exc.ProgrammingError):
        # The server has not made its tables yet.
        return {}
    return found


@pytest.fixture(scope="session")
def postgres():
    """One PostgreSQL server for all tests."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    return _on(request.getfixturevalue("postgres"))


def _on(server: Postgres) -> URL:
    name = f"audit_{next(_numbers)}"
    server.execute(f"create database {name}")
    return database_url(server.url(name))


@pytest.fixture
def engine(url):
    """An engine on an empty database of the newest schema."""
    yield from _engine(url)


@pytest.fixture
def postgres_engine(postgres):
    """The same, with PostgreSQL in any case."""
    yield from _engine(_on(postgres))


def _engine(url: URL) -> Iterator[Engine]:
    made = engine_of(url)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def opened(tmp_path):
    """Open the spool of the test, again and again if it likes; it is stopped at the end."""
    made: list[Kept] = []

    def open_spool(**limits) -> Kept:
        for kept in made:
            kept.stop()
        made.append(Kept(tmp_path / "spool", **limits))
        return made[-1]

    yield open_spool
    for kept in made:
        kept.stop()
