"""Which versions of TLS are spoken, and with which ciphers."""

from __future__ import annotations

import ssl
import warnings

import pytest

from tests.server.certificates import issued
from tests.server.running import HANDSHAKE_FAILS
from webhook.serving.tls import server_context


def limited(server, newest):
    server.tls.maximum_version = newest
    return server


def test_tls_1_3_is_spoken_and_1_2_is_not(start_server):
    server = start_server()
    connection = server.connection()
    connection.connect()
    assert connection.sock.version() == "TLSv1.3"
    connection.close()
    limited(server, ssl.TLSVersion.TLSv1_2)

    with pytest.raises(HANDSHAKE_FAILS):
        server.ask("/validate")


def test_tls_1_2_is_spoken_where_it_is_allowed(start_server):
    server = start_server(tls_min_version="1.2")
    connection = server.connection()
    connection.connect()
    assert connection.sock.version() == "TLSv1.3"
    connection.close()
    limited(server, ssl.TLSVersion.TLSv1_2)

    assert server.ask("/validate").status == 200


def test_tls_1_1_is_never_spoken(start_server):
    server = start_server(tls_min_version="1.2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.tls.minimum_version = ssl.TLSVersion.TLSv1
        limited(server, ssl.TLSVersion.TLSv1_1)
    # Without this OpenSSL would not offer it at all.
    server.tls.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises(HANDSHAKE_FAILS):
        server.ask("/validate")


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "DHE-RSA-AES128-GCM-SHA256"]
)
def test_tls_1_2_without_authenticated_encryption_and_ecdhe_is_refused(start_server, cipher):
    server = limited(start_server(tls_min_version="1.2"), ssl.TLSVersion.TLSv1_2)
    server.tls.set_ciphers(cipher)

    with pytest.raises(HANDSHAKE_FAILS):
        server.ask("/validate")


def test_every_cipher_is_authenticated_and_forward_secret(tmp_path):
    context = server_context(issued(tmp_path / "a", "localhost").pair(), ssl.TLSVersion.TLSv1_2)

    ciphers = context.get_ciphers()
    assert len(ciphers) >= 6
    assert all(cipher["aead"] for cipher in ciphers)
    assert {cipher["kea"] for cipher in ciphers} == {"kx-any", "kx-ecdhe"}
