"""The thread that writes the log: in order, without waiting, and nothing lost untold."""

from __future__ import annotations

import os
import select
import threading
from collections import Counter

import pytest

from tests.server.running import SECONDS, until
from webhook.serving.log_writer import MOST_ORDINARY, MOST_WAITING, LineKind, LogWriter

LONG = "x" * 1000
IN_THE_PIPE = 200
"""Lines that are more than a pipe takes, and less than may wait."""


class Pipe:
    """A log whose reader the test is."""

    def __init__(self):
        self.reading, self.writing = os.pipe()
        self.written = False
        self.lost: Counter[LineKind] = Counter()
        self.log = LogWriter(self.writing)
        self.log.count_lost = lambda kind: self.lost.update([kind])
        self.log.start()

    def lines(self):
        """Yield what comes out, line by line."""
        with open(self.reading, closefd=False, encoding="utf-8") as stream:
            for line in stream:
                yield line.removesuffix("\n")

    def read_to_end(self):
        """End the log; return what was still to come."""
        found: list[str] = []
        reader = threading.Thread(target=lambda: found.extend(self.lines()))
        reader.start()
        assert self.log.stop(SECONDS)
        os.close(self.writing)
        self.written = True
        reader.join(SECONDS)
        return found


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    # Without a reader the thread ends; else it would write on, to whatever has the descriptor next.
    os.close(made.reading)
    made.log.stop(SECONDS)
    if not made.written:
        os.close(made.writing)


def fill(pipe, kind=LineKind.OTHER):
    """Write numbered lines until one is lost; return how many were taken."""
    for number in range(IN_THE_PIPE):
        pipe.log.write_line(f"{kind} {number} {LONG}\n", kind)
    # The thread waits for the reader from now on.
    until(lambda: not select.select([], [pipe.writing], [], 0)[1])
    number = IN_THE_PIPE
    while not pipe.lost[kind]:
        pipe.log.write_line(f"{kind} {number} {LONG}\n", kind)
        number += 1
    return number - 1


def test_lines_come_out_in_their_order(pipe):
    for number in range(1000):
        pipe.log.write(f"{number}\n")
    assert pipe.read_to_end() == [str(number) for number in range(1000)]


def test_a_line_that_nothing_follows_is_written_soon(pipe):
    pipe.log.write("one\n")
    assert next(pipe.lines()) == "one"


def test_lines_of_several_threads_stay_whole(pipe):
    def write(word):
        for _ in range(200):
            print(word, word, file=pipe.log)

    threads = [threading.Thread(target=write, args=(word * 20,)) for word in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert Counter(pipe.read_to_end()) == {f"{w * 20} {w * 20}": 200 for w in "abc"}


def test_what_finds_no_room_is_counted_and_told_once_the_rest_is_read(pipe):
    taken = fill(pipe)
    for _ in range(9):
        pipe.log.write(f"one too many {LONG}\n")
    assert pipe.lost == {LineKind.OTHER: 10}

    *lines, told = pipe.read_to_end()
    assert [int(line.split()[1]) for line in lines] == list(range(taken))
    assert told.startswith("migration-guard: lost lines of the log: 10; ")
    assert MOST_ORDINARY - 2000 < sum(map(len, lines)) < MOST_ORDINARY + 300_000


def test_a_record_has_room_where_other_lines_have_none(pipe):
    fill(pipe)
    pipe.log.write_line("the record\n", LineKind.RECORD)
    assert pipe.lost[LineKind.RECORD] == 0
    *_, record, told = pipe.read_to_end()
    assert record == "the record"
    assert "records" not in told


def test_records_too_have_an_end_and_it_is_told(pipe):
    taken = fill(pipe, LineKind.RECORD)
    assert taken * 1000 < MOST_WAITING + 300_000
    assert pipe.read_to_end()[-1].startswith(
        "migration-guard: lost lines of the log: 1 (records that the audit could not keep: 1); "
    )


def test_new_lines_come_once_the_log_is_read_again(pipe):
    fill(pipe)
    lines = pipe.lines()
    assert any("lost lines of the log: 1;" in line for line in lines)
    pipe.log.write("new\n")
    assert next(lines) == "new"


def test_a_log_that_nobody_reads_ends_in_the_time_it_is_given(pipe):
    fill(pipe)
    assert not pipe.log.stop(0.1)


def test_a_pipe_that_does_not_block_is_written_whole(pipe):
    os.set_blocking(pipe.writing, False)
    for number in range(1000):
        pipe.log.write(f"{number} {LONG}\n")
    assert [line.split()[0] for line in pipe.read_to_end()] == [str(n) for n in range(1000)]


def test_a_disk_that_is_full_loses_lines_and_nothing_else():
    with open("/dev/full", "wb", buffering=0) as full:
        lost: list[LineKind] = []
        log = LogWriter(full.fileno())
        log.count_lost = lost.append
        log.start()
        log.write("one\n")
        until(lambda: lost == [LineKind.OTHER])
        log.write_line("two\n", LineKind.RECORD)
        until(lambda: lost == [LineKind.OTHER, LineKind.RECORD])
        assert log.stop(SECONDS)
