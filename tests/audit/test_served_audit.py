"""serve with an audit: what a user was told is found again, whatever happens to the server."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.audit.conftest import SECONDS, eventually, rows_by_decision
from tests.audit.postgres import Postgres
from tests.cli.guard import Guard
from webhook.audit import schema
from webhook.audit.database import database_url, engine_of, sqlite_url
from webhook.cli.audit_options import DATABASE_VARIABLE

KILLS = int(os.environ.get("AUDIT_KILLS", "4"))
"""`make torture` kills 200 times."""
OUTAGE_SECONDS = float(os.environ.get("AUDIT_OUTAGE_SECONDS", "3"))
"""How long the database is away under load; with `make torture` a minute."""
CLIENTS = 6


@pytest.fixture
def serve(tmp_path, url):
    """Start a guard that keeps its audit in the test's database, again and again if it likes."""
    started: list[Guard] = []

    def start() -> Guard:
        environment = {}
        if url.get_backend_name() == "postgresql":
            environment[DATABASE_VARIABLE] = url.render_as_string(hide_password=False)
        started.append(Guard(tmp_path, "--audit-dir", tmp_path, **environment))
        return started[-1]

    yield start
    for guard in started:
        if guard.process.poll() is None:
            guard.stop()


@pytest.fixture
def reader(url):
    """An engine to look into the test's database with."""
    engine = engine_of(url)
    yield engine
    engine.dispose()


def test_a_refusal_is_found_by_the_id_that_the_user_was_given(serve, reader) -> None:
    guard = serve()
    decision = guard.refused("anna")
    eventually(lambda: rows_by_decision(reader).get(decision) == [1])
    with reader.connect() as connection:
        document = json.loads(connection.scalar(sa.select(schema.record.c.document)))
    assert (document["user"], document["vm"], document["outcome"]) == (
        "anna",
        "plant/historian",
        "refused",
    )
    metrics = guard.ops("/metrics")
    assert 'migration_guard_audit_records_total{importance="refusal"} 1.0' in metrics
    assert 'migration_guard_audit_lost_total{reason="disk-full"} 0.0' in metrics
    assert "migration_guard_audit_database_up 1.0" in metrics
    assert "audit: ready since" in guard.ops("/readyz?verbose")


def test_retries_make_one_row_with_a_count(serve, reader) -> None:
    guard = serve()
    decisions = {guard.refused("controller") for _ in range(30)}
    assert len(decisions) == 1
    (decision,) = decisions
    eventually(lambda: rows_by_decision(reader) == {decision: [30]})


def test_a_stopped_server_has_shipped_what_it_kept(serve, reader) -> None:
    guard = serve()
    told = {guard.refused(f"user {n}") for n in range(20)}
    guard.stop()
    assert set(rows_by_decision(reader)) == told


class Client(threading.Thread):
    """Asks for migrations, each for another user, until the server is gone or it is told to end."""

    def __init__(self, guard: Guard, name: str) -> None:
        super().__init__()
        self.guard = guard
        self.user = name
        self.ends = threading.Event()
        self.told: list[str] = []
        self.answered: list[float] = []

    def run(self) -> None:
        try:
            while not self.ends.is_set():
                self.told.append(self.ask(f"{self.user}-{len(self.told)}"))
                self.answered.append(time.monotonic())
        except (OSError, http.client.HTTPException):
            return

    def ask(self, user: str) -> str:
        """Have a migration refused; return the decision id that the user is given."""
        return self.guard.refused(user)


class WarnedClient(Client):
    """The same where the rules only warn."""

    def ask(self, user: str) -> str:
        """Have a migration warned about; return the user."""
        assert self.guard.migrate("plant", "historian", user)["allowed"]
        return user


def test_every_refusal_that_reached_a_user_is_found_after_kills_under_load(serve, reader) -> None:
    chance = random.Random(11)
    told: set[str] = set()
    for kill in range(KILLS):
        guard = serve()
        clients = [Client(guard, f"{kill}-{number}") for number in range(CLIENTS)]
        for client in clients:
            client.start()
        enough = chance.randrange(1, 60)
        eventually(lambda: sum(len(c.told) for c in clients) >= enough)  # noqa: B023 - called here
        guard.kill()
        for client in clients:
            client.join(SECONDS)
        told |= {decision for client in clients for decision in client.told}
    assert len(told) >= KILLS
    serve()
    eventually(lambda: told <= set(rows_by_decision(reader)))
    assert {tuple(counts) for counts in rows_by_decision(reader).values()} == {(1,)}


def test_of_what_is_no_refusal_a_kill_under_load_costs_the_last_second_at_most(
    serve, reader
) -> None:
    chance = random.Random(12)
    due: set[str] = set()
    for kill in range(max(2, KILLS // 10)):
        guard = serve()
        guard.config.write_text("maxMode: warn\n", encoding="utf-8")
        guard.until(guard.allows)
        clients = [WarnedClient(guard, f"{kill}-{number}") for number in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(1.0 + chance.uniform(0.3, 1.0))
        second_before = time.monotonic() - 1.0
        guard.kill()
        for client in clients:
            client.join(SECONDS)
            asked = zip(client.told, client.answered, strict=False)
            due |= {user for user, answered in asked if answered <= second_before}
    assert due
    serve()
    users = sa.select(schema.record.c.username, schema.record.c.count)

    def found() -> dict[str, int]:
        with reader.connect() as connection:
            return dict(connection.execute(users).all())

    eventually(lambda: due <= set(found()))
    assert {found()[user] for user in due} == {1}


def test_a_database_that_is_away_under_load_gets_every_refusal_once_it_is_back(tmp_path) -> None:
    database = Postgres()
    url = database.url()
    # Six clients without a pause would fill the default, 256 MiB, within a minute.
    spool = ("--audit-dir", tmp_path, "--audit-spool-mib", "2048")
    guard = Guard(tmp_path, *spool, "--audit-database", url)
    clients = [Client(guard, str(number)) for number in range(CLIENTS)]
    engine = engine_of(database_url(url))

    def told() -> int:
        return sum(len(client.told) for client in clients)

    try:
        eventually(lambda: "migration_guard_audit_database_up 1.0" in guard.ops("/metrics"))
        for client in clients:
            client.start()
        eventually(lambda: len(rows_by_decision(engine)) > 0)
        database.stop()
        eventually(lambda: "the database takes nothing since" in guard.ops("/readyz?verbose"))
        before = told()
        time.sleep(OUTAGE_SECONDS)
        meanwhile = told() - before
        assert "migration_guard_audit_database_up 0.0" in guard.ops("/metrics")
        database.start()
        eventually(lambda: "migration_guard_audit_database_up 1.0" in guard.ops("/metrics"))
        for client in clients:
            client.ends.set()
            client.join(SECONDS)
        eventually(lambda: "migration_guard_audit_waiting_records 0.0" in guard.ops("/metrics"))
        ids = [decision for client in clients for decision in client.told]
        assert meanwhile > 0
        assert rows_by_decision(engine) == {decision: [1] for decision in ids}
        metrics = guard.ops("/metrics")
        lost = [
            n for n in metrics.splitlines() if n.startswith("migration_guard_audit_lost_total{")
        ]
        assert lost
        assert all(line.endswith(" 0.0") for line in lost)
    finally:
        for client in clients:
            client.ends.set()
        guard.stop()
        engine.dispose()
        database.close()


def test_a_worker_that_is_killed_leaves_its_folder_to_the_next(tmp_path) -> None:
    guard = Guard(tmp_path, "--audit-dir", tmp_path / "audit")
    try:
        before = guard.refused("before")
        children = Path(f"/proc/{guard.process.pid}/task/{guard.process.pid}/children")
        (worker,) = children.read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        told: list[str] = []

        def refused_again() -> bool:
            try:
                told.append(guard.refused("after"))
            except (OSError, http.client.HTTPException):
                return False
            return True

        eventually(refused_again)
        engine = engine_of(sqlite_url(tmp_path / "audit"))
        eventually(lambda: {before, *told} <= set(rows_by_decision(engine)))
        engine.dispose()
    finally:
        guard.stop()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    # Lazily: a server that a failed test left behind must not keep it.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_on_a_full_disk_everything_is_refused_and_what_is_lost_is_exactly_what_is_told(
    tmp_path, small_disk
) -> None:
    guard = Guard(tmp_path, "--audit-dir", small_disk)
    engine = engine_of(sqlite_url(small_disk))
    junk = small_disk / "junk"
    try:
        told = {guard.refused(f"before {n}") for n in range(5)}
        eventually(lambda: set(rows_by_decision(engine)) == told)
        with pytest.raises(OSError, match="No space left"):
            _fill(junk)
        told |= {guard.refused(f"full {n}") for n in range(300)}
        eventually(lambda: "records lost (disk-full" in guard.ops("/readyz?verbose"))
        assert guard.ops("/readyz") == "ready\n"
        junk.unlink()
        told |= {guard.refused(f"after {n}") for n in range(4)} | {last := guard.refused("after")}
        guard.until(lambda: last in guard.read_log())
        lines = [json.loads(text) for text in guard.read_log().splitlines() if text[0] == "{"]
        lost = [line["record"] for line in lines if line["message"] == "decision not kept"]
        counted = f'migration_guard_audit_lost_total{{reason="disk-full"}} {len(lost)}.0'
        assert lost
        assert counted in guard.ops("/metrics")
        kept = told - {record["decision"] for record in lost}
        eventually(lambda: set(rows_by_decision(engine)) == kept)
        assert all(record["user"].startswith("full ") for record in lost)
    finally:
        guard.stop()
        engine.dispose()


def test_the_server_starts_and_refuses_without_its_database_and_says_so(tmp_path) -> None:
    nowhere = f"postgresql://guard@/audit?host={tmp_path}"
    guard = Guard(tmp_path, "--audit-dir", tmp_path, "--audit-database", nowhere)
    try:
        assert guard.refused("anna")
        eventually(lambda: "the database takes nothing since" in guard.ops("/readyz?verbose"))
        assert "1 records wait" in guard.ops("/readyz?verbose")
        assert guard.ops("/readyz") == "ready\n"
        assert "migration_guard_audit_database_up 0.0" in guard.ops("/metrics")
    finally:
        guard.stop()


def test_without_a_folder_the_audit_is_said_not_to_be_kept(tmp_path) -> None:
    guard = Guard(tmp_path)
    try:
        # Whoever has answered is ready.
        assert guard.refused("anna")
        assert "audit: ready since" in guard.ops("/readyz?verbose")
        assert "not kept: no --audit-dir" in guard.ops("/readyz?verbose")
    finally:
        guard.stop()


def test_a_password_in_a_file_or_the_environment_is_never_shown(tmp_path) -> None:
    secret = tmp_path / "url"
    secret.write_text(f"postgresql://guard:hunter2@/audit?host={tmp_path}\n")
    guard = Guard(tmp_path, "--audit-dir", tmp_path / "audit", "--audit-database-file", secret)
    try:
        decision = guard.refused("anna")
        eventually(lambda: "takes nothing" in guard.ops("/readyz?verbose"))
        guard.until(lambda: decision in guard.read_log())
        shown = guard.ops("/readyz?verbose") + guard.ops("/metrics") + guard.read_log()
        assert "hunter2" not in shown
    finally:
        guard.stop()


def test_the_url_of_a_server_is_read_whatever_it_calls_the_driver() -> None:
    for name in ("postgres", "postgresql", "postgresql+psycopg2"):
        assert database_url(f"{name}://u@h/d").drivername == "postgresql+psycopg"
