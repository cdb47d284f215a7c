"""A disk that hangs, fails or is full: nobody is held up, and what is lost is told."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable

import pytest

from tests.audit.conftest import SECONDS
from tests.audit.spools import KIB, MOST
from webhook.audit.importance import Importance
from webhook.audit.loss import Reason


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
