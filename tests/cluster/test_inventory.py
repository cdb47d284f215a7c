"""Every kind that facts are read from, and what is said of objects that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.objects import facts, inventory, launcher, migration, node, other, pod, vmi
from webhook.cluster.inventory import load
from webhook.cluster.kinds import MIGRATION_CRD
from webhook.model.kubevirt import NEWEST, Version


def kubevirt(namespace, observed="", name="kubevirt"):
    return other(
        "kubevirt.io/v1",
        "KubeVirt",
        name,
        namespace,
        status={"observedKubeVirtVersion": observed} if observed else {},
    )


def crd(*spec_fields, served=True, name="virtualmachineinstancemigrations.kubevirt.io"):
    properties = {field: {"type": "object"} for field in spec_fields}
    schema = {"openAPIV3Schema": {"properties": {"spec": {"properties": properties}}}}
    versions = [{"name": "v1", "served": served, "schema": schema}]
    return other(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", name, spec={"versions": versions}
    )


def upgrade(name="u", namespace="harvester-system", latest="true", completed="Unknown"):
    return other(
        "harvesterhci.io/v1beta1",
        "Upgrade",
        name,
        namespace,
        metadata={"labels": {"harvesterhci.io/latestUpgrade": latest}},
        status={"conditions": [{"type": "Completed", "status": completed}]},
    )


def test_nothing_at_all_gives_empty_facts_that_are_blind():
    found = inventory()
    assert len(found.snapshot.nodes) == 0
    assert found.snapshot.blind() == "no node is among the facts"
    assert found.snapshot.stale == ()
    assert found.counts == {}


def test_one_node_is_enough_to_see():
    assert facts(node("a")).blind() == ""


def test_a_node_keeps_labels_whose_value_is_not_true():
    found = facts(node("a", {"zone": "z1", "cpu-model.node.kubevirt.io/Penryn": "false"}))
    marks = found.nodes.by_name["a"].labels
    assert marks["zone"] == "z1"
    assert marks["cpu-model.node.kubevirt.io/Penryn"] == "false"


def test_numbers_and_booleans_as_label_values_are_text():
    found = facts(node("a", {"rack": 7, "fast": True, "share": 0.5}))
    marks = found.nodes.by_name["a"].labels
    assert (marks["rack"], marks["fast"], marks["share"]) == ("7", "true", "0.5")


@pytest.mark.parametrize(
    ("written", "milli"),
    [
        ("8Gi", 8 * 2**30 * 1000),
        ("8G", 8 * 10**12),
        ("8e9", 8 * 10**12),
        (8000000000, 8 * 10**12),
        ("1500m", 1500),
        (1.5, 1500),
        ("0.5Ki", 512_000),
    ],
)
def test_quantities_are_read_in_every_form(written, milli):
    found = facts(node("a", capacity={"memory": written}))
    assert found.nodes.by_name["a"].capacity["memory"] == milli


def test_nodes_with_equal_labels_and_sizes_share_them(tmp_path: Path):
    marks = {f"cpu-feature.node.kubevirt.io/f{n}-x": "true" for n in range(20)}
    made = [
        node(f"node-{n}", marks, allocatable={"cpu": "64", "memory": "512Gi"}) for n in range(5000)
    ]
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    found = load([path])
    assert found.errors == ()
    assert found.counts == {"Node": 5000}
    nodes = list(found.snapshot.nodes.by_name.values())
    assert len({id(n.allocatable) for n in nodes}) == 1
    assert len({id(key) for n in nodes for key in n.labels}) == 22


def test_vms_and_vmis_stand_under_namespace_and_name():
    vm = other("kubevirt.io/v1", "VirtualMachine", "vm", "dev", spec={"template": {"spec": {}}})
    found = facts(vm, vmi("vm", "dev"))
    assert list(found.vms) == ["dev/vm"]
    assert list(found.vmis) == ["dev/vm"]


def test_an_object_without_namespace_is_in_default():
    found = facts(other("kubevirt.io/v1", "VirtualMachineInstance", "vm", spec={}))
    assert list(found.vmis) == ["default/vm"]


@pytest.mark.parametrize("version", ["v1", "v1alpha3", "v1beta7"])
def test_any_version_of_a_group_is_read(version):
    made = other(f"kubevirt.io/{version}", "VirtualMachineInstance", "vm", "dev", spec={})
    assert list(facts(made).vmis) == ["dev/vm"]


def test_kinds_of_other_groups_and_unknown_kinds_pass_silently():
    found = inventory(
        other("example.com/v1", "Node", "a"),
        other("cluster.x-k8s.io/v1", "VirtualMachine", "b"),
        other("v1", "ConfigMap", "c", data=7),
    )
    assert found.errors == ()
    assert found.counts == {}
    assert len(found.snapshot.nodes) == 0


def test_unknown_fields_pass_silently():
    assert facts(node("a") | {"more": [1, {}]}).blind() == ""


def test_a_migration_stands_under_its_uid_and_its_name():
    found = facts(migration("m", "u-1", "Running"), migration("n"))
    assert sorted(found.migrations) == ["default/m", "default/n", "u-1"]
    assert found.migrations["u-1"] is found.migrations["default/m"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_migration_is_left_out(phase):
    assert facts(migration("m", "u-1", phase)).migrations == {}


def test_a_migration_given_again_when_finished_is_left_out():
    assert facts(migration("m", "u", "Running"), migration("m", "u", "Failed")).migrations == {}


def test_virt_launcher_pods_stand_under_the_uid_of_their_vmi():
    found = facts(launcher("p", "u-1"), launcher("q", "u-1"), launcher("r", "u-2"))
    assert {uid: [p.name for p in pods] for uid, pods in found.pods.items()} == {
        "u-1": ["p", "q"],
        "u-2": ["r"],
    }
    assert not found.all_pods


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_is_left_out(phase):
    found = facts(node("node-1"), launcher("p", "u", phase=phase), pod("q", phase=phase))
    assert found.pods == {}


def test_a_pod_that_names_its_vmi_but_not_its_uid_is_found():
    made = launcher("p", "")
    made["metadata"]["annotations"] = {"kubevirt.io/domain": "vm"}
    found = facts(made, vmi("vm", uid="u-1"))
    assert [p.name for p in found.pods["u-1"]] == ["p"]


def test_pods_of_others_never_count_as_pods_of_a_vmi_without_uid():
    found = facts(node("node-1"), pod("db"), vmi("vm") | {"metadata": {"name": "vm"}})
    assert found.source_of(found.vmis["default/vm"]).pod is None


def test_labels_of_a_namespace_have_its_name_among_them():
    found = facts(other("v1", "Namespace", "dev", metadata={"labels": {"team": "a"}}))
    assert found.namespaces == {"dev": {"team": "a", "kubernetes.io/metadata.name": "dev"}}


def test_a_namespace_that_is_only_spoken_of_has_its_name_as_label():
    assert facts(vmi("vm", "dev")).namespaces == {"dev": {"kubernetes.io/metadata.name": "dev"}}


def test_without_a_kubevirt_its_defaults_hold():
    found = facts(node("a")).kubevirt
    assert not found.known
    assert found.namespaces == ("kubevirt", "harvester-system")


def test_a_kubevirt_without_status_is_the_newest_and_says_so():
    found = facts(kubevirt("kubevirt")).kubevirt
    assert (found.known, found.version, found.version_known) == (True, NEWEST, False)


@pytest.mark.parametrize("usual", ["kubevirt", "harvester-system"])
@pytest.mark.parametrize("first", [True, False])
def test_of_several_kubevirts_the_one_in_the_usual_namespace_counts(usual, first):
    two = [kubevirt(usual, "v1.6.0"), kubevirt("test", "v1.5.0")]
    found = facts(*(two if first else reversed(two))).kubevirt
    assert found.version == Version(1, 6, 0)


def test_of_several_kubevirts_elsewhere_the_last_counts():
    found = facts(kubevirt("a", "v1.6.0"), kubevirt("b", "v1.5.0")).kubevirt
    assert found.version == Version(1, 5, 0)


@pytest.mark.parametrize(
    ("objects", "served"),
    [
        ([], None),
        ([crd("vmiName", "addedNodeSelector")], True),
        ([crd("vmiName")], False),
        ([crd()], None),
        ([crd("vmiName", "addedNodeSelector", served=False)], None),
        ([crd("addedNodeSelector", name="virtualmachines.kubevirt.io")], None),
    ],
)
def test_the_definition_of_migrations_says_whether_nodes_can_be_chosen(objects, served):
    assert facts(*objects).kubevirt.added_node_selector_served is served
    found = facts(kubevirt("kubevirt", "v1.5.0"), *objects).kubevirt
    assert (found.known, found.added_node_selector_served) == (True, served)


@pytest.mark.parametrize(
    ("made", "runs"),
    [
        (upgrade(), True),
        (upgrade(completed="True"), False),
        (upgrade(completed="False"), False),
        (upgrade(latest="false"), False),
        (upgrade(namespace="default"), False),
        (other("harvesterhci.io/v1beta1", "Upgrade", "u", "harvester-system"), False),
    ],
)
def test_a_harvester_upgrade_runs_while_the_latest_is_not_completed(made, runs):
    assert facts(made).upgrading is runs


def test_an_older_upgrade_does_not_hide_the_running_one():
    assert facts(upgrade("new"), upgrade("old", latest="false", completed="True")).upgrading


def test_only_presets_that_set_a_cpu_are_kept():
    selector = {"matchLabels": {"size": "small"}}
    spec = {"selector": selector, "domain": {"cpu": {"cores": 2}}}
    kind = ("kubevirt.io/v1", "VirtualMachineInstancePreset")
    found = facts(
        other(*kind, "p", "dev", spec=spec),
        other(*kind, "q", "dev", spec={"selector": selector, "domain": {"devices": {}}}),
    )
    (preset,) = found.presets
    assert (preset.namespace, preset.name) == ("dev", "p")
    assert preset.selector.matches({"size": "small", "owner": "alice"})
    assert not preset.selector.matches({"size": "large"})


def test_policies_runtime_classes_claims_and_volumes_are_kept():
    found = facts(
        other("migrations.kubevirt.io/v1alpha1", "MigrationPolicy", "pol", spec={"selectors": {}}),
        other("node.k8s.io/v1", "RuntimeClass", "kata", scheduling={"nodeSelector": {"k": "1"}}),
        other("v1", "PersistentVolumeClaim", "disk", "dev", spec={"volumeName": "pv-1"}),
        other("v1", "PersistentVolume", "pv-1", spec={"csi": {"driver": "d"}}),
    )
    assert [policy.name for policy in found.policies] == ["pol"]
    assert found.runtime_classes["kata"].node_selector == {"k": "1"}
    assert found.claims["dev/disk"].volume_name == "pv-1"
    assert found.volumes["pv-1"].csi


def test_a_pod_that_keeps_others_away_is_kept_with_its_term():
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}
    made = pod("db")
    made["spec"]["affinity"] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    }
    ((repelling, _),) = facts(made).repelling
    assert repelling.name == "db"


def test_of_an_object_given_twice_the_last_counts():
    found = inventory(node("a", {"zone": "1"}), node("a", {"zone": "2"}))
    assert found.snapshot.nodes.by_name["a"].labels["zone"] == "2"
    assert found.counts == {"Node": 1}


def broken(**parts):
    return node("b") | parts


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (broken(spec={"taints": "none"}), "Node b: spec.taints: a list is wanted here"),
        (broken(metadata=[]), "metadata: a mapping is wanted here"),
        (broken(metadata={}), "Node: metadata.name: is missing"),
        (broken(metadata={"name": "b", "labels": ["x"]}), "Node b: metadata.labels: "),
        (node("b", capacity={"cpu": "many"}), 'Node b: status.capacity.cpu: "many" is no quantity'),
        ({"apiVersion": "v1", "metadata": {"name": "b"}}, "kind: is missing"),
        ({"kind": "Node", "metadata": {"name": "b"}}, "Node b: apiVersion: is missing"),
        ({"kind": {}, "apiVersion": "v1"}, "kind: a string is wanted here"),
        (vmi("b") | {"spec": []}, "VirtualMachineInstance default/b: spec: a mapping is wanted"),
        (
            vmi("b", resources={"requests": {"memory": "lots"}}),
            "VirtualMachineInstance default/b: spec.domain.resources.requests.memory: ",
        ),
        (
            vmi("b") | {"spec": {"affinity": {"podAffinity": 7}}},
            "VirtualMachineInstance default/b: spec.affinity.podAffinity: ",
        ),
        (
            launcher("b", "u") | {"spec": {"containers": {}}},
            "Pod default/b: spec.containers: a list is wanted here",
        ),
        (
            vmi("b", cpu=7),
            "VirtualMachineInstance default/b: spec.domain.cpu: a mapping is wanted here",
        ),
        (
            other(
                "kubevirt.io/v1",
                "VirtualMachine",
                "b",
                spec={"template": {"spec": {"nodeSelector": 7}}},
            ),
            "VirtualMachine b: spec.template.spec.nodeSelector: a mapping is wanted here",
        ),
        (
            launcher("b", "u") | {"spec": {"tolerations": [7]}},
            "Pod default/b: spec.tolerations",
        ),
        (
            crd("x") | {"spec": {"versions": {}}},
            f"CustomResourceDefinition {MIGRATION_CRD}: spec.versions: ",
        ),
        (upgrade("b") | {"status": 7}, "Upgrade harvester-system/b: status: "),
    ],
)
def test_an_object_that_cannot_be_read_is_named_and_the_others_are_kept(obj, message):
    found = inventory(node("a"), obj, node("c"))
    (error,) = found.errors
    assert error.document == "facts.json#1"
    assert error.message.startswith(message)
    assert sorted(found.snapshot.nodes.by_name) == ["a", "c"]


def test_progress_is_told_up_to_the_last_object(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([node(f"n{i}") for i in range(250)]))
    told: list[int] = []
    load([path], told.append)
    assert told == [100, 200, 250]


def test_a_missing_path_is_an_error_beside_the_facts(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(node("a")))
    found = load([path, tmp_path / "absent"])
    assert [str(e) for e in found.errors] == [f"{tmp_path / 'absent'}: no such file or folder"]
    assert len(found.snapshot.nodes) == 1
