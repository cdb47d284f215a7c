"""The audit over HTTP, read only, on the operations port."""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request

from webhook.audit.answers import decision_json, escaped_json, list_json, stats_json
from webhook.audit.errors import AuditError
from webhook.audit.queries import LONGEST_SOUGHT, MOST_ON_A_PAGE, Reader
from webhook.audit.record import microseconds, read_moment
from webhook.audit.results import Cursor, Filter
from webhook.policy.rules import Rule
from webhook.review.decision import Outcome
from webhook.serving.audit_access import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL

PAGE = 50
TOP = 20
MOST_AT_ONCE = 2
"""Queries at a time, and questions who may ask them: the threads left over answer probes and
metrics."""

_TEXTS = ("rule", "namespace", "vm", "user", "node", "text")
_LIST = frozenset((*_TEXTS, "since", "until", "outcome", "limit", "after"))
_STATS = frozenset(("since", "until", "top"))


class AuditApi:
    """Answers ``/audit/records``, ``/audit/decisions/ID`` and ``/audit/stats``."""

    def __init__(self, url: URL, folder: Path, require_access: Callable[[], None]) -> None:
        """Take where the audit is; nothing is read yet.

        Args:
            url: The database.
            folder: The spool.
            require_access: Raises ``Refused`` where the caller at hand may not read.
        """
        self._require_access = require_access
        self._url = url
        self._folder = folder
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._turns = threading.BoundedSemaphore(MOST_AT_ONCE)

    def blueprint(self) -> Blueprint:
        """Return the pages, to be put into the operations port's application."""
        pages = Blueprint("audit", __name__, url_prefix="/audit")

        @pages.get("/records")
        def records() -> Response:
            return self._answered(_LIST, lambda opened: _records(opened()))

        @pages.get("/decisions/<decision>")
        def decisions(decision: str) -> Response:
            return self._answered(
                frozenset(), lambda opened: decision_json(opened, self._folder, decision)
            )

        @pages.get("/stats")
        def stats() -> Response:
            return self._answered(
                _STATS,
                lambda opened: stats_json(
                    opened().stats(_time("since"), _time("until"), _number("top", TOP))
                ),
            )

        return pages

    def _answered(
        self, known: frozenset[str], ask: Callable[[Callable[[], Reader]], Mapping[str, Any]]
    ) -> Response:
        try:
            if not self._turns.acquire(blocking=False):
                raise Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE, "other queries are running; try again"
                )
            try:
                self._require_access()
                _require_known(known)
                value = ask(self._opened)
            finally:
                self._turns.release()
        except Refused as refusal:
            answer = _text(str(refusal), refusal.status)
            if refusal.status == HTTPStatus.UNAUTHORIZED:
                answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        except AuditError as error:
            self.close()
            return _text(str(error), HTTPStatus.SERVICE_UNAVAILABLE)
        answer = Response(escaped_json(value), content_type="application/json")
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    def _opened(self) -> Reader:
        with self._lock:
            if self._reader is None:
                self._reader = Reader(self._url)
            return self._reader

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None


def _records(reader: Reader) -> dict[str, Any]:
    given = {name: request.args.get(name, "") for name in _TEXTS}
    if given["rule"] and given["rule"] not in set(Rule):
        raise Refused(HTTPStatus.BAD_REQUEST, "rule: there is none of that name")
    if len(given["text"]) > LONGEST_SOUGHT:
        raise Refused(HTTPStatus.BAD_REQUEST, f"text: at most {LONGEST_SOUGHT} characters")
    outcomes = tuple(request.args.getlist("outcome"))
    if not set(outcomes) <= set(Outcome):
        raise Refused(HTTPStatus.BAD_REQUEST, "outcome: there is none of that name")
    wanted = Filter(since=_time("since"), until=_time("until"), outcomes=outcomes, **given)
    after = request.args.get("after")
    try:
        place = Cursor.read(after) if after is not None else None
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "after: this is no place in the list") from None
    return list_json(reader.page(wanted, _number("limit", PAGE), place))


def _require_known(known: frozenset[str]) -> None:
    unknown = sorted(set(request.args) - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"unknown parameter {unknown[0][:40]!a}; known: {allowed}"
        )


def _time(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        return microseconds(read_moment(text))
    except ValueError:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"{name}: a time in RFC 3339 is wanted: 2026-03-01T12:00:00Z"
        ) from None


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 0 < number <= MOST_ON_A_PAGE:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"{name}: a number from 1 to {MOST_ON_A_PAGE} is wanted"
        )
    return number


def _text(text: str, status: HTTPStatus) -> Response:
    return Response(text + "\n", status=int(status), content_type="text/plain; charset=utf-8")
