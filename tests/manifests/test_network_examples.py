"""The network policies that the documents show: what they leave open, once rendered."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.manifests.conftest import Kubectl
from tests.manifests.rendering import MANIFESTS, Object, combined, objects_of, of_kind

DOCS = MANIFESTS.parent / "docs"
IN = [{"port": 8443, "protocol": "TCP"}]


def examples(page: str, section: str) -> list[str]:
    """Return the blocks of YAML in a section of a document."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"```yaml\n(.*?)```", found, flags=re.DOTALL)


def closed(folder: Path, api_server: str) -> list[Object]:
    """Render the base with the patch of docs/installation.md and one of its policies."""
    ours = yaml.safe_load(examples("installation.md", "Network")[0])
    base, file = ours["resources"]
    assert base == "../migration-guard/manifests/base"
    (folder / file).write_text(api_server, encoding="utf-8")
    return objects_of(combined(folder, beside=[file], patches=ours["patches"]))


def test_with_cilium_nothing_is_open_but_to_the_api_server(tmp_path: Path) -> None:
    _, cilium, _ = examples("installation.md", "Network")
    objects = closed(tmp_path, cilium)
    (base,) = of_kind(objects, "NetworkPolicy")
    # It selects every pod and names no rule, so it closes both ways.
    assert base["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (policy,) = of_kind(objects, "CiliumNetworkPolicy")
    assert policy["metadata"]["namespace"] == base["metadata"]["namespace"]
    assert policy["spec"]["endpointSelector"] == {}
    (rule,) = policy["spec"]["ingress"]
    assert "kube-apiserver" in rule["fromEntities"]
    assert not {"all", "cluster", "world"} & set(rule["fromEntities"])
    assert rule["toPorts"] == [{"ports": [{"port": "8443", "protocol": "TCP"}]}]
    assert policy["spec"]["egress"] == [{"toEntities": ["kube-apiserver"]}]


def test_by_addresses_nothing_is_open_but_to_the_api_server(
    tmp_path: Path, kubectl: Kubectl
) -> None:
    *_, by_address = examples("installation.md", "Network")
    policies = of_kind(closed(tmp_path, by_address), "NetworkPolicy")
    specs = {policy["metadata"]["name"]: policy["spec"] for policy in policies}
    assert not specs["migration-guard"].keys() & {"ingress", "egress"}
    (inward,), (outward,) = (
        specs["migration-guard-api-server"][way] for way in ("ingress", "egress")
    )
    assert inward["ports"] == IN
    assert inward["from"] == outward["to"]
    assert all("ipBlock" in peer for peer in inward["from"])
    rendered = tmp_path / "policies.json"
    listed = {"apiVersion": "v1", "kind": "List", "items": policies}
    rendered.write_text(json.dumps(listed), encoding="utf-8")
    kubectl("create", "namespace", "migration-guard")
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", rendered)


@pytest.mark.parametrize("parts", [(), ("high-availability", "harvester")], ids=["base", "more"])
def test_another_port_of_the_api_server_is_opened_beside_the_usual(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    (patch,) = examples("support.md", "An API server on another port")
    objects = objects_of(combined(tmp_path, *parts, **yaml.safe_load(patch)))
    specs = {p["metadata"]["name"]: p["spec"] for p in of_kind(objects, "NetworkPolicy")}
    (out,) = specs["migration-guard"]["egress"]
    assert [port["port"] for port in out["ports"]] == [443, 6443, 16443]
    assert specs["migration-guard"]["ingress"] == [{"ports": IN}]
