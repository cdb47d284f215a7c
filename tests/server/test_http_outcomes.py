"""What the admission port answers, over real TLS."""

from __future__ import annotations

import json
import socket
import ssl

import pytest

from tests.server.running import JSON, SECONDS, ask

LIMIT = 7 * 1024 * 1024


@pytest.mark.parametrize("path", ["/mutate", "/validate", "/mutate?timeout=2s"])
def test_a_review_is_answered_whatever_the_query_string(server, path):
    answer = server.ask(path, b'{"kind": "AdmissionReview"}')

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    said = json.loads(answer.body)
    assert said == {"path": path.partition("?")[0], "length": 27, "late": ""}


@pytest.mark.parametrize(
    ("content_type"), ["application/json; charset=utf-8", "Application/JSON", "application/json;"]
)
def test_a_content_type_may_have_parameters_and_capitals(server, content_type):
    assert server.ask("/validate", headers={"Content-Type": content_type}).status == 200


@pytest.mark.parametrize(
    ("path", "method", "headers", "body", "status", "text"),
    [
        ("/", "POST", JSON, b"{}", 404, "nothing here; reviews go to /mutate and /validate\n"),
        (
            "/mutate/",
            "POST",
            JSON,
            b"{}",
            404,
            "nothing here; reviews go to /mutate and /validate\n",
        ),
        ("/metrics", "GET", {}, None, 404, "nothing here; reviews go to /mutate and /validate\n"),
        ("/validate", "GET", {}, None, 405, "reviews are sent with POST\n"),
        ("/mutate", "PUT", JSON, b"{}", 405, "reviews are sent with POST\n"),
        ("/validate", "POST", {}, b"{}", 415, "the content type must be application/json\n"),
        (
            "/validate",
            "POST",
            {"Content-Type": "application/jsonpatch"},
            b"{}",
            415,
            "the content type must be application/json\n",
        ),
        ("/validate", "POST", JSON, b"x" * (LIMIT + 1), 413, "the body is larger than 7 MiB\n"),
        (
            "/validate",
            "POST",
            JSON,
            b"not a review",
            400,
            "the body is not JSON: line 1, column 1\n",
        ),
        ("/validate", "POST", JSON, b"fail", 500, "the review failed; the server's log says why\n"),
    ],
)
def test_an_error_is_one_plain_line(server, path, method, headers, body, status, text):
    answer = server.ask(path, body, method, headers)

    assert (answer.status, answer.text) == (status, text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Server" not in answer.headers


def test_a_wrong_method_is_told_the_right_one(server):
    assert server.ask("/validate", None, "GET", {}).headers["Allow"] == "POST"


def test_a_body_of_exactly_the_limit_is_answered(server):
    assert json.loads(server.ask("/validate", b"x" * LIMIT).body)["length"] == LIMIT


def test_one_connection_serves_many_reviews(server):
    connection = server.connection()
    ask(connection, "/mutate")
    first = connection.sock
    statuses = [ask(connection, "/validate", body).status for body in (b"{}", b"fail", b"{}")]

    assert statuses == [200, 500, 200]
    assert connection.sock is first
    connection.close()


def test_a_chunked_body_over_the_limit_is_refused_and_its_connection_ends(server):
    chunks = [b"x" * (1024 * 1024)] * 7
    answer = server.ask("/validate", iter([*chunks, b"x"]))

    assert (answer.status, answer.headers["Connection"]) == (413, "close")
    assert json.loads(server.ask("/validate", iter(chunks)).body)["length"] == LIMIT


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(server):
    connection = server.connection()
    connection.putrequest("POST", "/validate")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(LIMIT + 1))
    connection.endheaders()

    assert connection.getresponse().status == 413
    connection.close()


def test_a_client_that_waits_for_permission_to_send_is_refused_and_disconnected(server):
    headers = {**JSON, "Expect": "100-continue"}
    answer = server.ask("/nowhere", b"{}", "POST", headers)

    assert answer.status == 404
    assert answer.headers["Connection"] == "close"


def test_tls_older_than_1_3_is_refused(server):
    older = ssl.create_default_context(cafile=server.folder / "certs" / "ca.crt")
    older.maximum_version = ssl.TLSVersion.TLSv1_2

    with (
        socket.create_connection(("127.0.0.1", server.port), SECONDS) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        older.wrap_socket(plain, server_hostname="localhost")


def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_error(start_server):
    server = start_server()
    server.half_a_review().close()

    assert server.ask("/validate").status == 200
    assert server.stop() == ""


def test_a_failed_review_is_one_line_in_the_log_without_the_object(start_server):
    server = start_server()
    server.ask("/validate", b"fail")
    lines = server.stop().splitlines()

    assert len(lines) == 1
    logged = json.loads(lines[0])
    assert logged["error"] == "RuntimeError"
    assert logged["text"] == 'broken "here"\nand there'
    assert logged["path"] == "/validate"
    assert "Traceback" not in lines[0]
