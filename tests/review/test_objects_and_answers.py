"""VMs, VMIs, pods, the KubeVirt CR, and the form of answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import jsonpatch
import pytest

from tests import captured_cluster
from tests.cluster.objects import facts
from tests.review.asking import (
    CONTROLLER,
    GROUP,
    NOW,
    Cluster,
    kubevirt,
    launcher,
    migration,
    new_id,
    node,
    notes_of,
    settings,
    target_pod,
    vm,
    vmi,
)
from webhook.model.migration import LauncherPod
from webhook.review.answer import Answerer
from webhook.review.errors import NotAReview

NODES = (node("a"), node("b"))
MODEL = "cpu-model-migration.node.kubevirt.io/XYZ"
VENDOR = "cpu-vendor.node.kubevirt.io/Intel"


def unset(**spec: Any) -> dict[str, Any]:
    made = vmi(**spec)
    made["metadata"].pop("uid")
    made.pop("status")
    made["spec"]["domain"].pop("cpu")
    return made


@pytest.mark.parametrize(
    ("configuration", "cluster_model", "model", "source"),
    [
        ("", "", "host-model", "default"),
        ("", "123", "123", "cluster"),
        ("cpuModel: {default: Penryn}", "123", "Penryn", "cluster"),
        ("cpuModel: {default: common}", "", "123", "cluster"),
    ],
)
def test_an_unset_model_becomes_the_clusters_default(
    configuration: str, cluster_model: str, model: str, source: str
) -> None:
    cluster = Cluster(*NODES, kubevirt(cluster_model), configuration=configuration)
    cluster.ask(unset())
    assert cluster.after["spec"]["domain"]["cpu"] == {"model": model}
    assert notes_of(cluster.after)["migration-guard.io/cpu-model"] == model
    assert notes_of(cluster.after)["migration-guard.io/cpu-model-source"] == source


def test_a_given_model_is_annotated_and_left_alone() -> None:
    cluster = Cluster(*NODES, kubevirt("Penryn"))
    cluster.ask(vmi(model="123"))
    assert cluster.after["spec"]["domain"]["cpu"] == {"model": "123"}
    assert notes_of(cluster.after)["migration-guard.io/cpu-model-source"] == "vm"


def test_on_arm64_no_model_is_set() -> None:
    cluster = Cluster(*NODES, kubevirt("123"))
    cluster.ask(unset(architecture="arm64"))
    assert "cpu" not in cluster.after["spec"]["domain"]
    assert notes_of(cluster.after)["migration-guard.io/cpu-model-source"] == "architecture"


def preset(**selector: Any) -> dict[str, Any]:
    return {
        "apiVersion": GROUP,
        "kind": "VirtualMachineInstancePreset",
        "metadata": {"name": "p", "namespace": "prod"},
        "spec": {"selector": selector, "domain": {"cpu": {"cores": 2}}},
    }


SMALL = {"key": "size", "operator": "In", "values": ["small", "tiny"]}


@pytest.mark.parametrize("selector", [{}, {"matchLabels": {}}, {"matchExpressions": [SMALL]}])
def test_where_a_preset_with_a_cpu_block_matches_no_model_is_set(selector: Any) -> None:
    cluster = Cluster(*NODES, preset(**selector))
    made = unset()
    made["metadata"]["labels"] = {"size": "tiny"}
    cluster.ask(made)
    assert "cpu" not in cluster.after["spec"]["domain"]
    assert notes_of(cluster.after)["migration-guard.io/cpu-model-source"] == "preset"


def test_a_preset_that_does_not_match_changes_nothing() -> None:
    cluster = Cluster(*NODES, preset(matchExpressions=[SMALL]))
    cluster.ask(unset())
    assert cluster.after["spec"]["domain"]["cpu"] == {"model": "host-model"}


def test_the_receiver_of_a_decentralized_migration_is_skipped() -> None:
    made = unset()
    made["metadata"]["annotations"] = {"kubevirt.io/create-migration-target": "true"}
    assert Cluster(*NODES).ask(made).patch == ()


def test_common_without_a_common_model_falls_back_with_a_warning() -> None:
    odd = node("c")
    del odd["metadata"]["labels"]["cpu-model.node.kubevirt.io/123"]
    cluster = Cluster(*NODES, odd, configuration="cpuModel: {default: common}")
    decision = cluster.ask(unset())
    assert cluster.after["spec"]["domain"]["cpu"] == {"model": "host-model"}
    assert any("no model spans all" in warning for warning in decision.warnings)


@pytest.mark.parametrize("kind", [vm, vmi])
def test_a_model_that_no_node_can_run_is_warned_about(kind: Any) -> None:
    decision = Cluster(*NODES).ask(kind(model="Nonesuch"))
    assert (decision.outcome, decision.allowed) == ("warned", True)
    assert '"Nonesuch"' in decision.warnings[0]
    assert "usable on no node" in decision.warnings[0]


def test_a_model_that_one_node_can_run_is_warned_about() -> None:
    alone = node("c", **{"cpu-model.node.kubevirt.io/New": "true"})
    decision = Cluster(*NODES, alone).ask(vm(model="New"))
    assert "usable on one node only, c" in decision.warnings[0]


def test_a_host_models_name_that_is_no_usable_model_is_told_as_such() -> None:
    decision = Cluster(*NODES).ask(vm(model="XYZ"))
    assert "although it is the host model of a and b" in decision.message


def test_a_changed_model_of_a_running_vm_takes_a_restart() -> None:
    decision = Cluster(*NODES, vmi()).ask(vm(model="123"), old=vm())
    assert decision.outcome == "warned"
    assert "after a restart only" in decision.warnings[0]


def test_an_override_on_a_vm_does_nothing_and_says_so() -> None:
    made = vm(annotations={"migration-guard.io/override": "x"})
    assert any("does nothing on a VM" in w for w in Cluster(*NODES).ask(made).warnings)


@pytest.mark.parametrize(
    ("model", "user", "outcome"),
    [
        ("Nonesuch", "alice", "refused"),
        ("Nonesuch", "system:serviceaccount:hco:operator", "warned"),
        ("123", "alice", "allowed"),
        ("host-model", "alice", "allowed"),
        ("", "alice", "allowed"),
        ("Some", "alice", "warned"),
    ],
)
def test_a_cluster_wide_model_is_held_against_the_nodes(
    model: str, user: str, outcome: str
) -> None:
    some = node("c", **{"cpu-model.node.kubevirt.io/Some": "true"})
    cluster = Cluster(*NODES, some, kubevirt("Penryn"))
    decision = cluster.ask(kubevirt(model), old=kubevirt("Penryn"), user=user)
    assert decision.outcome == outcome
    if outcome == "warned" and model == "Some":
        assert "leaves out a and b" in decision.warnings[0]


def test_a_target_pod_gets_what_it_lacks_and_the_migrations_deadline() -> None:
    asked = migration(
        uid="uid-m", **{"migration-guard.io/completion-deadline": "2026-11-26T15:00:00Z"}
    )
    cluster = Cluster(*NODES, vmi(), launcher(), asked)
    decision = cluster.ask(target_pod(), user=CONTROLLER)
    assert decision.outcome == "changed"
    assert cluster.after["spec"]["nodeSelector"] == {
        "kubevirt.io/schedulable": "true",
        MODEL: "true",
        VENDOR: "true",
    }
    deadline = notes_of(cluster.after)["migration-guard.io/completion-deadline"]
    assert deadline == "2026-11-26T15:00:00Z"


def test_a_mutated_target_pod_has_a_node_to_go_to() -> None:
    cluster = Cluster(*NODES, vmi(), launcher(), migration(uid="uid-m"))
    cluster.ask(target_pod(), user=CONTROLLER)
    pod = LauncherPod.from_object(cluster.after)
    able = [
        n.name
        for n in cluster.facts.nodes.by_name.values()
        if n.name != "a" and pod.node_selector.items() <= n.labels.items()
    ]
    assert able == ["b"]


def test_a_target_pod_that_could_go_nowhere_is_left_as_it_is() -> None:
    cluster = Cluster(node("a"), node("b", "ABC"), vmi(), launcher(), migration(uid="uid-m"))
    cluster.ask(target_pod(), user=CONTROLLER)
    assert cluster.after["spec"] == target_pod()["spec"]


def test_what_was_found_of_one_pod_of_a_vm_says_nothing_of_another_pod_of_it() -> None:
    cluster = Cluster(*NODES, vmi(), launcher(), migration(uid="uid-m"))
    only_a, on_no_disk = target_pod(), target_pod()
    where = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}
    only_a["spec"]["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [where]}]
            }
        }
    }
    on_no_disk["spec"]["nodeSelector"]["disk"] = "fast"
    for pod, changed in ((target_pod(), True), (only_a, False), (on_no_disk, False)) * 2:
        cluster.ask(pod, user=CONTROLLER)
        assert (cluster.after["spec"] != pod["spec"]) is changed


@pytest.mark.parametrize(
    ("change", "user"),
    [
        ({"kubevirt.io/created-by": "forged"}, CONTROLLER),
        ({"kubevirt.io/migrationJobUID": "forged"}, CONTROLLER),
        ({"kubevirt.io/migrationJobUID": "uid-elsewhere"}, CONTROLLER),
        ({}, "mallory"),
        ({"kubevirt.io": "hotplug-disk"}, CONTROLLER),
    ],
)
def test_a_pod_that_is_not_what_its_labels_say_is_left_alone(
    change: dict[str, str], user: str
) -> None:
    elsewhere = migration(uid="uid-elsewhere")
    elsewhere["metadata"]["namespace"] = "other"
    pod = target_pod()
    pod["metadata"]["labels"] |= change
    cluster = Cluster(*NODES, vmi(), launcher(), migration(uid="uid-m"), elsewhere)
    decision = cluster.ask(pod, user=user)
    assert (decision.allowed, decision.patch) == (True, ())


def test_a_pod_is_never_refused() -> None:
    cluster = Cluster(node("a"), node("b", "ABC"), vmi(), launcher(), migration(uid="uid-m"))
    for pod in (target_pod(), launcher(), {"apiVersion": "v1", "kind": "Pod", "metadata": {}}):
        assert cluster.ask(pod, user=CONTROLLER).allowed


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT"])
def test_other_operations_and_kinds_are_allowed_untouched(operation: str) -> None:
    cluster = Cluster(*NODES, vmi())
    for obj in (migration(), vmi(), vm(), {"apiVersion": "v1", "kind": "Secret", "metadata": {}}):
        decision = cluster.ask(obj, operation=operation)
        assert (decision.outcome, decision.allowed, decision.patch) == ("not-reviewed", True, ())


def test_running_on_its_own_output_changes_nothing_but_id_and_times() -> None:
    feature = "cpu-feature.node.kubevirt.io/aes"
    guest = vmi(domain={"cpu": {"model": "host-model", "features": [{"name": "aes"}]}})
    nodes = (node("a", **{feature: "true"}), node("b", **{feature: "true"}))
    cluster = Cluster(*nodes, guest, launcher(selector={feature: "true"}), migration(uid="uid-m"))
    volatile = ("decision", "completion-deadline")
    for obj in (migration(), unset(), target_pod(**{feature: "true"})):
        cluster.ask(obj, user=CONTROLLER)
        decision = cluster.ask(cluster.after, user=CONTROLLER)
        touched = [op["path"] for op in decision.patch if op["op"] == "add"]
        assert all(path.endswith(volatile) for path in touched), touched


def review(request: dict[str, Any]) -> bytes:
    kind = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}
    return json.dumps({**kind, "request": request}).encode()


def captured_answerer() -> Answerer:
    known = facts(
        *captured_cluster.nodes(),
        captured_cluster.kubevirt(),
        captured_cluster.running_vmi(),
        captured_cluster.source_pod(),
        captured_cluster.migration(),
    )
    return Answerer(lambda: known, settings, lambda: NOW, new_id)


@pytest.mark.parametrize(
    "path",
    sorted((captured_cluster.FIXTURES / "reviews-1.8.4").glob("*.json")),
    ids=lambda p: p.stem,
)
def test_every_captured_review_is_answered_with_its_uid_and_a_patch_that_applies(path: Any) -> None:
    body = path.read_bytes()
    request = json.loads(body)["request"]
    for pass_ in ("/mutate", "/validate"):
        answer = json.loads(captured_answerer().answer(pass_, body).body)
        response = answer["response"]
        assert answer["kind"] == "AdmissionReview"
        assert response["uid"] == request["uid"]
        assert response["allowed"] is True
        if "patch" in response:
            assert pass_ == "/mutate"
            patch = json.loads(base64.b64decode(response["patch"]))
            assert {op["op"] for op in patch} <= {"add", "test"}
            before = request["object"]["spec"].get("nodeSelector", {})
            after = jsonpatch.apply_patch(request["object"], patch)
            assert before.items() <= after["spec"].get("nodeSelector", {}).items()
            assert response["auditAnnotations"]["outcome"] == "changed"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        (b'{"kind":"Pod"}', "kind"),
        (b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}', "apiVersion"),
        (review({}), "request"),
        (review({"kind": {}}), "request.uid"),
        (review({"uid": "1", "userInfo": {"groups": "x"}}), "groups"),
    ],
)
def test_what_is_no_review_is_an_error_that_names_the_field(body: bytes, says: str) -> None:
    with pytest.raises(NotAReview, match=says):
        captured_answerer().answer("/validate", body)


def test_warnings_are_short_single_lines() -> None:
    guest = vmi(nodeSelector={f"{'k' * 60}{n}": "v" for n in range(40)})
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {f"{'k' * 60}{n}": "w\n" * 30 for n in range(40)}
    warnings = Cluster(*NODES, guest, launcher()).ask(asked).warnings
    assert warnings
    assert all(len(text) <= 256 and text.isprintable() for text in warnings)
    assert sum(map(len, warnings)) <= 4096
