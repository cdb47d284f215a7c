"""The embedded sample clusters are whole, and what the stories say of them is so."""

from __future__ import annotations

import pytest

from webhook.cluster.documents import read
from webhook.cluster.inventory import snapshot_of
from webhook.demo import sample
from webhook.demo.sample import INVENTORY, UNDER_WAY, WORKED_EXAMPLE
from webhook.model import labels


@pytest.fixture(scope="module")
def inventory():
    return snapshot_of(read([INVENTORY]))


@pytest.fixture(scope="module")
def nodes(inventory):
    return inventory.snapshot.nodes.by_name


def test_every_document_is_read():
    found = snapshot_of(read([INVENTORY, UNDER_WAY, WORKED_EXAMPLE / "nodes"]))
    assert not found.errors
    assert found.counts["Node"] == 10
    assert found.counts["VirtualMachineInstanceMigration"] == 2


def test_it_is_a_cluster_of_two_vendors_and_five_generations(nodes):
    assert len(nodes) == 8
    hosts = {tuple(labels.names(node.labels, labels.HOST_MODEL_CPU)) for node in nodes.values()}
    vendors = {tuple(labels.names(node.labels, labels.CPU_VENDOR)) for node in nodes.values()}
    assert (len(hosts), vendors) == (5, {("Intel",), ("AMD",)})


def test_every_node_can_run_models_that_it_knows(nodes):
    for node in nodes.values():
        usable = set(labels.names(node.labels, labels.CPU_MODEL))
        known = set(labels.names(node.labels, labels.CPU_MODEL_MIGRATION))
        assert usable < known, node.name
        assert set(labels.names(node.labels, labels.HOST_MODEL_CPU)) <= known


def test_one_node_is_cordoned_and_one_lacks_the_vm_network(nodes):
    network = labels.HARVESTER_NETWORK + "vlan100"
    assert [n.name for n in nodes.values() if n.cordoned] == ["milan-2"]
    assert [n.name for n in nodes.values() if network not in n.labels] == ["haswell-2"]


def test_every_running_vm_has_its_pod_and_a_node_that_exists(inventory):
    found = sample.objects(INVENTORY)
    vmis = [obj for obj in found if obj["kind"] == "VirtualMachineInstance"]
    assert len(vmis) == 8
    for vmi in vmis:
        pod = sample.find(found, "Pod", vmi["metadata"]["name"])
        assert pod["metadata"]["labels"]["kubevirt.io/created-by"] == vmi["metadata"]["uid"]
        assert pod["spec"]["nodeName"] == vmi["status"]["nodeName"]
        assert vmi["status"]["nodeName"] in inventory.snapshot.nodes.by_name


def test_the_worked_example_has_two_host_models_and_one_common_model():
    nodes = snapshot_of(read([WORKED_EXAMPLE / "nodes"])).snapshot.nodes.by_name
    for name, host in (("node-a", "XYZ"), ("node-b", "ABC")):
        marks = nodes[name].labels
        assert labels.names(marks, labels.HOST_MODEL_CPU) == [host]
        assert labels.names(marks, labels.CPU_MODEL_MIGRATION) == [host]
        assert labels.names(marks, labels.CPU_MODEL) == ["123"]
        assert labels.names(marks, labels.CPU_VENDOR) == ["Intel"]
        assert marks[labels.SCHEDULABLE] == "true"


def test_an_object_that_is_not_there_is_said_so():
    with pytest.raises(LookupError, match="no VirtualMachine web2"):
        sample.find(sample.objects(INVENTORY), "VirtualMachine", "web2")
