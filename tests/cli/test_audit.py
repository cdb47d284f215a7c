"""audit: lists, one decision, exports and sums; hostile values do no harm in any of them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
import pytest
import yaml

from tests.audit.recorded import NOON, an_id, change, refusal
from tests.cli.conftest import CLUSTER, Ran, Run
from webhook.audit.database import SQLITE_FILE, engine_of, migrate, sqlite_url
from webhook.audit.importance import Importance
from webhook.audit.segments import Frame
from webhook.audit.spool import Spool
from webhook.audit.store import DAY, Store
from webhook.cli.commands.schema import output_schema
from webhook.review.decision import Outcome

HOSTILE = "=cmd|' /C calc'!A0\x1b[2J\x07\x7f\x9b\u202egnp.exe\u2066\x00\r\n@SUM(1)"
REFUSED = an_id()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with an audit of three records."""
    engine = engine_of(sqlite_url(tmp_path))
    migrate(engine)
    records = [
        refusal(decision=REFUSED),
        refusal(time=NOON + 1),
        change(time=NOON + 60_000_000, user=HOSTILE, vm="lab/db"),
        refusal(
            time=NOON + 120_000_000,
            outcome=Outcome.OVERRIDDEN,
            allowed=True,
            user="anna",
            overridden_by="anna",
            override_reason=HOSTILE,
        ),
    ]
    frames = [Frame(n, record.encode()) for n, record in enumerate(records, 1)]
    Store(engine).write("guard-0", frames)
    engine.dispose()
    return tmp_path


def test_a_list_is_a_table_newest_first(run: Run, kept: Path) -> None:
    lines = run("audit", "list", "--audit-dir", kept).out.splitlines()
    assert lines[0].split() == [
        "LAST",
        "COUNT",
        "OUTCOME",
        "RULE",
        "WHAT",
        "USER",
        "WHY",
        "DECISION",
    ]
    assert [line.split()[3] for line in lines[1:]] == ["overridden", "changed", "refused"]
    assert lines[3].split()[:3] == ["2025-11-26", "12:00:00Z", "2"]


def test_lists_and_decisions_and_sums_have_their_published_form(run: Run, kept: Path) -> None:
    for name, words in (
        ("audit-list", ("list",)),
        ("audit-list", ("list", "--limit", "1")),
        ("audit-show", ("show", REFUSED)),
        ("audit-show", ("show", an_id())),
        ("audit-stats", ("stats",)),
        ("audit-stats", ("stats", "--since", "2025-01-01T00:00:00Z")),
    ):
        printed = run("audit", *words, "--audit-dir", kept, "-o", "json").json
        jsonschema.validate(printed, output_schema(name))


def test_pages_go_on_where_the_one_before_ended(run: Run, kept: Path) -> None:
    outcomes: list[str] = []
    after: tuple[str, ...] = ()
    for _ in range(3):
        page = run("audit", "list", "--audit-dir", kept, "--limit", 1, "-o", "json", *after).json
        outcomes += [item["outcome"] for item in page["items"]]
        after = ("--after", page["next"])
    assert outcomes == ["overridden", "changed", "refused"]


def test_filters_are_those_of_the_database(run: Run, kept: Path) -> None:
    def outcomes(*words: str) -> list[str]:
        listed = run("audit", "list", "--audit-dir", kept, "-o", "json", *words).json
        return [item["outcome"] for item in listed["items"]]

    assert outcomes("--outcome", "refused", "--outcome", "changed") == ["changed", "refused"]
    assert outcomes("--vm", "db", "-n", "shop") == []
    assert outcomes("--vm", "lab/db") == ["changed"]
    assert outcomes("--user", "anna", "--node", "node-a") == ["overridden"]
    assert outcomes("--until", "2025-11-26T12:00:30Z") == ["refused"]
    assert outcomes("--text", "KUBEVIRT-EVACUATION", "--rule", "target-selectors") == ["changed"]


def test_a_list_says_where_it_stopped_to_look_for_a_text(run: Run, kept: Path, monkeypatch) -> None:
    monkeypatch.setattr("webhook.audit.queries.WINDOW_SECONDS", 0.0)
    monkeypatch.setattr("webhook.audit.queries.LIST_SECONDS", 0.0)
    words: list[str | Path] = ["audit", "list", "--audit-dir", kept, "--text", REFUSED, "-o", "csv"]
    decisions: list[str] = []
    after: list[str] = []
    while True:
        ran = run(*words, *after)
        decisions += [row["decision"] for row in csv.DictReader(io.StringIO(ran.out))]
        if not ran.err:
            break
        assert ran.err.count("\n") == 1
        assert "nothing before 2025-11-26T12:0" in ran.err
        after = ["--after", ran.err.partition("--after ")[2].partition(",")[0]]
    assert decisions == [REFUSED]
    assert after


def test_a_decision_is_told_in_words(run: Run, kept: Path) -> None:
    told = run("audit", "show", REFUSED, "--audit-dir", kept).out
    for text in (
        "refused: CREATE VirtualMachineInstanceMigration shop/kubevirt-evacuation-…",
        "2 times from 2025-11-26T12:00:00.000000Z to 2025-11-26T12:00:00.000001Z",
        "started by: evacuation of node node-a",
        "CPU model: host-model (default)",
        "rule: incompatible-target (enforce) refused",
        "node-b",
        "cpu-feature (lasting, from source-cpu); lacks cpu-feature.node.kubevirt.io/avx512f",
    ):
        assert text in told


def test_a_decision_that_nobody_knows_is_a_no(run: Run, kept: Path) -> None:
    ran = run("audit", "show", an_id(), "--audit-dir", kept)
    assert ran.status == 1
    assert "may be older than what is kept" in ran.err


def test_a_decision_is_found_while_it_still_waits_for_the_database(run: Run, kept: Path) -> None:
    spool = Spool(kept)
    spool.start()
    record = refusal(user="waiting")
    future = spool.keep(record.encode(), Importance.REFUSAL)
    assert future is not None
    assert future.result(20)
    ran = run("audit", "show", record.decision, "--audit-dir", kept, "-o", "json")
    jsonschema.validate(ran.json, output_schema("audit-show"))
    assert ran.json["waiting"]
    assert ran.json["items"][0]["user"] == "waiting"
    assert "still waits" in run("audit", "show", record.decision, "--audit-dir", kept).out
    spool.stop()
    spool.close()


@pytest.mark.parametrize("database", ["postgresql://guard@/audit?host=/nowhere", None])
def test_a_decision_that_waits_is_found_while_the_database_is_away(
    run: Run, tmp_path: Path, database: str | None
) -> None:
    spool = Spool(tmp_path)
    spool.start()
    record = refusal(user="waiting")
    future = spool.keep(record.encode(), Importance.REFUSAL)
    assert future is not None
    assert future.result(20)
    words: list[str | Path] = ["--audit-dir", tmp_path, "-o", "json"]
    words += ["--audit-database", database] if database else []
    shown = run("audit", "show", record.decision, *words).json
    assert [item["user"] for item in shown["items"]] == ["waiting"]
    assert shown["waiting"]
    ran = run("audit", "show", an_id(), *words)
    assert ran.status == 2
    assert ("cannot be read" if database else "there is no audit yet") in ran.err
    spool.stop()
    spool.close()


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Be a user who must not write into folders of others; root may everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_audit_in_a_folder_that_cannot_be_written_is_read(run: Run, kept: Path) -> None:
    # pytest's own folders are for their owner alone.
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(kept / SQLITE_FILE, folder)
        (folder / SQLITE_FILE).chmod(0o444)
        folder.chmod(0o555)
        with _as_nobody():
            ran = run("audit", "list", "--audit-dir", folder, "-o", "json")
        folder.chmod(0o755)
        assert len(ran.json["items"]) == 3
        assert [path.name for path in folder.iterdir()] == [SQLITE_FILE]


def test_newest_records_that_cannot_be_read_in_such_a_folder_are_told(run: Run, kept: Path) -> None:
    engine = engine_of(sqlite_url(kept))
    # While it is open, its newest records are in the log beside it.
    with TemporaryDirectory() as name, engine.connect():
        Store(engine).write("guard-1", [Frame(1, refusal(user="new").encode())])
        folder = Path(name)
        for suffix in ("", "-wal"):
            shutil.copy(kept / f"{SQLITE_FILE}{suffix}", folder)
            (folder / f"{SQLITE_FILE}{suffix}").chmod(0o644)
        folder.chmod(0o555)
        with _as_nobody():
            ran = run("audit", "list", "--audit-dir", folder)
        folder.chmod(0o755)
        assert ran.status == 2
        assert "copy both into a folder that can be written" in ran.err
        assert len(run("audit", "list", "--audit-dir", folder, "-o", "json").json["items"]) == 4
    engine.dispose()


@pytest.mark.parametrize("limit", [1_000, 1_001, 5_000])
def test_a_list_is_as_long_as_is_asked_for(run: Run, kept: Path, limit: int) -> None:
    engine = engine_of(sqlite_url(kept))
    records = [refusal(user=f"user {n}") for n in range(1_200)]
    frames = [Frame(n, record.encode()) for n, record in enumerate(records, 1)]
    Store(engine).write("guard-1", frames)
    engine.dispose()
    words = ("audit", "list", "--audit-dir", kept, "-o", "jsonl")
    assert len(run(*words, "--limit", limit).out.splitlines()) == min(limit, 1_203)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_calendar_holds_is_told(run: Run, kept: Path, capsys, time: str) -> None:
    for words in (("list", "--since", time), ("stats", "--until", time)):
        with pytest.raises(SystemExit, match="2"):
            run("audit", *words, "--audit-dir", kept)
        assert "is no time in RFC 3339" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a;=1+1", "a;'=1+1"),
        ('a; "=1+1', "a;' \"=1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a;\uff20SUM(1)", "a;'\uff20SUM(1)"),
        ("- 1;-1;a-1", "'- 1;'-1;a-1"),
        ("a=1+1; b-c", "a=1+1; b-c"),
    ],
)
def test_formulas_are_none_whatever_separates_cells(
    run: Run, kept: Path, text: str, cell: str
) -> None:
    engine = engine_of(sqlite_url(kept))
    Store(engine).write("guard-1", [Frame(1, refusal(user=text, time=NOON + DAY).encode())])
    engine.dispose()
    printed = run("audit", "list", "--limit", "1", "-o", "csv", "--audit-dir", kept).out
    assert next(csv.DictReader(io.StringIO(printed)))["user"] == cell


def test_exports_are_exact(run: Run, kept: Path) -> None:
    lines = run("audit", "export", "--audit-dir", kept).out.splitlines()
    items = [json.loads(line) for line in lines]
    assert [item["outcome"] for item in items] == ["overridden", "changed", "refused"]
    assert items[0]["overrideReason"] == HOSTILE
    assert items[1]["user"] == HOSTILE
    assert all(line.isascii() for line in lines)
    schema = output_schema("audit-list")
    for item in items:
        jsonschema.validate({"items": [item], "next": None}, schema)


def _harmless(printed: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in printed)


def test_hostile_values_do_nothing_to_a_terminal(run: Run, kept: Path) -> None:
    def out(*words: str) -> Ran:
        return run("audit", *words, "--audit-dir", kept)

    decision = json.loads(run("audit", "export", "--audit-dir", kept).out.splitlines()[1])
    for words in (
        ("list",),
        ("list", "-o", "json"),
        ("list", "-o", "yaml"),
        ("list", "-o", "csv"),
        ("list", "-o", "jsonl"),
        ("show", decision["decision"]),
        ("export",),
        ("export", "--csv"),
        ("stats",),
    ):
        assert _harmless(out(*words).out), words
    exact = json.loads(out("list", "-o", "json").out)["items"][1]
    assert exact["user"] == yaml.safe_load(out("list", "-o", "yaml").out)["items"][1]["user"]
    assert exact["user"] == HOSTILE
    assert "\\x1b[2J" in out("show", decision["decision"]).out
    assert "\\u202e" in out("show", decision["decision"]).out


def test_no_cell_of_csv_is_a_formula(run: Run, kept: Path) -> None:
    printed = run("audit", "export", "--csv", "--audit-dir", kept).out
    table = list(csv.DictReader(io.StringIO(printed)))
    assert len(table) == 3
    cells = [cell for row in table for cell in row.values()]
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in cells)
    assert table[1]["user"].startswith("'=cmd|' /C calc'!A0\\x1b[2J")


def test_sums_name_the_label_that_blocks_most(run: Run, kept: Path) -> None:
    sums = run("audit", "stats", "--audit-dir", kept, "-o", "json").json
    assert sums["labels"] == [
        {
            "label": "cpu-feature.node.kubevirt.io/avx512f",
            "decisions": 3,
            "records": 2,
            "outcomes": {"overridden": 1, "refused": 2},
        }
    ]
    assert "avx512f" in run("audit", "stats", "--audit-dir", kept).out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("list",), "Name its folder with --audit-dir"),
        (("list", "--audit-dir", "/nowhere"), "there is no audit yet"),
        (("list", "--audit-database", "postgresql://u:hunter2@h/d"), "MIGRATION_GUARD_AUDIT"),
        (("list", "--audit-database", "postgresql://u@h/d?password=hunter2"), "everybody can see"),
        (("list", "--audit-database", "postgresql://u@h/d?sslpassword=hunter2"), "everybody can"),
        (("list", "--audit-database", "mysql://h/d"), 'names "mysql"'),
        (("list", "--audit-dir", ".", "--after", "x"), "no audit yet"),
    ],
)
def test_what_cannot_be_read_is_told(run: Run, words: tuple[str, ...], says: str) -> None:
    ran = run("audit", *words)
    assert ran.status == 2
    assert says in ran.err
    assert "hunter2" not in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--audit-database", "postgresql://h/d"), "a database for the audit is named, but no"),
        (("--audit-dir", "a", "--audit-database", "postgresql://u:hunter2@h/d"), "everybody can"),
        (("--audit-dir", "a", "--audit-database", "sqlite://"), "sqlite:///FILE is wanted"),
        (("--audit-dir", "a", "--audit-database-file", "gone"), "gone: cannot read the URL"),
    ],
)
def test_a_server_is_not_started_with_an_audit_that_cannot_be(
    run: Run, words: tuple[str, ...], says: str
) -> None:
    ran = run("serve", "--inventory", CLUSTER, *words)
    assert ran.status == 2
    assert says in ran.err
    assert "hunter2" not in ran.err


def test_a_place_that_is_none_and_a_form_without_end_are_told(run: Run, kept: Path) -> None:
    ran = run("audit", "list", "--audit-dir", kept, "--after", "x")
    assert (ran.status, "is no place in the list" in ran.err) == (2, True)
    ran = run("audit", "list", "--audit-dir", kept, "-f", "-o", "json")
    assert (ran.status, "use -o jsonl" in ran.err) == (2, True)


def test_a_list_that_is_followed_prints_what_comes(kept: Path) -> None:
    words = ["audit", "list", "--audit-dir", str(kept), "-f", "-o", "jsonl", "--limit", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "webhook.cli", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["outcome"] == "overridden"
        engine = engine_of(sqlite_url(kept))
        Store(engine).write("guard-1", [Frame(1, refusal(user="new").encode())])
        engine.dispose()
        assert json.loads(process.stdout.readline())["user"] == "new"
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
