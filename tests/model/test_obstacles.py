"""Lasting, passing and risk: every kind of obstacle (docs/rules.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.cluster.objects import facts
from tests.review.asking import launcher, node, vmi
from webhook.model.node import Node
from webhook.model.obstacle import Obstacle
from webhook.model.placement import Assessment, assess, assess_one
from webhook.model.snapshot import Snapshot

HERE = node("a")


def judge(target: dict[str, Any], guest: dict[str, Any] | None = None, *more: Any) -> Any:
    known = facts(HERE, target, guest or vmi(), launcher(), *more)
    demanded = known.requirements(known.vmis["prod/web"])
    conditions = known.conditions(demanded, (), None)
    return {
        o.code: o for o in assess_one(demanded, known.nodes.by_name["b"], known.nodes, conditions)
    }


def only(found: dict[str, Obstacle], code: str, kind: str) -> Obstacle:
    assert {c: o.kind for c, o in found.items()} == {code: kind}
    return found[code]


def test_an_equal_node_has_no_obstacle() -> None:
    assert judge(node("b")) == {}


def changed(**spec: Any) -> dict[str, Any]:
    target = node("b")
    target["spec"] = spec
    return target


def test_a_cordoned_node_is_passing() -> None:
    only(judge(changed(unschedulable=True)), "cordoned", "passing")


def test_a_cordon_and_its_taint_are_one_obstacle() -> None:
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    only(judge(changed(unschedulable=True, taints=[taint])), "cordoned", "passing")


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_that_is_not_ready_is_passing(status: str) -> None:
    target = node("b")
    target["status"]["conditions"] = [{"type": "Ready", "status": status}]
    only(judge(target), "not-ready", "passing")


def test_a_node_that_kubevirt_marks_is_passing() -> None:
    only(judge(node("b", **{"kubevirt.io/schedulable": "false"})), "not-schedulable", "passing")


def test_a_node_without_kubevirt_is_lasting_and_lists_no_cpu_labels() -> None:
    bare = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b"}}
    found = judge(bare)
    assert set(found) == {"no-kubevirt"}
    assert found["no-kubevirt"].missing == ("kubevirt.io/schedulable",)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("dedicated", "lasting"),
        ("kubevirt.io/drain", "passing"),
        ("node.kubernetes.io/memory-pressure", "passing"),
    ],
)
def test_a_taint_lasts_unless_it_is_known_to_pass(key: str, kind: str) -> None:
    taint = {"key": key, "value": "x", "effect": "NoSchedule"}
    known = facts(HERE, changed(taints=[taint]), vmi(), launcher())
    demanded = known.requirements(known.vmis["prod/web"])
    conditions = known.conditions(demanded, ("node.kubernetes.io/*",), None)
    (found,) = assess_one(demanded, known.nodes.by_name["b"], known.nodes, conditions)
    assert (found.code, found.kind, found.present) == ("taint", kind, (f"{key}=x:NoSchedule",))


def test_a_taint_that_only_prefers_does_not_matter() -> None:
    assert judge(changed(taints=[{"key": "x", "effect": "PreferNoSchedule"}])) == {}


def test_a_tolerated_taint_does_not_matter() -> None:
    guest = vmi(tolerations=[{"key": "dedicated", "operator": "Exists"}])
    assert judge(changed(taints=[{"key": "dedicated", "effect": "NoSchedule"}]), guest) == {}


@pytest.mark.parametrize(
    ("guest", "code", "origin", "missing"),
    [
        (vmi(model="New"), "cpu-model", "cpu-model", "cpu-model.node.kubevirt.io/New"),
        (
            vmi(model="123", domain={"cpu": {"model": "123", "features": [{"name": "f"}]}}),
            "cpu-feature",
            "vm",
            "cpu-feature.node.kubevirt.io/f",
        ),
        (
            vmi(domain={"machine": {"type": "q35"}}),
            "machine-type",
            "vm",
            "machine-type.node.kubevirt.io/q35",
        ),
        (
            vmi(architecture="arm64", model="host-passthrough"),
            "architecture",
            "vm",
            "kubernetes.io/arch=arm64",
        ),
        (
            vmi(domain={"cpu": {"model": "123", "dedicatedCpuPlacement": True}}),
            "cpu-manager",
            "vm",
            "kubevirt.io/cpumanager",
        ),
        (
            vmi(domain={"cpu": {"model": "123", "realtime": {}}}),
            "realtime",
            "vm",
            "kubevirt.io/realtime",
        ),
        (vmi(domain={"launchSecurity": {"sev": {}}}), "sev", "vm", "kubevirt.io/sev"),
        (vmi(domain={"launchSecurity": {"tdx": {}}}), "tdx", "vm", "kubevirt.io/tdx"),
        (vmi(nodeSelector={"zone": "x"}), "node-selector", "vm", "zone=x"),
    ],
)
def test_a_label_that_lacks_is_lasting(
    guest: dict[str, Any], code: str, origin: str, missing: str
) -> None:
    found = only(judge(node("b"), guest), code, "lasting")
    assert (found.origin, found.missing) == (origin, (missing,))


def test_another_vendor_and_another_host_model_are_lasting() -> None:
    found = judge(node("b", "ABC", "AMD"))
    assert {c: o.kind for c, o in found.items()} == {
        "cpu-vendor": "lasting",
        "cpu-model": "lasting",
    }
    assert found["cpu-model"].origin == "source-cpu"


def test_one_of_two_vendor_labels_of_the_source_is_enough() -> None:
    both = node("a", **{"cpu-vendor.node.kubevirt.io/AMD": "true"})
    known = facts(both, node("b"), node("c", vendor="VIA"), vmi(), launcher())
    demanded = known.requirements(known.vmis["prod/web"])
    assert assess(demanded, known.nodes).targets == ("b",)
    assert any("one of them stale" in note for note in demanded.notes)


def test_an_obsolete_host_model_is_present_where_it_must_not_be() -> None:
    key = "node-labeller.kubevirt.io/obsolete-host-model"
    assert only(judge(node("b", **{key: "true"})), "host-model-obsolete", "lasting").present == (
        key,
    )


def test_a_forbidden_feature_must_not_be_there() -> None:
    key = "cpu-feature.node.kubevirt.io/f"
    cpu = {"model": "host-model", "features": [{"name": "f", "policy": "forbid"}]}
    found = only(
        judge(node("b", **{key: "true"}), vmi(domain={"cpu": cpu})), "cpu-feature", "lasting"
    )
    assert found.present == (key,)


@pytest.mark.parametrize("policy", ["optional", "disable", "force"])
def test_other_policies_have_no_effect_on_placement(policy: str) -> None:
    cpu = {"model": "host-model", "features": [{"name": "f", "policy": policy}]}
    assert judge(node("b"), vmi(domain={"cpu": cpu})) == {}


def required(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = [{"matchExpressions": [expression]} for expression in expressions]
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
        }
    }


def test_harvesters_network_has_a_code_and_an_origin_of_its_own() -> None:
    key = "network.harvesterhci.io/vlan100"
    affinity = required({"key": key, "operator": "In", "values": ["true"]})
    found = only(judge(node("b"), vmi(affinity=affinity)), "network", "lasting")
    assert (found.origin, found.missing) == ("network", (key,))


def test_terms_of_an_affinity_are_alternatives() -> None:
    affinity = required(
        {"key": "zone", "operator": "In", "values": ["x"]}, {"key": "ssd", "operator": "Exists"}
    )
    assert judge(node("b", ssd=""), vmi(affinity=affinity)) == {}
    found = only(judge(node("b"), vmi(affinity=affinity)), "node-affinity", "lasting")
    assert found.missing == ("ssd", "zone=x")


@pytest.mark.parametrize(
    ("frequency", "scalable", "kind"),
    [
        ("1000000000", "false", "lasting"),
        ("2000100000", "false", "passing"),
        ("3000000000", "true", "passing"),
        ("1000000000", "true", "lasting"),
    ],
)
def test_a_tsc_frequency_lasts_only_where_the_timer_cannot_give_it(
    frequency: str, scalable: str, kind: str
) -> None:
    cpu = {"model": "123", "features": [{"name": "invtsc", "policy": "force"}]}
    guest = vmi(domain={"cpu": cpu})
    guest["status"]["topologyHints"] = {"tscFrequency": 2000000000}
    timer = {
        "cpu-timer.node.kubevirt.io/tsc-frequency": frequency,
        "cpu-timer.node.kubevirt.io/tsc-scalable": scalable,
    }
    only(judge(node("b", **timer), guest), "tsc-frequency", kind)


@pytest.mark.parametrize(
    ("capacity", "allocatable", "kind"),
    [
        ({"memory": "4Gi"}, {"memory": "4Gi"}, "lasting"),
        ({"memory": "9Gi"}, {"memory": "7Gi"}, "passing"),
        (
            {"memory": "64Gi", "nvidia.com/a100": "0"},
            {"memory": "64Gi", "nvidia.com/a100": "0"},
            "passing",
        ),
        ({"memory": "64Gi"}, {"memory": "64Gi"}, "lasting"),
    ],
)
def test_size_is_judged_against_capacity_and_allocatable(
    capacity: dict[str, str], allocatable: dict[str, str], kind: str
) -> None:
    target = node("b")
    target["status"] |= {
        "capacity": {"cpu": "8", **capacity},
        "allocatable": {"cpu": "8", **allocatable},
    }
    asks_gpu = capacity["memory"] == "64Gi"
    pod = launcher()
    asked = {"memory": "8Gi", **({"nvidia.com/a100": "1"} if asks_gpu else {})}
    pod["spec"]["containers"] = [{"name": "compute", "resources": {"requests": asked}}]
    known = facts(HERE, target, vmi(), pod)
    demanded = known.requirements(known.vmis["prod/web"])
    (found,) = assess_one(demanded, known.nodes.by_name["b"], known.nodes)
    assert (found.code, found.kind) == ("resources", kind)


def test_no_room_now_is_passing_and_says_what_was_counted() -> None:
    target = node("b")
    target["status"] |= {"capacity": {"memory": "16Gi"}, "allocatable": {"memory": "16Gi"}}
    found = only(
        judge(target, None, vmi("big", at="b", domain={"memory": {"guest": "12Gi"}})),
        "resources",
        "passing",
    )
    assert "counting virtual machines only" in found.detail


def test_a_volume_that_cannot_be_reached_is_lasting() -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "d", "namespace": "prod"},
        "spec": {"volumeName": "pv", "accessModes": ["ReadWriteOncePod"]},
    }
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]}]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pv"},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
    }
    for hot, origin in ((False, "vm"), (True, "guard")):
        source = {"claimName": "d", "hotpluggable": hot}
        guest = vmi(volumes=[{"name": "disk", "persistentVolumeClaim": source}])
        found = only(judge(node("b"), guest, claim, volume), "volume-topology", "lasting")
        assert (found.origin, found.missing) == (origin, ("zone=x",))
        known = facts(HERE, guest, claim, volume)
        assert "ReadWriteOncePod" in known.requirements(known.vmis["prod/web"]).not_judged


def test_what_cannot_be_judged_is_said() -> None:
    guest = vmi(topologySpreadConstraints=[{}], resourceClaims=[{}])
    known = facts(HERE, guest)
    demanded = known.requirements(known.vmis["prod/web"])
    assert demanded.not_judged == ("topologySpreadConstraints", "resourceClaims")


def test_another_vm_that_it_keeps_away_from_is_passing() -> None:
    term = {
        "labelSelector": {"matchLabels": {"app": "db"}},
        "topologyKey": "kubernetes.io/hostname",
    }
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    neighbour = launcher("db", "b")
    neighbour["metadata"]["labels"]["app"] = "db"
    only(judge(node("b"), vmi(affinity=affinity), neighbour), "pod-affinity", "passing")


def near(*apps: str) -> dict[str, Any]:
    terms = [
        {"labelSelector": {"matchLabels": {app: "yes"}}, "topologyKey": "kubernetes.io/hostname"}
        for app in apps
    ]
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def running(at: str, *apps: str) -> dict[str, Any]:
    pod = launcher("-".join(apps), at)
    pod["metadata"]["labels"] |= dict.fromkeys(apps, "yes")
    return pod


def test_a_vm_that_must_be_near_another_goes_where_that_one_is() -> None:
    assert judge(node("b"), vmi(affinity=near("db")), running("b", "db")) == {}
    only(judge(node("b"), vmi(affinity=near("db")), running("a", "db")), "pod-affinity", "passing")


def test_only_a_pod_that_meets_every_affinity_term_counts() -> None:
    wishes = vmi(affinity=near("db", "fast"))
    assert judge(node("b"), wishes, running("b", "db", "fast")) == {}
    only(
        judge(node("b"), wishes, running("b", "db"), running("b", "fast")),
        "pod-affinity",
        "passing",
    )


def test_the_first_of_a_group_that_wants_to_be_together_may_go_anywhere() -> None:
    first = vmi(affinity=near("web"))
    first["metadata"]["labels"] = {"web": "yes"}
    assert judge(node("b"), first) == {}


def test_it_is_not_the_first_of_its_group_unless_it_meets_every_term_itself() -> None:
    first = vmi(affinity=near("web", "fast"))
    first["metadata"]["labels"] = {"web": "yes"}
    only(judge(node("b"), first), "pod-affinity", "passing")


def test_the_source_itself_is_out() -> None:
    known = facts(HERE, node("b"), vmi(), launcher())
    judged = assess(known.requirements(known.vmis["prod/web"]), known.nodes)
    assert [o.code for part in judged.parts if part.is_source for o in part.obstacles] == [
        "same-node"
    ]
    assert judged.targets == ("b",)


def settling(known: Snapshot, now: float) -> Assessment:
    nodes = [
        replace(n, settling_until=1000.0) if n.name == "b" else n
        for n in known.nodes.by_name.values()
    ]
    demanded = known.requirements(known.vmis["prod/web"])
    conditions = known.conditions(demanded, (), now)
    return assess(demanded, type(known.nodes)(nodes), conditions)


def test_a_label_that_may_yet_come_is_passing_and_later_lasting() -> None:
    known = facts(HERE, node("b", "ABC"), vmi(), launcher())
    assert settling(known, 999.0).waiting == ("b",)
    assert not settling(known, 1000.0).possible


def test_files_count_as_settled() -> None:
    young = node("b")
    young["metadata"]["creationTimestamp"] = "2999-01-01T00:00:00Z"
    assert Node.from_object(young).settling_until is None
