"""The readiness board."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from webhook.serving.readiness import Readiness


class Clock:
    def __init__(self):
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    return Readiness(clock)


def test_a_board_without_parts_is_not_ready(board):
    assert not board.ready
    assert board.lines() == []


def test_all_parts_must_be_ready(board):
    board.report("inventory", True, "")
    board.report("configuration", False, "")
    assert not board.ready

    board.report("configuration", True, "")
    assert board.ready


def test_the_time_is_that_of_the_last_change_not_of_the_last_report(board, clock):
    board.report("inventory", True, "3 nodes")
    clock.now += timedelta(minutes=1)
    board.report("inventory", True, "4 nodes")
    assert board.lines() == ["inventory: ready since 2030-01-01T00:00:00Z (4 nodes)"]

    board.report("inventory", False, "")
    assert board.lines() == ["inventory: not ready since 2030-01-01T00:01:00Z"]


def test_a_part_is_one_line_whatever_its_detail(board):
    board.report("configuration", False, "2 errors\n  rules: unknown")

    assert board.lines()[0].endswith("(2 errors rules: unknown)")


def test_parts_are_listed_by_name(board):
    for part in ("snapshot", "audit", "certificate"):
        board.report(part, True, "")

    assert [line.partition(":")[0] for line in board.lines()] == [
        "audit",
        "certificate",
        "snapshot",
    ]
