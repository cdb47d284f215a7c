"""The operations port: health and metrics over plain HTTP, beside the reviews."""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

import waitress
from flask import Flask, Response, request
from waitress import wasyncore
from werkzeug.exceptions import HTTPException

from webhook.serving.failures import log_failure

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from flask import Blueprint

    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

_THREADS = 4
_LARGEST_BODY = 64 * 1024
_STOP_SECONDS = 2


def operations_application(
    readiness: Readiness, metrics: Metrics, pages: Sequence[Blueprint] = ()
) -> Flask:
    """Return the application that serves ``/livez``, ``/readyz``, ``/metrics`` and more pages."""
    application = Flask(__name__, static_folder=None)
    for blueprint in pages:
        application.register_blueprint(blueprint)

    @application.get("/livez")
    def livez() -> Response:
        return _text("ok")

    @application.get("/readyz")
    def readyz() -> Response:
        ready = readiness.ready
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" in request.args:
            return _text("\n".join((*readiness.lines(), _word(ready))), status)
        return _text(_word(ready) if ready else "not ready; ?verbose says why", status)

    @application.get("/metrics")
    def metrics_page() -> Response:
        return Response(metrics.render(), content_type=metrics.content_type)

    @application.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        answer = _text((error.name or "error").lower(), error.code or 500)
        # Flask's own answer carries Allow with a 405.
        allow = error.get_response().headers.get("Allow")
        if allow is not None:
            answer.headers["Allow"] = allow
        return answer

    @application.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        log_failure("a request to the operations port failed", error, path=request.path)
        return _text("internal server error", HTTPStatus.INTERNAL_SERVER_ERROR)

    return application


class OperationsServer:
    """Serves an application on a listening socket, in threads of its own.

    Args:
        application: What is served.
        listener: A socket that listens; the server closes its own copy at the end.
    """

    def __init__(self, application: Flask, listener: socket.socket) -> None:
        # waitress keeps the sockets of a server in this map, and runs until it is empty.
        self._open: dict[int, object] = {}
        self._server = waitress.create_server(
            application,
            map=self._open,
            sockets=[listener],
            threads=_THREADS,
            ident=None,
            # waitress would take away what tells that a proxy speaks for somebody (audit_api.py).
            clear_untrusted_proxy_headers=False,
            max_request_body_size=_LARGEST_BODY,
        )
        # A daemon: a request that hangs here must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="operations", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end the threads, which takes two seconds at most."""
        pulled = threading.Event()

        def close() -> None:
            # Among all that is closed is the trigger; whoever still pulls it would write into
            # whatever has its descriptor next.
            pulled.wait(_STOP_SECONDS)
            wasyncore.close_all(self._open)

        # waitress is to be touched by its own thread only; the trigger is its way in.
        self._server.trigger.pull_trigger(close)
        pulled.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        self._server.run()
        self._server.task_dispatcher.shutdown(timeout=_STOP_SECONDS)


def _word(ready: bool) -> str:
    return "ready" if ready else "not ready"


def _text(text: str, status: int = HTTPStatus.OK) -> Response:
    return Response(text + "\n", status=int(status), content_type="text/plain; charset=utf-8")
