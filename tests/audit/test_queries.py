"""What is asked of the database is found, from indexes."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import event

from tests.audit.recorded import NOON, an_id, change, refusal
from webhook.audit import database, queries, schema
from webhook.audit.conditions import anything, begun, conditions, times
from webhook.audit.database import VERSION, engine_of, migrate, sqlite_url
from webhook.audit.errors import AuditError
from webhook.audit.queries import Reader
from webhook.audit.results import Cursor, Filter
from webhook.audit.segments import Frame
from webhook.audit.store import DAY, GAP, Store
from webhook.review.decision import Outcome

HOSTILE = "\x1b[2J\x00'; DROP TABLE audit_record; --\u202e%_!\\\""
EVACUATION = "system:serviceaccount:kubevirt:kubevirt-controller"


@pytest.fixture
def reader(engine, url):
    """Six records, each a minute after the one before."""
    records = [
        refusal(vm="shop/web", user="anna", source="node-a"),
        refusal(vm="shop/db", user="bert", source="node-b", chosen_node="node-a"),
        refusal(vm="lab/web", namespace="lab", user="anna", source="node-c"),
        refusal(outcome=Outcome.WARNED, allowed=True, rule="no-room-now", user="anna"),
        change(user=HOSTILE, message='Émigré 100% \\ "quoted"'),
        refusal(user="carla", override_reason="planned maintenance"),
    ]
    store = Store(engine)
    for number, record in enumerate(records):
        timed = refusal(**{**_fields(record), "time": NOON + number * 60_000_000})
        store.write("r1", [Frame(number + 1, timed.encode())])
    made = Reader(url)
    yield made
    made.close()


def _fields(record) -> dict:
    return {name: getattr(record, name) for name in type(record).__slots__}


@pytest.mark.parametrize(
    ("wanted", "users"),
    [
        (Filter(), ["carla", HOSTILE, "anna", "anna", "bert", "anna"]),
        (Filter(outcomes=("warned", "changed")), [HOSTILE, "anna"]),
        (Filter(rule="no-room-now"), ["anna"]),
        (Filter(namespace="lab"), ["anna"]),
        (Filter(vm="shop/db"), ["bert"]),
        (Filter(user=HOSTILE), [HOSTILE]),
        (Filter(user="nobody' OR '1'='1"), []),
        (Filter(node="node-a", outcomes=("refused",)), ["carla", "bert", "anna"]),
        (Filter(node="node-a", text="SHOP/db"), ["bert"]),
        (Filter(node="node-a"), ["carla", HOSTILE, "anna", "bert", "anna"]),
        (Filter(since=NOON + 180_000_000), ["carla", HOSTILE, "anna"]),
        (Filter(until=NOON + 60_000_000), ["bert", "anna"]),
        (Filter(text="planned"), ["carla"]),
        (Filter(text='100% \\ "QUOTED"'), [HOSTILE]),
        (Filter(text="1_0%"), []),
        (Filter(text="ÉMIGRé"), [HOSTILE]),
        (Filter(text="émigré"), []),
        (Filter(text="drop table audit_record"), [HOSTILE]),
        (Filter(user="anna", since=NOON + 1, until=NOON + 150_000_000), ["anna"]),
    ],
)
def test_a_list_holds_what_meets_the_filter_newest_first(reader, wanted, users) -> None:
    assert [found.document["user"] for found in reader.page(wanted, 50).found] == users
    assert [found.document["user"] for found in reader.all(wanted)] == users


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(node="node-a"),
        Filter(outcomes=("warned",), rule="no-room-now"),
        Filter(outcomes=("refused", "blind"), since=NOON),
        Filter(user="anna", until=NOON),
    ],
)
def test_sqlite_reads_a_list_in_order_and_sorts_nothing(tmp_path, wanted) -> None:
    engine = engine_of(sqlite_url(tmp_path))
    migrate(engine)
    engine.dispose()
    reader = Reader(sqlite_url(tmp_path))
    for after in (None, Cursor(NOON, 1)):
        (condition,) = conditions(wanted) or [anything]
        where = [*times(wanted, after), *begun(wanted)]
        query = reader._newest_first(condition, schema.record.c, where).limit(50)
        compiled = query.compile(reader._engine, compile_kwargs={"literal_binds": True})
        with reader._engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()
        steps = [row.detail for row in plan]
        assert any("USING INDEX" in step for step in steps), steps
        assert not any("TEMP B-TREE" in step for step in steps), steps
    reader.close()


def test_pages_follow_each_other_without_gap_or_overlap(reader) -> None:
    pages, after = [], None
    while True:
        page, behind = reader.page(Filter(), 2, after)
        if not page:
            break
        pages.append(page)
        after = Cursor.read(str(behind))
    assert behind is None
    ids = [found.row_id for page in pages for found in page]
    assert len(ids) == len(set(ids)) == 6
    assert [len(page) for page in pages] == [2, 2, 2]


def test_a_text_is_looked_for_in_a_window_at_a_time(reader, monkeypatch) -> None:
    monkeypatch.setattr(queries, "WINDOW", 2)
    wanted = Filter(text="bert")
    steps, after = [], None
    while True:
        page, after = reader.page(wanted, 50, after)
        steps.append([found.document["user"] for found in page])
        if after is None:
            break
    assert steps == [[], [], ["bert"], []]
    assert [found.document["user"] for found in reader.first(wanted, 1).found] == ["bert"]
    assert [found.document["user"] for found in reader.all(wanted)] == ["bert"]


def test_a_text_is_looked_for_no_longer_than_there_is_time(reader, monkeypatch) -> None:
    monkeypatch.setattr(queries, "WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(queries, "LIST_SECONDS", 0.0)
    wanted = Filter(text="bert")
    steps, after = [], None
    while True:
        page, after = reader.first(wanted, 50, after)
        steps.append([found.document["user"] for found in page])
        if after is None:
            break
    assert steps == [[], [], [], [], ["bert"], [], []]


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "a.b", "1.1; DROP", "9" * 30 + ".1", "²."])
def test_what_is_no_place_in_the_list_is_told(text) -> None:
    with pytest.raises(ValueError, match="is no place in the list"):
        Cursor.read(text)


def test_a_record_repeated_for_hours_counts_for_all_of_them(engine, url) -> None:
    store = Store(engine)
    for hour in range(20):
        store.write("r1", [Frame(hour + 1, refusal(time=NOON + hour * GAP).encode())])
    reader = Reader(url)
    middle = NOON + 10 * GAP
    (found,) = reader.page(Filter(since=middle, until=middle + 1), 50).found
    assert found.count == 20
    reader.close()


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(user="anna", namespace="lab", outcomes=("warned",)),
        Filter(user="anna", vm="shop/db"),
        Filter(user="bert", rule="no-room-now"),
        Filter(node="node-a", rule="chosen-node", until=NOON),
    ],
)
def test_conditions_that_nothing_meets_together_are_answered_from_indexes_alone(
    tmp_path, wanted
) -> None:
    engine = engine_of(sqlite_url(tmp_path))
    migrate(engine)
    for number in range(50):
        record = refusal(
            vm=f"shop/{('web', 'db')[number % 2]}",
            user=("anna", "bert")[number % 2],
            rule=("no-room-now", "incompatible-target")[number % 2],
            override_reason="x" * 50_000,
            time=NOON + number,
        )
        Store(engine).write("r1", [Frame(number + 1, record.encode())])
    engine.dispose()
    reader = Reader(sqlite_url(tmp_path))
    read = _steps(reader)
    assert reader.page(wanted, 50).found == []
    assert not any("INTEGER PRIMARY KEY" in step for step in read), read
    assert any("SEARCH other USING COVERING INDEX" in step for step in read), "\n".join(read)
    assert not any(step.startswith("SCAN audit_record") for step in read), read
    reader.close()


def test_every_id_that_was_given_leads_to_its_record(reader, engine) -> None:
    ids = [an_id() for _ in range(3)]
    frames = [Frame(n, refusal(decision=one, user="x").encode()) for n, one in enumerate(ids, 1)]
    Store(engine).write("r2", frames)
    assert {reader.by_decision(one)[0].row_id for one in ids} == {
        reader.by_decision(ids[0])[0].row_id
    }
    assert reader.by_decision(an_id()) == []


def test_following_reads_no_index_whole(tmp_path) -> None:
    engine = engine_of(sqlite_url(tmp_path))
    migrate(engine)
    Store(engine).write("r1", [Frame(1, refusal().encode())])
    engine.dispose()
    reader = Reader(sqlite_url(tmp_path))
    steps = _steps(reader)
    for wanted in (Filter(), Filter(user="anna", outcomes=("refused",)), Filter(node="node-a")):
        reader.changed(wanted, reader.newest())
    assert any("audit_record_by_time (last_time>?)" in step for step in steps), steps
    assert not any(step.startswith("SCAN audit_record") for step in steps), steps
    assert all("audit_record_by_time" in step for step in steps if " INDEX " in step), steps
    reader.close()


def _steps(reader: Reader) -> list[str]:
    """Return a list that gets the steps by which SQLite answers whatever is asked."""
    steps: list[str] = []

    @event.listens_for(reader._engine, "before_cursor_execute")
    def plan(connection, cursor, statement, parameters, *_: object) -> None:
        told = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        steps.extend(row[3] for row in told)

    return steps


@pytest.mark.parametrize("text", ["\0", "\udcff", "'", "%", "\\", "x" * 900, "\U0010ffff"])
def test_what_no_database_can_hold_is_found_nowhere(reader, text) -> None:
    for name in ("rule", "namespace", "vm", "user", "node"):
        wanted: dict[str, Any] = {name: f"{text}gone"}
        assert reader.page(Filter(**wanted), 5).found == []
    assert reader.page(Filter(text=f"{text}gone"), 5).found == []
    assert reader.page(Filter(outcomes=(text,)), 5).found == []
    assert reader.by_decision(text) == []


def test_a_text_that_is_too_long_to_be_looked_for_is_told(reader) -> None:
    with pytest.raises(AuditError, match="at most 1,000 characters"):
        reader.page(Filter(text="x" * 1_001), 5)


def test_sums_name_what_was_decided_most(reader) -> None:
    stats = reader.stats(NOON, NOON, 2)
    assert (stats.since, stats.until) == ("2025-11-26", "2025-11-26")
    assert [(s.value, s.decisions) for s in stats.rules] == [
        ("incompatible-target", 4),
        ("no-room-now", 1),
    ]
    assert [(s.value, s.decisions, s.outcomes) for s in stats.vms] == [
        ("shop/web", 4, {"changed": 1, "refused": 2, "warned": 1}),
        ("lab/web", 1, {"refused": 1}),
    ]
    assert stats.labels[0].value == "cpu-feature.node.kubevirt.io/avx512f"
    assert reader.stats(NOON + DAY, None, 2).rules == ()
    assert reader.stats(None, NOON - DAY, 2).rules == ()


def test_sums_are_the_same_whichever_days_are_added_or_taken_away(engine, url) -> None:
    records = [
        refusal(time=NOON + day * DAY, vm=f"shop/{day % 3}", user=f"u{n}")
        for day in range(12)
        for n in range(day + 1)
    ]
    frames = [Frame(n, record.encode()) for n, record in enumerate(records, 1)]
    Store(engine).write("r1", frames)
    reader = Reader(url)
    bounds = [None, *range(-1, 13)]
    for first, last in itertools.product(bounds, bounds):
        sums = reader.stats(
            None if first is None else NOON + first * DAY,
            None if last is None else NOON + last * DAY,
            10,
        )
        expected = Counter(
            record.vm
            for record in records
            if (first is None or record.time >= NOON + first * DAY)
            and (last is None or record.time <= NOON + last * DAY)
        )
        assert {one.value: one.decisions for one in sums.vms} == expected
        assert {one.value: one.records for one in sums.vms} == expected
        assert {one.value: one.outcomes for one in sums.vms} == {
            vm: {"refused": number} for vm, number in expected.items()
        }
        assert [one.decisions for one in sums.vms] == sorted(expected.values(), reverse=True)
    reader.close()


def test_nothing_can_be_written_through_a_reader(reader) -> None:
    with reader._engine.connect() as connection, pytest.raises(sa.exc.DBAPIError):
        connection.execute(sa.text("delete from audit_record"))


def test_where_there_is_no_audit_that_is_said(tmp_path, url) -> None:
    with pytest.raises(AuditError, match="there is no audit yet"):
        Reader(sqlite_url(tmp_path / "elsewhere"))
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(sa.text("create table other (id integer)"))
    engine.dispose()
    with pytest.raises(AuditError, match="holds no audit"):
        Reader(url)


def test_an_older_schema_is_not_read_wrongly(url) -> None:
    engine = engine_of(url)
    migrate(engine, "0001")
    engine.dispose()
    with pytest.raises(AuditError, match="has schema 0001, and this program reads"):
        Reader(url)


def test_a_database_that_cannot_be_reached_is_told_in_one_line(tmp_path) -> None:
    url = database.database_url(f"postgresql://guard:hunter2@/audit?host={tmp_path}")
    with pytest.raises(AuditError) as told:
        Reader(url)
    assert "cannot be read" in str(told.value)
    assert "hunter2" not in str(told.value)
    assert "\n" not in str(told.value)


def test_the_newest_step_is_the_version_that_is_read() -> None:
    config = Config()
    config.set_main_option(
        "script_location", str(database.__file__).replace("database.py", "migrations")
    )
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == VERSION
