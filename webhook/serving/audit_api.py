"""The audit over HTTP, read only, on the operations port.

It answers clients on the same host only: there is nobody else whom it could believe. What comes
through ``kubectl port-forward`` is such a client, and Kubernetes has asked who that is.
"""

from __future__ import annotations

import ipaddress
import threading
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from flask import Blueprint, Response, request

from webhook.audit.answers import decision_json, list_json, stats_json
from webhook.audit.errors import AuditError
from webhook.audit.queries import LONGEST_SOUGHT, MOST_ON_A_PAGE, Cursor, Filter, Reader
from webhook.audit.record import microseconds
from webhook.policy.rules import Rule
from webhook.review.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL

PAGE = 50
TOP = 20
MOST_AT_ONCE = 2
"""Queries at a time: the threads left over answer probes and metrics."""

_TEXTS = ("rule", "namespace", "vm", "user", "node", "text")
_LIST = frozenset((*_TEXTS, "since", "until", "outcome", "limit", "after"))
_STATS = frozenset(("since", "until", "top"))
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")


class _Refused(Exception):
    """A request that is not answered: its status, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class AuditApi:
    """Answers ``/audit/records``, ``/audit/decisions/ID`` and ``/audit/stats``."""

    def __init__(self, url: URL, folder: Path) -> None:
        """Take where the audit is; nothing is read yet.

        Args:
            url: The database.
            folder: The spool.
        """
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
            return self._answered(_LIST, lambda reader: _records(reader))

        @pages.get("/decisions/<decision>")
        def decisions(decision: str) -> Response:
            return self._answered(
                frozenset(), lambda reader: decision_json(reader, self._folder, decision)
            )

        @pages.get("/stats")
        def stats() -> Response:
            return self._answered(
                _STATS,
                lambda reader: stats_json(
                    reader.stats(_time("since"), _time("until"), _number("top", TOP))
                ),
            )

        return pages

    def _answered(
        self, known: frozenset[str], ask: Callable[[Reader], Mapping[str, Any]]
    ) -> Response:
        try:
            _require_local()
            _require_known(known)
            if not self._turns.acquire(blocking=False):
                raise _Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE, "other queries are running; try again"
                )
            try:
                value = ask(self._opened())
            finally:
                self._turns.release()
        except _Refused as refusal:
            return _text(str(refusal), refusal.status)
        except AuditError as error:
            self.close()
            return _text(str(error), HTTPStatus.SERVICE_UNAVAILABLE)
        answer = Response(orjson.dumps(value), content_type="application/json")
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
        raise _Refused(HTTPStatus.BAD_REQUEST, "rule: there is none of that name")
    if len(given["text"]) > LONGEST_SOUGHT:
        raise _Refused(HTTPStatus.BAD_REQUEST, f"text: at most {LONGEST_SOUGHT} characters")
    outcomes = tuple(request.args.getlist("outcome"))
    if not set(outcomes) <= set(Outcome):
        raise _Refused(HTTPStatus.BAD_REQUEST, "outcome: there is none of that name")
    wanted = Filter(since=_time("since"), until=_time("until"), outcomes=outcomes, **given)
    after = request.args.get("after")
    try:
        place = Cursor.read(after) if after is not None else None
    except ValueError:
        raise _Refused(HTTPStatus.BAD_REQUEST, "after: this is no place in the list") from None
    return list_json(reader.page(wanted, _number("limit", PAGE), place))


def _require_local() -> None:
    """Refuse whoever is not on this host, also where a proxy or a browser speaks for him."""
    host = request.host.rpartition(":")[0] or request.host
    told = any(name in request.headers for name in _FORWARDED)
    if told or not _is_loopback(request.remote_addr or "") or not _is_loopback(host):
        raise _Refused(
            HTTPStatus.FORBIDDEN, "the audit is told on this host only; use kubectl port-forward"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _require_known(known: frozenset[str]) -> None:
    unknown = sorted(set(request.args) - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise _Refused(
            HTTPStatus.BAD_REQUEST, f"unknown parameter {unknown[0][:40]!a}; known: {allowed}"
        )


def _time(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _Refused(
            HTTPStatus.BAD_REQUEST, f"{name}: a time in RFC 3339 is wanted: 2026-03-01T12:00:00Z"
        )
    return microseconds(moment)


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 0 < number <= MOST_ON_A_PAGE:
        raise _Refused(
            HTTPStatus.BAD_REQUEST, f"{name}: a number from 1 to {MOST_ON_A_PAGE} is wanted"
        )
    return number


def _text(text: str, status: HTTPStatus) -> Response:
    return Response(text + "\n", status=int(status), content_type="text/plain; charset=utf-8")
