"""Issuing certificates: a CA of their own, whose key is thrown away at once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOCKS_DIFFER_BY = timedelta(minutes=5)

AUTHORITY = "migration-guard CA"
"""The common name of a CA that is made here."""

LONGEST_NAME = 253
"""Characters of a DNS name (RFC 1035)."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE | re.ASCII)


class Usage(Enum):
    """What a certificate is for."""

    SERVER = ExtendedKeyUsageOID.SERVER_AUTH
    CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, its key and the CA that issued it, in PEM.

    Attributes:
        authority: The CA that the other side is to trust.
        certificate: Issued by it; ECDSA P-256, as the CA.
        key: The certificate's, without a password.
    """

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)


def general_name(text: str) -> x509.GeneralName:
    """Return a name as a certificate holds it: an IP address or a DNS name.

    Raises:
        ValueError: It is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    labels = text.removeprefix("*.").split(".")
    if len(text) > LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text[:LONGEST_NAME]!r} is neither a DNS name nor an IP address")
    return x509.DNSName(text.lower())


def issue(
    names: Sequence[x509.GeneralName],
    now: datetime,
    validity: timedelta,
    *,
    common_name: str = "migration-guard",
    authority_name: str = AUTHORITY,
    usage: Usage = Usage.SERVER,
) -> Issued:
    """Make a CA and a certificate that it issues.

    The CA's key exists only within this call: nobody can issue a second certificate in its name,
    and a renewed certificate comes with a CA of its own.

    Args:
        names: What the certificate is good for (subjectAltName).
        now: The present time, with its time zone; both are valid from five minutes before.
        validity: For how long both are.
        common_name: The subject's; Go and browsers do not look at it.
        authority_name: The common name of the CA.
        usage: What the certificate is for.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_name, authority_key, now, validity)
    certificate = (
        _builder(_name(common_name), authority.subject, key.public_key(), now, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage.value]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    if names:
        certificate = certificate.add_extension(x509.SubjectAlternativeName(names), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    signed = certificate.sign(authority_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return Issued(authority.public_bytes(pem), signed.public_bytes(pem), private)


def _authority(
    name: str, key: ec.EllipticCurvePrivateKey, now: datetime, validity: timedelta
) -> x509.Certificate:
    return (
        _builder(_name(name), _name(name), key.public_key(), now, validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    validity: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER_BY)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


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
