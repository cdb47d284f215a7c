"""serve: the real server, started as an administrator starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import CLUSTER, Run
from tests.cli.guard import SECONDS, Guard

AUDIT = "maxMode: audit\n"


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    running = Guard(tmp_path)
    try:
        yield running
    finally:
        running.stop()


def test_a_refusal_is_answered_logged_and_counted_under_one_id(guard: Guard) -> None:
    decision = guard.refused("anna")
    guard.until(lambda: decision in guard.read_log())
    line = next(text for text in guard.read_log().splitlines() if decision in text)
    kept = json.loads(line)
    assert (kept["outcome"], kept["user"], kept["namespace"]) == ("refused", "anna", "plant")
    counted = 'migration_guard_decisions_total{mode="enforce",outcome="refused"'
    assert counted in guard.ops("/metrics")


def test_a_changed_configuration_is_taken_up_and_a_broken_one_keeps_the_old(guard: Guard) -> None:
    assert not guard.allows()
    guard.config.write_text(AUDIT, encoding="utf-8")
    guard.until(guard.allows)
    guard.config.write_text("maxmode: enforce\n", encoding="utf-8")
    guard.until(lambda: "the old one holds" in guard.ops("/readyz?verbose"))
    assert guard.allows()
    assert "did you mean `maxMode`" in guard.ops("/readyz?verbose")
    assert 'migration_guard_file_taken_up{file="configuration"} 0.0' in guard.ops("/metrics")
    guard.until(lambda: "the old one holds" in guard.read_log())
    guard.config.write_text("", encoding="utf-8")
    guard.until(lambda: not guard.allows())
    assert 'migration_guard_file_taken_up{file="configuration"} 1.0' in guard.ops("/metrics")
    guard.until(lambda: mended(guard, "configuration"))


def test_a_changed_inventory_is_taken_up_and_a_broken_one_keeps_the_old(guard: Guard) -> None:
    node = guard.inventory / "nodes" / "icelake-1.yaml"
    twin = node.with_name("icelake-2.yaml")
    whole = node.read_text(encoding="utf-8").replace("icelake-1", "icelake-2")
    twin.write_text(whole, encoding="utf-8")
    guard.until(guard.allows)
    twin.write_text("kind: [", encoding="utf-8")
    guard.until(lambda: "the old one holds" in guard.ops("/readyz?verbose"))
    assert guard.allows()
    twin.unlink()
    guard.until(lambda: not guard.allows())
    guard.until(lambda: mended(guard, "facts"))


def mended(guard: Guard, part: str) -> bool:
    """Tell whether the log says that a file was broken, and then that it is no more."""
    _, broken, since = guard.read_log().partition(f"{part}: the old one holds")
    return bool(broken) and f"{part}: the new one is in use" in since


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--config", "maxmode: x", "did you mean"), ("--inventory", None, "no such file")],
)
def test_what_cannot_start_says_so_in_a_line_and_exits_with_2(
    tmp_path: Path, option: str, value: str | None, says: str
) -> None:
    path = tmp_path / "given"
    if value is not None:
        path.write_text(value, encoding="utf-8")
    words = ["serve", "--inventory", str(CLUSTER), "--port", "0", "--ops-port", "0"]
    ran = subprocess.run(
        [sys.executable, "-m", "webhook.cli", *words, option, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ran.returncode == 2
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--most-connections", "0"),
        ("--most-connections-per-peer", "many"),
        ("--stall-seconds", "nan"),
        ("--stall-seconds", "-1"),
    ],
)
def test_a_limit_that_is_none_is_named(
    run: Run, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("serve", "--inventory", CLUSTER, f"{option}={value}")

    assert ended.value.code == 2
    assert f"argument {option}: {value!r} is not a" in capsys.readouterr().err
