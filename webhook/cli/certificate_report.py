"""What certificates hold and what is wrong with them, for the command ``certs``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from webhook.serving.errors import StartError
from webhook.serving.key_pair import (
    is_authority,
    moment,
    parse_certificates,
    path_to,
    read_authorities,
    read_file,
    read_pair,
    valid_until,
)
from webhook.serving.tls import handshake_fault

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from webhook.serving.certificates import CertificateFiles
    from webhook.serving.key_pair import KeyPair

CHECKS = ("pair", "time", "names", "chain")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so of a certificate.

    Attributes:
        name: One of :data:`CHECKS`.
        message: What is so; where it is wrong, the way out too.
    """

    name: str
    ok: bool
    message: str


def describe(certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    """Return what a certificate holds, as the schema ``certs-show`` describes it."""
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "names": names_of(certificate),
        "notBefore": moment(certificate.not_valid_before_utc),
        "notAfter": moment(certificate.not_valid_after_utc),
        "daysLeft": days_left(certificate.not_valid_after_utc, now),
        "ca": is_authority(certificate),
        "key": _key(certificate),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the names in subjectAltName; clients look at no other."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name.value) for name in found]


def days_left(end: datetime, now: datetime) -> int:
    """Return how many whole days there are until a time; negative after it."""
    return (end - now).days


def verify(files: CertificateFiles, names: Sequence[str], now: datetime) -> list[Check]:
    """Check a certificate as the server and its clients will.

    Args:
        files: Where it lies; without an authority the chain is not checked.
        names: What clients call the server.
        now: The present time, with its time zone.

    Raises:
        StartError: A file cannot be read, or does not hold what it should.
    """
    certificates = parse_certificates(
        read_file(files.certificate, "certificate"), str(files.certificate)
    )
    read_file(files.key, "key")
    authorities = read_authorities(files.authority) if files.authority is not None else ()
    path = path_to(authorities, certificates)
    time = _time(path or certificates[:1], now)
    try:
        pair = read_pair(files.certificate, files.key)
    except StartError as error:
        return [Check("pair", False, f"{error}; give the two that were issued together"), time]
    checks = [Check("pair", True, "the key belongs to the certificate"), time, _names(pair, names)]
    if authorities:
        checks.append(_chain(pair, authorities, str(files.authority)))
    return checks


def _time(path: Sequence[x509.Certificate], now: datetime) -> Check:
    begins = max(certificate.not_valid_before_utc for certificate in path)
    ends = valid_until(path)
    if now < begins:
        return Check("time", False, f"begins {moment(begins)}; wait, or set the clock right")
    if now >= ends:
        whose = "it" if ends == path[0].not_valid_after_utc else "a CA above it"
        return Check("time", False, f"{whose} ended {moment(ends)}; issue a new one")
    return Check("time", True, f"valid until {moment(ends)}, {days_left(ends, now)} days left")


def _names(pair: KeyPair, names: Sequence[str]) -> Check:
    # Trusted itself, so that nothing but the name can be wrong.
    missing = [name for name in names if handshake_fault(pair, (pair.leaf,), name) is not None]
    held = ", ".join(names_of(pair.leaf)) or "none"
    if missing:
        return Check(
            "names",
            False,
            f"not good for {', '.join(missing)}, only for {held}; issue one with every name "
            "that clients use",
        )
    return Check("names", True, f"good for {', '.join(names)}")


def _chain(pair: KeyPair, authorities: Sequence[x509.Certificate], where: str) -> Check:
    fault = handshake_fault(pair, authorities, None)
    issuer = pair.certificates[-1].issuer.rfc4514_string()
    if fault is not None:
        return Check(
            "chain",
            False,
            f"clients that trust {where} refuse it ({fault}); they need the certificate of "
            f"{issuer!r}, which issued it",
        )
    return Check("chain", True, f"clients that trust {where} accept it")


def _key(certificate: x509.Certificate) -> str:
    public = certificate.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return f"ECDSA {public.curve.name}"
    if isinstance(public, rsa.RSAPublicKey):
        return f"RSA {public.key_size}"
    return type(public).__name__.removesuffix("PublicKey").lstrip("_")
