"""The certificate in use, taken up anew without a restart."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING

from webhook.serving.failures import log_failure
from webhook.serving.tls import server_context
from webhook.serving.watching import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from webhook.serving.certificate_source import CertificateSource
    from webhook.serving.clients import AllowedClients
    from webhook.serving.key_pair import KeyPair
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

PART = "certificate"
CLIENTS_PART = "client-ca"
"""Their names on the readiness board and in the metrics."""


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
    """The certificate the admission port answers with, and the clients it asks for one.

    Args:
        source: Where it comes from.
        minimum: The oldest version of TLS that is spoken.
        clients: Who gets an answer; None for everybody.
        clock: Returns the present time, with its time zone.
        say: Takes a line for the log when something new is taken up or cannot be.
    """

    def __init__(
        self,
        source: CertificateSource,
        minimum: ssl.TLSVersion,
        clients: AllowedClients | None,
        clock: Callable[[], datetime],
        say: Callable[[str], None],
    ) -> None:
        self._source = source
        self._minimum = minimum
        self._clients = clients
        self._clock = clock
        self._say = say
        self.context = ForwardingContext(self._context())

    def pair(self) -> KeyPair:
        """Return the certificate that is served at the moment."""
        return self._source.certificate()

    def report_to(self, readiness: Readiness, metrics: Metrics) -> None:
        """Report what is served, from now on.

        Args:
            readiness: Told which certificate is served, and when a new one is broken.
            metrics: Likewise.
        """
        self._readiness = readiness
        self._metrics = metrics
        self._report()

    def watch(self) -> None:
        """Begin to look every second; it must be known by then whom to report to."""
        # A daemon: it ends with the process.
        threading.Thread(target=self._watch, name="certificate-watch", daemon=True).start()

    def look(self) -> None:
        """Take up what is new, and report what time has changed."""
        certificate = self._source.refresh()
        clients = self._clients is not None and self._clients.refresh()
        if certificate or clients:
            # Whoever resumes a session of the old context does a full handshake with this one.
            self.context.current = self._context()
        elif self._next_change is None or self._clock() < self._next_change:
            return
        self._report()
        if self._clients is not None and clients:
            self._say(f"{CLIENTS_PART}: {self._clients.detail()}")
        else:
            self._say(f"{PART}: {self._source.health().detail}")

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(SECONDS)
            try:
                self.look()
            except Exception as error:
                # The thread must outlive what nobody has thought of; the old context goes on.
                log_failure("the certificate could not be looked at", error)

    def _context(self) -> ssl.SSLContext:
        clients = self._clients.authorities() if self._clients is not None else ()
        return server_context(self._source.certificate(), self._minimum, clients)

    def _report(self) -> None:
        self._next_change = self._source.next_change()
        health = self._source.health()
        self._readiness.report(PART, health.ready, health.detail)
        self._metrics.note_file(PART, taken_up=self._source.trouble() is None)
        self._metrics.note_certificate(health.ends)
        if self._clients is not None:
            self._readiness.report(CLIENTS_PART, True, self._clients.detail())
            self._metrics.note_file(CLIENTS_PART, taken_up=self._clients.trouble() is None)
