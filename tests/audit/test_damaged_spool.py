"""Damage to the files of the spool costs the records that it is in, and no others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.audit.conftest import SECONDS
from webhook.audit.importance import Importance
from webhook.audit.loss import Reason
from webhook.audit.segments import BLOCK, HEAD


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


@pytest.mark.parametrize("stops_short", [True, False])
@pytest.mark.parametrize("restarted", [True, False], ids=["at the start", "while it runs"])
def test_a_part_that_the_disk_cannot_read_costs_no_record_outside_of_it(
    opened, monkeypatch, restarted: bool, stops_short: bool
) -> None:
    if restarted:
        _, came = stopped_with_a_thousand(opened)
    else:
        kept = opened()
        came = [b"refusal %04d" % number for number in range(1_000)]
        assert all(kept.refuse(payload) for payload in came)
    read = os.pread

    def harmed(descriptor: int, size: int, at: int) -> bytes:
        # What kernels do where a sector is bad; no disk here has one.
        if at < 2 * BLOCK and at + size > BLOCK:
            if at < BLOCK and stops_short:
                return read(descriptor, BLOCK - at, at)
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, size, at)

    monkeypatch.setattr(os, "pread", harmed)
    if restarted:
        kept = opened()
    size = framed_length(came[0])
    before, behind = BLOCK // size, -(-2 * BLOCK // size)
    assert kept.handed_out() == came[:before] + came[behind:]
    assert len(kept.lost(Reason.DAMAGED)) == len(kept.losses) == 1
    assert kept.refuse(b"after")
    assert kept.handed_out() == [b"after"]


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
