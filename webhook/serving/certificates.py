"""The server's certificate: the one it is given, or one it makes for development."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from webhook.serving.errors import StartError
from webhook.serving.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

CERTIFICATE_NAME = "tls.crt"
KEY_NAME = "tls.key"
AUTHORITY_NAME = "ca.crt"

VALIDITY = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=1)
"""A development certificate that ends sooner than this is replaced at the next start."""

NAMES: tuple[x509.GeneralName, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
    x509.DNSName("migration-guard.migration-guard.svc"),
)
"""What a development certificate is good for: this machine, and the Service of the manifests."""

_CLOCKS_DIFFER_BY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate and its key lie, in PEM.

    Attributes:
        authority: The CA that clients are to trust; None where the certificate was given.
    """

    certificate: Path
    key: Path
    authority: Path | None = None


def given_certificate(certificate: Path, key: Path) -> CertificateFiles:
    """Check a certificate and key that somebody else made.

    Raises:
        StartError: A file is missing or unreadable, or the two do not match.
    """
    read_certificate(certificate, key)
    return CertificateFiles(certificate, key)


def development_certificate(folder: Path, now: datetime) -> CertificateFiles:
    """Return the development certificate in a folder, made anew unless there is a good one.

    A CA is made with it, for clients to trust (``ca.crt``). The CA's key is thrown away, so
    nobody can issue a second certificate in its name. A certificate is good if it is valid for
    more than a day, issued by that CA for the names this version serves, and if its key matches
    and is readable by its owner alone.

    Args:
        folder: Where ``ca.crt``, ``tls.crt`` and ``tls.key`` are kept; created if missing.
        now: The present time, with its time zone.

    Raises:
        StartError: The folder cannot be created or written.
    """
    files = CertificateFiles(folder / CERTIFICATE_NAME, folder / KEY_NAME, folder / AUTHORITY_NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not _is_good(files, folder / AUTHORITY_NAME, now):
                _make(files, folder / AUTHORITY_NAME, now)
    except OSError as error:
        raise StartError(
            f"cannot keep a development certificate in {folder}: {error.strerror}; "
            "name another folder, or give a certificate and its key"
        ) from error
    return files


def read_certificate(certificate: Path, key: Path) -> x509.Certificate:
    """Read a certificate and make sure that the key is its own.

    Returns:
        The first certificate of the file: the server's own, before those that issued it.

    Raises:
        StartError: A file is missing or unreadable, or the two do not match.
    """
    try:
        leaf = x509.load_pem_x509_certificates(_content(certificate, "certificate"))[0]
    except ValueError as error:
        raise StartError(f"{certificate}: holds no certificate in PEM") from error
    try:
        private = serialization.load_pem_private_key(_content(key, "key"), password=None)
    except TypeError as error:
        raise StartError(f"{key}: the key is encrypted; give one without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StartError(f"{key}: holds no private key in PEM") from error
    if private.public_key() != leaf.public_key():
        raise StartError(f"{key}: not the key of the certificate in {certificate}")
    return leaf


def _content(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path}: cannot read the {what}: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep two servers that start at once from each making a part of the files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_good(files: CertificateFiles, authority: Path, now: datetime) -> bool:
    try:
        leaf = read_certificate(files.certificate, files.key)
        issuer = x509.load_pem_x509_certificate(authority.read_bytes())
        leaf.verify_directly_issued_by(issuer)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        mode = stat.S_IMODE(files.key.stat().st_mode)
    except (
        StartError,
        OSError,
        ValueError,
        TypeError,
        InvalidSignature,
        x509.ExtensionNotFound,
    ):
        return False
    return (
        leaf.not_valid_before_utc <= now
        and min(leaf.not_valid_after_utc, issuer.not_valid_after_utc) - now > RENEWED_BEFORE
        and set(names) == set(NAMES)
        and mode & 0o077 == 0
    )


def _make(files: CertificateFiles, authority: Path, now: datetime) -> None:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _authority(authority_key, now)
    leaf = _leaf(key.public_key(), issuer, authority_key, now)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomically(files.key, private, mode=0o600)
    write_atomically(files.certificate, leaf.public_bytes(serialization.Encoding.PEM))
    write_atomically(authority, issuer.public_bytes(serialization.Encoding.PEM))


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "migration-guard development CA")])
    public = key.public_key()
    return (
        _builder(name, name, public, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "migration-guard")])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        _builder(name, issuer.subject, public, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(authority, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER_BY)
        .not_valid_after(now + VALIDITY)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
