"""serve whose disk hangs: every refusal that a user is told can be found, and it is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.audit.conftest import SECONDS, eventually, rows_by_decision
from tests.cli.guard import Guard
from webhook.audit.database import engine_of, sqlite_url

# Where programs for disks are, which is on root's own path only.
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def tool(*words: str | os.PathLike[str], check: bool = True) -> bool:
    """Run a program for disks; tell whether it did what it should."""
    ran = subprocess.run(words, capture_output=True, check=check, env=ENVIRONMENT)
    return ran.returncode == 0


class Disk:
    """A file system of its own, which the kernel can be told to hold up."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.frozen = False

    def freeze(self) -> None:
        tool("fsfreeze", "--freeze", self.folder)
        self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            tool("fsfreeze", "--unfreeze", self.folder)
        self.frozen = False


@pytest.fixture
def disk(tmp_path):
    """A disk that can hang; only root can make one."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    makes = (("mkfs.ext4", "-q", image), ("mount", "-o", "loop", image, folder))
    try:
        made = os.geteuid() == 0 and all(tool(*words, check=False) for words in makes)
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("only root can mount a file system of its own")
    disk = Disk(folder)
    yield disk
    disk.thaw()
    # Lazily: a server that a failed test left behind must not keep it.
    tool("umount", "--lazy", folder)


@pytest.fixture
def reader(tmp_path):
    """An engine to look into the server's database with."""
    engine = engine_of(sqlite_url(tmp_path))
    yield engine
    engine.dispose()


@pytest.fixture
def guard(disk, tmp_path):
    """A server whose spool is on the disk; its database is not."""
    words = ("--audit-dir", disk.folder, "--audit-database", sqlite_url(tmp_path))
    running = Guard(tmp_path, *words)
    yield running
    disk.thaw()
    if running.process.poll() is None:
        running.stop()
    running.log.close()


def logged(guard: Guard, message: str) -> list[dict]:
    lines = [json.loads(text) for text in guard.read_log().splitlines() if text[0] == "{"]
    return [line["record"] for line in lines if line["message"] == message]


def test_a_refusal_told_while_the_disk_hangs_is_in_the_log_whole_and_said_to_be_late(
    disk, guard, reader
) -> None:
    before = guard.refused("before")
    eventually(lambda: before in rows_by_decision(reader))
    disk.freeze()
    told = [guard.refused(f"meanwhile {number}") for number in range(2)]
    metrics = guard.ops("/metrics")
    assert "migration_guard_audit_late_total 2.0" in metrics
    assert 'migration_guard_deadline_misses_total{awaited="record"} 2.0' in metrics
    assert "the disk hangs: 2 refusals told since" in guard.ops("/readyz?verbose")
    assert guard.ops("/readyz") == "ready\n"
    guard.until(lambda: len(logged(guard, "decision not on disk yet")) == 2)
    records = logged(guard, "decision not on disk yet")
    assert [record["decision"] for record in records] == told
    assert [record["user"] for record in records] == ["meanwhile 0", "meanwhile 1"]
    disk.thaw()
    eventually(lambda: {before, *told} <= set(rows_by_decision(reader)))
    eventually(lambda: "the disk hangs" not in guard.ops("/readyz?verbose"))
    after = guard.ops("/metrics")
    assert "migration_guard_audit_late_total 2.0" in after
    assert 'migration_guard_audit_lost_total{reason="stalled"} 0.0' in after
    assert not logged(guard, "decision not kept")


def test_what_the_disk_has_not_taken_when_the_server_stops_is_told_as_lost(disk, guard) -> None:
    guard.refused("before")
    disk.freeze()
    told = [guard.refused(f"meanwhile {number}") for number in range(2)]
    guard.process.send_signal(signal.SIGTERM)
    # The kernel lets no process end whose disk hangs; the log has everything before that.
    guard.until(lambda: len(logged(guard, "decision not kept")) == 2)
    assert {record["decision"] for record in logged(guard, "decision not kept")} == set(told)
    disk.thaw()
    assert guard.process.wait(SECONDS) == 0
    assert "Traceback" not in guard.read_log()
