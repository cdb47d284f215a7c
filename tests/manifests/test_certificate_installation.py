"""certs issue --install beside ``kubectl apply``, and over what it finds in the Secret.

More of it, its rights among them: tests/cluster/test_certificate_installation.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography import x509

from tests.manifests.conftest import CONFIGURATIONS, Kubectl, installation
from tests.manifests.rendering import MANIFESTS, Object
from tests.testbed.bed.api import Api, path
from tests.testbed.bed.control_plane import ControlPlane
from webhook.cli.certificate_installation import SECRET
from webhook.cli.commands.schema import output_schema
from webhook.cli.main import main
from webhook.serving.issuing import general_name, issue

SECRETS = path("v1", "secrets", "migration-guard")
WHERE = f"{SECRETS}/{SECRET}"
NAMES = ["migration-guard.migration-guard.svc", "migration-guard.migration-guard.svc.cluster.local"]

Issue = Callable[..., dict[str, Any]]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane, kubectl: Kubectl) -> Iterator[Path]:
    """The administrator's, with the manifests applied."""
    with installation(plane, kubectl, MANIFESTS / "overlays" / "strict"):
        yield plane.kubeconfig


@pytest.fixture(autouse=True)
def nothing_issued(api: Api, kubeconfig: Path, kubectl: Kubectl) -> None:
    api.delete(WHERE)
    kubectl("apply", "-k", MANIFESTS / "overlays" / "strict", "--force-conflicts", "--server-side")
    for where in CONFIGURATIONS:
        entries = api.get(where)["webhooks"]
        empty = [
            {"op": "remove", "path": f"/webhooks/{number}/clientConfig/caBundle"}
            for number, entry in enumerate(entries)
            if "caBundle" in entry["clientConfig"]
        ]
        api.patch(where, empty, "application/json-patch+json")


@pytest.fixture
def issue_into(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> Issue:
    """Run the command; return its JSON."""

    def run(*words: str) -> dict[str, Any]:
        argv = ["certs", "issue", "--install", f"--kubeconfig={kubeconfig}", "-o", "json", *words]
        status = main(argv)
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert "PRIVATE KEY" not in printed.out
        value = json.loads(printed.out)
        jsonschema.validate(value, output_schema("certs-issue"))
        return value

    return run


@pytest.fixture
def refused(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command in vain; return what it says."""

    def run(*words: str) -> str:
        assert main(["certs", "issue", "--install", f"--kubeconfig={kubeconfig}", *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    return run


def bundles(api: Api) -> set[str]:
    """Return every caBundle that stands in a webhook ("" for none)."""
    return {
        entry["clientConfig"].get("caBundle", "")
        for where in CONFIGURATIONS
        for entry in api.get(where)["webhooks"]
    }


def held(api: Api) -> dict[str, bytes]:
    data = api.get(WHERE)["data"]
    return {name: base64.b64decode(value) for name, value in data.items()}


def put(api: Api, content: dict[str, bytes]) -> None:
    data = {name: base64.b64encode(value).decode() for name, value in content.items()}
    secret: Object = {"metadata": {"name": SECRET}, "type": "kubernetes.io/tls", "data": data}
    api.create(SECRETS, secret)


def issued_before(days: int, left: int, authority: str = "migration-guard CA") -> dict[str, bytes]:
    """Return the content of a Secret whose certificate is valid for so many days, some left."""
    begun = datetime.now(UTC) - timedelta(days=days - left)
    made = issue(
        [general_name(n) for n in (*NAMES, "migration-guard.migration-guard", "migration-guard")],
        begun,
        timedelta(days=days),
        authority_name=authority,
    )
    return {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": made.authority}


def test_applying_the_manifests_again_keeps_the_ca(
    issue_into: Issue, api: Api, kubectl: Kubectl
) -> None:
    value = issue_into()
    kubectl("apply", "-k", MANIFESTS / "overlays" / "strict")
    assert bundles(api) == {value["caBundle"]}


def test_a_ca_that_was_lost_is_written_again_without_a_new_certificate(
    issue_into: Issue, api: Api, kubectl: Kubectl
) -> None:
    first = issue_into()
    api.delete(CONFIGURATIONS[0])
    kubectl("apply", "-k", MANIFESTS / "overlays" / "strict")
    second = issue_into()
    assert second["cluster"]["outcome"] == "kept"
    assert second["cluster"]["webhooks"] == len(api.get(CONFIGURATIONS[0])["webhooks"])
    assert bundles(api) == {first["caBundle"]}


@pytest.mark.parametrize(("left", "outcome"), [(35, "kept"), (25, "replaced")])
def test_in_the_last_third_of_its_life_a_certificate_is_renewed(
    left: int, outcome: str, issue_into: Issue, api: Api
) -> None:
    before = issued_before(days=90, left=left)
    put(api, before)
    value = issue_into()
    assert value["cluster"]["outcome"] == outcome
    trusted = base64.b64decode(value["caBundle"])
    assert before["ca.crt"] in trusted, "the certificate before is trusted until it ends"
    assert (held(api)["tls.crt"] == before["tls.crt"]) is (outcome == "kept")


def test_a_ca_that_has_ended_is_left_out(issue_into: Issue, api: Api) -> None:
    put(api, issued_before(days=10, left=-1))
    value = issue_into()
    assert value["cluster"]["outcome"] == "replaced"
    assert len(x509.load_pem_x509_certificates(base64.b64decode(value["caBundle"]))) == 1


def test_a_secret_that_cannot_be_read_is_not_replaced_unasked(
    issue_into: Issue, refused: Refused, api: Api
) -> None:
    put(api, {"tls.crt": b"torn", "tls.key": b"torn"})
    assert "holds no certificate with its key and CA; give --replace" in refused()
    assert bundles(api) == {""}
    assert issue_into("--replace")["cluster"]["outcome"] == "replaced"


def test_a_folder_and_a_cluster_exclude_each_other(refused: Refused, tmp_path: Path) -> None:
    assert "FOLDER and --install exclude each other" in refused(str(tmp_path))
