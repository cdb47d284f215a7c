"""Clients that have to show a certificate, over real TLS."""

from __future__ import annotations

import http.client
import os
import shutil
import ssl

import pytest

from tests.server.attackers import REVIEW
from tests.server.certificates import client, issued, show
from tests.server.running import HANDSHAKE_FAILS, JSON, Answer, ask, measured, outcome, until

API_SERVER = "kube-apiserver"


@pytest.fixture
def api_server(tmp_path):
    return client(tmp_path / "api-server", API_SERVER, "apiserver.example")


@pytest.fixture
def guard(start_server, tmp_path, api_server):
    """A server that answers clients of one CA by three names."""
    authority = tmp_path / "client-ca.crt"
    shutil.copy(api_server.authority, authority)
    names = [API_SERVER, "dns.example", "spiffe://cluster/api"]
    server = start_server(client_ca=authority, client_names=names)
    server.client_ca = authority
    return server


def trusting(server):
    """Return a client's context of its own, which trusts the server."""
    return ssl.create_default_context(cafile=server.folder / "certs" / "ca.crt")


def test_a_client_with_an_allowed_name_is_answered_on_every_request(guard, api_server):
    show(guard.tls, api_server)
    connection = guard.connection()

    assert [ask(connection, "/validate").status for _ in range(3)] == [200, 200, 200]
    connection.close()


def test_a_client_without_a_certificate_gets_403_and_one_line(guard):
    connection = guard.connection()
    answers = [ask(connection, "/validate"), ask(connection, "/nowhere", method="GET")]
    connection.close()

    assert [answer.status for answer in answers] == [403, 403]
    line = "reviews are answered only to clients that show a certificate\n"
    assert [answer.text for answer in answers] == [line, line]
    # Once for the connection, however often it asks.
    name = 'migration_guard_clients_refused_total{reason="no-certificate"}'
    assert measured(guard, name) == 1


def with_client_ca(guard, certificate):
    """Let a server know one more CA; return a connection that shows a certificate of it."""
    with guard.client_ca.open("ab") as bundle:
        bundle.write(certificate.authority.read_bytes())
    guard.tls = show(trusting(guard), certificate)
    until(lambda: status(guard) in (200, 403))
    return guard.connection()


def status(guard):
    """Return the status of an answer on a new connection; None where the handshake fails."""
    try:
        return guard.ask("/validate").status
    except HANDSHAKE_FAILS:
        return None


def test_a_client_of_another_name_gets_403_and_its_names(guard, tmp_path):
    connection = with_client_ca(guard, client(tmp_path / "other", "kubelet\n<b>", "node.example"))
    answer = ask(connection, "/validate")
    connection.close()

    assert (answer.status, answer.text.count("\n")) == (403, 1)
    assert "no name that is allowed: 'kubelet <b>', 'node.example'" in answer.text
    assert measured(guard, 'migration_guard_clients_refused_total{reason="name"}') >= 1


@pytest.mark.parametrize("name", ["dns.example", "spiffe://cluster/api"])
def test_a_dns_name_or_uri_of_the_certificate_is_enough(guard, tmp_path, name):
    other = client(tmp_path / "other", "somebody", name)
    connection = with_client_ca(guard, other)

    assert ask(connection, "/validate").status == 200
    connection.close()


def test_a_client_of_an_unknown_ca_does_not_get_through_the_handshake(guard, tmp_path):
    show(guard.tls, client(tmp_path / "stranger", API_SERVER))

    with pytest.raises(HANDSHAKE_FAILS):
        guard.ask("/validate")


def test_a_servers_certificate_is_none_of_a_client(guard, tmp_path):
    server = issued(tmp_path / "server", API_SERVER)
    with guard.client_ca.open("ab") as bundle:
        bundle.write(server.authority.read_bytes())
    # Taken up together with a client's, so that it is known when.
    with_client_ca(guard, client(tmp_path / "client", API_SERVER)).close()
    guard.tls = show(trusting(guard), server)

    with pytest.raises(HANDSHAKE_FAILS):
        guard.ask("/validate")


def test_without_names_every_certificate_of_the_ca_is_good(start_server, tmp_path):
    anybody = client(tmp_path / "anybody", "anybody")
    server = start_server(client_ca=anybody.authority)
    show(server.tls, anybody)

    assert server.ask("/validate").status == 200
    assert "names: any" in server.operations("/readyz?verbose").text


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_a_removed_ca_is_refused_even_with_a_session_ticket(
    start_server, tmp_path, api_server, version
):
    authority = tmp_path / "client-ca.crt"
    shutil.copy(api_server.authority, authority)
    guard = start_server(client_ca=authority, tls_min_version="1.2")
    context = show(trusting(guard), api_server)
    context.maximum_version = version
    session, resumed, answer = resuming(guard, context, None)
    assert (resumed, answer) == (False, 200)
    session, resumed, answer = resuming(guard, context, session)
    # The ticket is good as long as the CA is.
    assert (resumed, answer) == (True, 200)
    successor = client(tmp_path / "successor", API_SERVER)
    shutil.copy(successor.authority, authority)
    guard.tls = show(trusting(guard), successor)
    until(lambda: status(guard) == 200)

    with pytest.raises(HANDSHAKE_FAILS):
        resuming(guard, context, session)


def test_a_kept_connection_is_refused_once_its_ca_is_removed_and_no_other(guard, tmp_path):
    shown = [client(tmp_path / name, API_SERVER) for name in ("leaving", "staying")]
    leaving, unfinished, staying = (
        with_client_ca(guard, certificate) for certificate in (shown[0], *shown)
    )
    assert [ask(one, "/validate").status for one in (leaving, unfinished, staying)] == [200] * 3
    kept = staying.sock
    unfinished.sock.sendall(REVIEW[:20])
    guard.client_ca.write_bytes(shown[1].authority.read_bytes())

    until(lambda: ask(leaving, "/validate").status == 403)
    unfinished.sock.sendall(REVIEW[20:])
    refused = http.client.HTTPResponse(unfinished.sock)
    refused.begin()
    assert (refused.status, refused.headers["Connection"]) == (403, "close")
    assert b"not among those of --client-ca any more" in refused.read()
    assert ask(staying, "/validate").status == 200
    assert staying.sock is kept
    assert measured(guard, 'migration_guard_clients_refused_total{reason="authority"}') == 2
    with pytest.raises(HANDSHAKE_FAILS):
        ask(leaving, "/validate")
    for one in (leaving, unfinished, staying):
        one.close()


def test_a_review_under_way_is_answered_although_its_clients_ca_is_removed(guard, tmp_path):
    certificate = client(tmp_path / "leaving", API_SERVER)
    connection = with_client_ca(guard, certificate)
    idle = with_client_ca(guard, certificate)
    assert ask(idle, "/validate").status == 200
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    connection.request("POST", "/validate", b"keep " + str(pipe).encode(), JSON)
    with pipe.open("wb"):  # returns once the decision waits to be kept
        guard.client_ca.write_bytes(client(tmp_path / "new", API_SERVER).authority.read_bytes())
        until(lambda: ask(idle, "/validate").status == 403)

    assert Answer(connection.getresponse()).status == 200
    assert ask(connection, "/validate").status == 403
    connection.close()
    idle.close()


def resuming(guard, context, session):
    """Ask over a new connection; return its session, whether it is a resumed one, the status."""
    guard.tls = context
    connection = guard.connection()
    try:
        # http.client knows no sessions: the socket is made for it.
        connection.sock = context.wrap_socket(
            connection._create_connection(("localhost", guard.port)),
            server_hostname="localhost",
            session=session,
        )
        answer = ask(connection, "/validate").status
        return connection.sock.session, connection.sock.session_reused, answer
    finally:
        connection.close()


def test_a_broken_ca_file_keeps_the_old_one(guard, api_server):
    show(guard.tls, api_server)
    whole = guard.client_ca.read_bytes()
    guard.client_ca.write_bytes(whole[:-40])
    until(lambda: measured(guard, 'migration_guard_file_taken_up{file="client-ca"}') == 0)

    assert guard.ask("/validate").status == 200
    page = guard.operations("/readyz?verbose")
    assert page.status == 200
    assert "client-ca: ready" in page.text
    assert "the old one holds" in page.text
    guard.client_ca.write_bytes(whole)
    until(lambda: "the old one holds" not in guard.operations("/readyz?verbose").text)


def test_a_name_without_a_ca_is_named(tmp_path):
    status, errors = outcome(certs_dir=tmp_path, client_names=["kube-apiserver"])

    assert status == 2
    assert "--client-name: needs --client-ca" in errors


def test_a_file_that_holds_no_ca_is_named(tmp_path, api_server):
    status, errors = outcome(certs_dir=tmp_path, client_ca=api_server.certificate)

    assert status == 2
    assert "is not one of a CA" in errors
