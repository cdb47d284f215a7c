"""Decisions as lines of JSON on stderr."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

import orjson

from webhook.audit.importance import IMPORTANCE
from webhook.serving.log_writer import LineKind, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from webhook.audit.loss import Loss
    from webhook.review.admission import Review
    from webhook.review.decision import Decision

LONGEST_VALUE = 253
LONGEST_TEXT = 1000
MOST_WARNINGS = 16


_BOLD, _RED, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[0m"
_COLOURS = {"refused": _RED, "aborted": _RED, "changed": "\x1b[32m", "audited": "\x1b[2m"}


class LogForm(StrEnum):
    """The forms of the log; ``auto`` is text on a terminal, JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class DecisionLog:
    """Writes one line for each decision that is kept: who asked for what, and what came of it.

    The object itself is never written; it may hold secrets, such as cloud-init data. Values are
    capped, and JSON escapes what could break a line.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        stream: TextIO | LogWriter | None = None,
        form: LogForm = LogForm.AUTO,
    ) -> None:
        """Write to a stream; without one to stderr."""
        self._clock = clock
        self._stream = stream if stream is not None else sys.stderr
        terminal = self._stream.isatty()
        self._as_text = form is LogForm.TEXT or (form is LogForm.AUTO and terminal)
        # https://no-color.org
        self._coloured = terminal and not os.environ.get("NO_COLOR")

    def write(self, review: Review, decision: Decision) -> None:
        """Write a decision, if it is one that is kept, or would be were it no dry run."""
        if decision.outcome not in IMPORTANCE or decision.refusal_follows:
            return
        self._write((self._readable if self._as_text else _in_json)(self._now(), review, decision))

    def lost(self, loss: Loss) -> None:
        """Write a record that the audit could not keep, whole: this line is all that is left."""
        self._write_record("decision not kept", loss.reason.value, loss.detail, loss.payload)

    def late(self, payload: bytes) -> None:
        """Write a refusal that is told before the audit has it on disk, whole."""
        detail = "it is told although the disk has not taken it yet, and may never take it"
        self._write_record("decision not on disk yet", "late", detail, payload)

    def _write_record(self, message: str, reason: str, detail: str, payload: bytes) -> None:
        time = self._now()
        line = json.dumps(
            {
                "time": time,
                "level": "error",
                "message": message,
                "reason": reason,
                "detail": _capped(detail, LONGEST_TEXT),
                "record": _record(payload),
            }
        )
        line = _escaped(f"{time} {line}") if self._as_text else line
        if isinstance(self._stream, LogWriter):
            self._stream.write_line(line + "\n", LineKind.RECORD)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        # One call, from whatever thread: lines stay whole.
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except OSError:
            # A log that cannot be written must not turn a review into a failure.
            return

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _readable(self, time: str, review: Review, decision: Decision) -> str:
        outcome = decision.outcome
        shown = f"{outcome:10}"
        if self._coloured:
            shown = f"{_COLOURS.get(outcome, _BOLD)}{shown}{_PLAIN}"
        name = f"{_capped(review.namespace)}/{_capped(review.name)}"
        obj = f"{_capped(review.operation)} {_capped(review.kind)} {name}"
        said = [decision.message] if decision.message else decision.warnings[:MOST_WARNINGS]
        if not said:
            said = [", ".join(rule.rule for rule in decision.rules if rule.outcome is outcome)]
        told = (_capped(text, LONGEST_TEXT) for text in said)
        asked = f"{obj} by {_capped(review.username)}" if review.operation else obj.strip()
        words = " ".join((asked, *(f"| {text}" for text in told)))
        return f"{time} {shown} {_escaped(words)} (decision {decision.decision_id})"


def _in_json(time: str, review: Review, decision: Decision) -> str:
    """Return a decision in JSON, as ``json.dumps`` would write it in several times the time."""
    rules = ", ".join(
        f'{{"rule": "{r.rule}", "mode": "{r.mode.value}", "outcome": "{r.outcome}"}}'
        for r in decision.rules
    )
    warnings = ", ".join(_quoted(w, LONGEST_TEXT) for w in decision.warnings[:MOST_WARNINGS])
    author = decision.overridden_by
    return (
        f'{{"time": "{time}", "level": "info", "message": "decision", '
        f'"decision": {_quoted(decision.decision_id)}, "outcome": "{decision.outcome}", '
        f'"allowed": {_flag(decision.allowed)}, "operation": {_quoted(review.operation)}, '
        f'"kind": {_quoted(review.kind)}, "namespace": {_quoted(review.namespace)}, '
        f'"name": {_quoted(review.name)}, "user": {_quoted(review.username)}, '
        f'"origin": "{decision.origin}", "via": "{decision.via}", '
        f'"dryRun": {_flag(review.dry_run)}, "rules": [{rules}], '
        f'"text": {_quoted(decision.message, LONGEST_TEXT)}, "warnings": [{warnings}]'
        + (f', "overriddenBy": {_quoted(author)}}}' if author else "}")
    )


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _quoted(text: str, longest: int = LONGEST_VALUE) -> str:
    """Return a value in JSON, capped; all that is not ASCII, or steers a terminal, is escaped."""
    text = _capped(text, longest)
    # orjson writes letters of other alphabets, and the one control character DEL, as they are.
    if text.isascii() and "\x7f" not in text:
        return orjson.dumps(text).decode()
    return json.dumps(text)


def _capped(text: str, longest: int = LONGEST_VALUE) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _record(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except ValueError:
        return None


def _escaped(text: str) -> str:
    """Return one line that cannot steer a terminal: no control or bidi character is left."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
