"""What stays in the database, and for how long; the same in SQLite and PostgreSQL."""

from __future__ import annotations

import threading
import time

import sqlalchemy as sa
from sqlalchemy import event

from tests.audit.recorded import NOON, an_id, refusal
from tests.audit.stored import found, frames, rows
from webhook.audit import retention as keeping
from webhook.audit import schema
from webhook.audit.database import engine_of, migrate, sqlite_url
from webhook.audit.retention import Retention
from webhook.audit.store import DAY, MICROSECONDS, Store
from webhook.review.decision import Outcome

DAY_SECONDS = 86_400.0


def apply_all(engine, retention: Retention, now: float) -> None:
    while keeping.apply(engine, retention, now):
        pass


def test_records_go_when_they_are_too_old_with_their_ids_and_sums(engine) -> None:
    old, new = refusal(time=NOON), refusal(time=NOON + 10 * DAY, user="anna")
    Store(engine).write("r1", frames(old, new))
    now = NOON / MICROSECONDS + 10 * 86_400
    assert keeping.apply(engine, Retention(seconds=5 * 86_400), now) == 1
    assert keeping.apply(engine, Retention(seconds=5 * 86_400), now) == 0
    assert found(engine, old.decision) == []
    assert len(found(engine, new.decision)) == 1
    sums = {(s["day"], s["dimension"]): s["decisions"] for s in rows(engine, schema.count)}
    days = (schema.ALL_DAYS, (NOON + 10 * DAY) // DAY)
    assert sums == {(day, what): 1 for day in days for what in ("rule", "vm", "label")}


def test_replicas_that_drop_old_days_at_once_take_them_out_of_the_sums_once(engine) -> None:
    records = [refusal(time=NOON + days * DAY) for days in range(20)]
    Store(engine).write("r1", frames(*records))
    now = NOON / MICROSECONDS + 20 * 86_400

    def drop() -> None:
        while keeping.apply(engine, Retention(seconds=9.9 * 86_400), now):
            pass

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    sums = [s["decisions"] for s in rows(engine, schema.count) if s["day"] == schema.ALL_DAYS]
    days = [s for s in rows(engine, schema.count) if s["day"] != schema.ALL_DAYS]
    assert len(days) == 3 * 10
    assert sums == [10, 10, 10]


def test_sqlite_gives_room_back_to_the_file_system(tmp_path) -> None:
    engine = engine_of(sqlite_url(tmp_path))
    migrate(engine)
    reason = "x" * 3_000
    records = [refusal(user=f"user {n}", override_reason=reason) for n in range(500)]
    Store(engine).write("r1", frames(*records))

    def pages() -> int:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())

    full = pages()
    later = NOON / MICROSECONDS + 86_400
    while keeping.apply(engine, Retention(seconds=60), later):
        pass
    assert full > 500
    assert pages() < full / 4
    engine.dispose()


def test_the_oldest_records_go_when_there_are_too_many(engine, monkeypatch) -> None:
    monkeypatch.setattr(keeping, "BATCH", 4)
    records = [refusal(user=f"user {n}", time=NOON + n) for n in range(10)]
    Store(engine).write("r1", frames(*records))
    now = NOON / MICROSECONDS
    deleted = [keeping.apply(engine, Retention(rows=3), now) for _ in range(3)]
    assert deleted == [4, 3, 0]
    assert {row["username"] for row in rows(engine)} == {"user 7", "user 8", "user 9"}


def test_those_that_matter_least_go_first_when_there_are_too_many(engine, monkeypatch) -> None:
    monkeypatch.setattr(keeping, "BATCH", 3)
    kinds = (Outcome.REFUSED, Outcome.BLIND, Outcome.WARNED, *[Outcome.CHANGED] * 7)
    records = [
        refusal(outcome=outcome, user=f"user {n}", time=NOON + n) for n, outcome in enumerate(kinds)
    ]
    Store(engine).write("r1", frames(*records))

    def outcomes(most: int) -> list[str]:
        apply_all(engine, Retention(rows=most), NOON / MICROSECONDS)
        return [row["outcome"] for row in sorted(rows(engine), key=lambda row: row["first_time"])]

    assert outcomes(5) == ["refused", "blind", "warned", "changed", "changed"]
    assert {row["username"] for row in rows(engine)} >= {"user 8", "user 9"}
    assert outcomes(3) == ["refused", "blind", "warned"]
    assert outcomes(2) == ["refused", "blind"]
    assert outcomes(1) == ["refused"]


def test_ids_are_bounded_too_and_a_flood_of_them_costs_no_other_record_any(engine) -> None:
    flood = [refusal(time=NOON + n) for n in range(2_000)]
    quiet = [refusal(time=NOON + n, user=f"user {n}") for n in range(8) for _ in range(2)]
    Store(engine).write("r1", frames(*flood, *quiet))
    apply_all(engine, Retention(rows=9), NOON / MICROSECONDS)
    assert len(rows(engine, schema.decision)) == 9 * keeping.IDS_PER_ROW
    assert len(rows(engine)) == 9
    assert all(found(engine, record.decision) for record in quiet)
    assert found(engine, flood[0].decision)
    assert found(engine, flood[-1].decision)
    assert not found(engine, flood[1].decision)


def test_a_clock_that_is_a_year_ahead_deletes_nothing_that_is_young(engine) -> None:
    old, new = refusal(time=NOON - 10 * DAY), refusal(time=NOON, user="anna")
    Store(engine).write("r1", frames(old, new))
    apply_all(engine, Retention(), NOON / MICROSECONDS + 366 * DAY_SECONDS)
    assert found(engine, old.decision)
    assert found(engine, new.decision)
    apply_all(engine, Retention(seconds=5 * DAY_SECONDS), NOON / MICROSECONDS + 366 * DAY_SECONDS)
    assert not found(engine, old.decision)
    assert found(engine, new.decision)


def test_the_clock_of_postgresql_counts_where_a_server_wrote_and_deletes_by_a_wrong_one(
    postgres_engine,
) -> None:
    now = time.time()
    wrong = now + 366 * DAY_SECONDS
    old = refusal(time=int((now - DAY_SECONDS) * MICROSECONDS))
    late = refusal(time=int(wrong * MICROSECONDS), user="anna")
    Store(postgres_engine).write("r1", frames(old, late))
    apply_all(postgres_engine, Retention(), wrong)
    assert found(postgres_engine, old.decision)


def test_what_is_repeated_while_it_is_deleted_is_found_by_its_new_id(engine, url) -> None:
    old, again, new = refusal(), refusal(time=NOON + DAY // 48), refusal(user="anna")
    Store(engine).write("r1", frames(old))
    writers: list[threading.Thread] = []
    other = engine_of(url)

    def repeat() -> None:
        Store(other).write("r2", frames(again))

    @event.listens_for(engine, "before_cursor_execute")
    def before_the_first_delete(connection, cursor, statement, *_: object) -> None:
        if statement.startswith("DELETE") and not writers:
            writers.append(threading.Thread(target=repeat))
            writers[0].start()
            # Where nothing holds the record, the repetition is committed in this time.
            writers[0].join(1)

    Store(engine).write("r1", frames(new, first=2))
    keeping.apply(engine, Retention(rows=1), NOON / MICROSECONDS)
    writers[0].join(60)
    other.dispose()
    kept = {row["id"] for row in rows(engine)}
    assert found(engine, again.decision)
    assert {row["record_id"] for row in rows(engine, schema.decision)} <= kept


def test_what_is_being_repeated_is_not_deleted(engine, url) -> None:
    old, again, new = refusal(), refusal(time=NOON + DAY // 48), refusal(user="anna", time=NOON + 1)
    Store(engine).write("r1", frames(old, new))
    other = engine_of(url)
    deleting = threading.Thread(
        target=keeping.apply, args=(engine, Retention(rows=1), NOON / MICROSECONDS)
    )

    @event.listens_for(other, "commit")
    def before_the_commit(_: object) -> None:
        deleting.start()
        # SQLite's waits for the commit, PostgreSQL's leaves out what is held.
        deleting.join(1)

    Store(other).write("r2", frames(again))
    deleting.join(60)
    other.dispose()
    kept = {row["id"] for row in rows(engine)}
    assert found(engine, old.decision) == found(engine, again.decision)
    assert {row["record_id"] for row in rows(engine, schema.decision)} <= kept
    assert set(found(engine, again.decision)) <= kept
    assert found(engine, again.decision)


def test_ids_that_an_older_version_left_without_a_record_are_removed(url) -> None:
    engine = engine_of(url)
    migrate(engine, "0002")
    record, orphan = refusal(), an_id()
    Store(engine).write("r1", frames(record))
    with engine.begin() as connection:
        connection.execute(sa.insert(schema.decision).values(decision=orphan, record_id=4711))
    migrate(engine)
    assert not found(engine, orphan)
    assert found(engine, record.decision)
    engine.dispose()
