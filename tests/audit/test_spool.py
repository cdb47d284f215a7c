"""The spool: what it took is there again, whatever happens to the process or the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.audit.conftest import SECONDS, eventually
from tests.audit.spools import KIB, MOST
from webhook.audit.errors import AuditError
from webhook.audit.importance import Importance
from webhook.audit.loss import Reason
from webhook.audit.spool import Spool

CHECKOUT = Path(__file__).parents[2]


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
