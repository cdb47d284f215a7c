"""The real scheduler and the model decide alike about random pods and nodes."""

from __future__ import annotations

import os
from random import Random

from tests.cluster.objects import facts
from tests.testbed import placements
from tests.testbed.bed.api import NotInTime, Object, path
from tests.testbed.bed.conditions import unschedulable
from tests.testbed.bed.pool import KUBEVIRT, WITHIN, Pool
from webhook.model.obstacle import fits
from webhook.model.obstacles import obstacles
from webhook.model.placement import assess

PAIRS = int(os.environ.get("DIFFERENTIAL_PAIRS") or 300)
SEED = int(os.environ.get("DIFFERENTIAL_SEED") or 1)
NODES = 30
NODES_A_POD = 6
"""Each set of demands is tried on some of the nodes."""


def test_the_scheduler_places_a_pod_exactly_where_the_model_sees_no_obstacle(pool: Pool) -> None:
    print(f"{PAIRS} pairs, SEED={SEED}")
    random = Random(SEED)
    made = [placements.random_node(random, pool.name, n) for n in range(1, NODES + 1)]
    pool.create_nodes(made)
    names = [node["metadata"]["name"] for node in made]
    demanded = {
        f"p{number}": placements.random_demands(random, names)
        for number in range((PAIRS + NODES_A_POD - 1) // NODES_A_POD)
    }
    pairs = [
        (pod, number)
        for pod in demanded
        for number in random.sample(range(1, NODES + 1), NODES_A_POD)
    ][:PAIRS]
    _wait_until_the_scheduler_knows_them(pool)
    for pod, number in pairs:
        pool.api.create(pool.at("v1", "pods"), _pod(f"{pod}-{number}", demanded[pod], number))
    placed = _decisions(pool, {f"{pod}-{number}" for pod, number in pairs})

    # As the API server has them: a cordon is a taint, too.
    nodes = pool.api.items(path("v1", "nodes"), labelSelector=f"testbed/pool={pool.name}")
    known = facts(
        *({**node, "apiVersion": "v1", "kind": "Node"} for node in nodes),
        *(_vmi(pod, demands) for pod, demands in demanded.items()),
    )
    differences = []
    for pod, number in pairs:
        node = known.nodes.by_name[names[number - 1]]
        requirements = known.requirements(known.vmis[f"default/{pod}"])
        alone = obstacles(requirements, node)
        among_all = next(o for n, o in assess(requirements, known.nodes).by_node() if n is node)
        if not fits(alone) == fits(among_all) == placed[f"{pod}-{number}"]:
            differences.append(
                f"the scheduler says {placed[f'{pod}-{number}']}, the model {alone}, judging all "
                f"nodes {among_all}:\n  {demanded[pod]}\n  {node}"
            )
    assert not differences, f"SEED={SEED}\n" + "\n".join(differences[:5])
    fitting = sum(placed.values())
    print(f"{len(pairs)} decisions are equal; {fitting} pods were placed")
    assert 0.1 * len(pairs) < fitting < 0.9 * len(pairs)


def _wait_until_the_scheduler_knows_them(pool: Pool) -> None:
    """Wait until a pod is placed on a node made later; nodes reach the scheduler in order."""
    later = pool.node(size={placements.pin(NODES + 1): "1"})
    pool.api.create(pool.at("v1", "pods"), _pod("first", {}, NODES + 1))
    pool.api.wait_for(
        pool.at("v1", "pods"),
        lambda pod: pod["spec"].get("nodeName") == later,
        WITHIN,
        "the scheduler knows the nodes",
        fieldSelector="metadata.name=first",
    )


def _pod(name: str, demands: Object, number: int) -> Object:
    resources = {"requests": {placements.pin(number): "1"}, "limits": {placements.pin(number): "1"}}
    container = {"name": "main", "image": "registry.test/pause:1", "resources": resources}
    spec = {**demands, "containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _vmi(name: str, demands: Object) -> Object:
    return {
        "apiVersion": KUBEVIRT,
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {**demands, "domain": {"cpu": {"model": "Haswell"}, "memory": {"guest": "1Mi"}}},
    }


def _decisions(pool: Pool, waiting: set[str]) -> dict[str, bool]:
    """Wait for the scheduler's first word on every pod."""
    decided: dict[str, bool] = {}
    for _, pod in pool.api.follow(pool.at("v1", "pods"), 300):
        name = pod["metadata"]["name"]
        if name in waiting:
            if pod["spec"].get("nodeName"):
                decided[name] = True
            elif unschedulable(pod) is not None:
                decided.setdefault(name, False)
        if len(decided) == len(waiting):
            return decided
    raise NotInTime(f"the scheduler has not spoken about {sorted(waiting - decided.keys())[:5]}")
