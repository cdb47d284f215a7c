"""What the operations port answers: health and metrics, beside the reviews."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from webhook.serving.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask import Blueprint

    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness


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


def _word(ready: bool) -> str:
    return "ready" if ready else "not ready"


def _text(text: str, status: int = HTTPStatus.OK) -> Response:
    return Response(text + "\n", status=int(status), content_type="text/plain; charset=utf-8")
