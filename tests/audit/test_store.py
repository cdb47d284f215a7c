"""The database: each record once, identical ones folded; the same in SQLite and PostgreSQL."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from tests.audit.recorded import NOON, an_id, change, refusal
from tests.audit.stored import found, frames, rows
from webhook.audit import schema
from webhook.audit.database import (
    VERSION_TABLE,
    database_url,
    engine_of,
    migrate,
)
from webhook.audit.errors import AuditError
from webhook.audit.record import Record
from webhook.audit.segments import Frame
from webhook.audit.store import DAY, GAP, MICROSECONDS, SPAN, Store
from webhook.review.decision import Outcome

HOSTILE = "\x1b[2J\x00'; DROP TABLE audit_record; --\u202eevil\u2066 =1+1 \\ \" % _"


def test_a_record_is_kept_exactly_as_it_was(engine) -> None:
    record = refusal(
        user=HOSTILE,
        override_reason=HOSTILE + "x" * 60_000,
        vm="shop/" + "v" * 300,
        message="émigré " + HOSTILE,
    )
    Store(engine).write("r1", frames(record))
    (row,) = rows(engine)
    assert row["document"].encode() == record.encode()
    assert (row["count"], row["first_time"], row["last_time"]) == (1, NOON, NOON)
    assert row["username"] == HOSTILE.replace("\0", "\ufffd")
    assert len(row["vm"]) == schema.LONGEST_KEY


def test_ten_thousand_retries_make_one_row_that_finds_every_id(engine) -> None:
    store = Store(engine)
    retries = [refusal(time=NOON + n * MICROSECONDS, name=f"m-{n}") for n in range(10_000)]
    for start in range(0, len(retries), 500):
        store.write("r1", frames(*retries[start : start + 500], first=start + 1))
    (row,) = rows(engine)
    assert row["count"] == 10_000
    assert (row["first_time"], row["last_time"]) == (retries[0].time, retries[-1].time)
    assert {one for retry in retries for one in found(engine, retry.decision)} == {row["id"]}


def test_what_is_sent_again_is_not_counted_again(engine) -> None:
    store = Store(engine)
    sent = frames(refusal(), change(), refusal(user="anna"))
    assert store.write("r1", sent[:2]) == 2
    assert store.write("r1", sent) == 1
    assert store.write("r1", sent) == 0
    assert [row["count"] for row in rows(engine)] == [1, 1, 1]


def test_a_refusal_repeated_with_one_id_is_counted_each_time(engine) -> None:
    same = an_id()
    Store(engine).write("r1", frames(*(refusal(decision=same, time=NOON + n) for n in range(5))))
    (row,) = rows(engine)
    assert row["count"] == 5
    assert found(engine, same) == [row["id"]]


def test_both_passes_of_a_request_are_found_by_its_id(engine) -> None:
    same = an_id()
    Store(engine).write(
        "r1", frames(change(decision=same, phase="mutating"), refusal(decision=same))
    )
    assert len(found(engine, same)) == 2


def test_replicas_fold_into_one_row_also_when_they_write_at_once(engine) -> None:
    kinds = [refusal(user=f"user {n}") for n in range(20)]

    def write(replica: str) -> None:
        store = Store(engine)
        for batch in range(10):
            records = [Record(**{**_fields(kind), "decision": an_id()}) for kind in kinds]
            order = records if replica == "r1" else records[::-1]
            store.write(replica, frames(*order, first=batch * 20 + 1))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("r1", "r2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [row["count"] for row in rows(engine)] == [20] * 20


def _fields(record: Record) -> dict:
    return {name: getattr(record, name) for name in Record.__slots__}


def test_an_hour_without_a_retry_begins_a_new_row(engine) -> None:
    store = Store(engine)
    times = [NOON, NOON + GAP, NOON + 2 * GAP + 1, NOON + 2 * GAP + 2]
    together = frames(*(refusal(time=time) for time in times))
    store.write("r1", together)
    assert sorted(row["count"] for row in rows(engine)) == [2, 2]


def test_what_a_replica_brings_late_is_folded_and_no_row_gets_longer_than_two_days(engine) -> None:
    store = Store(engine)
    store.write("r1", frames(refusal(time=NOON)))
    a_little = [refusal(time=NOON - hours * GAP) for hours in (3, 2, 1)]
    store.write("r2", frames(*a_little))
    very = [refusal(time=NOON - hours * GAP) for hours in (48, 47)]
    store.write("r3", frames(*very))
    assert sorted(row["count"] for row in rows(engine)) == [2, 4]
    assert all(row["last_time"] - row["first_time"] <= 2 * SPAN for row in rows(engine))


def test_a_row_spans_a_day_at_most(engine) -> None:
    store = Store(engine)
    for number in range(30):
        store.write("r1", frames(refusal(time=NOON + number * GAP), first=number + 1))
    assert sorted(row["count"] for row in rows(engine)) == [5, 25]
    assert all(row["last_time"] - row["first_time"] <= SPAN for row in rows(engine))


def test_a_clock_that_steps_back_loses_nothing(engine) -> None:
    store = Store(engine)
    times = [NOON, NOON - DAY, NOON - DAY + 1, NOON + 1]
    for number, time in enumerate(times):
        store.write("r1", frames(refusal(time=time), first=number + 1))
    assert sum(row["count"] for row in rows(engine)) == 4


def test_sums_by_day_count_decisions_and_records(engine) -> None:
    store = Store(engine)
    store.write("r1", frames(*(refusal(time=NOON + n) for n in range(7)), refusal(vm="shop/db")))
    sums = {
        (row["dimension"], row["value"]): (row["decisions"], row["records"])
        for row in rows(engine, schema.count)
        if row["day"] == NOON // DAY
    }
    assert sums == {
        ("rule", "incompatible-target"): (8, 2),
        ("vm", "shop/web"): (7, 1),
        ("vm", "shop/db"): (1, 1),
        ("label", "cpu-feature.node.kubevirt.io/avx512f"): (8, 2),
    }


@pytest.mark.parametrize(
    ("broken", "why"),
    [(b"no record", "invalid literal"), (b"{}", "decision: 'time'"), (b"[]", "decision: 'time'")],
)
def test_what_is_no_record_is_refused_whole(engine, broken, why) -> None:
    with pytest.raises(ValueError, match=why):
        Store(engine).write("r1", [*frames(refusal()), Frame(2, broken)])
    assert rows(engine) == []


def test_the_schema_is_the_one_that_the_steps_make(engine) -> None:
    made = sa.MetaData()
    made.reflect(engine)
    assert set(made.tables) == {*schema.metadata.tables, VERSION_TABLE}
    for name, table in schema.metadata.tables.items():
        there = made.tables[name]
        assert {c.name: c.nullable for c in there.c} == {c.name: c.nullable for c in table.c}
        assert {c.name for c in there.primary_key} == {c.name for c in table.primary_key}
        assert {i.name for i in there.indexes} >= {i.name for i in table.indexes}


def test_an_older_database_is_brought_up_to_date_with_what_it_holds(url) -> None:
    engine = engine_of(url)
    migrate(engine, "0001")
    with engine.begin() as connection:
        record = refusal()
        values = {
            **dict.fromkeys(("namespace", "username", "node", "chosen_node"), ""),
            "fold": record.fold(),
            "first_time": NOON,
            "last_time": NOON,
            "count": 3,
            "replica": "r1",
            "sequence": 3,
            "outcome": "refused",
            "rule": record.rule,
            "vm": record.vm,
            "document": record.encode().decode(),
        }
        connection.execute(sa.insert(schema.record).values(values))
        connection.execute(sa.insert(schema.replica).values(replica="r1", sequence=3))
    migrate(engine)
    migrate(engine)
    Store(engine).write("r1", frames(refusal(), refusal(), first=3))
    (row,) = rows(engine)
    assert row["count"] == 4
    sums = {(s["dimension"], s["decisions"], s["records"]) for s in rows(engine, schema.count)}
    assert sums == {("rule", 4, 1), ("vm", 4, 1), ("label", 4, 1)}
    assert {s["day"] for s in rows(engine, schema.count)} == {schema.ALL_DAYS, NOON // DAY}
    engine.dispose()


def test_replicas_that_start_at_once_make_the_schema_once(url) -> None:
    failures: list[Exception] = []

    def start() -> None:
        engine = engine_of(url)
        try:
            migrate(engine)
        except Exception as error:
            failures.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_database_of_a_newer_version_is_left_alone(engine) -> None:
    with engine.begin() as connection:
        version = sa.table(VERSION_TABLE, sa.column("version_num"))
        connection.execute(sa.update(version).values(version_num="9999"))
    with pytest.raises(AuditError, match="newer migration-guard"):
        migrate(engine)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:hunter2@db/audit",
        "hunter2",
        "postgresql://u:hunter2@host:port/audit",
        "sqlite://",
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_its_password(url) -> None:
    with pytest.raises(AuditError) as told:
        database_url(url)
    assert "hunter2" not in str(told.value)


def test_outcomes_fit_their_column() -> None:
    assert max(len(outcome.value) for outcome in Outcome) <= 32
