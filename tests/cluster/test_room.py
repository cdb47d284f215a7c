"""The room in use on a node: what its pods ask for, and its VMs without a pod among the facts."""

from __future__ import annotations

from tests.cluster.objects import facts, launcher, node, pod, vmi


def worker(name="node-1"):
    return node(name, allocatable={"cpu": "8", "memory": "16Gi", "pods": "110"})


def free(found, resource="cpu", name="node-1"):
    return found.nodes.free(found.nodes.by_name[name])[resource]


def test_an_empty_node_has_all_it_offers():
    assert free(facts(worker())) == 8000


def test_virt_launcher_pods_take_room_and_a_pod_each():
    found = facts(worker(), launcher("p", "u-1", cpu="2"), launcher("q", "u-2", cpu="500m"))
    assert free(found) == 5500
    assert free(found, "pods") == 108_000
    assert not found.all_pods


def test_other_pods_take_room_too_and_then_all_are_known():
    found = facts(worker(), launcher("p", "u-1", cpu="2"), pod("db", cpu="1500m"))
    assert free(found) == 4500
    assert found.all_pods


def test_pods_of_kubevirt_itself_do_not_show_that_all_are_known():
    found = facts(worker(), pod("virt-handler", labels={"kubevirt.io": "virt-handler"}))
    assert free(found) == 7500
    assert not found.all_pods


def test_finished_pods_take_no_room():
    found = facts(worker(), launcher("p", "u", phase="Failed"), pod("job", phase="Succeeded"))
    assert free(found) == 8000


def test_a_pod_that_waits_for_a_node_takes_no_room():
    assert free(facts(worker(), pod("db", node_name=""))) == 8000


def test_a_running_vmi_without_a_pod_counts_with_what_it_would_ask():
    found = facts(worker(), vmi("vm", cpu={"cores": 4}, memory={"guest": "4Gi"}))
    assert free(found) == 8000 - 4 * 100
    assert free(found, "memory") == 12 * 2**30 * 1000
    assert free(found, "pods") == 109_000


def test_a_running_vmi_with_its_pod_counts_once():
    found = facts(worker(), vmi("vm", uid="u-1", cpu={"cores": 4}), launcher("p", "u-1", cpu="2"))
    assert free(found) == 6000


def test_a_vmi_whose_pod_is_only_on_another_node_counts_where_it_runs():
    found = facts(
        worker(),
        worker("node-2"),
        vmi("vm", uid="u-1", cpu={"cores": 4}),
        launcher("target", "u-1", node_name="node-2", cpu="2"),
    )
    assert free(found) == 7600
    assert free(found, name="node-2") == 6000


def test_a_vmi_that_does_not_run_takes_no_room():
    assert free(facts(worker(), vmi("vm", phase="Scheduling", cpu={"cores": 4}))) == 8000


def test_the_source_of_a_vmi_is_its_node_and_its_pod():
    found = facts(worker(), vmi("vm", uid="u-1"), launcher("p", "u-1"))
    source = found.source_of(found.vmis["default/vm"])
    assert source.node is found.nodes.by_name["node-1"]
    assert source.pod is not None
    assert source.pod.name == "p"
