"""The development certificate, and what is said of one that cannot be used."""

from __future__ import annotations

import socket
import ssl
import stat
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from webhook.serving.certificates import development_certificate
from webhook.serving.errors import StartError
from webhook.serving.key_pair import read_pair
from webhook.serving.tls import server_context

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def contents(files):
    return [path.read_bytes() for path in (files.certificate, files.key, files.authority)]


@pytest.fixture
def files(tmp_path):
    return development_certificate(tmp_path / "certs", NOW)


def test_the_key_is_readable_by_its_owner_alone(files):
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600


def test_nothing_but_the_three_files_is_left(files):
    names = sorted(path.name for path in files.key.parent.iterdir())

    assert names == ["ca.crt", "tls.crt", "tls.key"]


def test_it_is_valid_for_ninety_days(files):
    leaf = read_pair(files.certificate, files.key).leaf

    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    assert leaf.not_valid_before_utc < NOW


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "::1", "migration-guard.migration-guard.svc"]
)
def test_a_strict_client_that_trusts_the_ca_accepts_each_name(tmp_path, name):
    files = development_certificate(tmp_path, datetime.now(UTC))
    client = ssl.create_default_context(cafile=files.authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server_end, client_end = socket.socketpair()

    def serve():
        with server_context(read_pair(files.certificate, files.key)).wrap_socket(
            server_end, server_side=True
        ) as served:
            served.recv(1)

    thread = Thread(target=serve)
    thread.start()
    with client.wrap_socket(client_end, server_hostname=name) as secured:
        assert secured.version() == "TLSv1.3"
        secured.send(b"x")
    thread.join()


def test_a_good_one_is_used_again(files):
    before = contents(files)
    development_certificate(files.key.parent, NOW + timedelta(days=88))

    assert contents(files) == before


@pytest.mark.parametrize("later", [timedelta(days=89, hours=1), timedelta(days=100)])
def test_one_that_ends_within_a_day_is_replaced(files, later):
    before = contents(files)
    development_certificate(files.key.parent, NOW + later)

    assert all(new != old for new, old in zip(contents(files), before, strict=True))


def test_one_from_the_future_is_replaced(files):
    before = contents(files)
    development_certificate(files.key.parent, NOW - timedelta(days=1))

    assert contents(files) != before


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
@pytest.mark.parametrize("damage", ["missing", "torn", "foreign"])
def test_a_damaged_set_is_replaced(files, tmp_path, name, damage):
    path = files.key.parent / name
    other = development_certificate(tmp_path / "other", NOW).key.parent / name
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.write_bytes(other.read_bytes())
    development_certificate(files.key.parent, NOW)
    leaf = read_pair(files.certificate, files.key).leaf

    leaf.verify_directly_issued_by(
        x509.load_pem_x509_certificate((files.key.parent / "ca.crt").read_bytes())
    )


def test_a_key_that_others_could_read_is_replaced(files):
    before = files.key.read_bytes()
    files.key.chmod(0o644)
    development_certificate(files.key.parent, NOW)

    assert files.key.read_bytes() != before
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match=f"cannot keep a development certificate in {tmp_path}"):
        development_certificate(tmp_path / "file" / "certs", NOW)


def test_a_key_of_another_certificate_is_named(files, tmp_path):
    other = development_certificate(tmp_path / "other", NOW)

    with pytest.raises(StartError, match="not the key of the certificate in") as caught:
        read_pair(files.certificate, other.key)
    assert str(other.key) in str(caught.value)


def test_files_that_hold_something_else_are_named(files):
    with pytest.raises(StartError, match=r"tls\.key: holds no certificate in PEM"):
        read_pair(files.key, files.key)
    with pytest.raises(StartError, match=r"tls\.crt: holds no private key in PEM"):
        read_pair(files.certificate, files.certificate)


def test_a_folder_in_place_of_a_key_is_named(files, tmp_path):
    with pytest.raises(StartError, match=f"{tmp_path}: cannot read the key: Is a directory"):
        read_pair(files.certificate, tmp_path)


def test_an_encrypted_key_is_named(files):
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(StartError, match=r"tls\.key: the key is encrypted"):
        read_pair(files.certificate, files.key)
