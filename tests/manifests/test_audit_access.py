"""Who reads the audit over HTTP in a cluster: a real API server says who somebody is, and may."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.manifests.conftest import Kubectl, installation, token_of
from tests.manifests.rendering import MANIFESTS
from tests.manifests.waiting import tries
from tests.server.running import outward_address
from tests.testbed.bed.api import Api, path
from tests.testbed.bed.control_plane import ControlPlane
from webhook.audit.database import engine_of, migrate, sqlite_url
from webhook.cluster.access import REMEMBERED_SECONDS, AccessReviews
from webhook.cluster.connection import connect
from webhook.serving.audit_access import AUDIENCE, TokenAccess
from webhook.serving.audit_api import AuditApi
from webhook.serving.listening import listen
from webhook.serving.metrics import Metrics
from webhook.serving.operations import operations_application
from webhook.serving.operations_server import OperationsServer
from webhook.serving.readiness import Readiness

Answer = tuple[int, str, str | None]
RECORDS = "/audit/records"


class Port:
    """An operations port with an audit that is empty.

    Attributes:
        now: The time, for what is remembered of tokens.
        said: The lines of the log.
    """

    def __init__(self, folder: Path, kubeconfig: Path, address: str) -> None:
        self.now = 0.0
        self.said: list[str] = []
        url = sqlite_url(folder)
        engine = engine_of(url)
        migrate(engine)
        engine.dispose()
        reviews = AccessReviews(connect(kubeconfig), lambda: self.now)
        self._api = AuditApi(url, folder, TokenAccess(reviews, self.said.append))
        readiness = Readiness(lambda: datetime.now(UTC))
        application = operations_application(readiness, Metrics(), [self._api.blueprint()])
        listener = listen(address, 0, "operations port")
        self._host, self._port = listener.getsockname()[:2]
        self._server = OperationsServer(application, listener)
        self._server.start()

    def ask(self, token: str = "", where: str = RECORDS, **headers: str) -> Answer:
        """Return status, body and how to say who one is."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=20)
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request("GET", where, headers={**shown, **headers})
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, body, answer.headers.get("WWW-Authenticate")
        finally:
            connection.close()

    def close(self) -> None:
        """End it."""
        self._server.stop()
        self._api.close()


@pytest.fixture(scope="module")
def installed(plane: ControlPlane, api: Api, kubectl: Kubectl) -> Iterator[None]:
    """The guard's own manifests, a reader who is bound to its role, and one who is not."""
    with installation(plane, kubectl, MANIFESTS / "base"):
        for name in ("reader", "stranger"):
            api.create(path("v1", "serviceaccounts", "default"), {"metadata": {"name": name}})
        kubectl(
            *("create", "clusterrolebinding", "reader"),
            *("--clusterrole=migration-guard-audit-reader", "--serviceaccount=default:reader"),
        )
        yield
        kubectl("delete", "clusterrolebinding", "reader", "--ignore-not-found")


@pytest.fixture
def open_port(
    plane: ControlPlane, api: Api, installed: None, tmp_path: Path
) -> Iterator[Callable[..., Port]]:
    """Open operations ports of the guard, or of somebody with another account."""
    ports: list[Port] = []

    def open_one(address: str = "127.0.0.1", kubeconfig: Path | None = None) -> Port:
        token = {"token": token_of(api, "migration-guard")}
        mine = kubeconfig or plane.write_kubeconfig("guard-of-audit", token)
        ports.append(Port(tmp_path, mine, address))
        return ports[-1]

    yield open_one
    for port in ports:
        port.close()


@pytest.fixture
def port(open_port: Callable[..., Port]) -> Port:
    return open_port()


@pytest.fixture
def reader(api: Api) -> str:
    return token_of(api, "reader", namespace="default")


def allowed(port: Port, token: str) -> bool:
    """Ask until the API server has taken up a role; remember nothing meanwhile."""
    for _ in tries():
        if port.ask(token)[0] == 200:
            return True
        port.now += REMEMBERED_SECONDS
    return False


def test_whom_a_role_allows_gets_an_answer(port: Port, reader: str) -> None:
    assert allowed(port, reader)
    status, body, _ = port.ask(reader)
    assert (status, json.loads(body)["items"]) == (200, [])
    assert port.ask(reader, "/audit/stats")[0] == 200


def test_whom_no_role_allows_is_refused(port: Port, api: Api) -> None:
    status, body, _ = port.ask(token_of(api, "stranger", namespace="default"))
    assert (status, body) == (403, f"no role allows this caller to get {RECORDS}\n")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic dTpw"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer not.a.token"},
        {"Authorization": "Bearer " + "x" * 20_000},
        {"Authorization": "Bearer t\u00f6ken"},
    ],
    ids=["none", "another scheme", "empty", "unknown", "too long", "no ascii"],
)
def test_who_shows_no_good_token_is_asked_for_one(port: Port, headers: dict[str, str]) -> None:
    status, body, challenge = port.ask(**headers)
    assert (status, challenge) == (401, "Bearer")
    assert "token" in body


def test_a_token_for_somebody_else_is_worth_nothing(port: Port, api: Api) -> None:
    assert port.ask(token_of(api, "reader", "https://vault.test", namespace="default"))[0] == 401


def test_a_token_for_the_guard_alone_is_enough(port: Port, api: Api, reader: str) -> None:
    assert allowed(port, reader)
    assert port.ask(token_of(api, "reader", AUDIENCE, namespace="default"))[0] == 200


def test_from_another_host_a_token_for_the_api_server_is_not_taken(
    open_port: Callable[..., Port], api: Api, reader: str
) -> None:
    abroad = open_port(outward_address())
    assert allowed(abroad, token_of(api, "reader", AUDIENCE, namespace="default"))
    status, body, _ = abroad.ask(reader)
    assert status == 401
    assert "must be issued for the audience migration-guard" in body


def test_who_comes_through_a_proxy_comes_from_another_host(port: Port, reader: str) -> None:
    assert allowed(port, reader)
    forwarded = {"X-Forwarded-For": "192.0.2.1"}
    assert port.ask(reader, **forwarded)[0] == 401


def test_a_right_that_is_taken_away_is_gone_half_a_minute_later(
    port: Port, api: Api, kubectl: Kubectl
) -> None:
    api.create(path("v1", "serviceaccounts", "default"), {"metadata": {"name": "for-a-while"}})
    bind = ("--clusterrole=migration-guard-audit-reader", "--serviceaccount=default:for-a-while")
    kubectl("create", "clusterrolebinding", "for-a-while", *bind)
    token = token_of(api, "for-a-while", namespace="default")
    assert allowed(port, token)
    kubectl("delete", "clusterrolebinding", "for-a-while")
    # What the API server said a moment ago holds.
    assert port.ask(token)[0] == 200
    for _ in tries():
        port.now += REMEMBERED_SECONDS
        if port.ask(token)[0] == 403:
            break
    assert port.ask(token)[0] == 403
    kubectl("delete", "serviceaccount", "for-a-while", "--namespace=default")
    for _ in tries():
        port.now += REMEMBERED_SECONDS
        if port.ask(token)[0] == 401:
            break
    assert port.ask(token)[0] == 401


def test_while_the_api_server_is_away_nobody_reads_and_the_log_says_why_once(
    plane: ControlPlane, open_port: Callable[..., Port], tmp_path: Path, reader: str
) -> None:
    away = tmp_path / "away.kubeconfig"
    text = plane.kubeconfig.read_text(encoding="utf-8")
    away.write_text(text.replace(":6443", ":1"), encoding="utf-8")
    port = open_port(kubeconfig=away)
    for _ in range(2):
        status, body, _ = port.ask(reader)
        assert status == 503
        assert "the guard's log says why" in body
    (line,) = port.said
    assert "cannot be reached" in line
    assert reader not in line


def test_a_guard_without_its_role_tells_nobody_and_the_log_names_what_it_may_not(
    plane: ControlPlane, open_port: Callable[..., Port], api: Api, reader: str
) -> None:
    token = {"token": token_of(api, "stranger", namespace="default")}
    port = open_port(kubeconfig=plane.write_kubeconfig("no-role", token))
    assert port.ask(reader)[0] == 503
    (line,) = port.said
    assert "tokenreviews" in line
