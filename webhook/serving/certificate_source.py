"""Where the admission port's certificate comes from, and in what state it is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from webhook.serving.errors import StartError
from webhook.serving.key_pair import (
    moment,
    path_to,
    read_authorities,
    read_pair,
    valid_until,
)
from webhook.serving.last_good import LastGood

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from webhook.serving.certificates import CertificateFiles
    from webhook.serving.key_pair import KeyPair

WARNED_BEFORE = timedelta(days=7)
"""A certificate that ends sooner than this should have been renewed; one that lives for less
than four weeks, in the last quarter of its life. cert-manager renews at two thirds of it."""


class Health(NamedTuple):
    """The state of a certificate at one moment.

    Attributes:
        ready: Whether clients can accept it as far as time goes.
        ends: When it ends, or a CA above it if that is sooner.
        detail: Until when, and what to know about it.
    """

    ready: bool
    ends: datetime
    detail: str


class CertificateSource(Protocol):
    """Gives the certificate to answer with; everything it tells is of the last ``refresh``."""

    def refresh(self) -> bool:
        """Look for a new certificate; return whether anything is another than before."""
        ...

    def certificate(self) -> KeyPair:
        """Return the last good certificate."""
        ...

    def ca_bundle(self) -> tuple[x509.Certificate, ...]:
        """Return the CAs that clients are to trust; () where nobody said."""
        ...

    def trouble(self) -> str | None:
        """Return why a newer certificate is not in use; None where there is no newer one."""
        ...

    def health(self) -> Health:
        """Return the state of the certificate at the present time."""
        ...

    def next_change(self) -> datetime | None:
        """Return when ``health`` will change without a new certificate; None for never."""
        ...


class FileCertificates:
    """A certificate from files, as they are mounted from a Secret."""

    def __init__(self, files: CertificateFiles, clock: Callable[[], datetime]) -> None:
        """Read the files for the first time; a certificate out of its time is taken up too.

        Args:
            files: Where they lie.
            clock: Returns the present time, with its time zone.

        Raises:
            StartError: A file cannot be read, or the pair cannot be used.
        """
        self._files = files
        self._clock = clock
        self._pair = LastGood(
            (files.certificate, files.key),
            lambda: read_pair(files.certificate, files.key),
            self._require_valid,
        )
        authority = files.authority
        self._bundle = (
            LastGood((authority,), lambda: read_authorities(authority)) if authority else None
        )

    def refresh(self) -> bool:
        """Read the files again where they changed; return whether anything is another."""
        changed = self._pair.refresh()
        if self._bundle is not None:
            changed |= self._bundle.refresh()
        return changed

    def certificate(self) -> KeyPair:
        """Return the last good certificate."""
        return self._pair.value

    def ca_bundle(self) -> tuple[x509.Certificate, ...]:
        """Return the CAs of the last good bundle; () where no file was named."""
        return self._bundle.value if self._bundle is not None else ()

    def trouble(self) -> str | None:
        """Return why the files, as they are now, are not in use; None where they are."""
        return self._pair.trouble or (self._bundle.trouble if self._bundle is not None else None)

    def health(self) -> Health:
        """Return the state of the certificate at the present time."""
        now, leaf = self._clock(), self._pair.value.leaf
        begins, ends = leaf.not_valid_before_utc, self._ends()
        if now < begins:
            state = f"begins {moment(begins)}"
        elif now >= ends:
            state = f"ended {moment(ends)}"
        else:
            state = f"valid until {moment(ends)}"
        parts = [state, *(f"warning: {warning}" for warning in self._warnings(now))]
        return Health(begins <= now < ends, ends, "; ".join(parts))

    def next_change(self) -> datetime | None:
        """Return when it begins, needs a warning, or ends: the next of these."""
        begins, ends = self._pair.value.leaf.not_valid_before_utc, self._ends()
        coming = (begins, self._warned_from(), ends)
        now = self._clock()
        return min((when for when in coming if when > now), default=None)

    def _warnings(self, now: datetime) -> list[str]:
        found = []
        if self._warned_from() <= now < self._ends():
            found.append("it ends soon and has not been renewed")
        if self._bundle is not None and not self._path():
            found.append(f"no CA of {self._files.authority} issued it")
        if (trouble := self.trouble()) is not None:
            found.append(f"the old one holds, the new is broken: {trouble}")
        return found

    def _path(self) -> tuple[x509.Certificate, ...]:
        return path_to(self.ca_bundle(), self._pair.value.certificates)

    def _ends(self) -> datetime:
        """Return when the certificate ends, or a CA above it if that is sooner."""
        return valid_until(self._path() or (self._pair.value.leaf,))

    def _warned_from(self) -> datetime:
        ends = self._ends()
        life = ends - self._pair.value.leaf.not_valid_before_utc
        return ends - min(WARNED_BEFORE, life / 4)

    def _require_valid(self, pair: KeyPair) -> None:
        now, leaf = self._clock(), pair.leaf
        if now >= leaf.not_valid_after_utc:
            raise StartError(f"{self._files.certificate}: ended {moment(leaf.not_valid_after_utc)}")
        if now < leaf.not_valid_before_utc:
            raise StartError(
                f"{self._files.certificate}: begins {moment(leaf.not_valid_before_utc)}"
            )
