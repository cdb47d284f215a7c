"""What no real API server can be made to send: watches that are garbled, cut or end at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.cluster.objects import node
from webhook.cluster import reflector
from webhook.cluster.connection import connect
from webhook.cluster.listing import FIRST_PAGE
from webhook.cluster.live import LiveFacts
from webhook.cluster.reflector import Following
from webhook.cluster.resources import RESOURCES, Resource

NODES = tuple(r for r in RESOURCES if r.name == "nodes")
UPGRADES = tuple(r for r in RESOURCES if r.name == "upgrades")
WITHIN = 30.0


def event(kind, obj, revision="1"):
    obj = {**obj, "metadata": {**obj.get("metadata", {}), "resourceVersion": revision}}
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(revision="1", *, end=False):
    notes = {"k8s.io/initial-events-end": "true"} if end else {}
    return event("BOOKMARK", {"kind": "Node", "metadata": {"annotations": notes}}, revision)


def error(code, message):
    status = {"kind": "Status", "code": code, "message": message}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def initial(*names, revision="1"):
    return b"".join(event("ADDED", node(name)) for name in names) + bookmark(revision, end=True)


class Scripted:
    """A server of the watch protocol that answers each request for nodes by a script.

    When the script is at its end, watches stay open and say nothing.
    """

    def __init__(self) -> None:
        self.script: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.queries: list[dict[str, str]] = []
        self.date = ""
        self.ending = threading.Event()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                scripted.queries.append({key: values[0] for key, values in query.items()})
                if scripted.script:
                    scripted.script.pop(0)(self)
                else:
                    answer(b"", ends=False)(self)
                self.close_connection = True

            def date_time_string(self, timestamp: float | None = None) -> str:
                return scripted.date or super().date_time_string(timestamp)

            def log_message(
                self,
                format: str,  # noqa: A002 - the base class names it so
                *args: object,
            ) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answer(body, *, ends=True, status=200, **headers):
    """Answer with these bytes; end the response after them, or leave it open."""

    def respond(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Transfer-Encoding", "chunked")
        # Every connection is closed after one answer; unsaid, the next request could meet its end.
        handler.send_header("Connection", "close")
        handler.end_headers()
        if body:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        if ends:
            handler.wfile.write(b"0\r\n\r\n")
            return
        handler.wfile.flush()
        scripted = handler.server.scripted
        scripted.ending.wait(WITHIN)

    return respond


def cut(body):
    """Send these bytes of a longer chunk, and close the connection."""

    def respond(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s" % (len(body) + 100, body))

    return respond


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(reflector, "FIRST_WAIT", 0.02)
    made = Scripted()
    made._server.scripted = made  # type: ignore[attr-defined]  # so that handlers find it
    yield made
    made.close()


@pytest.fixture
def kubeconfig(scripted, tmp_path) -> Path:
    written = tmp_path / "kubeconfig"
    written.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": scripted.url}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": ""}}],
                "current-context": "x",
            }
        )
    )
    return written


@pytest.fixture
def follow(kubeconfig) -> Iterator[Callable[..., LiveFacts]]:
    """Follow kinds until the test ends."""
    made: list[LiveFacts] = []

    def start(resources: tuple[Resource, ...], stale_after: float = 180.0) -> LiveFacts:
        settings = Following(stale_after, False, 420.0)
        made.append(LiveFacts(connect(kubeconfig), lambda: settings, resources=resources))
        return made[-1]

    yield start
    for live in made:
        live.stop()


@pytest.fixture
def followed(follow) -> LiveFacts:
    return follow(NODES)


def wait(until):
    ends = time.monotonic() + WITHIN
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.01)


def names(live):
    return set(live.snapshot().nodes.by_name)


@pytest.mark.parametrize("ahead", [7200, -7200])
def test_the_clock_of_the_api_server_is_known_from_its_answers(scripted, kubeconfig, ahead) -> None:
    connection = connect(kubeconfig)
    assert connection.seconds_ahead == 0
    scripted.date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    scripted.script = [answer(b"{}")] * 3
    connection.get("/version")
    assert connection.seconds_ahead == pytest.approx(ahead, abs=WITHIN)
    scripted.date = "no date at all"
    connection.get("/version")
    assert connection.seconds_ahead == pytest.approx(ahead, abs=WITHIN)
    scripted.date = ""
    connection.get("/version")
    assert abs(connection.seconds_ahead) < WITHIN


def test_a_line_that_is_cut_is_asked_for_again(scripted, followed):
    whole = event("ADDED", node("b"), "2")
    scripted.script = [
        answer(initial("a", revision="1")),
        cut(whole[:40]),
        answer(whole, ends=False),
    ]
    followed.start()
    wait(lambda: names(followed) == {"a", "b"})
    assert [q.get("resourceVersion") for q in scripted.queries[1:3]] == ["1", "1"]


@pytest.mark.parametrize(
    "line",
    [
        b"this is no JSON\n",
        b"[]\n",
        b'"text"\n',
        b"{}\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": null}\n',
        b'{"type": "ADDED", "object": {"metadata": {}}}\n',
        b'{"type": "ERROR", "object": null}\n',
        b"\xff\xfe\n",
    ],
)
def test_garbage_ends_a_watch_and_is_told(scripted, followed, line):
    scripted.script = [
        answer(initial("a")),
        answer(event("ADDED", node("b"), "2") + line + event("ADDED", node("c"), "3")),
        answer(event("ADDED", node("d"), "4"), ends=False),
    ]
    followed.start()
    wait(lambda: names(followed) == {"a", "b", "d"})
    assert scripted.queries[2]["resourceVersion"] == "2"


def test_an_unknown_event_and_empty_lines_are_passed_over(scripted, followed):
    scripted.script = [
        answer(initial("a")),
        answer(b"\n\n" + event("SHINY", node("x"), "2") + event("ADDED", node("b")), ends=False),
    ]
    followed.start()
    wait(lambda: names(followed) == {"a", "b"})


def test_an_object_in_many_small_chunks_is_one_object(scripted, followed):
    body = initial("a", "b")

    def dribble(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for at in range(0, len(body), 7):
            part = body[at : at + 7]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.flush()
        scripted.ending.wait(WITHIN)

    scripted.script = [dribble]
    followed.start()
    wait(lambda: names(followed) == {"a", "b"})


def page(*names, more=""):
    metadata = {"resourceVersion": "5", "continue": more}
    return answer(json.dumps({"metadata": metadata, "items": [*map(node, names)]}).encode())


def test_a_stream_of_all_objects_that_ends_half_way_is_none_and_pages_are_read_next(
    scripted, followed
):
    scripted.script = [answer(event("ADDED", node("a"))), page("b", more="on"), page("c")]
    followed.start()
    wait(lambda: names(followed) == {"b", "c"})
    first, second, third, *_ = scripted.queries
    assert first["sendInitialEvents"] == "true"
    assert (second["limit"], third["continue"]) == (str(FIRST_PAGE), "on")
    wait(lambda: len(scripted.queries) == 4)
    assert scripted.queries[3]["resourceVersion"] == "5"


def test_where_pages_break_off_too_the_stream_has_its_turn_again(scripted, followed):
    scripted.script = [
        cut(event("ADDED", node("a"))),
        page("b", more="on"),
        answer(b"{}", status=410),
        answer(initial("c")),
    ]
    followed.start()
    wait(lambda: names(followed) == {"c"})
    assert scripted.queries[3]["sendInitialEvents"] == "true"


def test_reading_everything_may_take_longer_than_a_watch_and_a_watch_begins_where_it_ended(
    scripted, follow
):
    live = follow(NODES, stale_after=4.0)
    scripted.script = [answer(initial("a", revision="7"), ends=False)]
    live.start()
    wait(lambda: len(scripted.queries) >= 2)
    reading, watch, *_ = scripted.queries
    assert int(reading["timeoutSeconds"]) == reflector.LONGEST_READING
    assert (watch["resourceVersion"], watch["timeoutSeconds"]) == ("7", "1")
    wait(lambda: names(live) == {"a"})


def test_after_gone_everything_is_read_anew_and_what_is_not_there_is_forgotten(scripted, followed):
    scripted.script = [
        answer(initial("a", "b")),
        answer(error(410, "too old resource version")),
        answer(initial("b", "c", revision="9"), ends=False),
    ]
    followed.start()
    wait(lambda: names(followed) == {"b", "c"})
    assert scripted.queries[2]["sendInitialEvents"] == "true"


def test_a_revision_that_cannot_be_served_is_given_up_after_some_failures(scripted, followed):
    refused = answer(b"{}", status=504)
    scripted.script = [
        answer(initial("a", revision="7")),
        *[refused] * reflector.RESUMED,
        answer(initial("b", revision="2"), ends=False),
    ]
    followed.start()
    wait(lambda: names(followed) == {"b"})


def test_a_kind_that_was_only_taken_to_be_there_is_looked_for_again(scripted, follow):
    forbidden, missing = answer(b"{}", status=403), answer(b"{}", status=404)

    def of_a_cluster_without_it(handler):
        (missing if handler.path == "/apis/harvesterhci.io" else forbidden)(handler)

    # An API server that has not read yet who may do what forbids even to ask for the group.
    scripted.script = [forbidden, *[of_a_cluster_without_it] * 100]
    live = follow(UPGRADES)
    live.start()
    wait(lambda: live.synced)
    assert [str(kind) for kind in live.kinds] == ["not installed"]


def test_a_server_that_ends_every_watch_at_once_is_asked_ever_less(scripted, followed, monkeypatch):
    monkeypatch.setattr(reflector, "FIRST_WAIT", 0.1)
    scripted.script = [answer(initial("a")), *[answer(b"")] * 1000]
    followed.start()
    wait(lambda: len(scripted.queries) >= 4)
    began = time.monotonic()
    wait(lambda: len(scripted.queries) >= 7)
    # Three waits, of at least half of 0.4, 0.8 and 1.6 seconds.
    assert time.monotonic() - began > 1.0


def test_a_server_that_asks_to_be_left_alone_is(scripted, followed):
    scripted.script = [
        answer(b"{}", status=429, Retry_After="1"),
        answer(initial("a"), ends=False),
    ]
    followed.start()
    wait(lambda: len(scripted.queries) == 1)
    began = time.monotonic()
    wait(lambda: names(followed) == {"a"})
    assert time.monotonic() - began > 0.9


def test_what_a_server_says_in_an_error_is_told_on_one_short_line(scripted, followed):
    evil = json.dumps({"message": "no\n\x1b[31m" + "x" * 5000}).encode()
    scripted.script = [answer(evil, status=500), *[answer(evil, status=500)] * 50]
    followed.start()
    wait(lambda: followed.kinds[0].error)
    told = followed.kinds[0].error
    assert "\n" not in told
    assert "\x1b" not in told
    assert len(told) < 700
    assert "500" in told
