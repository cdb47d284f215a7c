"""The grouped answer over a fleet is the answer that asking one by one gives."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from webhook.model import labels
from webhook.model.forecasting import forecast
from webhook.model.kubevirt import KubeVirt, Version
from webhook.model.migration import LauncherPod
from webhook.model.node import Node, Taint
from webhook.model.node_groups import NodeGroups
from webhook.model.obstacle import fits, lasting
from webhook.model.obstacles import PASSING_TAINTS
from webhook.model.placement import assess, assess_one
from webhook.model.snapshot import Snapshot, repelling_terms
from webhook.model.virtual_machine import VirtualMachineInstance

GIB = (1 << 30) * 1000
NOW = 1_000.0
ZONE = "topology.kubernetes.io/zone"
NODE_NAMES = [f"n{n}" for n in range(7)]
MODELS = ("Old", "New")


@st.composite
def nodes(draw, name):
    vendors = draw(st.sampled_from((("Intel",), ("Intel",), ("AMD",), ("Intel", "AMD"), ())))
    known = draw(st.sampled_from((MODELS, ("Old",), ())))
    marks = {labels.HOSTNAME: name, ZONE: draw(st.sampled_from(("east", "west")))}
    marks |= {labels.CPU_VENDOR + vendor: "true" for vendor in vendors}
    for model in known:
        marks |= {labels.CPU_MODEL + model: "true", labels.CPU_MODEL_MIGRATION + model: "true"}
    if known:
        marks[labels.HOST_MODEL_CPU + known[-1]] = "true"
    for feature in draw(st.sets(st.sampled_from(("avx", "vmx")))):
        marks |= {
            labels.CPU_FEATURE + feature: "true",
            labels.HOST_MODEL_REQUIRED_FEATURES + feature: "true",
        }
    if schedulable := draw(st.sampled_from(("true", "true", "true", "false", ""))):
        marks[labels.SCHEDULABLE] = schedulable
    if draw(st.integers(0, 5)) == 0:
        marks[labels.OBSOLETE_HOST_MODEL] = "true"
    size = draw(st.sampled_from((0, 8 * GIB, 16 * GIB)))
    taints = st.sampled_from(
        ((), (), (Taint("gpu", "", "NoSchedule"),), (Taint("kubevirt.io/drain", "", "NoSchedule"),))
    )
    return Node(
        name=name,
        labels=marks,
        taints=draw(taints),
        cordoned=draw(st.integers(0, 5)) == 0,
        ready=draw(st.integers(0, 5)) > 0,
        capacity={"memory": size, "cpu": 8000} if size else {},
        allocatable={"memory": size - draw(st.integers(0, 2)) * GIB, "cpu": 8000} if size else {},
        settling_until=draw(st.sampled_from((None, None, None, NOW - 1, NOW + 1))),
    )


def _expression(key, operator="Exists", *values):
    return {"key": key, "operator": operator, "values": list(values)}


def _terms(*terms):
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _expressions(key, operator, *values):
    return _terms({"matchExpressions": [_expression(key, operator, *values)]})


def _other_pods(kind, key):
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": key}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


AFFINITIES: tuple[dict[str, object], ...] = (
    {},
    {},
    _expressions(ZONE, "In", "east"),
    _expressions(labels.HOSTNAME, "NotIn", "n1", "n2"),
    _terms(
        {"matchExpressions": [_expression(labels.HOSTNAME, "In", "n1", "n3"), _expression(ZONE)]},
        {"matchFields": [_expression("metadata.name", "In", "n2")]},
    ),
    _terms(
        {"matchExpressions": [_expression(labels.HOSTNAME), _expression(ZONE, "Gt", "1")]},
        {"matchFields": [_expression("metadata.name", "NotIn", "n1")]},
        {},
    ),
    _terms({"matchExpressions": [_expression(f"{labels.TSC_FREQUENCY}1", "DoesNotExist")]}),
    _other_pods("podAntiAffinity", labels.HOSTNAME),
    _other_pods("podAntiAffinity", ZONE),
    _other_pods("podAffinity", ZONE),
)


@st.composite
def guests(draw):
    """Draw what a VM asks for; several VMs of one cluster ask for the same."""
    features: tuple[list[dict[str, str]], ...] = (
        [],
        [],
        [{"name": "vmx"}],
        [{"name": "avx", "policy": "forbid"}],
    )
    return {
        "model": draw(st.sampled_from(("host-model", "host-model", "host-passthrough", *MODELS))),
        "features": draw(st.sampled_from(features)),
        "affinity": draw(st.sampled_from(AFFINITIES)),
        "selector": draw(st.sampled_from(({}, {}, {ZONE: "west"}))),
        "scheduler": draw(st.sampled_from(("", "", "other"))),
        "app": draw(st.sampled_from(("db", "web"))),
        "memory": draw(st.sampled_from((1, 4, 12, 32))),
    }


@st.composite
def vms(draw, index, guest, node_names):
    """Draw a VMI and its pod."""
    marks = {"app": guest["app"]}
    memory = draw(st.sampled_from((guest["memory"], 2)))
    condition = {"type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable"}
    node_name = draw(st.sampled_from((*node_names, "gone")))
    vmi = VirtualMachineInstance.from_object(
        {
            "metadata": {"name": f"vm{index}", "uid": f"u{index}", "labels": marks},
            "spec": {
                "affinity": guest["affinity"],
                "nodeSelector": guest["selector"],
                "schedulerName": guest["scheduler"],
                "domain": {
                    "cpu": {"model": guest["model"], "features": guest["features"]},
                    "memory": {"guest": f"{memory}Gi"},
                },
            },
            "status": {
                "phase": draw(st.sampled_from(("Running",) * 5 + ("Scheduling", "Failed"))),
                "nodeName": node_name,
                "conditions": [condition] if draw(st.integers(0, 7)) == 0 else [],
            },
        }
    )
    if draw(st.integers(0, 3)) == 0:
        return vmi, None
    migrated = draw(st.booleans())
    remembered = {labels.CPU_MODEL_MIGRATION + "Old": "true"} if migrated else {}
    pod = LauncherPod.from_object(
        {
            "metadata": {
                "name": f"p{index}",
                "labels": {
                    **marks,
                    labels.CREATED_BY: vmi.uid,
                    **({labels.MIGRATION_UID: "m"} if migrated else {}),
                },
            },
            "spec": {
                "nodeName": node_name,
                "nodeSelector": remembered,
                "affinity": guest["affinity"],
                "containers": [{"resources": {"requests": {"memory": f"{memory}Gi"}}}],
            },
        }
    )
    return vmi, pod


@st.composite
def clusters(draw):
    # Copies of a few nodes under other names, so that there is something to group.
    kinds = [draw(nodes("kind")) for _ in range(draw(st.integers(1, 3)))]
    made = []
    for name in NODE_NAMES[: draw(st.integers(1, len(NODE_NAMES)))]:
        kind = draw(st.sampled_from(kinds))
        made.append(replace(kind, name=name, labels={**kind.labels, labels.HOSTNAME: name}))
    used = {
        node.name: {"memory": draw(st.integers(0, 16)) * GIB, "cpu": draw(st.integers(0, 8)) * 1000}
        for node in made
    }
    asked = [draw(guests()) for _ in range(draw(st.integers(1, 2)))]
    names = [node.name for node in made]
    drawn = [
        draw(vms(index, draw(st.sampled_from(asked)), names))
        for index in range(draw(st.integers(1, 6)))
    ]
    pods = {vmi.uid: (pod,) for vmi, pod in drawn if pod is not None}
    version = draw(st.sampled_from((Version(1, 5, 0), Version(1, 8, 4))))
    rolling_out = draw(st.integers(0, 5)) == 0
    return Snapshot(
        nodes=NodeGroups(made, used),
        kubevirt=KubeVirt(
            version=version, target_version=Version(1, 8, 4), rolling_out=rolling_out
        ),
        vmis={vmi.key: vmi for vmi, _ in drawn},
        pods=pods,
        namespaces={"default": {}},
        repelling=repelling_terms(pods),
    )


def said(obstacles):
    """Return obstacles without regard to the order in which a detail puts its parts."""
    return [
        (o.code, o.kind, o.origin, o.missing, o.present, set(o.detail.split("; ")))
        for o in obstacles
    ]


@settings(max_examples=200, deadline=None)
@given(clusters())
def test_judging_all_nodes_together_is_judging_node_by_node(snapshot):
    for vmi in snapshot.vmis.values():
        demanded = snapshot.requirements(vmi)
        under = snapshot.conditions(demanded, PASSING_TAINTS, NOW)
        # Twice: the second answer comes from what the first one left behind.
        for _ in range(2):
            together = assess(demanded, snapshot.nodes, under)
            answers = {node.name: found for node, found in together.by_node()}
            assert answers.keys() == snapshot.nodes.by_name.keys()
            for name, node in snapshot.nodes.by_name.items():
                alone = assess_one(demanded, node, snapshot.nodes, under)
                assert said(answers[name]) == said(alone)
            for part in together.parts:
                assert part.count == len(part.nodes)
                assert list(part.nodes) == sorted(part.nodes, key=lambda node: node.name)


def one_by_one(snapshot, vmi, draining):
    """Return verdict, targets and reasons as asking VM by VM and node by node gives them."""
    live = vmi.condition("LiveMigratable")
    if not vmi.running or (live and live.status == "False"):
        return "blocked", [], [("blocked", [], [])]
    demanded = snapshot.requirements(vmi)
    under = snapshot.conditions(demanded, PASSING_TAINTS, NOW)
    targets: list[str] = []
    waiting: list[str] = []
    reasons: dict[str, tuple[list[str], set[str]]] = {}
    for name in sorted(snapshot.nodes.by_name.keys() - {vmi.node_name}):
        found = assess_one(demanded, snapshot.nodes.by_name[name], snapshot.nodes, under)
        if fits(found):
            if name in draining:
                reasons.setdefault("cordoned", ([], set()))[0].append(name)
            else:
                targets.append(name)
            continue
        if not lasting(found) and name not in draining:
            waiting.append(name)
        for code in {o.code for o in found if o.kind != "risk"}:
            reasons.setdefault(code.value, ([], set()))[0].append(name)
        for obstacle in found:
            if obstacle.kind != "risk":
                reasons[obstacle.code.value][1].update(obstacle.missing)
    verdict = ("waiting" if waiting else "stuck", "one-node", "movable")[min(len(targets), 2)]
    told = sorted((code, sorted(out), sorted(lack)) for code, (out, lack) in reasons.items())
    return verdict, targets, told


@settings(max_examples=200, deadline=None)
@given(clusters(), st.frozensets(st.sampled_from(NODE_NAMES), max_size=2))
def test_a_forecast_is_what_asking_vm_by_vm_and_node_by_node_gives(snapshot, draining):
    found = forecast(
        snapshot,
        passing_taints=PASSING_TAINTS,
        now=NOW,
        draining=draining,
        advise=lambda *_: "",
    )
    assert [vm.vm for vm in found.vms] == sorted(
        key for key, vmi in snapshot.vmis.items() if not vmi.final
    )
    staying: dict[str, list[str]] = {name: [] for name in sorted(snapshot.nodes.by_name)}
    for vm in found.vms:
        vmi = snapshot.vmis[vm.vm]
        verdict, targets, reasons = one_by_one(snapshot, vmi, draining)
        told = sorted((r.code, list(r.nodes), list(r.missing)) for r in vm.reasons)
        assert (vm.verdict.value, list(vm.targets), told) == (verdict, targets, reasons)
        if verdict not in ("movable", "one-node") and vmi.node_name in staying:
            staying[vmi.node_name].append(vm.vm)
    assert {node.name: list(node.staying) for node in found.nodes} == staying


@settings(max_examples=50, deadline=None)
@given(clusters(), st.sampled_from(("host-model", "host-passthrough", *MODELS)))
def test_questions_about_changes_leave_the_forecast_itself_as_it_is(snapshot, model):
    plain = forecast(snapshot, passing_taints=PASSING_TAINTS, now=NOW)
    joining = Node("new", {labels.SCHEDULABLE: "true", labels.HOSTNAME: "new"})
    asked = forecast(
        snapshot, passing_taints=PASSING_TAINTS, now=NOW, cpu_model=model, added_nodes=(joining,)
    )
    assert asked.vms == plain.vms
    assert asked.nodes == plain.nodes
