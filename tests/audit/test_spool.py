"""The spool: what it took is there again, whatever happens to the process or the disk."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit.conftest import SECONDS, eventually
from webhook.audit.errors import AuditError
from webhook.audit.importance import Importance
from webhook.audit.loss import Loss, Reason
from webhook.audit.segments import HEAD
from webhook.audit.spool import Spool, SpoolLimits

CHECKOUT = Path(__file__).parents[2]
MOST = 1_000_000
KIB = 1024


class Kept:
    """A spool in a folder, and what it lost."""

    def __init__(self, folder: Path, **limits) -> None:
        self.folder = folder
        self.losses: list[Loss] = []
        self.spool = Spool(folder, SpoolLimits(**limits), self.losses.append)
        self.spool.start()
        self.running = True

    def refuse(self, payload: bytes) -> bool:
        future = self.spool.keep(payload, Importance.REFUSAL)
        assert future is not None
        return future.result(SECONDS)

    def note(self, payload: bytes, importance: Importance = Importance.NOTE) -> None:
        assert self.spool.keep(payload, importance) is None

    def lost(self, reason: Reason) -> list[bytes]:
        return [loss.payload for loss in self.losses if loss.reason is reason]

    def stop(self) -> None:
        if self.running:
            self.spool.stop()
            self.spool.close()
        self.running = False

    def files(self, lane: str = "*") -> list[Path]:
        return sorted(self.folder.glob(f"{lane}-*.log"))

    def handed_out(self) -> list[bytes]:
        frames = self.spool.take(MOST, 1 << 30)
        numbers = [frame.sequence for frame in frames]
        assert numbers == sorted(set(numbers))
        return [frame.payload for frame in frames]


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


def test_a_refusal_is_in_a_file_before_its_answer_may_leave(opened) -> None:
    kept = opened()
    assert kept.refuse(b"no")
    assert b"".join(path.read_bytes() for path in kept.files()).endswith(b"no")


def test_records_are_handed_out_in_the_order_they_came_in_whatever_they_matter(opened) -> None:
    kept = opened()
    came = [b"%d" % number for number in range(400)]
    for number, payload in enumerate(came):
        kept.spool.keep(payload, list(Importance)[number % 4])
    kept = opened()
    assert kept.handed_out() == came
    assert kept.handed_out() == []


def test_nothing_is_handed_out_before_all_that_came_earlier_is_on_disk(opened) -> None:
    kept = opened()
    kept.note(b"note")
    assert kept.refuse(b"no")
    found: list[bytes] = []

    def all_there() -> bool:
        found.extend(kept.handed_out())
        return len(found) == 2

    eventually(all_there)
    assert found == [b"note", b"no"]


def test_nothing_is_passed_over_however_writing_and_handing_out_interleave(opened) -> None:
    kept = opened()
    found: list[bytes] = []
    ends = threading.Event()

    def hand_out() -> None:
        while not ends.is_set():
            found.extend(kept.handed_out())

    reader = threading.Thread(target=hand_out)
    reader.start()
    came = []
    for number in range(3_000):
        for importance in (Importance.NOTE, Importance.REFUSAL):
            came.append(b"%s %d" % (importance.name.encode(), number))
            kept.spool.keep(came[-1], importance)
    kept.stop()
    ends.set()
    reader.join(SECONDS)
    found.extend(kept.handed_out())
    assert found == came


def test_what_waits_while_the_disk_is_busy_shares_one_sync(opened, monkeypatch) -> None:
    kept = opened()
    syncs: list[int] = []
    sync = os.fdatasync

    def counted(descriptor: int) -> None:
        syncs.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    futures = [kept.spool.keep(b"no %d" % n, Importance.REFUSAL) for n in range(5_000)]
    assert all(future.result(SECONDS) for future in futures)
    assert len(kept.handed_out()) == 5_000
    assert len(syncs) < 500


def test_a_torn_end_costs_only_the_record_that_is_torn(opened) -> None:
    kept = opened()
    for number in range(3):
        assert kept.refuse(b"refusal %d" % number)
    kept.stop()
    (file,) = kept.files("refusal")
    os.truncate(file, file.stat().st_size - 1)
    kept = opened()
    assert kept.handed_out() == [b"refusal 0", b"refusal 1"]
    assert not kept.losses


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def framed_length(payload: bytes) -> int:
    return HEAD.size + len(payload)


def stopped_with_a_thousand(opened) -> tuple[Path, list[bytes]]:
    kept = opened()
    came = [b'{"refusal": "%04d"}' % number for number in range(1_000)]
    futures = [kept.spool.keep(payload, Importance.REFUSAL) for payload in came]
    assert all(future.result(SECONDS) for future in futures)
    kept.stop()
    (file,) = kept.files("refusal")
    return file, came


def test_one_damaged_byte_costs_the_one_record_that_it_is_in(opened) -> None:
    file, came = stopped_with_a_thousand(opened)
    begins = 21 * framed_length(came[0])
    flip(file, begins + HEAD.size + 14)
    kept = opened()
    assert kept.handed_out() == came[:21] + came[22:]
    (loss,) = kept.losses
    assert loss.reason is Reason.DAMAGED
    # What is left of it, for the log.
    assert loss.payload == b'{"refusal": "0121"}'
    (aside,) = kept.folder.glob("*.damaged")
    assert aside.read_bytes().endswith(loss.payload)
    assert str(file) in loss.detail
    assert aside.name in loss.detail


def test_damage_is_counted_once_and_told_until_a_person_has_seen_to_it(opened) -> None:
    file, came = stopped_with_a_thousand(opened)
    flip(file, 21 * framed_length(came[0]) + HEAD.size)
    assert len(opened().losses) == 1
    kept = opened()
    assert not kept.losses
    assert len(kept.handed_out()) == 999
    (notice,) = kept.spool.status().notices
    assert "wait for a person" in notice
    (aside,) = kept.folder.glob("*.damaged")
    aside.unlink()
    file.unlink()
    assert not opened().spool.status().notices


@pytest.mark.parametrize("part", range(HEAD.size))
def test_whatever_byte_of_a_head_is_damaged_all_other_records_are_found(opened, part) -> None:
    file, came = stopped_with_a_thousand(opened)
    flip(file, 500 * framed_length(came[0]) + part)
    kept = opened()
    assert kept.handed_out() == came[:500] + came[501:]
    assert len(kept.lost(Reason.DAMAGED)) == len(kept.losses) == 1


def test_a_part_that_was_overwritten_with_zeros_costs_no_record_outside_of_it(opened) -> None:
    file, came = stopped_with_a_thousand(opened)
    size = framed_length(came[0])
    content = bytearray(file.read_bytes())
    content[300 * size + 5 : 400 * size - 5] = bytes(100 * size - 10)
    file.write_bytes(content)
    kept = opened()
    assert kept.handed_out() == came[:300] + came[400:]
    assert kept.lost(Reason.DAMAGED) == [b""]


def test_a_damaged_last_record_is_told_and_its_file_goes_when_nothing_else_is_in_it(opened) -> None:
    kept = opened()
    assert kept.refuse(b"all there is")
    kept.stop()
    (file,) = kept.files("refusal")
    flip(file, HEAD.size)
    kept = opened()
    assert kept.lost(Reason.DAMAGED) == [b"`ll there is"]
    assert kept.files() == []
    (aside,) = kept.folder.glob("*.damaged")
    assert aside.read_bytes().endswith(b"`ll there is")


def test_damage_that_comes_while_the_server_runs_costs_no_other_record(opened) -> None:
    kept = opened()
    came = [b"refusal %04d" % number for number in range(1_000)]
    futures = [kept.spool.keep(payload, Importance.REFUSAL) for payload in came]
    assert all(future.result(SECONDS) for future in futures)
    (file,) = kept.files("refusal")
    with file.open("r+b") as stored:
        for number in (7, 999):
            stored.seek(number * framed_length(came[0]))
            stored.write(b"\xff" * 4)
    assert kept.handed_out() == came[:7] + came[8:999]
    assert kept.handed_out() == []
    assert len(kept.lost(Reason.DAMAGED)) == len(kept.losses) == 2
    assert kept.spool.status().waiting == 998
    assert kept.refuse(b"after")
    assert kept.handed_out() == [b"after"]


def test_what_is_set_aside_is_bounded_and_what_is_not_is_told(opened, monkeypatch) -> None:
    file, came = stopped_with_a_thousand(opened)
    flip(file, 21 * framed_length(came[0]) + HEAD.size)
    monkeypatch.setattr("webhook.audit.set_aside.MOST_BYTES", 10)
    kept = opened()
    assert len(kept.handed_out()) == 999
    assert not list(kept.folder.glob("*.damaged"))
    (loss,) = kept.losses
    assert "not set aside" in loss.detail


def test_a_file_that_is_none_of_the_spool_is_left_alone_and_told(opened) -> None:
    kept = opened()
    assert kept.refuse(b"no")
    stray = kept.folder / "refusal-old.log"
    stray.write_bytes(b"mine")
    kept = opened()
    assert kept.handed_out() == [b"no"]
    assert stray.read_bytes() == b"mine"
    (notice,) = kept.spool.status().notices
    assert str(stray) in notice
    assert not kept.losses


def test_a_sequence_number_is_never_given_twice_even_when_the_clock_steps_back(
    opened, monkeypatch
) -> None:
    kept = opened()
    assert kept.refuse(b"before")
    (last,) = kept.spool.take(MOST, 1 << 30)
    kept.spool.note_shipped(last.sequence, 1)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    kept = opened()
    assert kept.refuse(b"after")
    numbers = {frame.payload: frame.sequence for frame in kept.spool.take(MOST, 1 << 30)}
    assert numbers[b"after"] > last.sequence


def test_a_folder_keeps_its_name(opened) -> None:
    assert opened().spool.replica == opened().spool.replica


def test_a_second_process_does_not_share_the_folder(opened, monkeypatch) -> None:
    monkeypatch.setattr("webhook.audit.folder.LOCK_SECONDS", 0.2)
    kept = opened()
    with pytest.raises(AuditError, match="another process"):
        Spool(kept.folder)


def test_a_folder_that_cannot_be_made_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match=r"file/spool: cannot keep the audit there: Not a dir"):
        Spool(tmp_path / "file" / "spool")


def test_what_is_shipped_is_deleted_and_what_is_not_stays(opened) -> None:
    kept = opened(size=2048 * KIB)
    for number in range(500):
        assert kept.refuse(b"%4d" % number + b"x" * KIB)
    assert len(kept.files()) > 3
    first = kept.spool.take(300, 1 << 30)
    kept.spool.note_shipped(first[-1].sequence, 300)
    assert kept.spool.status().waiting == 200
    kept = opened(size=2048 * KIB)
    left = [int(payload[:4]) for payload in kept.handed_out()]
    assert left[-200:] == list(range(300, 500))
    assert len(left) < 300


def test_when_full_what_matters_least_is_dropped_first_and_refusals_last(opened) -> None:
    kept = opened(size=1024 * KIB)
    for importance in Importance:
        for number in range(180):
            payload = b"%s %d " % (importance.name.encode(), number) + b"x" * KIB
            if importance is Importance.REFUSAL:
                assert kept.refuse(payload)
            else:
                kept.note(payload, importance)
    assert not kept.losses
    for number in range(180, 2_000):
        if not kept.refuse(b"REFUSAL %d " % number + b"x" * KIB):
            break
    made_room = [payload.split()[0] for payload in kept.lost(Reason.MADE_ROOM)]
    assert made_room == [b"NOTE"] * 180 + [b"WARNING"] * 180 + [b"EXCEPTION"] * 180
    full = kept.lost(Reason.FULL)
    assert [payload.split()[:2] for payload in full] == [[b"REFUSAL", b"%d" % number]]
    kept.note(b"note" * KIB)
    eventually(lambda: len(kept.lost(Reason.FULL)) == 2)
    found = kept.handed_out()
    assert [int(payload.split()[1]) for payload in found] == list(range(number))


def test_records_that_waited_too_long_are_dropped_and_told(opened, monkeypatch) -> None:
    kept = opened()
    assert kept.refuse(b"old")
    kept.stop()
    for file in kept.files():
        os.utime(file, (0, 0))
    monkeypatch.setattr("webhook.audit.spool.AGE_CHECK_SECONDS", 0.0)
    kept = opened(age=60.0)
    eventually(lambda: kept.lost(Reason.AGE) == [b"old"])
    assert kept.handed_out() == []


def test_records_age_also_behind_those_that_are_under_way_to_the_database(
    opened, monkeypatch
) -> None:
    kept = opened(size=2048 * KIB)
    came = [b"%4d" % number + b"x" * KIB for number in range(300)]
    assert all(kept.refuse(payload) for payload in came)
    kept.stop()
    files = kept.files()
    assert len(files) > 2
    monkeypatch.setattr("webhook.audit.spool.AGE_CHECK_SECONDS", 0.0)
    kept = opened(size=2048 * KIB, age=60.0)
    assert [frame.payload for frame in kept.spool.take(1, 1)] == came[:1]
    for file in files:
        os.utime(file, (0, 0))
    eventually(lambda: not any(file.exists() for file in files[1:]))
    assert files[0].exists()
    left = kept.handed_out()
    assert [*came[:1], *left, *kept.lost(Reason.AGE)] == came
    assert left


def test_after_the_stop_a_record_is_counted_as_lost(opened) -> None:
    kept = opened()
    kept.stop()
    assert not kept.refuse(b"late")
    assert kept.lost(Reason.STOPPED) == [b"late"]
    assert kept.spool.status().lost == {Reason.STOPPED: 1}


def test_a_disk_that_hangs_holds_up_nobody_and_memory_stays_bounded(opened, monkeypatch) -> None:
    kept = opened()
    hangs, goes_on = threading.Event(), threading.Event()
    sync = os.fdatasync

    def hanging(descriptor: int) -> None:
        hangs.set()
        goes_on.wait(SECONDS)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hanging)
    try:
        first = kept.spool.keep(b"first", Importance.REFUSAL)
        assert hangs.wait(SECONDS)
        for _ in range(40):
            kept.note(b"x" * KIB * KIB)
        assert 20 < len(kept.lost(Reason.STALLED)) < 40
        refusal = kept.spool.keep(b"second", Importance.REFUSAL)
        assert not first.done()
        assert not refusal.done()
    finally:
        goes_on.set()
    assert first.result(SECONDS)
    assert refusal.result(SECONDS)


class Hanging:
    """A call of the system that hangs, for all who make it, until it is let go on."""

    def __init__(self, call: Callable) -> None:
        self.call = call
        self.hangs, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, *given):
        self.hangs.set()
        assert self.goes_on.wait(SECONDS)
        return self.call(*given)


@pytest.fixture(params=["webhook.audit.lane._sync_folder", "os.fdatasync", "os.write"])
def hanging(request, monkeypatch):
    """A disk that hangs in one of the calls that it can hang in."""
    module, _, name = request.param.rpartition(".")
    held = Hanging(getattr(importlib.import_module(module), name))
    monkeypatch.setattr(request.param, held)
    yield held
    held.goes_on.set()


def test_how_the_spool_is_can_be_asked_while_the_disk_hangs(opened, hanging) -> None:
    kept = opened()
    refusal = kept.spool.keep(b"no", Importance.REFUSAL)
    assert hanging.hangs.wait(SECONDS)
    answered = threading.Thread(target=kept.spool.status, daemon=True)
    answered.start()
    answered.join(SECONDS / 4)
    assert not answered.is_alive()
    assert kept.spool.note_late(refusal)
    status = kept.spool.status()
    assert (status.late, status.overdue, dict(status.lost)) == (1, 1, {})
    assert status.overdue_since is not None
    hanging.goes_on.set()
    assert refusal.result(SECONDS)
    assert not kept.spool.note_late(refusal)
    status = kept.spool.status()
    assert (status.late, status.overdue, dict(status.lost)) == (1, 0, {})
    assert kept.handed_out() == [b"no"]


def test_what_a_hanging_disk_has_not_taken_at_the_stop_is_lost_and_counted_once(
    opened, hanging
) -> None:
    kept = opened()
    refusal = kept.spool.keep(b"under way", Importance.REFUSAL)
    assert hanging.hangs.wait(SECONDS)
    behind = kept.spool.keep(b"behind it", Importance.REFUSAL)
    kept.note(b"a note")
    kept.spool.stop(0.1)
    assert not refusal.result(SECONDS)
    assert not behind.result(SECONDS)
    assert kept.lost(Reason.STALLED) == [b"under way", b"behind it", b"a note"]
    hanging.goes_on.set()
    kept.stop()
    assert kept.spool.status().lost == {Reason.STALLED: 3}
    assert set(opened().handed_out()) <= {b"under way"}


def test_what_a_failed_sync_left_in_doubt_is_lost_and_does_not_come_back(
    opened, monkeypatch
) -> None:
    kept = opened()
    assert kept.refuse(b"before")
    monkeypatch.setattr(os, "fdatasync", _fails)
    assert not kept.refuse(b"in doubt")
    monkeypatch.undo()
    assert kept.refuse(b"after")
    assert kept.lost(Reason.DISK_ERROR) == [b"in doubt"]
    assert kept.handed_out() == [b"before", b"after"]
    assert opened().handed_out() == [b"before", b"after"]


def test_a_refusal_in_doubt_that_cannot_even_be_read_again_is_lost(opened, monkeypatch) -> None:
    kept = opened()
    assert kept.refuse(b"before")
    monkeypatch.setattr(os, "fdatasync", _fails)
    monkeypatch.setattr("webhook.audit.segments.Segment.pieces", lambda *given: _fails(0))
    assert not kept.refuse(b"in doubt")
    monkeypatch.undo()
    assert kept.lost(Reason.DISK_ERROR) == [b"in doubt"]
    assert kept.spool.status().waiting == 1
    assert kept.handed_out() == [b"before"]


def test_a_full_disk_is_told_at_once_also_when_everything_is_shipped(opened, monkeypatch) -> None:
    kept = opened()
    assert kept.refuse(b"before")
    (frame,) = kept.spool.take(MOST, 1 << 30)
    kept.spool.note_shipped(frame.sequence, 1)
    # A file of its own for the next record, as after a restart.
    kept = opened()
    (frame,) = kept.spool.take(MOST, 1 << 30)
    kept.spool.note_shipped(frame.sequence, 1)
    monkeypatch.setattr(os, "write", _has_no_room)
    assert not kept.refuse(b"lost")
    assert not kept.refuse(b"lost too")
    monkeypatch.undo()
    assert kept.refuse(b"after")
    assert kept.lost(Reason.DISK_FULL) == [b"lost", b"lost too"]
    assert kept.handed_out() == [b"after"]


def _has_no_room(descriptor: int, content: bytes) -> int:
    raise OSError(28, "No space left on device")


def _fails(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.audit.keeping", *map(str, arguments)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed_after(lines: int, *arguments: object) -> list[str]:
    """Run a process until it has said so many lines, kill it; return all that it said."""
    process = start(*arguments)
    assert process.stdout is not None
    assert process.stdin is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    said += process.stdout.readlines()
    process.wait(SECONDS)
    process.stdin.close()
    process.stdout.close()
    return [line.strip() for line in said if line.endswith("\n")]


def test_every_refusal_that_was_told_is_there_after_a_kill(opened, tmp_path) -> None:
    told: list[str] = []
    for lines in (1, 7, 60, 400):
        told += killed_after(lines, tmp_path / "spool", 8)
    assert all(line.startswith("kept ") for line in told)
    found = [payload.decode() for payload in opened().handed_out()]
    assert {line.removeprefix("kept ") for line in told} <= set(found)
    assert len(found) == len(set(found))


def test_when_the_disk_is_full_exactly_what_was_told_as_lost_is_not_there(opened, tmp_path) -> None:
    said = killed_after(600, tmp_path / "spool", 4, 12_000)
    kept = {line.split()[1] for line in said if line.startswith("kept ")}
    lost = {line.split(None, 2)[2] for line in said if line.startswith("lost disk-full ")}
    assert kept
    assert lost
    found = {payload.decode() for payload in opened().handed_out()}
    assert kept <= found
    assert not lost & found
