"""The guard itself, as the manifests start it, behind the webhooks that the manifests install.

Only the address differs: the Service leads to this machine, and the pod's files to a folder.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import captured_cluster
from tests.audit import postgres
from tests.manifests.conftest import Kubectl, installation, token_of
from tests.manifests.rendering import MANIFESTS, Object, container, overlay, the, workload
from tests.manifests.waiting import tries
from tests.testbed.bed.api import Api, ApiError, path
from tests.testbed.bed.control_plane import ControlPlane
from tests.testbed.bed.guard import lead_service_to
from webhook.cli.audit_options import DATABASE_VARIABLE
from webhook.cli.certificate_installation import SECRET
from webhook.cli.main import main

OVERLAY = "strict"
MIGRATIONS = path("kubevirt.io/v1", "virtualmachineinstancemigrations", "default")
MIGRATION = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstanceMigration",
    "spec": {"vmiName": "vm"},
}


@pytest.fixture(scope="module")
def installed(plane: ControlPlane, api: Api, kubectl: Kubectl) -> Iterator[None]:
    """The manifests, and a certificate, as docs/installation.md installs them."""
    with installation(plane, kubectl, MANIFESTS / "overlays" / OVERLAY):
        argv = ["certs", "issue", "--install", f"--kubeconfig={plane.kubeconfig}"]
        assert main(argv) == 0
        lead_service_to(plane.address, api)
        yield


@pytest.fixture(scope="module")
def cluster(api: Api) -> None:
    """Four nodes and a KubeVirt CR."""
    for node in captured_cluster.nodes():
        api.create(path("v1", "nodes"), node)
    api.create(path("v1", "namespaces"), {"metadata": {"name": "kubevirt"}})
    kubevirt = captured_cluster.kubevirt()
    where = path("kubevirt.io/v1", "kubevirts", "kubevirt")
    api.create(where, kubevirt)
    api.patch(f"{where}/kubevirt/status", {"status": kubevirt["status"]})


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a PostgreSQL database, which both replicas would share."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="module")
def folder(
    plane: ControlPlane,
    api: Api,
    installed: None,
    database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What the pod would find: its configuration, the Secrets, its account."""
    folder = tmp_path_factory.mktemp("pod")
    secrets = path("v1", "secrets", "migration-guard")
    named = workload(overlay(OVERLAY))["spec"]["template"]["spec"]["volumes"]
    (mounted,) = (v["secret"] for v in named if v["name"] == "audit-database")
    url = {"url": base64.b64encode(database.encode()).decode()}
    api.create(secrets, {"metadata": {"name": mounted["secretName"]}, "data": url})
    for name in (SECRET, mounted["secretName"]):
        for file, value in api.get(f"{secrets}/{name}")["data"].items():
            (folder / file).write_bytes(base64.b64decode(value))
    for name, text in the(overlay(OVERLAY), "ConfigMap")["data"].items():
        (folder / name).write_text(text, encoding="utf-8")
    plane.write_kubeconfig("guard-in-place", {"token": token_of(api, "migration-guard")})
    return folder


@pytest.fixture
def guard(plane: ControlPlane, folder: Path, cluster: None) -> Iterator[Path]:
    """The running guard; its log."""
    arguments = [
        f"{option}={folder / Path(value).name}" if value.startswith("/") else argument
        for argument in container(overlay(OVERLAY))["args"]
        for option, _, value in [argument.partition("=")]
    ]
    kubeconfig = plane.folder / "guard-in-place.kubeconfig"
    here = (f"--kubeconfig={kubeconfig}", f"--bind={plane.address}")
    log = folder / "guard.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "webhook.cli", "serve", *arguments, *here], stderr=said
        )
    try:
        for _ in tries():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            if _ask(plane, "/readyz")[0] == 200:
                break
        yield log
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _ask(plane: ControlPlane, where: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{plane.address}:8080{where}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except OSError as error:
        return getattr(error, "code", 0), str(error)


def run_vm(api: Api) -> None:
    vmi = captured_cluster.running_vmi()
    api.create(
        path("kubevirt.io/v1", "virtualmachineinstances", "default"),
        {
            **vmi,
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "vm"},
        },
    )


def keep_away(api: Api, *taints: Object) -> None:
    """Taint every node; missing labels of young nodes would only warn."""
    for node in captured_cluster.nodes():
        where = path("v1", "nodes", "", node["metadata"]["name"])
        api.patch(where, {"spec": {"taints": list(taints)}})


def migrate(api: Api, attempt: str) -> ApiError | Object:
    """Return the migration, or why there is none."""
    try:
        return api.create(MIGRATIONS, {**MIGRATION, "metadata": {"name": attempt}})
    except ApiError as error:
        return error


def test_the_whole_installation_works(
    plane: ControlPlane,
    api: Api,
    guard: Path,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Reviews are answered before the guard has looked at its own installation.
    boards = (_ask(plane, "/readyz?verbose")[1].splitlines() for _ in tries())
    line = next(line for board in boards for line in board if "installation:" in line)
    assert "(as needed)" in line

    keep_away(api, {"key": "example.org/dedicated", "effect": "NoSchedule"})
    run_vm(api)
    # Until the guard has seen both, it allows.
    answers = (migrate(api, f"nowhere-to-go-{attempt}") for attempt in tries())
    refused = next(answer for answer in answers if isinstance(answer, ApiError))
    assert refused.reason == "Forbidden"
    assert refused.message.startswith(
        'admission webhook "migration-create.validate.migration-guard.io" denied the request: '
        "migration of VM default/vm from node node01 refused"
    )
    assert "example.org/dedicated" in refused.message

    api.wait_for(
        path("v1", "events", "default"),
        lambda event: event["source"]["component"] == "migration-guard",
        30,
        "an Event tells of the refusal",
        fieldSelector="involvedObject.name=vm",
    )

    (decision,) = re.findall(r"Decision ([0-9a-f-]{36})", refused.message)
    monkeypatch.setenv(DATABASE_VARIABLE, database)
    capsys.readouterr()
    assert any(main(["audit", "show", decision]) == 0 for _ in tries())
    assert "node node01 refused" in capsys.readouterr().out

    keep_away(api)
    answers = (migrate(api, f"somewhere-to-go-{attempt}") for attempt in tries())
    made = next(answer for answer in answers if not isinstance(answer, ApiError))
    notes = made["metadata"]["annotations"]
    assert {"migration-guard.io/decision", "migration-guard.io/completion-deadline"} <= notes.keys()
    assert "Traceback" not in guard.read_text(encoding="utf-8")
