"""Following the audit: whatever comes is told once, also what is committed late."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import event

from tests.audit.recorded import NOON, change, refusal
from tests.audit.stored import frames
from webhook.audit import following
from webhook.audit.database import engine_of
from webhook.audit.following import Follower
from webhook.audit.queries import Reader
from webhook.audit.results import Filter
from webhook.audit.store import DAY, GAP, MICROSECONDS, Store


@pytest.fixture
def reader(engine, url):
    """A reader of two records."""
    Store(engine).write("r0", frames(refusal(user="anna"), refusal(user="bert", time=NOON + 1)))
    made = Reader(url)
    yield made
    made.close()


def users(follower: Follower) -> list[str]:
    return [one.document["user"] for one in follower.news()]


def test_news_are_new_rows_and_repetitions_each_once(reader, engine) -> None:
    follower = Follower(reader, Filter())
    assert users(follower) == []
    late = refusal(user="late", time=NOON - DAY)
    again = refusal(user="bert", time=NOON + GAP)
    Store(engine).write("r2", frames(late, again))
    assert [(one.document["user"], one.count) for one in follower.news()] == [
        ("late", 1),
        ("bert", 2),
    ]
    assert users(follower) == []
    Store(engine).write("r2", frames(refusal(user="bert", time=NOON + GAP + 1), first=3))
    assert [one.count for one in follower.news()] == [3]


def test_what_a_slower_replica_commits_later_is_told(postgres_engine) -> None:
    # One process keeps SQLite, and writes one transaction after the other.
    engine = postgres_engine
    Store(engine).write("r0", frames(refusal(user="anna")))
    reader = Reader(engine.url)
    follower = Follower(reader, Filter())
    slow = engine_of(engine.url)
    written, told = threading.Event(), threading.Event()

    @event.listens_for(slow, "commit")
    def before_the_commit(_: object) -> None:
        written.set()
        told.wait(60)

    records = (refusal(user="slow", time=NOON + 2), refusal(user="anna", time=NOON + 2))
    thread = threading.Thread(target=Store(slow).write, args=("r1", frames(*records)))
    thread.start()
    assert written.wait(60)
    # Of the same rule or VM it would wait for the other, since both add to one sum.
    quick = change(user="quick", vm="lab/db", time=NOON + MICROSECONDS)
    Store(engine).write("r2", frames(quick))
    assert users(follower) == ["quick"]
    told.set()
    thread.join(60)
    slow.dispose()
    assert users(follower) == ["anna", "slow"]
    assert users(follower) == []
    reader.close()


def test_what_was_listed_is_not_told_again(reader, engine) -> None:
    follower = Follower(reader, Filter())
    Store(engine).write("r2", frames(refusal(user="new", time=NOON + 2)))
    follower.note(reader.page(Filter(), 50).found)
    assert users(follower) == []


def test_more_than_a_page_of_news_is_told_whole(reader, engine) -> None:
    follower = Follower(reader, Filter(namespace="shop", text="user"))
    many = [refusal(user=f"user {n}", time=NOON + n) for n in range(1_500)]
    Store(engine).write("r2", frames(*many))
    assert len(users(follower)) == 1_500
    assert users(follower) == []


def test_a_record_of_a_clock_that_is_ahead_hides_no_repetition(reader, engine, monkeypatch) -> None:
    monkeypatch.setattr(following, "LATE_SECONDS", 0.0)
    ahead = int((4_000_000_000) * MICROSECONDS)
    Store(engine).write("r2", frames(refusal(user="ahead", time=ahead)))
    follower = Follower(reader, Filter())
    now = reader.newest().last_time
    assert now < ahead
    follower.news()
    Store(engine).write("r2", frames(refusal(user="carla", time=now + 60 * MICROSECONDS), first=2))
    assert users(follower) == ["carla"]
