"""Who may ask for reviews: clients with a certificate of a certain CA, by certain names."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from webhook.serving.failures import one_line
from webhook.serving.key_pair import moment, read_authorities
from webhook.serving.last_good import LastGood

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NAME_TYPES = ("DNS", "URI")


class Reason(StrEnum):
    """Why a client is refused."""

    NO_CERTIFICATE = "no-certificate"
    NAME = "name"
    AUTHORITY = "authority"


class Refusal(NamedTuple):
    """A client that gets no answer, and the line it gets instead."""

    reason: Reason
    text: str


_NO_CERTIFICATE = Refusal(
    Reason.NO_CERTIFICATE, "reviews are answered only to clients that show a certificate"
)


_AUTHORITY = Refusal(
    Reason.AUTHORITY,
    "the CA that issued the client's certificate is not among those of --client-ca any more",
)


class AllowedClients:
    """The clients that get an answer.

    Args:
        authority: The file of the CAs that issue their certificates, in PEM.
        names: What a certificate must be called, in its common name or among its DNS names and
            URIs: one of these. None given: every certificate of these CAs is good.

    Raises:
        StartError: The file cannot be read or holds no CA.
    """

    def __init__(self, authority: Path, names: frozenset[str]) -> None:
        self._names = names
        self._authorities = LastGood((authority,), lambda: read_authorities(authority))

    def refresh(self) -> bool:
        """Read the CAs again if they changed; return whether anything is another than before."""
        return self._authorities.refresh()

    def authorities(self) -> tuple[x509.Certificate, ...]:
        """Return the CAs of the last good file."""
        return self._authorities.value

    def trouble(self) -> str | None:
        """Return why the file, as it is now, is not in use; None where it is."""
        return self._authorities.trouble

    def detail(self) -> str:
        """Say which clients are allowed, and what is wrong with the file."""
        count = len(self.authorities())
        last = moment(max(one.not_valid_after_utc for one in self.authorities()))
        cas = f"1 CA, valid until {last}" if count == 1 else f"{count} CAs, the last until {last}"
        names = ", ".join(sorted(self._names)) or "any"
        parts = [cas, f"names: {names}"]
        if (trouble := self.trouble()) is not None:
            parts.append(f"warning: the old one holds, the new is broken: {trouble}")
        return "; ".join(parts)

    def refusal(self, peer: ssl.SSLObject, current: ssl.SSLContext) -> Refusal | None:
        """Return why a client is refused; None for one that is allowed.

        Args:
            peer: Its end of a connection, after a handshake that has verified its certificate.
            current: With what a handshake would verify it now.
        """
        certificate = peer.getpeercert()
        if not certificate:
            return _NO_CERTIFICATE
        if not self._still_verified(peer, current):
            return _AUTHORITY
        return self._refusal_of_names(certificate)

    def _still_verified(self, peer: ssl.SSLObject, current: ssl.SSLContext) -> bool:
        """Whether the CAs of now vouch for a certificate that those of its handshake did.

        If one of them has been taken away, they must have issued the certificate themselves: what
        intermediate certificates its client has shown, Python does not tell.
        """
        before = peer.context
        if before is current or _authorities_of(before) <= _authorities_of(current):
            return True
        shown = peer.getpeercert(binary_form=True) or b""
        return any(_issued(shown, authority) for authority in self.authorities())

    def _refusal_of_names(self, peer: Mapping[str, Any]) -> Refusal | None:
        if not self._names or not self._names.isdisjoint(_names(peer)):
            return None
        # A stranger's text goes into this line: in quotes, escaped and cut.
        shown = ", ".join(repr(one_line(name)[:100]) for name in list(_names(peer))[:3])
        return Refusal(
            Reason.NAME, f"the client's certificate has no name that is allowed: {shown or 'none'}"
        )


def _authorities_of(context: ssl.SSLContext) -> set[bytes]:
    return set(context.get_ca_certs(binary_form=True))


def _issued(certificate: bytes, authority: x509.Certificate) -> bool:
    try:
        x509.load_der_x509_certificate(certificate).verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        # TLS may have understood more of a client's certificate.
        return False
    return True


def _names(peer: Mapping[str, Any]) -> Iterator[str]:
    for attributes in peer.get("subject", ()):
        yield from (value for key, value in attributes if key == "commonName")
    for kind, value in peer.get("subjectAltName", ()):
        if kind in _NAME_TYPES:
            yield value
