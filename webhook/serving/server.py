"""Starting and stopping the server: gunicorn with one worker, reviews and operations in it."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from webhook.serving.certificate_source import FileCertificates
from webhook.serving.certificates import CertificateFiles, development_certificate
from webhook.serving.clients import AllowedClients
from webhook.serving.connections import ConnectionLimits
from webhook.serving.errors import StartError
from webhook.serving.failures import log_failure
from webhook.serving.files import write_atomically
from webhook.serving.listening import listen, port_of, url_of
from webhook.serving.log_writer import LogWriter, UnwaitingStream
from webhook.serving.operations import operations_application
from webhook.serving.operations_server import OperationsServer
from webhook.serving.readiness import REVIEWS
from webhook.serving.reviewing import Reviews
from webhook.serving.served_certificate import ForwardingContext, ServedCertificate
from webhook.serving.tls import TLS_VERSIONS
from webhook.serving.worker import (
    ANSWER_SECONDS,
    LINGER_SECONDS,
    NEWCOMER_SECONDS,
    ReviewWorker,
    SingleWorkerArbiter,
)

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from flask import Blueprint

    from webhook.serving.key_pair import KeyPair
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness
    from webhook.serving.reviewing import Answering

KEEP_ALIVE_SECONDS = 95
"""Longer than the 90 seconds for which the API server keeps an idle connection, so that it is
always the API server that closes, and no request meets a closing connection."""

CANNOT_START = 2
"""Exit status after a ``StartError``."""

FAILED = 1
"""Exit status after any other failure."""

PARTS_SECONDS = 10
"""For the rest that ends: the lease is given back, Events and records are written and shipped, the
operations port closes."""
LOG_SECONDS = 1
"""How long an ending worker waits for whoever reads its log."""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn makes files of unguessable names in it


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens, and with which certificate.

    Attributes:
        bind: The address of both ports.
        port: HTTPS, for reviews; 0 lets the system choose.
        ops_port: Plain HTTP, for health and metrics; 0 lets the system choose.
        tls_cert: The certificate, in PEM; None for one made for development.
        tls_key: Its key; given with ``tls_cert`` or not at all.
        certs_dir: Where the development certificate is kept.
        tls_ca: The CAs that clients are to trust, in PEM, to tell whether they can and until
            when; given with ``tls_cert`` or not at all.
        tls_min_version: The oldest version of TLS that is spoken, a key of ``TLS_VERSIONS``.
        client_ca: The CAs of the clients that get an answer, in PEM; None where all do.
        client_names: What the certificate of such a client must be called, one of them; none for
            any name. Given with ``client_ca`` or not at all.
        ports_file: Takes ``{"port": …, "opsPort": …}`` once both ports are open.
        stall_seconds: For how long a client may keep the admission port waiting: for the TLS
            handshake, for a whole request after it or after the request's first byte, and until
            it has read an answer. The first two together, and the second until they are noticed,
            stay under 20.
        idle_seconds: For how long it may be silent between requests.
        most_connections: To the admission port, from the moment they are accepted. One more ends
            one of the address that has most.
        most_connections_per_peer: From one address; several API servers may stand behind it. One
            more ends one of its own.
        most_reviews: Requests being received or answered at a time; one more is answered 503.
    """

    bind: str
    port: int
    ops_port: int
    tls_cert: Path | None
    tls_key: Path | None
    certs_dir: Path
    tls_ca: Path | None = None
    tls_min_version: str = "1.3"
    client_ca: Path | None = None
    client_names: frozenset[str] = frozenset()
    ports_file: Path | None = None
    stall_seconds: float = 9.0
    idle_seconds: float = KEEP_ALIVE_SECONDS
    most_connections: int = 1000
    most_connections_per_peer: int = 500
    most_reviews: int = 256


@dataclass(frozen=True, slots=True)
class Parts:
    """What the server serves; it all lives in the worker process.

    Attributes:
        close: Called when the worker ends, after the last answer.
        pages: More for the operations port.
    """

    answer: Answering
    readiness: Readiness
    metrics: Metrics
    close: Callable[[], None] = lambda: None
    pages: Sequence[Blueprint] = ()


def serve(settings: ServerSettings, build: Callable[[Callable[[], KeyPair]], Parts]) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: Where to listen.
        build: Makes what is served, from what returns the certificate of the moment. It is
            called in the worker process, after the fork, so it may start threads; and once more
            if that process should die. If it raises a ``StartError``, the server prints its
            message and ends.

    Returns:
        The exit status: 0 after a stop, 2 where the server cannot start (one line on stderr
        says why), 1 after a failure of its own.
    """
    with ExitStack() as sockets:
        try:
            files = _certificate(settings)
            _served(settings, files)
            admission = sockets.enter_context(
                listen(settings.bind, settings.port, "admission port")
            )
            operations = sockets.enter_context(
                listen(settings.bind, settings.ops_port, "operations port")
            )
            _report_ports(settings.ports_file, admission, operations)
        except StartError as error:
            _say(str(error))
            return CANNOT_START
        return _run(_Application(settings, files, admission, operations, build))


def _run(application: _Application) -> int:
    """Run gunicorn; only its first process returns from here."""
    master = os.getpid()
    sys.stderr = UnwaitingStream(sys.stderr.fileno())
    try:
        SingleWorkerArbiter(application).run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else FAILED
    else:
        status = 0
    if os.getpid() != master:
        application.close_log()
        _leave_worker(status)
    return _EXIT_STATUS.get(status, FAILED)


_EXIT_STATUS = {0: 0, Arbiter.WORKER_BOOT_ERROR: CANNOT_START}


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """The settings for gunicorn, and what its worker loads."""

    def __init__(
        self,
        settings: ServerSettings,
        files: CertificateFiles,
        admission: socket.socket,
        operations: socket.socket,
        build: Callable[[Callable[[], KeyPair]], Parts],
    ) -> None:
        self._settings = settings
        self._files = files
        self._urls = (url_of("https", admission), url_of("http", operations))
        # gunicorn takes over the descriptor, and closes it.
        self._admission = admission.detach()
        self._operations_socket = operations
        self._operations: OperationsServer | None = None
        self._close_parts: Callable[[], None] = lambda: None
        self._build = build
        self._log: LogWriter | None = None
        self.connection_limits = ConnectionLimits(
            settings.most_connections,
            settings.most_connections_per_peer,
            settings.stall_seconds,
            settings.idle_seconds,
        )
        self.metrics: Metrics | None = None
        self.readiness: Readiness | None = None
        self._most_reviews = settings.most_reviews
        self.tls_context: ForwardingContext | None = None
        self._clients: AllowedClients | None = None
        super().__init__()
        logging.getLogger("gunicorn.error").addFilter(_is_news)

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults, and what the environment could change."""
        settings: dict[str, Any] = {
            "bind": [f"fd://{self._admission}"],
            "worker_class": ReviewWorker,
            # Each worker would hold facts of its own; a second one is a second replica.
            "workers": 1,
            "preload_app": False,
            "max_requests": 0,
            "graceful_timeout": NEWCOMER_SECONDS
            + LINGER_SECONDS
            + ANSWER_SECONDS
            + LOG_SECONDS
            + PARTS_SECONDS,
            "control_socket_disable": True,
            "loglevel": "warning",
            "proc_name": "migration-guard",
        }
        if os.path.isdir(_SHARED_MEMORY):
            # The worker's heartbeat is a file; on a slow disk it would seem to hang.
            settings["worker_tmp_dir"] = _SHARED_MEMORY
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Reviews:
        """Build, in the worker process, everything that is served."""
        self._log = _log_from_here()
        try:
            certificate, self._clients = _served(self._settings, self._files)
            self.tls_context = certificate.context
            parts = self._build(certificate.pair)
        except StartError as error:
            _say(str(error))
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        except Exception as error:
            log_failure("the server could not be built", error)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        self.metrics = parts.metrics
        self._log.count_lost = parts.metrics.count_lost_line
        self.readiness = parts.readiness
        self.readiness.report(REVIEWS, False, "the server is starting")
        self._close_parts = parts.close
        certificate.report_to(parts.readiness, parts.metrics)
        certificate.watch()
        self._operations = OperationsServer(
            operations_application(parts.readiness, parts.metrics, parts.pages),
            self._operations_socket,
        )
        self._operations.start()
        return Reviews(parts.answer, parts.metrics, self._most_reviews)

    def client_refusal(self, peer: ssl.SSLObject) -> str | None:
        """Return the line for a client that is not allowed now, and count it; else None."""
        refusal = None
        if self._clients is not None and self.tls_context is not None:
            refusal = self._clients.refusal(peer, self.tls_context.current)
        if refusal is None:
            return None
        if self.metrics is not None:
            self.metrics.count_refused_client(refusal.reason)
        return refusal.text

    def announce(self) -> None:
        """Say that reviews are answered from now on."""
        admission, operations = self._urls
        trust = f"; clients trust {self._files.authority}" if self._files.authority else ""
        _say(f"reviews on {admission}, health and metrics on {operations}{trust}")

    def close(self) -> None:
        """Close what was built in the worker process, and its operations port."""
        self._close_parts()
        if self._operations is not None:
            self._operations.stop()

    def close_log(self) -> None:
        """Have what was logged in the worker process written, or give it up after a second."""
        if self._log is not None:
            self._log.stop(LOG_SECONDS)


def _log_from_here() -> LogWriter:
    """Have all that this process says on stderr written by a thread of its own."""
    log = LogWriter(sys.stderr.fileno())
    for handler in logging.getLogger("gunicorn.error").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(log)
    sys.stderr = log
    log.start()
    return log


def _certificate(settings: ServerSettings) -> CertificateFiles:
    if settings.tls_cert is not None and settings.tls_key is not None:
        return CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_ca)
    if settings.tls_cert is not None:
        raise StartError(f"{settings.tls_cert}: the certificate needs its key; give both files")
    if settings.tls_key is not None:
        raise StartError(f"{settings.tls_key}: the key needs its certificate; give both files")
    if settings.tls_ca is not None:
        raise StartError(f"{settings.tls_ca}: a CA is given with its certificate; give all files")
    return development_certificate(settings.certs_dir, _now())


def _served(
    settings: ServerSettings, files: CertificateFiles
) -> tuple[ServedCertificate, AllowedClients | None]:
    """Read the certificate and the CAs of the clients."""
    clients = None
    if settings.client_ca is not None:
        clients = AllowedClients(settings.client_ca, settings.client_names)
    elif settings.client_names:
        raise StartError("--client-name: needs --client-ca, whose certificates bear the names")
    source = FileCertificates(files, _now)
    minimum = TLS_VERSIONS[settings.tls_min_version]
    return ServedCertificate(source, minimum, clients, _now, _say), clients


def _now() -> datetime:
    return datetime.now(UTC)


def _report_ports(path: Path | None, admission: socket.socket, operations: socket.socket) -> None:
    if path is None:
        return
    ports = {"port": port_of(admission), "opsPort": port_of(operations)}
    try:
        write_atomically(path, json.dumps(ports).encode() + b"\n")
    except OSError as error:
        raise StartError(f"{path}: cannot write the ports: {error.strerror}") from error


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out gunicorn's three lines on a worker that has said itself why it cannot start."""
    if record.msg == "Worker (pid:%s) exited with code %s.":
        _, code = record.args if isinstance(record.args, tuple) else (None, None)
        return code not in (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)
    return record.msg not in ("Shutting down: %s", "Reason: %s")


def _say(text: str) -> None:
    sys.stderr.write(f"migration-guard: {text}\n")
    sys.stderr.flush()


def _leave_worker(status: int) -> None:
    """End the worker process here: what follows in the caller is the first process's to do."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
