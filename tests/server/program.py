"""The server with an answer function that does as the body says; run by the tests.

Usage: program.py '{"port": 0, "certs_dir": "…", "build": "…", …}'
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from flask import Blueprint

from webhook.review.answer import Answer, Keeping
from webhook.review.errors import NotAReview
from webhook.serving.errors import StartError
from webhook.serving.metrics import Metrics
from webhook.serving.operations_server import STALL_SECONDS
from webhook.serving.readiness import Readiness
from webhook.serving.server import Parts, ServerSettings, serve


async def keep(pipe: Path) -> None:
    """End when the test has opened its end of a named pipe, and closed it."""
    await asyncio.to_thread(pipe.read_bytes)


async def fail_to_keep() -> None:
    raise OSError("No space left on device")


def answer(path: str, body: bytes, late: str) -> Answer:
    said = json.dumps({"path": path, "length": len(body), "late": late}).encode()
    if body.startswith(b"keep "):
        return Answer(said, Keeping(keep(Path(body.removeprefix(b"keep ").decode()))))
    if body == b"cannot keep":
        return Answer(said, Keeping(fail_to_keep()))
    if body.startswith(b"large "):
        return Answer(b" " * int(body.removeprefix(b"large ")))
    if body == b"not a review":
        raise NotAReview("the body is not JSON:\nline 1, column 1")
    if body == b"fail":
        raise RuntimeError('broken "here"\nand there')
    if body.startswith(b"wait "):
        # A named pipe: open() returns when the test opens its end, read() when it closes it.
        Path(body.removeprefix(b"wait ").decode()).read_bytes()
    return Answer(said)


def pages() -> Blueprint:
    """Return a page that is larger than what the system takes, and one that takes its time."""
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/large")
    def large() -> bytes:
        return bytes(6 * 1024 * 1024)

    @blueprint.get("/slow")
    def slow() -> str:
        time.sleep(STALL_SECONDS + 2)
        return "done"

    return blueprint


def build(how: str, ready: bool) -> Parts:
    if how == "start-error":
        raise StartError("inventory: no such folder; give another with --inventory")
    if how == "crash":
        raise KeyError("nodes")
    metrics = Metrics()
    metrics.count_decision("incompatible-target", "enforce", "refused")
    readiness = Readiness(lambda: datetime.now(UTC))
    readiness.report("inventory", ready, "3 nodes" if ready else "not read yet")
    return Parts(answer, readiness, metrics, pages=(pages(),))


def main(arguments: str) -> int:
    given = json.loads(arguments)
    how, ready = given.pop("build", ""), given.pop("ready", True)
    for name in ("tls_cert", "tls_key", "tls_ca", "client_ca", "certs_dir", "ports_file"):
        given[name] = Path(given[name]) if given.get(name) else None
    given["client_names"] = frozenset(given.get("client_names", ()))
    return serve(ServerSettings(**given), lambda _: build(how, ready))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
