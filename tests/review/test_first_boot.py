"""Where a host-model VM starts (docs/rules.md, "Where a VM starts")."""

from __future__ import annotations

from typing import Any

import pytest

from tests.review.asking import CONTROLLER, Cluster, node, target_pod, vmi

PREFER = "firstBoot: prefer-migratable"
OLD = "cpu-model-migration.node.kubevirt.io/OLD"
# Old and new guests can go to the two new nodes; only the old ones' guests can come back.
ONE_WAY = (
    node("new-1", "NEW", **{OLD: "true"}),
    node("new-2", "NEW", **{OLD: "true"}),
    node("old", "OLD"),
)


def first_pod(**notes: str) -> dict[str, Any]:
    """Make a first pod as virt-controller posts it: a target pod without a migration."""
    pod = target_pod()
    del pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"]
    pod["metadata"]["annotations"] |= notes
    return pod


def waiting(model: str = "host-model") -> dict[str, Any]:
    made = vmi(model=model, at="")
    made["status"] = {"phase": "Scheduling"}
    return made


def wishes(after: Any) -> list[dict[str, Any]]:
    affinity = after["spec"].get("affinity", {}).get("nodeAffinity", {})
    found: list[dict[str, Any]] = affinity.get(
        "preferredDuringSchedulingIgnoredDuringExecution", []
    )
    return found


def has(key: str) -> dict[str, Any]:
    return {"key": f"{key}", "operator": "In", "values": ["true"]}


def test_a_first_pod_prefers_the_nodes_that_take_each_others_guests():
    cluster = Cluster(*ONE_WAY, waiting(), configuration=PREFER)

    decision = cluster.ask(first_pod(), user=CONTROLLER)

    assert (decision.outcome, decision.allowed) == ("changed", True)
    assert wishes(cluster.after) == [
        {
            "weight": 50,
            "preference": {"matchExpressions": [has("host-model-cpu.node.kubevirt.io/NEW")]},
        }
    ]


def test_a_wish_of_the_owner_stays_and_comes_first():
    pod = first_pod()
    own = {"weight": 1, "preference": {"matchExpressions": [has("disk")]}}
    pod["spec"]["affinity"] = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [own]}
    }
    cluster = Cluster(*ONE_WAY, waiting(), configuration=PREFER)

    cluster.ask(pod, user=CONTROLLER)

    found = wishes(cluster.after)
    assert found[0] == own
    assert len(found) == 2


def test_nodes_of_one_host_model_are_told_apart_by_what_their_guests_need():
    feature = "cpu-feature.node.kubevirt.io/avx512f"
    required = "host-model-required-features.node.kubevirt.io/avx512f"
    rich = {feature: "true", required: "true"}
    nodes = (node("a", "X", **rich), node("b", "X", **rich), node("c", "X"))
    cluster = Cluster(*nodes, waiting(), configuration=PREFER)

    cluster.ask(first_pod(), user=CONTROLLER)

    (wish,) = wishes(cluster.after)
    assert wish["preference"]["matchExpressions"] == [
        has("host-model-cpu.node.kubevirt.io/X"),
        has(feature),
    ]


def test_nodes_that_the_vm_cannot_start_on_do_not_count():
    pod = first_pod()
    pod["spec"]["nodeSelector"]["zone"] = "east"
    west = [node(f"west-{n}", "W", zone="west") for n in range(3)]
    east = [node(f"east-{n}", "E", zone="east") for n in range(2)]
    dead_end = node("east-alone", "D", zone="east")
    cluster = Cluster(*west, *east, dead_end, waiting(), configuration=PREFER)

    cluster.ask(pod, user=CONTROLLER)

    (wish,) = wishes(cluster.after)
    assert wish["preference"]["matchExpressions"] == [has("host-model-cpu.node.kubevirt.io/E")]


@pytest.mark.parametrize(
    ("why", "objects", "notes", "user"),
    [
        ("all nodes are in one group", (node("a"), node("b"), waiting()), {}, CONTROLLER),
        (
            "no two nodes exchange guests",
            (node("a", "X"), node("b", "Y"), waiting()),
            {},
            CONTROLLER,
        ),
        ("it has a named model", (*ONE_WAY, waiting("123")), {}, CONTROLLER),
        ("its VMI is not known", ONE_WAY, {}, CONTROLLER),
        ("KubeVirt did not make it", (*ONE_WAY, waiting()), {}, "mallory"),
        (
            "it only provisions a volume",
            (*ONE_WAY, waiting()),
            {"kubevirt.io/ephemeral-provisioning": "true"},
            CONTROLLER,
        ),
    ],
)
def test_a_pod_is_left_as_it_is_where(
    why: str, objects: tuple[dict[str, Any], ...], notes: dict[str, str], user: str
):
    cluster = Cluster(*objects, configuration=PREFER)

    decision = cluster.ask(first_pod(**notes), user=user)

    assert (decision.allowed, decision.patch) == (True, ()), why


def test_a_pod_whose_vmi_is_not_known_yet_tells_by_itself_that_its_guest_is_host_model():
    obsolete = {"key": "node-labeller.kubevirt.io/obsolete-host-model", "operator": "DoesNotExist"}
    pod = first_pod()
    required = {"nodeSelectorTerms": [{"matchExpressions": [obsolete]}]}
    pod["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
    }
    cluster = Cluster(*ONE_WAY, configuration=PREFER)

    assert cluster.ask(pod, user=CONTROLLER).outcome == "changed"
    assert len(wishes(cluster.after)) == 1


def test_first_pods_are_not_reviewed_unless_it_is_asked_for():
    decision = Cluster(*ONE_WAY, waiting()).ask(first_pod(), user=CONTROLLER)

    assert (decision.outcome, decision.patch) == ("not-reviewed", ())


def test_in_audit_mode_the_wish_is_written_down_and_the_pod_stays_as_it_is():
    cluster = Cluster(*ONE_WAY, waiting(), configuration=f"{PREFER}\nmaxMode: audit")

    decision = cluster.ask(first_pod(), user=CONTROLLER)

    assert (decision.outcome, decision.patch) == ("audited", ())
    assert "host-model-cpu.node.kubevirt.io/NEW" in decision.rules[0].detail
