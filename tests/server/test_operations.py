"""Health and metrics, beside the reviews."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from tests.server.running import ask, until


def test_a_server_that_runs_is_live_and_ready(server):
    assert (server.operations("/livez").status, server.operations("/livez").text) == (200, "ok\n")
    assert (server.operations("/readyz").status, server.operations("/readyz").text) == (
        200,
        "ready\n",
    )


def test_a_part_that_is_not_ready_makes_the_server_not_ready_but_live(start_server):
    server = start_server(ready=False)

    assert server.operations("/livez").status == 200
    assert server.operations("/readyz").status == 503
    assert server.operations("/readyz").text == "not ready; ?verbose says why\n"
    lines = server.operations("/readyz?verbose").text.splitlines()
    assert re.fullmatch(r"certificate: ready since \S+Z \(valid until \S+Z\)", lines[0])
    assert re.fullmatch(r"inventory: not ready since \S+Z \(not read yet\)", lines[1])
    assert re.fullmatch(r"reviews: ready since \S+Z", lines[2])
    assert lines[3:] == ["not ready"]


def test_reviews_and_decisions_are_counted(start_server):
    server = start_server()
    for path, body in (("/mutate", b"{}"), ("/mutate", b"{}"), ("/validate", b"fail"), ("/x", b"")):
        server.ask(path, body)
    answer = server.operations("/metrics")
    lines = answer.text.splitlines()

    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'migration_guard_reviews_total{code="200",path="/mutate"} 2.0' in lines
    assert 'migration_guard_reviews_total{code="500",path="/validate"} 1.0' in lines
    assert 'migration_guard_reviews_total{code="404",path="other"} 1.0' in lines
    assert 'migration_guard_review_duration_seconds_count{path="/mutate"} 2.0' in lines
    assert any(line.startswith("migration_guard_build_info{") for line in lines)
    assert (
        "migration_guard_decisions_total"
        '{mode="enforce",outcome="refused",rule="incompatible-target"} 1.0'
    ) in lines


def test_a_server_whose_reviews_are_held_up_is_not_ready_until_they_go_on(start_server, tmp_path):
    server = start_server()
    with server.held_review(tmp_path) as review:
        began = datetime.now(UTC)
        assert server.operations("/readyz").status == 200
        until(lambda: server.operations("/readyz").status == 503)
        lines = server.operations("/readyz?verbose").text.splitlines()
        assert server.operations("/livez").status == 200
    assert review.result().status == 200

    (since,) = re.findall(r"^reviews: not ready since (\S+) \(no sign of life\)$", lines[2])
    # When the last sign of life came, not when it was missed.
    assert abs(datetime.fromisoformat(since) - began) < timedelta(seconds=2)
    until(lambda: server.operations("/readyz").status == 200)


def test_health_and_metrics_are_answered_while_a_review_is_served(server, tmp_path):
    with server.held_review(tmp_path) as review:
        statuses = [server.operations(p).status for p in ("/livez", "/readyz", "/metrics")]
        assert not review.done()

    assert statuses == [200, 200, 200]
    assert review.result().status == 200


def test_a_flood_of_reviews_and_one_of_scrapes_starve_neither_port(server):
    over = threading.Event()

    def flood(ask_once):
        count = 0
        while not over.is_set():
            assert ask_once() == 200
            count += 1
        return count

    with ThreadPoolExecutor(8) as others:
        reviewing = [server.connection() for _ in range(4)]
        floods = [
            others.submit(flood, lambda one=one: ask(one, "/validate").status) for one in reviewing
        ]
        floods += [
            others.submit(flood, lambda: server.operations("/metrics").status) for _ in range(2)
        ]
        try:
            for path in ("/livez", "/readyz", "/metrics") * 5:
                assert server.operations(path).status == 200
                assert server.ask("/validate").status == 200
        finally:
            over.set()
        assert all(one.result() > 0 for one in floods)
    for connection in reviewing:
        connection.close()


def test_an_error_on_the_operations_port_is_one_plain_line(server):
    missing = server.operations("/validate")
    posted = server.operations("/livez", "POST")

    assert (missing.status, missing.text) == (404, "not found\n")
    assert (posted.status, posted.text) == (405, "method not allowed\n")
    assert "GET" in posted.headers["Allow"]
    assert missing.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Server" not in missing.headers
