"""Certificates in a cluster: written there, and asked of the API server; a real one does both."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import urllib3
import yaml

from tests.server.certificates import client, issued
from tests.server.running import SECONDS, RunningServer
from webhook.cli.commands.schema import output_schema
from webhook.cli.main import main

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = CHECKOUT / ".cache" / "testbed" / "bin"
MANIFESTS = CHECKOUT / "manifests" / "base"
START_SECONDS = 60
TOKEN = "admin-of-this-test"
RENEWER = "renewer"
"""A user without rights, and the token of that user."""
NAMESPACE = "migration-guard"
SERVICE = f"{NAMESPACE}.{NAMESPACE}.svc"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/migration-guard-tls"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/"
KINDS = {
    "mutatingwebhookconfigurations": "mutating-webhooks.yaml",
    "validatingwebhookconfigurations": "validating-webhooks.yaml",
}
JSON_PATCH = "application/json-patch+json"

pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "kube-apiserver").exists(), reason="kube-apiserver is not built"
)


class ApiServer:
    """etcd and kube-apiserver, with one administrator."""

    def __init__(self, folder: Path, guard_port: int) -> None:
        self.folder = folder
        serving = issued(folder / "serving", "localhost", "127.0.0.1")
        self.shown = client(folder / "client", "kube-apiserver")
        tokens = folder / "tokens.csv"
        tokens.write_text(f"{TOKEN},admin,1,system:masters\n{RENEWER},{RENEWER},2\n")
        etcd_port, peer_port, self.port = free_port(), free_port(), free_port()
        etcd, peer = (f"http://127.0.0.1:{port}" for port in (etcd_port, peer_port))
        self.url = f"https://localhost:{self.port}"
        self.http = urllib3.PoolManager(ca_certs=str(serving.authority), retries=False, timeout=20)
        self.authority = serving.authority
        self.kubeconfig = self.kubeconfig_of(TOKEN)
        admission = self.write_admission(guard_port)
        self.processes = [
            self.run(
                "etcd",
                *("--data-dir", folder / "etcd", "--unsafe-no-fsync"),
                *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}"),
            ),
            self.run(
                "kube-apiserver",
                *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
                *("--secure-port", self.port),
                *("--etcd-servers", etcd, "--token-auth-file", tokens),
                *("--tls-cert-file", serving.certificate, "--tls-private-key-file", serving.key),
                *("--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "RBAC"),
                *("--endpoint-reconciler-type", "none", "--service-account-issuer", self.url),
                *("--service-account-key-file", serving.certificate),
                *("--service-account-signing-key-file", serving.key),
                *("--admission-control-config-file", admission),
            ),
        ]

    def run(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen([PROGRAMS / name, *map(str, words)], stdout=log, stderr=log)

    def kubeconfig_of(self, token: str) -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        return self.write(
            f"{token}.kubeconfig",
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
            },
        )

    def write_admission(self, guard_port: int) -> Path:
        """Write what certs/README.md tells to write, with the paths and the port of this test."""
        page = (CHECKOUT / "certs" / "README.md").read_text(encoding="utf-8")
        admission, kubeconfig = (
            yaml.safe_load(part.partition("```")[0]) for part in page.split("```yaml\n")[1:]
        )
        (user,) = kubeconfig["users"]
        assert user["name"] == f"{SERVICE}:8443"
        user["name"] = f"{SERVICE}:{guard_port}"
        assert set(user["user"]) == {"client-certificate", "client-key"}
        user["user"]["client-certificate"] = str(self.shown.certificate)
        user["user"]["client-key"] = str(self.shown.key)
        for plugin in admission["plugins"]:
            plugin["configuration"]["kubeConfigFile"] = str(self.write("webhooks.yaml", kubeconfig))
        return self.write("admission.yaml", admission)

    def write(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def ask(
        self, method: str, path: str, content: Any = None, kind: str = "application/json"
    ) -> tuple[int, Any]:
        answer = self.http.request(
            method,
            self.url + path,
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": kind},
            body=None if content is None else json.dumps(content),
        )
        return answer.status, json.loads(answer.data)

    def make(self, path: str, content: dict[str, Any]) -> None:
        status, answer = self.ask("POST", path, content)
        assert status == 201, answer

    def wait(self, holds: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def ready(self) -> bool:
        try:
            return self.http.request("GET", self.url + "/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def log(self) -> str:
        return (self.folder / "kube-apiserver.log").read_text(encoding="utf-8")[-3000:]

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(START_SECONDS)
        self.http.clear()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def guard_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, guard_port: int) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("api-server"), guard_port)
    try:
        server.wait(server.ready)
        server.make("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        yield server
    finally:
        server.close()


@pytest.fixture
def configured(api: ApiServer) -> Iterator[ApiServer]:
    """An API server with the webhook configurations of the manifests, and no Secret."""
    for path, file in KINDS.items():
        made = yaml.safe_load((MANIFESTS / file).read_text(encoding="utf-8"))
        made["metadata"]["labels"] = {"app.kubernetes.io/name": "migration-guard"}
        api.make(WEBHOOKS + path, made)
    yield api
    for path in (*(f"{WEBHOOKS}{kind}/migration-guard" for kind in KINDS), SECRET):
        api.ask("DELETE", path)


@pytest.fixture
def install(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run ``certs issue --install``; return its exit status, its JSON and what it says."""

    def command(*words: str, kubeconfig: Path = api.kubeconfig) -> tuple[int, Any, str]:
        given = ["certs", "issue", "--install", "--kubeconfig", str(kubeconfig), *words]
        status = main([*given, "-o", "json"])
        printed = capsys.readouterr()
        return status, json.loads(printed.out) if printed.out else None, printed.err

    return command


def bundles(api: ApiServer) -> set[str]:
    """Return the caBundle of every webhook."""
    found = [api.ask("GET", f"{WEBHOOKS}{kind}/migration-guard")[1] for kind in KINDS]
    hooks = [hook for configuration in found for hook in configuration["webhooks"]]
    assert len(hooks) > 2
    return {hook["clientConfig"].get("caBundle", "") for hook in hooks}


def secret(api: ApiServer) -> Any:
    """Return the Secret's content; None where there is none."""
    status, found = api.ask("GET", SECRET)
    if status == 404:
        return None
    assert found["type"] == "kubernetes.io/tls"
    return {name: base64.b64decode(value) for name, value in found["data"].items()}


def test_the_secret_and_every_ca_bundle_are_written_and_belong_together(
    configured, install, tmp_path, capsys
):
    status, printed, _ = install()
    jsonschema.validate(printed, output_schema("certs-issue"))
    assert (status, printed["cluster"]["outcome"]) == (0, "created")
    assert printed["cluster"]["secret"] == "migration-guard/migration-guard-tls"
    assert bundles(configured) == {printed["caBundle"]}
    written = secret(configured)
    assert set(written) == {"tls.crt", "tls.key", "ca.crt"}
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    assert main(["certs", "verify", str(tmp_path)]) == 0
    assert written["tls.key"].decode() not in capsys.readouterr().out


def test_a_second_call_keeps_what_is_good_and_fills_in_what_is_missing(configured, install):
    _, first, _ = install()
    before = secret(configured)
    _, again, _ = install()
    assert (again["cluster"]["outcome"], again["cluster"]["webhooks"]) == ("kept", 0)
    path = f"{WEBHOOKS}validatingwebhookconfigurations/migration-guard"
    removal = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
    assert configured.ask("PATCH", path, removal, JSON_PATCH)[0] == 200
    _, mended, _ = install()
    assert (mended["cluster"]["outcome"], mended["cluster"]["webhooks"]) == ("kept", 1)
    assert bundles(configured) == {first["caBundle"]}
    assert secret(configured) == before


def test_a_renewal_lets_the_api_server_trust_the_ca_before_too(configured, install):
    install()
    first = secret(configured)
    status, printed, _ = install("--replace")
    second = secret(configured)
    assert (status, printed["cluster"]["outcome"]) == (0, "replaced")
    assert second["tls.key"] != first["tls.key"]
    assert second["ca.crt"].endswith(first["ca.crt"])
    assert second["ca.crt"] != first["ca.crt"]
    assert bundles(configured) == {printed["caBundle"]}
    assert base64.b64decode(printed["caBundle"]) == second["ca.crt"]


def test_somebody_elses_certificate_is_kept_unless_replace_is_given(configured, install, tmp_path):
    other = issued(tmp_path / "other", SERVICE, authority_name="somebody")
    files = {"tls.crt": other.certificate, "tls.key": other.key, "ca.crt": other.authority}
    data = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
    made = {"metadata": {"name": "migration-guard-tls"}, "type": "kubernetes.io/tls", "data": data}
    configured.make(SECRET.rpartition("/")[0], made)
    # It has one of the names that are asked for by default, and will do where that is enough.
    assert install("--name", SERVICE)[1]["cluster"]["outcome"] == "kept"
    status, _, said = install()
    assert status == 2
    assert "a certificate that 'CN=somebody' issued" in said
    assert secret(configured)["tls.key"] == other.key.read_bytes()
    assert install("--replace")[0] == 0


def test_without_webhook_configurations_nothing_is_written(api, install):
    status, _, said = install()
    assert (status, secret(api)) == (2, None)
    assert "install the manifests first" in said


def test_what_cert_manager_keeps_is_left_to_it(configured, install):
    note = {"cert-manager.io/inject-ca-from": "migration-guard/migration-guard-tls"}
    path = f"{WEBHOOKS}validatingwebhookconfigurations/migration-guard"
    change = [{"op": "add", "path": "/metadata/annotations", "value": note}]
    assert configured.ask("PATCH", path, change, JSON_PATCH)[0] == 200
    status, _, said = install()
    assert (status, secret(configured), bundles(configured)) == (2, None, {""})
    assert "is kept by cert-manager" in said


def test_whoever_is_a_stranger_is_told_in_one_line(configured, install):
    status, _, said = install(kubeconfig=configured.kubeconfig_of("nobody"))
    assert (status, said.count("\n")) == (2, 1)
    assert "401" in said


def test_the_rights_in_the_documentation_are_enough_and_are_needed(configured, install):
    renewer = configured.kubeconfig_of(RENEWER)
    status, _, said = install(kubeconfig=renewer)
    assert status == 2
    assert "403" in said
    page = (CHECKOUT / "docs" / "installation.md").read_text(encoding="utf-8")
    section = page.partition("## Rights to install a certificate")[2]
    roles = list(yaml.safe_load_all(section.partition("```yaml")[2].partition("```")[0]))
    assert {role["kind"] for role in roles} == {"ClusterRole", "Role"}
    for role in roles:
        where = {"ClusterRole": "", "Role": f"namespaces/{NAMESPACE}/"}[role["kind"]]
        path = f"/apis/rbac.authorization.k8s.io/v1/{where}{role['kind'].lower()}"
        configured.make(path + "s", role)
        group = {"apiGroup": "rbac.authorization.k8s.io"}
        binding = {
            "metadata": {"name": role["metadata"]["name"]},
            "roleRef": {**group, "kind": role["kind"], "name": role["metadata"]["name"]},
            "subjects": [{**group, "kind": "User", "name": RENEWER}],
        }
        configured.make(path + "bindings", binding)
    configured.wait(lambda: install(kubeconfig=renewer)[0] == 0, SECONDS)
    assert install("--replace", kubeconfig=renewer)[0] == 0


def test_the_api_server_shows_its_certificate_and_is_answered_by_name(api, guard_port, tmp_path):
    """The files of certs/README.md do what it says, and a guard that wants another name refuses."""
    server = issued(tmp_path / "guard", SERVICE, "localhost")
    files = {"tls_cert": server.certificate, "tls_key": server.key, "tls_ca": server.authority}
    api.make(
        f"/api/v1/namespaces/{NAMESPACE}/services",
        {
            "metadata": {"name": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
    )
    hook = {
        "name": "configmaps.migration-guard.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {
            "caBundle": base64.b64encode(server.authority.read_bytes()).decode(),
            "service": {
                "name": NAMESPACE,
                "namespace": NAMESPACE,
                "path": "/validate",
                "port": guard_port,
            },
        },
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["configmaps"],
                "operations": ["CREATE"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
    }
    codes: dict[str, set[str]] = {}
    said = ""
    for name in ("kube-apiserver", "somebody-else"):
        folder = tmp_path / name
        folder.mkdir()
        who = {"client_ca": api.shown.authority, "client_names": [name]}
        guard = RunningServer(folder, port=guard_port, **who, **files)
        try:
            if not codes:
                path = f"{WEBHOOKS}validatingwebhookconfigurations"
                api.make(path, {"metadata": {"name": "asking"}, "webhooks": [hook]})
            # It takes a second until a new configuration is in force.
            api.wait(lambda guard=guard: bool(create(api) and answered(guard)), SECONDS)
            codes[name], said = answered(guard), create(api)
        finally:
            guard.close()
    api.ask("DELETE", f"{WEBHOOKS}validatingwebhookconfigurations/asking")
    assert codes == {"kube-apiserver": {"200"}, "somebody-else": {"403"}}
    assert "the client's certificate has no name that is allowed: 'kube-apiserver'" in said


def create(api: ApiServer) -> str:
    """Create an object that the guard is asked about; return what the API server says."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    return json.dumps(api.ask("POST", path, {"metadata": {"generateName": "asked-"}})[1])


def answered(guard: RunningServer) -> set[str]:
    """Return the status codes with which the guard has answered."""
    counted = re.findall(
        r'^migration_guard_reviews_total\{code="(\d+)",path="/validate"\} [1-9]',
        guard.operations("/metrics").text,
        flags=re.MULTILINE,
    )
    return set(counted)
