"""The API server shows a certificate, as certs/README.md tells to have it done."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.manifests.rendering import MANIFESTS, Object, require
from tests.manifests.waiting import tries
from tests.server.certificates import Certificate, client, issued
from tests.server.running import RunningServer
from tests.testbed.bed.address import free_address
from tests.testbed.bed.api import Api, ApiError, path
from tests.testbed.bed.control_plane import ControlPlane

NAMESPACE = SERVICE = "migration-guard"
NAME = f"{SERVICE}.{NAMESPACE}.svc"
WEBHOOKS = path("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations")


@pytest.fixture
def port() -> int:
    """Where the guard listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found: int = listener.getsockname()[1]
        return found


@pytest.fixture
def shown(tmp_path: Path) -> Certificate:
    """What the API server shows."""
    return client(tmp_path / "client", "kube-apiserver")


@pytest.fixture
def api(tmp_path: Path, port: int, shown: Certificate) -> Iterator[Api]:
    """An API server that is set up as the page says."""
    require("etcd", "kube-apiserver")
    folder = tmp_path / "api-server"
    (folder / "logs").mkdir(parents=True)
    admission = write_admission(folder, port, shown)
    plane = ControlPlane(folder, free_address(), [f"--admission-control-config-file={admission}"])
    try:
        plane.etcd.start()
        plane.apiserver.start()
        plane.apiserver.wait_until_ready()
        yield Api(plane.kubeconfig)
    finally:
        plane.apiserver.stop()
        plane.etcd.stop()


def write_admission(folder: Path, port: int, shown: Certificate) -> Path:
    """Write the two files of the page, with the paths and the port of this test."""
    page = (MANIFESTS.parent / "certs" / "README.md").read_text(encoding="utf-8")
    admission, kubeconfig = (
        yaml.safe_load(part.partition("```")[0]) for part in page.split("```yaml\n")[1:]
    )
    (user,) = kubeconfig["users"]
    assert user["name"] == f"{NAME}:8443"
    user["name"] = f"{NAME}:{port}"
    assert set(user["user"]) == {"client-certificate", "client-key"}
    user["user"] = {
        "client-certificate": str(shown.certificate),
        "client-key": str(shown.key),
    }
    users, written = folder / "webhooks.yaml", folder / "admission.yaml"
    users.write_text(json.dumps(kubeconfig), encoding="utf-8")
    for plugin in admission["plugins"]:
        plugin["configuration"]["kubeConfigFile"] = str(users)
    written.write_text(json.dumps(admission), encoding="utf-8")
    return written


def asking(server: Certificate, port: int) -> Object:
    """Return a configuration that asks the guard about ConfigMaps, as the manifests would."""
    service = {"name": SERVICE, "namespace": NAMESPACE, "path": "/validate", "port": port}
    bundle = base64.b64encode(server.authority.read_bytes()).decode()
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["configmaps"],
        "operations": ["CREATE"],
    }
    hook = {
        "name": "configmaps.migration-guard.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {"caBundle": bundle, "service": service},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
    }
    return {"metadata": {"name": "asking"}, "webhooks": [hook]}


def created(api: Api) -> str:
    """Create an object that the guard is asked about; return what the API server says."""
    try:
        made = api.create(
            path("v1", "configmaps", NAMESPACE), {"metadata": {"generateName": "asked-"}}
        )
    except ApiError as error:
        return error.message
    return str(made["metadata"]["name"])


def answered(guard: RunningServer) -> set[str]:
    """Return the status codes with which the guard has answered."""
    counted = re.findall(
        r'^migration_guard_reviews_total\{code="(\d+)",path="/validate"\} [1-9]',
        guard.operations("/metrics").text,
        flags=re.MULTILINE,
    )
    return set(counted)


def test_it_is_answered_by_its_name_and_refused_where_another_is_wanted(
    api: Api, port: int, shown: Certificate, tmp_path: Path
) -> None:
    server = issued(tmp_path / "guard", NAME, "localhost")
    files = {"tls_cert": server.certificate, "tls_key": server.key, "tls_ca": server.authority}
    api.create(path("v1", "namespaces"), {"metadata": {"name": NAMESPACE}})
    spec = {"type": "ExternalName", "externalName": "localhost"}
    api.create(path("v1", "services", NAMESPACE), {"metadata": {"name": SERVICE}, "spec": spec})
    api.create(WEBHOOKS, asking(server, port))
    codes: dict[str, set[str]] = {}
    said = ""
    for name in ("kube-apiserver", "somebody-else"):
        folder = tmp_path / name
        folder.mkdir()
        guard = RunningServer(
            folder, port=port, client_ca=shown.authority, client_names=[name], **files
        )
        try:
            # It takes a second until a new configuration is in force.
            for _ in tries():
                said, codes[name] = created(api), answered(guard)
                if codes[name]:
                    break
        finally:
            guard.close()
    assert codes == {"kube-apiserver": {"200"}, "somebody-else": {"403"}}
    assert "the client's certificate has no name that is allowed: 'kube-apiserver'" in said
