"""review: the server's decision, offline."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import uuid_utils

from tests.captured_cluster import FIXTURES
from tests.cli.conftest import CLUSTER, DEMO, Run
from webhook.cluster.inventory import load
from webhook.policy.configuration import Configuration
from webhook.review.answer import MUTATE, VALIDATE, Answerer

Write = Callable[[str, str], Path]
WORKED = DEMO / "worked_example"
NOW = "2026-11-26T12:00:00Z"
MIGRATE = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata: {{name: m, namespace: {namespace}}}
spec: {{vmiName: {name}}}
"""


def migrate(namespace: str, name: str) -> str:
    return MIGRATE.format(namespace=namespace, name=name)


def test_a_refused_migration_exits_with_1_and_tells_everything(checked: Run, write: Write) -> None:
    path = write("m.yaml", migrate("plant", "historian"))
    ran = checked("review", "-f", path, "--inventory", CLUSTER, "--as", "anna", "--now", NOW)
    (item,) = ran.json["items"]
    assert ran.status == 1
    assert item["document"] == f"{path}#0"
    assert (item["allowed"], item["code"], item["outcome"]) == (False, 403, "refused")
    assert (item["user"], item["origin"], item["operation"]) == ("anna", "user", "CREATE")
    assert {node["name"] for node in item["nodes"]} == {
        *("cascade-1", "cascade-2", "haswell-1", "haswell-2", "icelake-1"),
        *("milan-1", "milan-2", "rome-1"),
    }
    assert item["decision"] in item["message"]
    assert {"rule": "incompatible-target", "mode": "enforce", "outcome": "refused"} in item["rules"]


def test_an_allowed_migration_exits_with_0(checked: Run, write: Write) -> None:
    path = write("m.yaml", migrate("shop", "database"))
    ran = checked("review", "-f", path, "--inventory", CLUSTER)
    assert ran.status == 0
    assert ran.json["items"][0]["code"] == 200


def test_broken_documents_are_named_and_the_others_reviewed(checked: Run, write: Write) -> None:
    text = "---\n".join(("kind: [\n", migrate("shop", "database"), "metadata: 3\n"))
    path = write("mixed.yaml", text)
    ran = checked("review", "-f", path, "--inventory", CLUSTER)
    assert ran.status == 2
    assert len(ran.json["items"]) == 1
    assert len(ran.json["errors"]) == 2
    assert all(error["document"].startswith(str(path)) for error in ran.json["errors"])


def test_vmis_of_the_same_call_join_the_inventory(checked: Run, write: Write) -> None:
    vmi = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: fresh, namespace: shop, uid: u}
spec: {domain: {cpu: {model: host-model}, memory: {guest: 1Gi}}}
status: {phase: Running, nodeName: cascade-1}
"""
    path = write("both.yaml", vmi + "---\n" + migrate("shop", "fresh"))
    ran = checked("review", "-f", path, "--inventory", CLUSTER)
    assert ran.json["items"][1]["outcome"] != "left-to-kubevirt"


def test_old_and_new_are_paired_by_kind_namespace_and_name(checked: Run, write: Write) -> None:
    form = (
        "apiVersion: kubevirt.io/v1\nkind: KubeVirt\n"
        "metadata: {{name: kubevirt, namespace: x}}\n"
        "spec: {{configuration: {{cpuModel: '{}'}}}}\n"
    )
    new, old = write("new.yaml", form.format("Nonesuch")), write("old.yaml", form.format(""))
    ran = checked("review", "-f", new, "--old", old, "--inventory", CLUSTER)
    (item,) = ran.json["items"]
    assert (item["operation"], item["outcome"]) == ("UPDATE", "refused")


def test_a_kind_that_no_rule_speaks_of_is_not_reviewed(checked: Run, write: Write) -> None:
    path = write("s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    ran = checked("review", "-f", path, "--inventory", CLUSTER)
    assert (ran.status, ran.json["items"][0]["outcome"]) == (0, "not-reviewed")


def test_the_worked_example_counts_its_deadline(checked: Run, write: Write) -> None:
    path = write("m.yaml", migrate("default", "vm-1"))
    inventories = ("--inventory", WORKED / "nodes", "--inventory", WORKED / "cluster_model")
    ran = checked("review", "-f", path, *inventories, "--now", NOW)
    (item,) = ran.json["items"]
    patched = jsonpatch.apply_patch({"metadata": {}, "spec": {}}, item["patch"])
    written = patched["metadata"]["annotations"]
    assert item["allowed"]
    assert written["migration-guard.io/completion-timeout"] == "6400s"
    assert written["migration-guard.io/completion-deadline"] == "2026-11-26T13:46:40Z"


def normal(value: Any) -> Any:
    """Replace decision ids, which differ from run to run."""
    return json.loads(re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", json.dumps(value)))


@pytest.mark.parametrize(
    "path", sorted((FIXTURES / "reviews-1.8.4").glob("*.json")), ids=lambda path: path.stem
)
def test_offline_and_server_agree_on_every_captured_review(checked: Run, path: Path) -> None:
    inventory = load([CLUSTER]).snapshot
    answerer = Answerer(
        lambda: inventory,
        Configuration,
        lambda: datetime.fromisoformat(NOW),
        lambda: str(uuid_utils.uuid7()),
    )
    document = json.loads(path.read_bytes())
    first = json.loads(answerer.answer(MUTATE, json.dumps(document).encode()).body)["response"]
    patch = json.loads(base64.b64decode(first["patch"])) if "patch" in first else []
    document["request"]["object"] = jsonpatch.apply_patch(document["request"]["object"], patch)
    last = first
    if first["allowed"]:
        answer = answerer.answer(VALIDATE, json.dumps(document).encode())
        last = json.loads(answer.body)["response"]
    ran = checked("review", "-f", path, "--inventory", CLUSTER, "--now", NOW)
    (item,) = ran.json["items"]
    assert item["allowed"] == last["allowed"]
    assert item["warnings"] == last.get("warnings", [])
    assert normal(item["patch"]) == normal(patch)
    if not last["allowed"]:
        assert normal(item["message"]) == normal(last["status"]["message"])
