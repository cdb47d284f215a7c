"""What virt-controller 1.8.4 really rendered equals what the model predicts, key for key."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests import captured_cluster as cluster
from tests.cluster.objects import facts
from webhook.model.migration import Migration
from webhook.model.requirements import Requirements

VENDOR = "cpu-vendor.node.kubevirt.io/"
MIGRATION_MODEL = "cpu-model-migration.node.kubevirt.io/Cascadelake-Server"


def predicted(
    vmi: dict[str, Any] | None = None,
    nodes: list[dict[str, Any]] | None = None,
    pod: dict[str, Any] | None = None,
    added: dict[str, str] | None = None,
) -> Requirements:
    vmi = vmi or cluster.running_vmi()
    known = facts(*(nodes or cluster.nodes()), cluster.kubevirt(), vmi, pod or cluster.source_pod())
    asked = cluster.migration()
    asked["spec"]["addedNodeSelector"] = added or {}
    key = f"{vmi['metadata'].get('namespace', 'default')}/{vmi['metadata']['name']}"
    return known.requirements(known.vmis[key], Migration.from_object(asked))


def selectors(demanded: Requirements) -> dict[str, str]:
    return {key: selector.value for key, selector in demanded.selectors.items()}


def with_cpu(model: str, *features: str) -> dict[str, Any]:
    vmi = copy.deepcopy(cluster.running_vmi())
    vmi["spec"]["domain"]["cpu"] = {
        "model": model,
        "features": [{"name": f, "policy": "require"} for f in features],
    }
    return vmi


def real(name: str) -> dict[str, str]:
    found: dict[str, str] = cluster.captured(f"defects-1.8.4/{name}.nodeSelector.json")
    return found


def test_the_captured_target_pod_is_predicted_key_for_key() -> None:
    review = cluster.captured("reviews-1.8.4/target-pod-create-validating.json")
    pod = review["request"]["object"]
    demanded = predicted()
    assert selectors(demanded) == pod["spec"]["nodeSelector"]
    assert demanded.additions == {}


def test_the_captured_target_pod_asks_for_what_the_source_pod_asks() -> None:
    review = cluster.captured("reviews-1.8.4/target-pod-create-validating.json")
    pod = facts(
        {
            **review["request"]["object"],
            "apiVersion": "v1",
            "kind": "Pod",
            "spec": {**review["request"]["object"]["spec"], "nodeName": "node02"},
        }
    )
    (several,) = pod.pods.values()
    assert predicted().requests == several[0].requests


def test_defect_1_a_required_feature_makes_kubevirt_forget_the_source_cpu() -> None:
    pod = cluster.source_pod(**{"cpu-feature.node.kubevirt.io/avx512f": "true"})
    demanded = predicted(with_cpu("host-model", "avx512f"), pod=pod)
    by_kubevirt = selectors(demanded.without_additions())
    assert by_kubevirt == real("i-host-model-with-required-feature.first-migration")
    assert set(demanded.additions) == {
        MIGRATION_MODEL,
        *(f"cpu-feature.node.kubevirt.io/{f}" for f in cluster.CASCADELAKE_FEATURES),
    }


def test_defect_2_a_source_without_host_model_label_is_an_obstacle_everywhere() -> None:
    nodes = cluster.nodes()
    del nodes[0]["metadata"]["labels"]["host-model-cpu.node.kubevirt.io/Cascadelake-Server"]
    demanded = predicted(nodes=nodes)
    assert selectors(demanded) == real("ii-source-node-without-host-model-cpu-label")
    (obstacle,) = demanded.everywhere
    assert obstacle.code == "source-cpu-unknown"
    assert "node01" in obstacle.detail


@pytest.mark.parametrize("model", ["host-model", "host-passthrough"])
def test_defect_3_an_added_vendor_switches_kubevirts_guard_off(model: str) -> None:
    demanded = predicted(with_cpu(model), added={VENDOR + "AMD": "true"})
    assert selectors(demanded.without_additions()) == real(f"iii-added-vendor-AMD.{model}")
    assert demanded.additions == {VENDOR + "Intel": "true"}


def test_defect_4_remembered_selectors_outlive_the_labels_of_the_nodes() -> None:
    first = real("iv-first-migration")
    pod = cluster.source_pod(**first)
    pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"] = "an-earlier-one"
    nodes = cluster.nodes()
    for node, changed in zip(
        nodes, cluster.captured("defects-1.8.4/iv-node-labels.json"), strict=False
    ):
        node["metadata"]["labels"].pop("cpu-feature.node.kubevirt.io/md-clear", None)
        node["metadata"]["labels"].update(changed)
    demanded = predicted(nodes=nodes, pod=pod)
    assert selectors(demanded) == real("iv-second-migration-after-label-change")
    remembered = {s.key for s in demanded.selectors.values() if s.origin == "remembered"}
    assert "cpu-feature.node.kubevirt.io/md-clear" in remembered


def test_a_target_pod_of_a_real_skylake_node_is_predicted_key_for_key() -> None:
    vmi = cluster.captured("kubevirt/a-vmi-running.json")
    pod = cluster.captured("kubevirt/c-source-pod-as-created.json")
    pod["metadata"] |= {"name": "source", "namespace": "prod-vms"}
    pod["spec"]["nodeName"] = "node-skylake-01"
    nodes = [
        cluster.captured(f"kubevirt/e-node-{name}-01.json")
        for name in ("skylake", "haswell", "amd")
    ]
    for node in nodes:
        node |= {"apiVersion": "v1", "kind": "Node"}
    known = facts(
        *nodes, {**vmi, "apiVersion": "kubevirt.io/v1"}, {**pod, "apiVersion": "v1", "kind": "Pod"}
    )
    asked = Migration.from_object(cluster.captured("kubevirt/b-vmim-pending.json"))
    demanded = known.requirements(known.vmis["prod-vms/web-01"], asked)
    target = cluster.captured("kubevirt/d-target-pod-as-created.json")
    assert selectors(demanded) == target["spec"]["nodeSelector"]
    assert len(demanded.selectors) == 89
