"""certs issue --install: beside ``kubectl apply``, over what the Secret holds, by whom."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cryptography import x509

from tests.manifests.conftest import CONFIGURATIONS, Kubectl, installation
from tests.manifests.rendering import MANIFESTS, Object, combined
from tests.manifests.waiting import tries
from tests.testbed.bed.api import JSON_PATCH, Api, path
from tests.testbed.bed.control_plane import ControlPlane
from webhook.cli.certificate_installation import SECRET
from webhook.cli.commands.schema import output_schema
from webhook.cli.main import main
from webhook.serving.issuing import general_name, issue

RBAC = "rbac.authorization.k8s.io/v1"
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
    for where in (WHERE, *CONFIGURATIONS):
        api.delete(where)
    kubectl("apply", "-k", MANIFESTS / "overlays" / "strict")


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

    def run(*words: str, by: Path = kubeconfig) -> str:
        assert main(["certs", "issue", "--install", f"--kubeconfig={by}", *words]) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        return printed.err

    return run


def bundle_of_each(api: Api) -> dict[str, str]:
    """Return the caBundle of every webhook ("" for none)."""
    return {
        entry["name"]: entry["clientConfig"].get("caBundle", "")
        for where in CONFIGURATIONS
        for entry in api.get(where)["webhooks"]
    }


def bundles(api: Api) -> set[str]:
    """Return every caBundle that stands in a webhook ("" for none)."""
    return set(bundle_of_each(api).values())


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


def test_the_secret_and_every_ca_bundle_are_written_and_belong_together(
    issue_into: Issue, api: Api, tmp_path: Path
) -> None:
    value = issue_into()
    assert value["cluster"]["outcome"] == "created"
    assert value["cluster"]["secret"] == f"migration-guard/{SECRET}"
    assert bundles(api) == {value["caBundle"]}
    assert api.get(WHERE)["type"] == "kubernetes.io/tls"
    written = held(api)
    assert set(written) == {"tls.crt", "tls.key", "ca.crt"}
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    assert main(["certs", "verify", str(tmp_path)]) == 0


def test_a_second_call_keeps_what_is_good_and_fills_in_what_is_missing(
    issue_into: Issue, api: Api
) -> None:
    first, before = issue_into(), held(api)
    again = issue_into()["cluster"]
    assert (again["outcome"], again["webhooks"]) == ("kept", 0)
    removal = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
    api.patch(CONFIGURATIONS[1], removal, JSON_PATCH)
    mended = issue_into()["cluster"]
    assert (mended["outcome"], mended["webhooks"]) == ("kept", 1)
    assert bundles(api) == {first["caBundle"]}
    assert held(api) == before


def test_a_renewal_lets_the_api_server_trust_the_ca_before_too(issue_into: Issue, api: Api) -> None:
    issue_into()
    first = held(api)
    value = issue_into("--replace")
    second = held(api)
    assert value["cluster"]["outcome"] == "replaced"
    assert second["tls.key"] != first["tls.key"]
    assert second["ca.crt"].endswith(first["ca.crt"])
    assert second["ca.crt"] != first["ca.crt"]
    assert bundles(api) == {value["caBundle"]}
    assert base64.b64decode(value["caBundle"]) == second["ca.crt"]


def test_somebody_elses_certificate_is_kept_unless_replace_is_given(
    issue_into: Issue, refused: Refused, api: Api
) -> None:
    other = issued_before(days=90, left=80, authority="somebody")
    put(api, other)
    # It has all names that are asked for by default, and will do as it is.
    assert issue_into()["cluster"]["outcome"] == "kept"
    said = refused("--name", "another.test")
    assert "a certificate that 'CN=somebody' issued" in said
    assert held(api) == other
    assert issue_into("--replace")["cluster"]["outcome"] == "replaced"


def test_what_cert_manager_keeps_is_left_to_it(refused: Refused, api: Api) -> None:
    note = {"cert-manager.io/inject-ca-from": f"migration-guard/{SECRET}"}
    api.patch(CONFIGURATIONS[1], {"metadata": {"annotations": note}})
    assert "is kept by cert-manager" in refused()
    assert (api.find(WHERE), bundles(api)) == (None, {""})
    gone = dict.fromkeys(note)
    api.patch(CONFIGURATIONS[1], {"metadata": {"annotations": gone}})


def test_without_webhook_configurations_nothing_is_written(
    refused: Refused, api: Api, kubectl: Kubectl
) -> None:
    api.delete(CONFIGURATIONS[0])
    assert "install the manifests first" in refused()
    assert api.find(WHERE) is None
    kubectl("apply", "-k", MANIFESTS / "overlays" / "strict")
    assert bundles(api) == {""}


def test_whoever_is_a_stranger_is_told_in_one_line(refused: Refused, plane: ControlPlane) -> None:
    stranger = plane.write_kubeconfig("stranger", {"token": "nobody"})
    assert "401" in refused(by=stranger)


def test_the_rights_in_the_documentation_are_enough_and_are_needed(
    refused: Refused, plane: ControlPlane, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    renewer = plane.credentials("renewer")
    assert "403" in refused(by=renewer)
    page = (MANIFESTS.parent / "docs" / "installation.md").read_text(encoding="utf-8")
    section = page.partition("## Rights to install a certificate")[2]
    roles = list(yaml.safe_load_all(section.partition("```yaml")[2].partition("```")[0]))
    assert {role["kind"] for role in roles} == {"ClusterRole", "Role"}
    for role in roles:
        name, namespace = role["metadata"]["name"], role["metadata"].get("namespace", "")
        kind = role["kind"].lower()
        api.create(path(RBAC, f"{kind}s", namespace), role)
        group = {"apiGroup": "rbac.authorization.k8s.io"}
        binding: Object = {
            "metadata": {"name": name},
            "roleRef": {**group, "kind": role["kind"], "name": name},
            "subjects": [{**group, "kind": "User", "name": "renewer"}],
        }
        api.create(path(RBAC, f"{kind}bindings", namespace), binding)
    argv = ["certs", "issue", "--install", f"--kubeconfig={renewer}"]
    assert any(main(argv) == 0 for _ in tries())
    assert main([*argv, "--replace"]) == 0
    assert "PRIVATE KEY" not in capsys.readouterr().out


def test_applying_the_manifests_again_keeps_the_ca(
    issue_into: Issue, api: Api, kubectl: Kubectl
) -> None:
    value = issue_into()
    kubectl("apply", "-k", MANIFESTS / "overlays" / "strict")
    assert bundles(api) == {value["caBundle"]}


def test_webhooks_that_come_later_have_no_ca_until_it_is_installed_again(
    issue_into: Issue, api: Api, kubectl: Kubectl, tmp_path: Path
) -> None:
    first, before = issue_into(), held(api)
    installed = bundle_of_each(api)
    kubectl("apply", "-k", combined(tmp_path, "strict", "drain", "first-boot"))
    later = bundle_of_each(api)
    added = {"eviction.mutate.migration-guard.io", "first-pod-create.mutate.migration-guard.io"}
    # kubectl merges webhooks by name: what it does not know of the others stays.
    assert later == installed | dict.fromkeys(added, "")
    again = issue_into()["cluster"]
    assert (again["outcome"], again["webhooks"]) == ("kept", len(added))
    assert bundles(api) == {first["caBundle"]}
    assert held(api) == before


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
