"""The certificate in use, taken up anew when its files change.

What is broken never replaces what works: the old certificate goes on being served, and readiness,
a metric and the log say so until the files are mended.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.serving.certificates import read_certificate
from webhook.serving.errors import StartError
from webhook.serving.failures import log_failure
from webhook.serving.tls import server_context
from webhook.serving.watching import FileWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from webhook.serving.certificates import CertificateFiles
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

PART = "certificate"
"""Its name on the readiness board and in the metrics."""


class ForwardingContext(ssl.SSLContext):
    """A context that hands every new connection to the context of the moment.

    The event loop keeps one context for as long as it listens. Changing that one's certificate
    in place would leave a torn pair in it; ``sni_callback`` would leave the old session tickets
    valid. Open connections stay with the context they began with.

    Attributes:
        current: The context new connections get; replaced whole.
    """

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> ForwardingContext:
        """Return a context that forwards to another."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context.current = current
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin TLS on two buffers, with the context of the moment; event loops use this alone."""
        # The stubs of the standard library do not know that bytes are allowed here too.
        name = server_hostname.decode() if isinstance(server_hostname, bytes) else server_hostname
        return self.current.wrap_bio(incoming, outgoing, server_side, name, session)


class ServedCertificate:
    """The certificate the admission port answers with."""

    def __init__(self, files: CertificateFiles, say: Callable[[str], None]) -> None:
        """Read the certificate for the first time.

        Args:
            files: Where it lies.
            say: Takes a line for the log when a new one is taken up or cannot be.

        Raises:
            StartError: The certificate or its key cannot be used.
        """
        self._files = files
        self._say = say
        # Before the first reading: a change while it goes on is then seen as one.
        self._watch = FileWatch((files.certificate, files.key), self._read_again)
        self._leaf = read_certificate(files.certificate, files.key)
        self.context = ForwardingContext(server_context(files))

    def watch(self, readiness: Readiness, metrics: Metrics) -> None:
        """Begin to take up new ones.

        Args:
            readiness: Told which certificate is served, and when a new one is broken.
            metrics: Likewise.
        """
        self._readiness = readiness
        self._metrics = metrics
        self._report(ready=datetime.now(UTC) < self._leaf.not_valid_after_utc)
        self._watch.start()

    def _read_again(self) -> None:
        files = self._files
        try:
            leaf = read_certificate(files.certificate, files.key)
            _require_valid(leaf, files)
            # Built beside the one in use. It reads the files once more; were they changed in
            # between, OpenSSL compares the pair again, and the watch calls again.
            context = server_context(files)
        except StartError as error:
            self._keep(str(error))
        except Exception as error:
            log_failure("the new certificate could not be read", error)
            self._keep(f"{files.certificate}: cannot be read; the log says more")
        else:
            self._leaf = leaf
            self.context.current = context
            self._report(ready=True)
            self._say(f"{PART}: the new one is served, {_until(leaf)}")

    def _report(self, *, ready: bool) -> None:
        self._readiness.report(PART, ready, _until(self._leaf))
        self._metrics.note_file(PART, taken_up=True)
        self._metrics.note_certificate(self._leaf.not_valid_after_utc)

    def _keep(self, why: str) -> None:
        self._metrics.note_file(PART, taken_up=False)
        # What is served may have ended meanwhile: mending the files is then urgent.
        ready = datetime.now(UTC) < self._leaf.not_valid_after_utc
        kept = f"the old one holds, the new is broken: {why}"
        self._readiness.report(PART, ready, f"{_until(self._leaf)}; warning: {kept}")
        self._say(f"{PART}: {kept}")


def _require_valid(leaf: x509.Certificate, files: CertificateFiles) -> None:
    now = datetime.now(UTC)
    if now >= leaf.not_valid_after_utc:
        raise StartError(f"{files.certificate}: ended {_moment(leaf.not_valid_after_utc)}")
    if now < leaf.not_valid_before_utc:
        raise StartError(f"{files.certificate}: begins {_moment(leaf.not_valid_before_utc)}")


def _until(leaf: x509.Certificate) -> str:
    return f"valid until {_moment(leaf.not_valid_after_utc)}"


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
