"""The log of decisions: one line each, nothing of the object, nothing forged."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from webhook.audit.importance import IMPORTANCE
from webhook.audit.loss import Loss, Reason
from webhook.cli.decision_log import DecisionLog, LogForm
from webhook.policy.rules import Mode, Rule
from webhook.review.admission import Review, review_of_object
from webhook.review.decision import Decision, Outcome, RuleResult
from webhook.serving.log_writer import LineKind, LogWriter

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def asked(username: str = "anna") -> Review:
    obj = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"volumes": [{"cloudInitNoCloud": {"userData": "password"}}]},
    }
    return review_of_object(obj, username=username)


def decided(outcome: Outcome, message: str = "") -> Decision:
    rule = RuleResult(Rule.UNKNOWN_CPU_MODEL, Mode.WARN, outcome)
    allowed = outcome is not Outcome.REFUSED
    return Decision(allowed, outcome, "id", message=message, rules=(rule,))


def logged(review: Review, decision: Decision) -> str:
    stream = io.StringIO()
    DecisionLog(lambda: NOON, stream).write(review, decision)
    return stream.getvalue()


def test_a_line_says_who_asked_for_what_and_what_came_of_it() -> None:
    line = json.loads(logged(asked(), decided(Outcome.REFUSED, "no node")))
    assert line["time"] == "2026-11-26T12:00:00.000Z"
    assert (line["user"], line["namespace"], line["name"]) == ("anna", "shop", "web")
    assert (line["outcome"], line["allowed"], line["text"]) == ("refused", False, "no node")
    assert line["rules"] == [{"rule": "unknown-cpu-model", "mode": "warn", "outcome": "refused"}]


def test_the_object_is_never_written() -> None:
    assert "password" not in logged(asked(), decided(Outcome.CHANGED))


def test_a_forged_line_break_does_not_make_a_second_line() -> None:
    text = logged(asked('anna\n{"level": "info"}\x1b[2J'), decided(Outcome.WARNED))
    assert text.count("\n") == 1
    assert text.isascii()
    assert "\x1b" not in text


@pytest.mark.parametrize("hostile", ['"\\\b\f\n\r\t\x00\x1f\x7f', "é漢\u2028\u202e😀", "\ud800"])
def test_a_line_is_as_the_standard_library_writes_it(hostile: str) -> None:
    decision = replace(decided(Outcome.WARNED, hostile), warnings=("one", hostile))
    text = logged(asked(hostile), replace(decision, overridden_by=hostile))
    assert text == json.dumps(json.loads(text)) + "\n"
    line = json.loads(text)
    assert line["user"] == line["text"] == line["warnings"][1] == line["overriddenBy"] == hostile


def test_long_values_are_cut() -> None:
    text = logged(asked("a" * 10_000), decided(Outcome.AUDITED, "b" * 10_000))
    assert len(text) < 3_000


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_decisions_worth_keeping_are_written(outcome: Outcome) -> None:
    assert bool(logged(asked(), decided(outcome))) is (outcome in IMPORTANCE)


def test_the_change_of_what_will_be_refused_is_not_written() -> None:
    changed = replace(decided(Outcome.CHANGED), refusal_follows=True)
    assert logged(asked(), changed) == ""


def test_a_record_that_is_lost_is_written_whole_and_in_one_line() -> None:
    stream = io.StringIO()
    log = DecisionLog(lambda: NOON, stream)
    payload = json.dumps({"user": "anna\n\x1b[2J", "message": "no node"}).encode()
    log.lost(Loss(Reason.DISK_FULL, payload, "No space left on device"))
    log.lost(Loss(Reason.DAMAGED, b"", "file: 3 bytes"))
    first, second = stream.getvalue().splitlines()
    assert json.loads(first) == {
        "time": "2026-11-26T12:00:00.000Z",
        "level": "error",
        "message": "decision not kept",
        "reason": "disk-full",
        "detail": "No space left on device",
        "record": {"user": "anna\n\x1b[2J", "message": "no node"},
    }
    assert json.loads(second)["record"] is None
    assert "\x1b" not in first


def test_a_log_that_cannot_be_written_does_not_fail_the_review() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    DecisionLog(lambda: NOON, Full()).write(asked(), decided(Outcome.REFUSED))


def test_what_the_audit_could_not_keep_has_room_where_decisions_have_none(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        stream = LogWriter(file.fileno())
        missing: list[LineKind] = []
        stream.count_lost = missing.append
        log = DecisionLog(lambda: NOON, stream)
        while not missing:
            log.write(asked(), decided(Outcome.REFUSED))
        log.lost(Loss(Reason.DISK_FULL, b'{"user": "anna"}'))
        stream.start()
        assert stream.stop(10)

    *_, record, told = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert json.loads(record)["record"] == {"user": "anna"}
    assert told.startswith("migration-guard: lost lines of the log: 1; ")


def on_a_terminal(review: Review, decision: Decision) -> str:
    """Write a decision to a real terminal; return what came out of it."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        DecisionLog(lambda: NOON, stream).write(review, decision)
        text = os.read(ours, 65536).decode()
    os.close(ours)
    return text


def test_on_a_terminal_a_decision_is_a_line_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_a_terminal(asked(), decided(Outcome.REFUSED, "no node")) == (
        "2026-11-26T12:00:00.000Z refused    CREATE VirtualMachineInstance shop/web by anna "
        "| no node (decision id)\r\n"
    )


def test_a_terminal_shows_colour_unless_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31mrefused" in on_a_terminal(asked(), decided(Outcome.REFUSED))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_a_terminal(asked(), decided(Outcome.REFUSED))


def test_text_from_outside_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    hostile = "anna\x1b]0;title\x07\u202e\u2028\x85\n2026 forged"
    text = on_a_terminal(asked(hostile), decided(Outcome.WARNED, hostile))
    assert text.endswith("\r\n")
    assert text.removesuffix("\r\n").isprintable()


def test_a_file_gets_text_only_where_it_is_asked_for() -> None:
    stream = io.StringIO()
    DecisionLog(lambda: NOON, stream, LogForm.TEXT).write(asked(), decided(Outcome.WARNED))
    assert stream.getvalue().startswith("2026-11-26T12:00:00.000Z warned ")
    assert "\x1b" not in stream.getvalue()


def test_a_change_names_the_rules_that_made_it() -> None:
    stream = io.StringIO()
    DecisionLog(lambda: NOON, stream, LogForm.TEXT).write(asked(), decided(Outcome.CHANGED))
    assert "by anna | unknown-cpu-model (decision id)" in stream.getvalue()
