"""What would help: computed from the same facts, and named only where it would work."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from webhook.model import cpu_generations, fields, labels
from webhook.model.cpu import architecture, host_cpu
from webhook.model.kubevirt import VENDOR_GUARD
from webhook.model.migration import Source
from webhook.model.obstacle import Code, Kind, Origin
from webhook.model.placement import assess
from webhook.model.rendering import requirements
from webhook.model.storage import topologies
from webhook.model.virtual_machine import HOST_MODEL, VirtualMachineInstance
from webhook.model.wording import escaped, nodes_named, parts_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.node_groups import NodeGroups
    from webhook.model.part import Part
    from webhook.model.placement import Assessment, Conditions
    from webhook.model.requirements import Requirements
    from webhook.model.snapshot import Snapshot

TRIED_MODELS = 4
TRIED_SOURCES = 12
# A guest that can go to no second node cannot migrate.
FEWEST = 2
_REACH = "models by reach"
_VENDORS = "vendors"
_CPU = frozenset(
    {
        Code.CPU_MODEL,
        Code.CPU_FEATURE,
        Code.CPU_VENDOR,
        Code.SOURCE_CPU_UNKNOWN,
        Code.HOST_MODEL_OBSOLETE,
        Code.PASSTHROUGH_CPU,
    }
)


def advice_for(
    vmi: VirtualMachineInstance,
    snapshot: Snapshot,
    demanded: Requirements,
    assessment: Assessment,
    conditions: Conditions,
    *,
    by_name: bool = True,
) -> str:
    """Say what would let the VM migrate, "" where nothing that can be named would.

    Args:
        vmi: The VM that cannot move.
        snapshot: The facts.
        demanded: What it demands of a node.
        assessment: What stands in the way.
        conditions: As for the assessment.
        by_name: Name nodes, or count them only.
    """
    if not assessment.others:
        return "Add a node that can run it."
    said = [
        _label_source(demanded),
        _drop_added_vendor(demanded, snapshot, conditions),
        _one_step(assessment, by_name=by_name),
    ]
    if any(_by_cpu(part) for part in assessment.others):
        said.append(_named_model(vmi, snapshot, conditions))
        said.append(_restart(vmi, snapshot, demanded, conditions))
    return " ".join(text for text in said if text)


def _label_source(demanded: Requirements) -> str:
    if all(o.code is not Code.SOURCE_CPU_UNKNOWN for o in demanded.everywhere):
        return ""
    return (
        f'See that virt-handler runs on node "{escaped(demanded.source_node)}": '
        "it writes that label every few minutes."
    )


def _by_cpu(part: Part) -> bool:
    return any(o.code in _CPU and o.kind is Kind.LASTING for o in part.obstacles)


def _with_model(vmi: VirtualMachineInstance, model: str) -> VirtualMachineInstance:
    return replace(vmi, cpu_model=model)


def _as_start(
    vmi: VirtualMachineInstance, snapshot: Snapshot, model: str, conditions: Conditions
) -> Assessment:
    """Judge the VM as it would start anew with a CPU model, hotplugged volumes and all."""
    fresh = replace(_with_model(vmi, model), machine_type=_machine_type(vmi))
    reachable = topologies(vmi, snapshot.claims, snapshot.volumes)
    demanded = requirements(fresh, Source(), None, snapshot.kubevirt, topologies=reachable)
    return assess(demanded, snapshot.nodes, conditions)


def _machine_type(vmi: VirtualMachineInstance) -> str:
    return fields.text(vmi.spec, "domain", "machine", "type")


def models_by_reach(snapshot: Snapshot, vendor: str = "") -> list[tuple[str, int]]:
    """Return the named models with the number of KubeVirt nodes that can run them.

    Those that reach most nodes come first; of equals, the newest. With a vendor, only the nodes
    of that vendor count.
    """
    nodes = snapshot.nodes
    return nodes.memory.recall((_REACH, vendor), lambda: _reach(nodes, vendor))


def _reach(nodes: NodeGroups, vendor: str) -> list[tuple[str, int]]:
    reach: dict[str, int] = {}
    for group in nodes.groups:
        marks = group.representative.labels
        if labels.SCHEDULABLE not in marks or (vendor and labels.CPU_VENDOR + vendor not in marks):
            continue
        for model in labels.names(marks, labels.CPU_MODEL):
            reach[model] = reach.get(model, 0) + len(group.nodes)
    return sorted(
        reach.items(),
        key=lambda pair: (pair[1], cpu_generations.order(pair[0]), pair[0]),
        reverse=True,
    )


def _named_model(vmi: VirtualMachineInstance, snapshot: Snapshot, conditions: Conditions) -> str:
    if architecture(vmi, snapshot.kubevirt) == "arm64":
        return ""
    vendor = _kept_to(vmi, snapshot)
    best: tuple[int, str] | None = None
    for model, reach in models_by_reach(snapshot, vendor)[:TRIED_MODELS]:
        if model == vmi.cpu_model or reach < FEWEST or (best and reach <= best[0]):
            continue
        open_nodes = _in_reach(_as_start(vmi, snapshot, model, conditions), snapshot, vendor)
        if open_nodes >= FEWEST and (best is None or open_nodes > best[0]):
            best = (open_nodes, model)
    if best is None:
        return ""
    count, model = best
    number_of = _vendors(snapshot.nodes).number_of
    everyone = sum(number for of, number in number_of.items() if not vendor or vendor in of)
    nodes = f"{vendor} nodes" if vendor else "nodes"
    whom = f"all {nodes} support" if count == everyone else f"more {nodes} support"
    return (
        f'Assign a CPU model that {whom}, here "{escaped(model)}" '
        f"({count} of {everyone} {nodes}), "
        f"{_where_to_set(vmi, snapshot, model)}, and restart the VM."
    )


def _kept_to(vmi: VirtualMachineInstance, snapshot: Snapshot) -> str:
    """Return the CPU vendor that KubeVirt keeps a VM to, "" where that rules out no node."""
    vendors = _vendors(snapshot.nodes)
    if not snapshot.kubevirt.does(VENDOR_GUARD) or len(vendors.number_of) < FEWEST:
        return ""
    own = vendors.of_node.get(vmi.node_name, ())
    return own[0] if len(own) == 1 else ""


def _in_reach(judged: Assessment, snapshot: Snapshot, vendor: str) -> int:
    """Return the number of nodes among which the VM could move, once started anew.

    It may start with another vendor's CPU, too: where a vendor has a single node that could start
    it, it might be stuck there, so nothing is promised.
    """
    parts = [part for part in judged.parts if not part.lasting]
    known = _vendors(snapshot.nodes)
    if not snapshot.kubevirt.does(VENDOR_GUARD) or len(known.number_of) < FEWEST:
        return sum(part.count for part in parts)
    count = Counter(known.of_node.get(node.name, ()) for part in parts for node in part.nodes)
    of_vendor: Counter[str] = Counter()
    for vendors, number in count.items():
        of_vendor.update(dict.fromkeys(vendors, number))
    for vendors in count:
        # A node without vendor label demands none of its target.
        if vendors and max(of_vendor[one] for one in vendors) < FEWEST:
            return 0
    return sum(number for of, number in count.items() if not vendor or vendor in of)


class _Vendors(NamedTuple):
    """The vendor labels of each node that runs KubeVirt, and how many nodes have the same."""

    of_node: Mapping[str, tuple[str, ...]]
    number_of: Mapping[tuple[str, ...], int]


def _vendors(nodes: NodeGroups) -> _Vendors:
    return nodes.memory.recall(_VENDORS, lambda: _read_vendors(nodes))


def _read_vendors(nodes: NodeGroups) -> _Vendors:
    found = {}
    for group in nodes.groups:
        vendors = host_cpu(group.representative.labels).vendors
        if labels.SCHEDULABLE in group.representative.labels:
            found.update(dict.fromkeys(group.position, vendors))
    return _Vendors(found, Counter(found.values()))


def _where_to_set(vmi: VirtualMachineInstance, snapshot: Snapshot, model: str) -> str:
    """Name the places where a model can be set for a VM.

    At cluster level only one that every node can run: any other leaves nodes without new VMs.
    """
    vm = snapshot.vms.get(f"{vmi.namespace}/{vmi.owner or vmi.name}")
    in_vm = "in the VM (spec.template.spec.domain.cpu.model)"
    if vm is not None and vm.instancetype:
        in_vm = "in the VM's instancetype (spec.cpu.model)"
    if vm is not None:
        defaulted = not vm.cpu_model
    else:
        defaulted = vmi.cpu_model in ("", HOST_MODEL, snapshot.kubevirt.cpu_model)
    spans = dict(models_by_reach(snapshot)).get(model) == len(_vendors(snapshot.nodes).of_node)
    if defaulted and spans:
        return f"at cluster level (spec.configuration.cpuModel of the KubeVirt CR) or {in_vm}"
    return in_vm


def _restart(
    vmi: VirtualMachineInstance,
    snapshot: Snapshot,
    demanded: Requirements,
    conditions: Conditions,
) -> str:
    """Advise a restart where the VM is held by what an earlier migration left behind."""
    if vmi.cpu_model not in ("", HOST_MODEL):
        return ""
    if not any(s.origin is Origin.REMEMBERED for s in demanded.selectors.values()):
        return ""
    fresh = replace(vmi, machine_type=_machine_type(vmi))
    for part in _as_start(vmi, snapshot, HOST_MODEL, conditions).parts[:TRIED_SOURCES]:
        if part.lasting:
            continue
        source = Source(part.nodes[0].name, part.nodes[0], None)
        again = requirements(fresh, source, None, snapshot.kubevirt)
        if assess(again, snapshot.nodes, conditions).possible:
            return "Or restart the VM: it then forgets what it remembers from an earlier migration."
    return ""


def _drop_added_vendor(demanded: Requirements, snapshot: Snapshot, conditions: Conditions) -> str:
    added = {
        key
        for key, s in demanded.selectors.items()
        if s.origin is Origin.CHOSEN_TARGET and key != labels.HOSTNAME
    }
    if not added:
        return ""
    without = replace(
        demanded, selectors={k: s for k, s in demanded.selectors.items() if k not in added}
    )
    if not assess(without, snapshot.nodes, conditions).possible:
        return ""
    return f"Leave {escaped(', '.join(sorted(added)), 200)} out of addedNodeSelector."


_STEPS = {
    Code.NETWORK: "connect {nodes} to the VM's network ({what})",
    Code.NODE_SELECTOR: "change the node selector of the VM, or label {nodes} with {what} "
    "where that is true",
    Code.NODE_AFFINITY: "change the node affinity that the VM requires "
    "({what} keeps it from {nodes})",
    Code.TAINT: "remove the taint {what} from {nodes}, or let the VM tolerate it",
    Code.CPU_MANAGER: "turn on the CPU manager on {nodes}",
    Code.RESOURCES: "make room: {nodes} {detail}",
}


def _one_step(assessment: Assessment, *, by_name: bool) -> str:
    """Name the change after which at least one node could take the VM."""
    for part in assessment.others:
        firm = [o for o in part.obstacles if o.kind is Kind.LASTING]
        codes = {o.code for o in firm}
        if any(label.startswith(labels.HOSTNAME) for o in firm for label in o.missing):
            continue
        if len(codes) != 1 or (step := _STEPS.get(firm[0].code)) is None:
            continue
        what = ", ".join(dict.fromkeys(w for o in firm for w in (*o.missing, *o.present)))
        names = parts_named([part], by_name=by_name)
        text = step.format(nodes=names, what=escaped(what, 160), detail=firm[0].detail)
        return text[0].upper() + text[1:] + "."
    return ""


def alternatives(
    demanded: Requirements, snapshot: Snapshot, conditions: Conditions, *, by_name: bool = True
) -> str:
    """Name the nodes that would do in place of one that was chosen and does not."""
    free = replace(
        demanded,
        selectors={k: s for k, s in demanded.selectors.items() if k != labels.HOSTNAME},
    )
    judged = assess(free, snapshot.nodes, conditions)
    fit = judged.targets
    if fit:
        return f"These would do: {nodes_named(fit, by_name=by_name)}."
    later = judged.waiting
    if later:
        return f"None would do now; later perhaps {nodes_named(later, by_name=by_name)}."
    return ""
