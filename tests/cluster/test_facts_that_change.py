"""Facts that change object by object give the snapshot that fresh facts would give."""

from __future__ import annotations

import random

import pytest

from tests.cluster.objects import launcher, migration, node, other, pod, vmi
from webhook.cluster.facts import Facts
from webhook.cluster.kinds import KINDS, add, group_and_kind, key_of
from webhook.cluster.sharing import Sharing
from webhook.model.obstacle import Kind
from webhook.model.placement import assess

NODES = [f"node-{n}" for n in range(4)]
SIZES = ({"cpu": 500}, {"cpu": 3000, "memory": 2**30 * 1000}, {"cpu": 100, "pods": 1000})


def some_node(seed):
    marks = {"zone": seed.choice("ab")}
    if seed.random() < 0.3:
        marks["cpu-model.node.kubevirt.io/Penryn"] = "true"
    size = {"cpu": str(seed.choice((4, 8))), "memory": "16Gi", "pods": "110"}
    return node(seed.choice(NODES), marks, capacity=size, allocatable=size)


def some_vmi(seed):
    name = f"vm-{seed.randrange(5)}"
    return vmi(
        name,
        namespace=seed.choice(("default", "shop")),
        uid=f"uid-{name}-{seed.randrange(2)}",
        node_name=seed.choice(NODES),
        phase=seed.choice(("Running", "Running", "Scheduling")),
        cpu={"cores": seed.choice((1, 4)), "model": "host-model"},
        memory={"guest": "1Gi"},
    )


def some_launcher(seed):
    name = f"vm-{seed.randrange(5)}"
    made = launcher(
        f"virt-launcher-{name}-{seed.randrange(3)}",
        seed.choice((f"uid-{name}-0", f"uid-{name}-1", "")),
        node_name=seed.choice((*NODES, "")),
        phase=seed.choice(("Running", "Running", "Succeeded")),
        cpu=seed.choice(("1", "3")),
    )
    made["metadata"]["annotations"] = {"kubevirt.io/domain": name}
    if seed.random() < 0.3:
        term = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "zone"}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        made["spec"]["affinity"] = {"podAntiAffinity": required}
    return made


def some_other(seed):
    cpu = {"cpuModel": seed.choice(("Penryn", "Haswell"))}
    return seed.choice(
        (
            lambda: pod(f"db-{seed.randrange(3)}", node_name=seed.choice(NODES)),
            lambda: migration(
                f"m-{seed.randrange(3)}",
                uid=f"u-{seed.randrange(3)}",
                phase=seed.choice(("", "Running", "Failed")),
            ),
            lambda: other(
                "v1", "Namespace", seed.choice(("default", "shop", "new")), metadata={"labels": {}}
            ),
            lambda: other(
                "kubevirt.io/v1",
                "KubeVirt",
                "kubevirt",
                "kubevirt",
                spec={
                    "configuration": {
                        **cpu,
                        "developerConfiguration": {"cpuAllocationRatio": seed.choice((1, 10))},
                    }
                },
            ),
        )
    )()


def rooms(snapshot, size):
    """Return what is short on which nodes; how they are grouped does not matter."""
    found = snapshot.nodes.rooms(size)
    return {
        (names, n.name) for room in found.of_group for names, members in room.short for n in members
    }


def told(snapshot):
    """Return all that a snapshot says, with nothing left of the order of events."""
    return {
        "nodes": dict(snapshot.nodes.by_name),
        "free": {n: dict(snapshot.nodes.free(v)) for n, v in snapshot.nodes.by_name.items()},
        "rooms": [rooms(snapshot, size) for size in SIZES],
        "kubevirt": snapshot.kubevirt,
        "vmis": snapshot.vmis,
        "migrations": snapshot.migrations,
        "pods": {uid: sorted(map(repr, pods)) for uid, pods in snapshot.pods.items()},
        "namespaces": snapshot.namespaces,
        "all_pods": snapshot.all_pods,
        "repelling": sorted(map(repr, snapshot.repelling)),
    }


def verdicts(snapshot):
    found = {}
    for key, one in snapshot.vmis.items():
        judged = assess(snapshot.requirements(one), snapshot.nodes)
        found[key] = {
            name.name: [(o.code, o.kind is Kind.LASTING) for o in obstacles]
            for name, obstacles in judged.by_node()
        }
    return found


@pytest.mark.parametrize("number", range(40))
def test_any_order_of_changes_ends_in_the_snapshot_of_what_is_left(number):
    seed = random.Random(number)
    facts, sharing = Facts(), Sharing()
    left: dict = {}
    for _ in range(seed.randrange(5, 120)):
        make = seed.choices((some_node, some_vmi, some_launcher, some_other), (2, 4, 5, 3))[0]
        obj = make(seed)
        kind = KINDS[group_and_kind(obj)]
        key = kind, key_of(kind, obj)
        if seed.random() < 0.25 and left:
            gone = seed.choice(list(left))
            del left[gone]
            facts.drop(gone[0].store, gone[1])
        else:
            left[key] = obj
            add(facts, sharing, obj)
        if seed.random() < 0.4:
            # Whatever was looked up before must not show later.
            told(facts.snapshot())
            verdicts(facts.snapshot())
    fresh = Facts()
    for obj in left.values():
        add(fresh, Sharing(), obj)
    assert told(facts.snapshot()) == told(fresh.snapshot())
    assert verdicts(facts.snapshot()) == verdicts(fresh.snapshot())


def known(*objects):
    facts, sharing = Facts(), Sharing()
    for obj in objects:
        add(facts, sharing, obj)
    return facts, sharing


def test_without_a_change_the_snapshot_is_the_same_one():
    facts, sharing = known(node("a"), vmi("vm", node_name="a"))
    before = facts.snapshot()
    add(facts, sharing, node("a"))
    assert facts.snapshot() is before


def test_a_snapshot_that_was_given_out_does_not_change():
    facts, sharing = known(node("a", allocatable={"cpu": "4"}), launcher("p", "u", node_name="a"))
    before = facts.snapshot()
    add(facts, sharing, launcher("q", "v", node_name="a"))
    add(facts, sharing, vmi("new", node_name="a"))
    facts.snapshot()
    assert set(before.pods) == {"u"}
    assert before.vmis == {}
    assert before.nodes.free(before.nodes.by_name["a"])["cpu"] == 3000


def test_a_pod_that_comes_keeps_what_was_found_out_about_nodes():
    facts, sharing = known(node("a"), node("b"), vmi("vm", node_name="a"))
    before = facts.snapshot()
    assess(before.requirements(before.vmis["default/vm"]), before.nodes)
    assert before.nodes.memory
    add(facts, sharing, launcher("p", "uid-vm", node_name="a"))
    after = facts.snapshot()
    assert after.nodes is not before.nodes
    assert after.nodes.memory is before.nodes.memory


def test_a_node_that_changes_forgets_what_was_found_out_about_nodes():
    facts, sharing = known(node("a"), node("b"), vmi("vm", node_name="a"))
    before = facts.snapshot()
    assess(before.requirements(before.vmis["default/vm"]), before.nodes)
    add(facts, sharing, node("b", {"zone": "z"}))
    assert len(facts.snapshot().nodes.memory) == 0


def test_a_migration_that_has_ended_is_no_fact():
    facts, sharing = known(migration("m", uid="u", phase="Running"))
    assert "u" in facts.snapshot().migrations
    add(facts, sharing, migration("m", uid="u", phase="Succeeded"))
    assert facts.snapshot().migrations == {}


def test_a_pod_finds_its_vmi_by_name_when_that_comes_later_and_when_it_is_another():
    made = launcher("p", "", node_name="a")
    made["metadata"]["annotations"] = {"kubevirt.io/domain": "vm"}
    facts, sharing = known(node("a"), made)
    assert set(facts.snapshot().pods) == {""}
    add(facts, sharing, vmi("vm", uid="first", node_name="a"))
    assert set(facts.snapshot().pods) == {"first"}
    add(facts, sharing, vmi("vm", uid="second", node_name="a"))
    assert set(facts.snapshot().pods) == {"second"}
