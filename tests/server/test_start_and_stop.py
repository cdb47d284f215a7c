"""How the server starts, fails to start, and ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from tests.server.attackers import REVIEW, plain, read_to_end
from tests.server.running import SECONDS, ask, outcome
from webhook.serving.certificates import development_certificate


def test_the_first_line_names_both_addresses_and_the_ca(start_server):
    server = start_server()

    assert server.first_line == (
        f"migration-guard: reviews on https://127.0.0.1:{server.port}, "
        f"health and metrics on http://127.0.0.1:{server.ops_port}; "
        f"clients trust {server.folder}/certs/ca.crt\n"
    )


def test_sigterm_ends_an_idle_server(start_server):
    server = start_server()

    assert server.stop() == ""
    assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_the_signals_of_a_terminal_end_it_too(start_server, number):
    server = start_server()
    server.process.send_signal(number)

    assert server.ended() == ""
    assert server.process.returncode == 0


def test_idle_connections_do_not_hold_the_end(start_server):
    server = start_server()
    connections = [server.connection() for _ in range(5)]
    for connection in connections:
        assert ask(connection, "/validate").status == 200
    silent = socket.create_connection(("127.0.0.1", server.ops_port), SECONDS)

    # gunicorn would kill, and complain, had it run into its time limit.
    assert server.stop() == ""
    assert server.process.returncode == 0
    silent.close()
    for connection in connections:
        connection.close()


def test_a_review_in_flight_is_answered_before_the_end(start_server, tmp_path):
    server = start_server()
    with server.held_review(tmp_path) as review:
        server.process.terminate()

    assert review.result().status == 200
    assert server.ended() == ""
    assert server.process.returncode == 0


def test_a_body_that_never_comes_does_not_hold_the_end_for_long(start_server):
    server = start_server()
    connection = server.half_a_review()
    assert server.ask("/validate").status == 200
    server.process.terminate()

    assert connection.getresponse().status == 503
    assert "Traceback" not in server.ended()
    assert server.process.returncode == 0
    connection.close()


def kill(process):
    """End a process that is not this one's child, and wait for its end."""
    with ended(process):
        os.kill(process, signal.SIGKILL)


@contextmanager
def ended(process):
    """Wait, after the block, until a process has ended."""
    handle = os.pidfd_open(process)
    try:
        yield
        assert select.select([handle], [], [], SECONDS)[0]
    finally:
        os.close(handle)


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2])
def test_no_signal_changes_the_number_of_workers(start_server, number):
    server = start_server()
    server.process.send_signal(number)
    # The end of a worker comes after the signal, and makes up for what is missing.
    kill(server.worker)

    assert server.ask("/validate").status == 200
    assert len(server.workers) == 1


def test_a_worker_whose_master_was_killed_ends_by_itself(start_server):
    server = start_server()
    kept = server.connection()
    assert ask(kept, "/validate").status == 200
    with ended(server.worker):
        server.process.kill()
    for port in (server.port, server.ops_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), SECONDS)
    kept.close()


def test_a_client_that_has_just_connected_is_answered_before_the_end(start_server):
    server = start_server()
    with plain(server) as connection:
        server.process.terminate()
        with server.tls.wrap_socket(connection, server_hostname="localhost") as secured:
            secured.sendall(REVIEW)
            answer = read_to_end(secured)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert server.ended() == ""


def test_clients_that_never_finish_their_handshake_do_not_hold_the_end(start_server):
    server = start_server()
    silent = [plain(server) for _ in range(5)]

    assert server.stop() == ""
    assert server.process.returncode == 0
    for connection in silent:
        connection.close()


def test_a_worker_that_dies_is_replaced_on_the_same_ports(start_server):
    server = start_server()
    kill(server.worker)

    assert server.ask("/validate").status == 200
    assert server.operations("/livez").status == 200


@pytest.mark.parametrize(("setting", "name"), [("port", "admission"), ("ops_port", "operations")])
def test_a_port_in_use_is_named(tmp_path, setting, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, errors = outcome(certs_dir=tmp_path, **{setting: port})

    assert status == 2
    assert errors == (
        f"migration-guard: {name} port {port} is already in use; "
        "stop what uses it, or choose another port\n"
    )


def test_one_port_for_both_is_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    status, errors = outcome(certs_dir=tmp_path, port=port, ops_port=port)

    assert (status, errors.count("\n")) == (2, 1)
    assert f"operations port {port} is already in use" in errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bind": "203.0.113.7"}, "cannot listen on '203.0.113.7': not an address of this machine"),
        ({"port": 70000}, "admission port 70000: not a port; ports go from 0 to 65535"),
        ({"build": "start-error"}, "inventory: no such folder; give another with --inventory"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(tmp_path, settings, message):
    assert outcome(certs_dir=tmp_path, **settings) == (2, f"migration-guard: {message}\n")


def test_a_failure_to_build_ends_it_with_one_line_and_no_traceback(tmp_path):
    status, errors = outcome(certs_dir=tmp_path, build="crash")

    assert (status, errors.count("\n")) == (1, 1)
    assert json.loads(errors)["error"] == "KeyError"


def test_a_missing_certificate_is_named(tmp_path):
    files = development_certificate(tmp_path / "certs", datetime.now(UTC))
    status, errors = outcome(tls_cert=tmp_path / "no.crt", tls_key=files.key)

    assert status == 2
    assert errors == (
        f"migration-guard: {tmp_path}/no.crt: cannot read the certificate: "
        "No such file or directory\n"
    )


def test_a_certificate_without_its_key_is_refused(tmp_path):
    status, errors = outcome(tls_cert=tmp_path / "tls.crt")

    assert status == 2
    assert "the certificate needs its key; give both files" in errors
