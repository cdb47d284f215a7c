"""What a target pod will demand is what virt-controller then posts, key for key.

The only differences are KubeVirt's defects, which the guard makes good; ``defects`` names them.
With ``DIFFERENTIAL_ALL`` in the environment all VMs are tried (``make differential``), else some.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.objects import facts
from tests.testbed.bed.api import JSON_PATCH, Object, path
from tests.testbed.bed.pool import KUBEVIRT, POOL, Pool, node_manifest
from tests.testbed.virtual_machines import (
    EVERY_NODE,
    FORGET_THE_SOURCE,
    KINDS,
    SOURCES,
    VENDOR,
    VmKind,
    vmi_manifest,
)
from webhook.model import labels
from webhook.model.migration import Migration, pod_requests
from webhook.model.node_affinity import Expression, Term, read_terms
from webhook.model.pod_affinity import read_pod_terms
from webhook.model.requirements import Requirements
from webhook.model.tolerations import read_tolerations

ALL = bool(os.environ.get("DIFFERENTIAL_ALL"))
IN_TIME = 120.0
"""Seconds for what many VMs do at once."""
MIGRATIONS = "virtualmachineinstancemigrations"
VMIS = "virtualmachineinstances"
NOWHERE = {"test/nowhere": "yes"}
ADDED: tuple[Mapping[str, str], ...] = (
    {},
    {"test/zone": "b"},
    {f"{VENDOR}AMD": "true"},
    {"kubernetes.io/arch": "arm64"},
    {"kubernetes.io/hostname": "no-such-node"},
)
UNLIMITED = {"parallelMigrationsPerCluster": 1000, "parallelOutboundMigrationsPerNode": 1000}
PLAIN: Object = {"migrations": UNLIMITED}
STRICT: Object = {
    "migrations": UNLIMITED,
    "developerConfiguration": {
        "featureGates": ["HypervStrictCheck", "WorkloadEncryptionSEV"],
        "nodeSelectors": {"test/cluster": "yes"},
    },
}
FORGOTTEN_CPU = "a required feature makes KubeVirt forget the source's CPU"
UNKNOWN_CPU = "without the host-model-cpu label KubeVirt demands no CPU"
OTHER_VENDOR = "a vendor that is asked for switches KubeVirt's vendor guard off"
ONE_OF_TWO_VENDORS = "of two vendor labels KubeVirt takes one by chance"


@dataclass(frozen=True, slots=True)
class Machine:
    """A VMI under test."""

    name: str
    kind: VmKind
    source: str


def machines() -> list[Machine]:
    every = [
        Machine(f"{kind.name}-on-{node}", kind, node) for kind in KINDS for node in kind.sources
    ]
    # Every third, and all of the kind that is the rule.
    return every if ALL else [m for m in every if m.kind.name == "host-model" or m in every[::3]]


@pytest.fixture
def configure(pool: Pool, kubevirt_cr: str) -> Callable[[Object], None]:
    def apply(configuration: Object) -> None:
        value = {"configuration": configuration}
        pool.api.patch(
            kubevirt_cr, [{"op": "replace", "path": "/spec", "value": value}], JSON_PATCH
        )

    return apply


def test_target_pods_are_predicted_key_for_key(
    pool: Pool, configure: Callable[[Object], None]
) -> None:
    configure(STRICT)
    mine = machines()
    make_nodes(pool)
    start(pool, mine)
    seen: dict[str, int] = {}

    def round_of(title: str, added: Callable[[int], Mapping[str, str]], *, moved: bool) -> None:
        differences: list[str] = []
        for machine, demanded, found in compare(pool, mine, added):
            named = defects(demanded)
            for defect in named:
                seen[defect] = seen.get(defect, 0) + 1
            forgets = not moved and machine.kind.name in FORGET_THE_SOURCE
            knows_none = machine.source == "no-host-model"
            if (FORGOTTEN_CPU in named) != (forgets and not knows_none):
                found = [*found, f"the guard adds {sorted(demanded.additions)}"]
            differences.extend(f"{title}, {machine.name}: {each}" for each in found)
        assert not differences, "\n".join(differences)

    # Nowhere to go, so that each can be asked for again afterwards. A new configuration is given
    # while something else takes seconds: virt-controller does not say when it has read it.
    round_of("chosen target", lambda i: {**ADDED[i % len(ADDED)], **NOWHERE}, moved=False)
    configure(PLAIN)
    cancel(pool)
    round_of("first migration", lambda i: {}, moved=False)
    configure(STRICT)
    finish(pool, mine)
    round_of("second migration", lambda i: NOWHERE, moved=True)
    cancel(pool)
    print(f"{len(mine)} VMs, {3 * len(mine)} target pods are as predicted, but for {seen}")
    assert set(seen) == {FORGOTTEN_CPU, UNKNOWN_CPU, OTHER_VENDOR, ONE_OF_TWO_VENDORS}


def test_a_second_migration_demands_what_the_first_remembered(pool: Pool) -> None:
    first, second = pool.node("cascadelake"), pool.node("cascadelake")
    pool.vm("web", "host-model", on=first)
    pool.wait_migration(pool.migrate("web"))
    # What the node says of itself now no longer counts.
    gone = {"host-model-required-features.node.kubevirt.io/md-clear": None}
    pool.change_node(second, {"metadata": {"labels": gone}})
    known = facts(*everything(pool))
    migration = pool.migrate("web")
    demanded = known.requirements(
        known.vmis[f"{pool.namespace}/web"], Migration.from_object(pool.migration(migration))
    )
    assert differing(demanded, pool.target_pod(migration)) == []
    origins = {s.origin for s in demanded.selectors.values() if "md-clear" in s.key}
    assert origins == {"remembered"}


def make_nodes(pool: Pool) -> None:
    size = {"cpu": "256", "memory": "1Ti", "pods": "1000"}
    size |= {"hugepages-2Mi": "64Gi", "devices.kubevirt.io/sev": "1k"}
    made = []
    for name, kind in SOURCES.items():
        for number in (1, 2):
            node = node_manifest(f"{pool.name}-{name}-{number}", kind.cpu)
            marks = {**node["metadata"]["labels"], **EVERY_NODE, POOL: pool.name, **kind.labels}
            node["metadata"]["labels"] = {k: v for k, v in marks.items() if v is not None}
            amounts = {**node["status"]["capacity"], **size}
            node["status"] = {"capacity": amounts, "allocatable": amounts}
            node["spec"] = {"unschedulable": True}
            made.append(node)
    pool.create_nodes(made)


def start(pool: Pool, mine: Sequence[Machine]) -> None:
    """Start every VMI on the first node of its kind; the others are cordoned meanwhile."""
    for source in SOURCES:
        node = f"{pool.name}-{source}-1"
        pool.cordon(node, on=False)
        here = [machine for machine in mine if machine.source == source]
        for machine in here:
            vmi = vmi_manifest(machine.name, machine.kind)
            selector = {**vmi["spec"].get("nodeSelector", {}), POOL: pool.name}
            vmi["spec"]["nodeSelector"] = selector
            pool.api.create(pool.at(KUBEVIRT, VMIS), vmi)
        wait_all(pool, pool.at(KUBEVIRT, VMIS), [machine.name for machine in here], is_running)
        pool.cordon(node)
    for node in pool.nodes:
        pool.cordon(node, on=False)


def is_running(vmi: Object) -> bool:
    conditions = vmi.get("status", {}).get("conditions", ())
    return any(c["type"] == "LiveMigratable" and c["status"] == "True" for c in conditions)


def compare(
    pool: Pool, mine: Sequence[Machine], added: Callable[[int], Mapping[str, str]]
) -> Iterator[tuple[Machine, Requirements, list[str]]]:
    """Migrate every VMI; yield what was predicted, and where the target pod differs from it."""
    known = facts(*everything(pool))
    predicted = {}
    migrations = {}
    for number, machine in enumerate(mine):
        asked = pool.migration_manifest(machine.name, added(number))
        asked["metadata"] = {"name": f"m-{machine.name}"}
        vmi = known.vmis[f"{pool.namespace}/{machine.name}"]
        predicted[machine.name] = known.requirements(vmi, Migration.from_object(asked))
        made = pool.api.create(pool.at(KUBEVIRT, MIGRATIONS), asked)
        migrations[made["metadata"]["uid"]] = machine.name
    found: dict[str, Object] = {}
    for _, pod in pool.api.follow(
        pool.at("v1", "pods"), IN_TIME, labelSelector="kubevirt.io/migrationJobUID"
    ):
        owner = migrations.get(pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"])
        if owner is not None:
            found.setdefault(owner, pod)
        if len(found) == len(mine):
            break
    missing = [m.name for m in mine if m.name not in found]
    assert not missing, f"no target pod within {IN_TIME:.0f} s: {missing}"
    for machine in mine:
        demanded = predicted[machine.name]
        yield machine, demanded, differing(demanded, found[machine.name])


def everything(pool: Pool) -> Iterator[Object]:
    """Read all that the guard would know."""
    for version, kind, where in (
        ("v1", "Node", path("v1", "nodes")),
        (KUBEVIRT, "KubeVirt", path(KUBEVIRT, "kubevirts")),
        (KUBEVIRT, "VirtualMachineInstance", pool.at(KUBEVIRT, VMIS)),
        ("v1", "Pod", pool.at("v1", "pods")),
    ):
        for obj in pool.api.items(where):
            yield {"apiVersion": version, "kind": kind, **obj}


def differing(demanded: Requirements, pod: Object) -> list[str]:
    """Say in which demands a target pod differs from what was predicted, defects left out."""
    spec = pod["spec"]
    by_kubevirt = demanded.without_additions()
    selectors = {key: s.value for key, s in by_kubevirt.selectors.items()}
    posted = dict(spec["nodeSelector"])
    # Which of two vendors KubeVirt takes is chance; that it takes one is not.
    for choice in demanded.any_of:
        if not any(key.startswith(VENDOR) for key in selectors):
            taken = next((key for key in choice.keys if key in posted), " or ".join(choice.keys))
            selectors[taken] = "true"
    wanted: dict[str, tuple[Any, Any]] = {
        "node selector": (selectors, posted),
        "node affinity": (predicted_terms(by_kubevirt), posted_terms(by_kubevirt, spec)),
        "tolerations": (
            set(by_kubevirt.tolerations),
            set(read_tolerations(spec.get("tolerations"))),
        ),
        "requests": (dict(by_kubevirt.requests), pod_requests(spec)),
        "other pods": (
            set(by_kubevirt.pod_terms),
            {
                term
                for term in read_pod_terms(spec["affinity"], pod["metadata"]["namespace"])
                if term.selector is None or labels.CREATED_BY not in term.selector.keys
            },
        ),
    }
    return [
        f"{what}: predicted {_only(predicted, found)}, posted {_only(found, predicted)}"
        for what, (predicted, found) in wanted.items()
        if predicted != found
    ]


def _only(these: Any, others: Any) -> str:
    if isinstance(these, dict):
        return json.dumps({k: v for k, v in these.items() if others.get(k) != v})
    return repr(these)


_Terms = frozenset[tuple[frozenset[Expression], frozenset[Expression]]] | None


def predicted_terms(demanded: Requirements) -> _Terms:
    """Return the node affinity that KubeVirt should write: its own demands in every term."""
    absent = [Expression(a.key, "DoesNotExist") for a in demanded.absent]
    if demanded.affinity is None:
        return frozenset({(frozenset(absent), frozenset())}) if absent else None
    return frozenset(
        (frozenset((*term.expressions, *absent)), frozenset(term.fields))
        for term in demanded.affinity
    )


def posted_terms(demanded: Requirements, spec: Object) -> _Terms:
    required = (
        spec["affinity"]
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution")
    )
    if required is None:
        return None
    terms: tuple[Term, ...] = read_terms(required["nodeSelectorTerms"])
    found = frozenset((frozenset(t.expressions), frozenset(t.fields)) for t in terms)
    # Where nothing but KubeVirt's own demands is in one term, no other term matters.
    own = frozenset(Expression(a.key, "DoesNotExist") for a in demanded.absent)
    alone = (own, frozenset[Expression]())
    return frozenset({alone}) if own and alone in found else found


def defects(demanded: Requirements) -> set[str]:
    """Name KubeVirt's defects that a prediction makes good; nothing else may be added."""
    found = set()
    for key in demanded.additions:
        if key.startswith(VENDOR):
            found.add(OTHER_VENDOR)
        else:
            assert key.startswith((labels.CPU_MODEL_MIGRATION, labels.CPU_FEATURE)), key
            found.add(FORGOTTEN_CPU)
    if demanded.everywhere:
        found.add(UNKNOWN_CPU)
    if demanded.any_of:
        found.add(ONE_OF_TWO_VENDORS)
    return found


def finish(pool: Pool, mine: Sequence[Machine]) -> None:
    """Wait until every VM has moved to the second node of its kind."""
    wait_all(
        pool,
        pool.at(KUBEVIRT, MIGRATIONS),
        [f"m-{machine.name}" for machine in mine],
        lambda obj: obj.get("status", {}).get("phase") == "Succeeded",
    )
    cancel(pool)


def cancel(pool: Pool) -> None:
    """Delete all migrations, and wait until their target pods are gone."""
    where = pool.at(KUBEVIRT, MIGRATIONS)
    pool.api.delete(where)
    pool.api.wait_until_empty(where, IN_TIME)
    pool.api.wait_until(
        lambda: all(pod["spec"].get("nodeName") for pod in pool.api.items(pool.at("v1", "pods"))),
        IN_TIME,
        "pods without a node are gone",
    )


def wait_all(pool: Pool, where: str, names: Sequence[str], until: Callable[[Object], bool]) -> None:
    left = set(names)
    last = {}
    for _, obj in pool.api.follow(where, IN_TIME) if left else ():
        last[obj["metadata"]["name"]] = obj.get("status")
        if until(obj):
            left.discard(obj["metadata"]["name"])
        if not left:
            return
    assert not left, {name: last.get(name) for name in left}
