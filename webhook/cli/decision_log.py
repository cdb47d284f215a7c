"""Decisions as lines of JSON on stderr."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from webhook.audit.importance import IMPORTANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from webhook.audit.loss import Loss
    from webhook.review.admission import Review
    from webhook.review.decision import Decision

LONGEST_VALUE = 253
LONGEST_TEXT = 1000
MOST_WARNINGS = 16


_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_COLOURS = {"refused": "\x1b[31m", "changed": "\x1b[32m", "audited": "\x1b[2m"}


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
        stream: TextIO | None = None,
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
        self._write(self._line(review, decision))

    def lost(self, loss: Loss) -> None:
        """Write a record that the audit could not keep, whole: this line is all that is left."""
        self._write(
            {
                "time": self._now(),
                "level": "error",
                "message": "decision not kept",
                "reason": loss.reason.value,
                "detail": _capped(loss.detail, LONGEST_TEXT),
                "record": _record(loss.payload),
            }
        )

    def _write(self, line: Mapping[str, object]) -> None:
        # One call, from whatever thread: lines stay whole.
        text = (self._readable(line) if self._as_text else json.dumps(line)) + "\n"
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # A log that cannot be written must not turn a review into a failure.
            return

    def _readable(self, line: Mapping[str, object]) -> str:
        if line["message"] != "decision":
            return _escaped(f"{line['time']} {json.dumps(line)}")
        outcome = str(line["outcome"])
        shown = f"{outcome:10}"
        if self._coloured:
            shown = f"{_COLOURS.get(outcome, _BOLD)}{shown}{_PLAIN}"
        obj = f"{line['operation']} {line['kind']} {line['namespace']}/{line['name']}"
        said = [str(line["text"])] if line["text"] else []
        warnings = line["warnings"]
        if not said and isinstance(warnings, list):
            said = [str(warning) for warning in warnings]
        rules = line["rules"]
        if not said and isinstance(rules, list):
            said = [", ".join(rule["rule"] for rule in rules if rule["outcome"] == outcome)]
        words = " ".join((f"{obj} by {line['user']}", *(f"| {text}" for text in said)))
        return f"{line['time']} {shown} {_escaped(words)} (decision {line['decision']})"

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _line(self, review: Review, decision: Decision) -> dict[str, object]:
        line: dict[str, object] = {
            "time": self._now(),
            "level": "info",
            "message": "decision",
            "decision": decision.decision_id,
            "outcome": decision.outcome.value,
            "allowed": decision.allowed,
            "operation": _capped(review.operation),
            "kind": _capped(review.kind),
            "namespace": _capped(review.namespace),
            "name": _capped(review.name),
            "user": _capped(review.username),
            "origin": decision.origin,
            "via": decision.via,
            "dryRun": review.dry_run,
            "rules": [
                {"rule": r.rule.value, "mode": r.mode.value, "outcome": r.outcome.value}
                for r in decision.rules
            ],
            "text": _capped(decision.message, LONGEST_TEXT),
            "warnings": [_capped(w, LONGEST_TEXT) for w in decision.warnings[:MOST_WARNINGS]],
        }
        if decision.overridden_by:
            line["overriddenBy"] = _capped(decision.overridden_by)
        return line


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
