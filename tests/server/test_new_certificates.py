"""A certificate that is replaced while the server runs, over real TLS."""

from __future__ import annotations

import shutil
import ssl
from datetime import UTC, datetime

import pytest

from tests.server.certificates import issued
from tests.server.running import ask, measured, until
from webhook.serving.certificates import development_certificate
from webhook.serving.key_pair import read_pair

TAKEN_UP = 'migration_guard_file_taken_up{file="certificate"}'
NOT_AFTER = "migration_guard_certificate_not_after_seconds"


def served(server):
    """Return the certificate a new connection gets, in DER."""
    connection = server.connection()
    try:
        connection.connect()
        return connection.sock.getpeercert(binary_form=True)
    finally:
        connection.close()


def readiness(server):
    return server.operations("/readyz?verbose").text.splitlines()[0]


@pytest.fixture
def new(tmp_path):
    return development_certificate(tmp_path / "new", datetime.now(UTC))


@pytest.fixture
def guard(start_server):
    """A server whose clients take any certificate."""
    server = start_server()
    server.tls = ssl.create_default_context()
    server.tls.check_hostname = False
    server.tls.verify_mode = ssl.CERT_NONE
    return server


def put(server, *files):
    for file in files:
        beside = server.folder / "certs" / f"{file.name}.new"
        shutil.copy(file, beside)
        beside.replace(server.folder / "certs" / file.name)


def test_a_replaced_pair_is_served_to_new_connections_while_an_open_one_goes_on(guard, new):
    open_one = guard.connection()
    assert ask(open_one, "/validate").status == 200
    before = served(guard)
    put(guard, new.key, new.certificate)
    until(lambda: served(guard) != before)

    assert ask(open_one, "/validate").status == 200
    assert open_one.sock.getpeercert(binary_form=True) == before
    open_one.close()
    guard.tls = ssl.create_default_context(cafile=new.authority)
    assert guard.ask("/validate").status == 200
    until(lambda: measured(guard, TAKEN_UP) == 1)
    end = read_pair(new.certificate, new.key).leaf.not_valid_after_utc
    assert measured(guard, NOT_AFTER) == end.timestamp()
    assert "certificate: valid until" in guard.stop()


def test_a_torn_pair_keeps_the_old_one_and_heals(guard, new):
    before = served(guard)
    assert measured(guard, TAKEN_UP) == 1
    put(guard, new.certificate)
    until(lambda: measured(guard, TAKEN_UP) == 0)
    until(lambda: "warning: the old one holds" in readiness(guard))

    assert served(guard) == before
    assert guard.operations("/readyz").status == 200
    assert "not the key of the certificate" in readiness(guard)
    put(guard, new.key, new.authority)
    until(lambda: served(guard) != before)
    until(lambda: "warning" not in readiness(guard))
    assert measured(guard, TAKEN_UP) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"-----BEGIN CERTIFICATE-----\nMIIB", "holds no certificate in PEM"), (None, "cannot read")],
    ids=["truncated", "removed"],
)
def test_a_file_without_a_certificate_keeps_the_old_one(guard, content, reason):
    before = served(guard)
    file = guard.folder / "certs" / "tls.crt"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    until(lambda: reason in readiness(guard))

    assert served(guard) == before
    assert guard.operations("/readyz").status == 200


def test_one_that_has_ended_at_the_start_is_served_but_not_ready(start_server, tmp_path):
    old = issued(tmp_path / "old", "localhost", now=datetime(2020, 1, 1, tzinfo=UTC))
    files = {"tls_cert": old.certificate, "tls_key": old.key, "tls_ca": old.authority}
    server = start_server(**files)
    assert server.operations("/readyz").status == 503
    assert "certificate: not ready" in readiness(server)
    assert "ended 2020-03-31" in readiness(server)
    new = issued(tmp_path / "new", "localhost")
    for name in ("certificate", "key", "authority"):
        shutil.copy(getattr(new, name), getattr(old, name))
    until(lambda: server.operations("/readyz").status == 200)

    server.tls = ssl.create_default_context(cafile=new.authority)
    assert server.ask("/validate").status == 200


@pytest.mark.parametrize(("year", "reason"), [(2020, "ended 2020-"), (2200, "begins 2199-")])
def test_a_pair_out_of_its_time_keeps_the_old_one(guard, tmp_path, year, reason):
    before = served(guard)
    other = development_certificate(tmp_path / "other", datetime(year, 1, 1, tzinfo=UTC))
    put(guard, other.key, other.certificate)
    until(lambda: reason in readiness(guard))

    assert served(guard) == before
    assert measured(guard, TAKEN_UP) == 0
    assert guard.operations("/readyz").status == 200
