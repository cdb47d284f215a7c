"""What the audit commands say of migrations that overran their deadline."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.audit.recorded import NOON, abort, taken_back
from tests.cli.conftest import Run
from webhook.audit.database import engine_of, migrate, sqlite_url
from webhook.audit.record import Record
from webhook.audit.segments import Frame
from webhook.audit.store import Store


@pytest.fixture
def overruns(tmp_path: Path) -> tuple[Path, Record]:
    """A folder with an audit of two migrations that were to be ended, and one was not."""
    engine = engine_of(sqlite_url(tmp_path))
    migrate(engine)
    ended, spared = abort(), abort(time=NOON + 60_000_000, vm="shop/db", name="db-1")
    records = [ended, spared, taken_back(spared, time=NOON + 61_000_000)]
    Store(engine).write("guard-0", [Frame(n, r.encode()) for n, r in enumerate(records, 1)])
    engine.dispose()
    return tmp_path, spared


def test_an_end_that_was_taken_back_says_so_wherever_it_is_found(
    run: Run, overruns: tuple[Path, Record]
) -> None:
    folder, spared = overruns
    listed = run("audit", "list", "--audit-dir", folder, "--outcome", "not-aborted", "-o", "json")
    assert [r["decision"] for r in json.loads(listed.out)["items"]] == [spared.decision]
    shown = run("audit", "show", spared.decision, "--audit-dir", folder)
    assert shown.out.index("aborted: DELETE Virtual") < shown.out.index("not-aborted: Virtual")
    to_b = run("audit", "list", "--audit-dir", folder, "--node", "node-b", "-o", "json")
    assert len(json.loads(to_b.out)["items"]) == 3
    table = run("audit", "list", "--audit-dir", folder)
    assert table.out.count("not-aborted") == 1
    written = run("audit", "list", "--audit-dir", folder, "-o", "csv").out
    rows = list(csv.DictReader(io.StringIO(written)))
    assert [(r["outcome"], r["operation"], r["vm"]) for r in rows] == [
        ("not-aborted", "", "shop/db"),
        ("aborted", "DELETE", "shop/db"),
        ("aborted", "DELETE", "shop/web"),
    ]
    stats = json.loads(run("audit", "stats", "--audit-dir", folder, "-o", "json").out)
    (rule,) = stats["rules"]
    assert rule["outcomes"] == {"aborted": 2, "not-aborted": 1}
