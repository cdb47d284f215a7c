"""A certificate with its key, read from PEM and known to belong together."""

from __future__ import annotations

import os
import re
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from webhook.serving.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

LARGEST_FILE = 1024 * 1024
"""Bytes. etcd takes no Secret that is larger."""

_BEGINS = b"-----BEGIN CERTIFICATE-----"
_KEY_BEGINS = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, which OpenSSL takes.

    Attributes:
        chain: The certificate and those that issued it, in PEM.
        key: The key in PEM, without a password.
        certificates: Those of ``chain``; the server's own comes first.
    """

    chain: bytes
    key: bytes = field(repr=False)
    certificates: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.certificates[0]

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make a context answer with this certificate.

        OpenSSL reads both from files. These lie in memory, so that what was checked is what is
        loaded, whatever happens meanwhile to the files it came from.

        Raises:
            OSError: OpenSSL does not take it, for instance a key too short to be allowed.
        """
        with _file_in_memory(self.chain) as chain, _file_in_memory(self.key) as key:
            context.load_cert_chain(chain, key)


def read_pair(certificate: Path, key: Path) -> KeyPair:
    """Read a certificate and make sure that the key is its own.

    Raises:
        StartError: A file is missing or unreadable, the two do not match, or OpenSSL does not
            take them.
    """
    chain = read_file(certificate, "certificate")
    certificates = parse_certificates(chain, str(certificate))
    private = read_file(key, "key")
    try:
        parsed = serialization.load_pem_private_key(private, password=None)
    except TypeError as error:
        raise StartError(f"{key}: the key is encrypted; give one without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StartError(f"{key}: holds no private key in PEM") from error
    if parsed.public_key() != certificates[0].public_key():
        raise StartError(f"{key}: not the key of the certificate in {certificate}")
    pair = KeyPair(chain, private, certificates)
    try:
        pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except OSError as error:
        # ssl.SSLError is an OSError too.
        reason = getattr(error, "reason", None) or error.strerror
        raise StartError(
            f"cannot use the certificate {certificate} with {key}: {reason}"
        ) from error
    return pair


def read_authorities(path: Path) -> tuple[x509.Certificate, ...]:
    """Read a bundle of CA certificates.

    Raises:
        StartError: The file is missing, unreadable or torn, or holds what is no CA.
    """
    found = parse_certificates(read_file(path, "CA bundle"), str(path))
    for certificate in found:
        if not is_authority(certificate):
            name = certificate.subject.rfc4514_string()
            raise StartError(f"{path}: the certificate of {name!r} is not one of a CA")
    try:
        trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), found)
    except ssl.SSLError as error:
        # Another parser than the one above; neither takes all that the other does.
        raise StartError(f"{path}: cannot use a certificate in it: {error.reason}") from error
    return found


def trust(context: ssl.SSLContext, authorities: Sequence[x509.Certificate]) -> None:
    """Make a context trust some CAs, each without one above it, as Go does.

    Raises:
        ssl.SSLError: OpenSSL does not take one of them.
    """
    ders = (certificate.public_bytes(serialization.Encoding.DER) for certificate in authorities)
    context.load_verify_locations(cadata=b"".join(ders))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def parse_certificates(pem: bytes, where: str) -> tuple[x509.Certificate, ...]:
    """Return all certificates of a text in PEM, at least one.

    Args:
        pem: The text.
        where: What to call it in an error.

    Raises:
        StartError: There is none, or one of them is torn.
    """
    try:
        found = tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise StartError(f"{where}: holds no certificate in PEM") from error
    if len(found) != pem.count(_BEGINS):
        raise StartError(f"{where}: a certificate in it is torn; write the file anew")
    return found


def count_keys(pem: bytes) -> int:
    """Return how many private keys a text in PEM holds."""
    return len(_KEY_BEGINS.findall(pem))


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate may issue others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def path_to(
    authorities: Sequence[x509.Certificate], certificates: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return the certificates from a server's own to a CA that issued it; () where none did.

    Args:
        authorities: The CAs that clients trust.
        certificates: The server's own and those sent along with it, in any order.
    """
    path = [certificates[0]]
    while True:
        last = path[-1]
        if last in authorities:
            return tuple(path)
        issuer = next((ca for ca in authorities if _issued(ca, last)), None)
        if issuer is not None:
            return (*path, issuer)
        between = (one for one in certificates if one not in path and _issued(one, last))
        following = next(between, None)
        if following is None:
            return ()
        path.append(following)


def valid_until(path: Sequence[x509.Certificate]) -> datetime:
    """Return when the first certificate of a path ends."""
    return min(certificate.not_valid_after_utc for certificate in path)


def moment(when: datetime) -> str:
    """Write a time in UTC as Kubernetes writes it."""
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def read_file(path: Path, what: str) -> bytes:
    """Return the content of a file that should be small.

    Raises:
        StartError: It cannot be read, or has more than ``LARGEST_FILE`` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise StartError(f"{path}: cannot read the {what}: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise StartError(f"{path}: larger than 1 MiB, so hardly a {what}")
    return content


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if not is_authority(issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


@contextmanager
def _file_in_memory(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("tls")
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"
