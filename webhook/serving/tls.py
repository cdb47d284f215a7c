"""The TLS settings of the admission port."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

from webhook.serving.key_pair import trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from webhook.serving.key_pair import KeyPair

TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
"""The oldest versions of TLS that can be chosen."""

_TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!PSK"
"""Authenticated encryption and forward secrecy, as every cipher of TLS 1.3 has them."""

_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h), which Python does not name."""


def server_context(
    pair: KeyPair,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    client_authorities: Sequence[x509.Certificate] = (),
) -> ssl.SSLContext:
    """Return a context with which the server answers, in HTTP/1.1 alone.

    The API server speaks TLS 1.3, and never HTTP/2 to a webhook (``NextProtos`` in
    apiserver/pkg/util/webhook/client.go).

    Args:
        pair: The certificate it answers with.
        minimum: The oldest version of TLS it speaks.
        client_authorities: Clients are asked for a certificate that one of these issued, and one
            of another CA ends the handshake. One who shows none is let in all the same: HTTP can
            tell it why it is refused, a handshake cannot.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.set_ciphers(_TLS_1_2_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    pair.load_into(context)
    if client_authorities:
        context.verify_mode = ssl.CERT_OPTIONAL
        trust(context, client_authorities)
    return context


def handshake_fault(
    pair: KeyPair, authorities: Sequence[x509.Certificate], name: str | None
) -> str | None:
    """Return what a client that trusts some CAs says in a handshake; None for nothing.

    Args:
        pair: The certificate it is answered with; whether this is the time for it does not count.
        authorities: The CAs it trusts.
        name: What it calls the server; None where it does not look at names.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = name is not None
    client.hostname_checks_common_name = False
    client.verify_flags |= _NO_CHECK_TIME
    trust(client, authorities)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server_context(pair).wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (asking, answering, asking):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    return None
