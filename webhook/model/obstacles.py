"""The one decision: what keeps a virtual machine from a node.

Rules: docs/rules.md ("Lasting, passing, risk"). Kubernetes' own rules are those of the scheduler's
filter plugins NodeAffinity, TaintToleration, NodeUnschedulable, NodeResourcesFit and VolumeBinding.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.node import Taint
from webhook.model.node_affinity import any_matches
from webhook.model.obstacle import Code, Kind, Obstacle, Origin, collect
from webhook.model.requirements import code_of
from webhook.model.tolerations import untolerated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from webhook.model.node import Node
    from webhook.model.requirements import Requirements, Selector

# Glob patterns of taints that usually go by themselves; the configuration can change the list.
PASSING_TAINTS: tuple[str, ...] = (
    "node.kubernetes.io/*",
    "node.cloudprovider.kubernetes.io/*",
    "kubevirt.io/drain",
    "*/agent-not-ready",
    "*.startup-taint.cluster-autoscaler.kubernetes.io/*",
)
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
_CORDON = Taint(UNSCHEDULABLE_TAINT, "", "NoSchedule")
NOT_READY_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
# virt-controller tolerates this much: pkg/virt-controller/watch/topology/tsc.go.
TSC_TOLERANCE_PPM = 250
TOLD_FEATURES = 4
_LABEL_CODES = frozenset(
    {
        Code.ARCHITECTURE,
        Code.CPU_MODEL,
        Code.CPU_FEATURE,
        Code.CPU_VENDOR,
        Code.HOST_MODEL_OBSOLETE,
        Code.PASSTHROUGH_CPU,
        Code.MACHINE_TYPE,
        Code.TSC_FREQUENCY,
        Code.HYPERV,
        Code.REALTIME,
        Code.SEV,
        Code.TDX,
        Code.CPU_MANAGER,
        Code.NODE_SELECTOR,
        Code.NODE_AFFINITY,
        Code.NETWORK,
        Code.NO_KUBEVIRT,
    }
)
_BY_ANOTHER_SCHEDULER = frozenset({Code.TAINT, Code.RESOURCES, Code.VOLUME_TOPOLOGY})


def obstacles(
    requirements: Requirements,
    node: Node,
    *,
    passing_taints: Sequence[str] = PASSING_TAINTS,
    now: float | None = None,
) -> tuple[Obstacle, ...]:
    """Say what keeps a virtual machine from a node; empty, or only risks: the node can take it.

    Free room and other pods are judged apart (:mod:`webhook.model.placement`), because they differ
    from node to node.

    Args:
        requirements: What is demanded.
        node: The node.
        passing_taints: Globs of the taint keys that go by themselves.
        now: Unix seconds; only needed for nodes that are still settling.
    """
    found = [*_label_obstacles(requirements, node), *_size_obstacles(requirements, node)]
    if requirements.node_state:
        found.extend(_state_obstacles(requirements, node, passing_taints))
    if requirements.source_node and requirements.source_node == node.name:
        found.append(
            Obstacle(
                Code.SAME_NODE,
                Kind.LASTING,
                Origin.KUBEVIRT,
                detail="the VM runs here already",
            )
        )
    found.extend(_everywhere(requirements, now))
    if unsettled(node.settling_until, now):
        found = [o.passing() if o.code in _LABEL_CODES else o for o in found]
    if requirements.rolling_out:
        found = [o.passing() if _in_flux(o) else o for o in found]
    if requirements.foreign_scheduler:
        found = [o.passing() if o.code in _BY_ANOTHER_SCHEDULER else o for o in found]
    return collect(found)


def unsettled(until: float | None, now: float | None) -> bool:
    """Tell whether labels may still come: before ``until``, in Unix seconds; None is settled."""
    return until is not None and now is not None and now < until


def _in_flux(obstacle: Obstacle) -> bool:
    """Tell whether a rollout of KubeVirt may change the labels that an obstacle speaks of."""
    named = (*obstacle.missing, *obstacle.present)
    return bool(named) and all(labels.written_by_kubevirt(label) for label in named)


def _everywhere(requirements: Requirements, now: float | None) -> Iterator[Obstacle]:
    source_settles = unsettled(requirements.source_settling_until, now)
    for obstacle in requirements.everywhere:
        yield obstacle.passing() if source_settles else obstacle


def _label_obstacles(requirements: Requirements, node: Node) -> Iterator[Obstacle]:
    missing = requirements.wanted - node.labels.items()
    runs_kubevirt = labels.SCHEDULABLE in node.labels
    if not runs_kubevirt and (labels.SCHEDULABLE, "true") in missing:
        # Such a node has none of KubeVirt's labels: to list them says nothing more.
        yield _no_kubevirt()
        missing = frozenset(pair for pair in missing if not _belongs_to_kubevirt(pair[0]))
    features: dict[Origin, list[str]] = {}
    for key, _ in missing:
        selector = requirements.selectors[key]
        if selector.code is Code.CPU_FEATURE and selector.certain:
            features.setdefault(selector.origin, []).append(labels.short(key, selector.value))
        else:
            yield _unmet(selector, node)
    for origin, lacking in features.items():
        yield _features(origin, sorted(lacking))
    for choice in requirements.any_of:
        if runs_kubevirt and not any(node.labels.get(key) == "true" for key in choice.keys):
            wanted = " or ".join(choice.keys)
            yield Obstacle(
                choice.code, Kind.LASTING, choice.origin, choice.keys, detail=f"needs {wanted}"
            )
    for absent in requirements.absent:
        if absent.key in node.labels:
            yield Obstacle(
                absent.code,
                Kind.LASTING,
                absent.origin,
                present=(absent.key,),
                detail=f"must not have {absent.key}",
            )
    if runs_kubevirt and requirements.passthrough:
        lacks = tuple(
            sorted(key for key in requirements.passthrough if node.labels.get(key) != "true")
        )
        if lacks:
            yield Obstacle(
                Code.PASSTHROUGH_CPU,
                Kind.RISK,
                Origin.SOURCE_CPU,
                missing=lacks,
                detail="its CPU differs from the source's",
            )
    yield from _affinity_obstacles(requirements, node)


def _belongs_to_kubevirt(key: str) -> bool:
    return key == labels.SCHEDULABLE or labels.written_by_kubevirt(key)


def _no_kubevirt() -> Obstacle:
    return Obstacle(
        Code.NO_KUBEVIRT,
        Kind.LASTING,
        Origin.KUBEVIRT,
        missing=(labels.SCHEDULABLE,),
        detail="does not run KubeVirt",
    )


def _features(origin: Origin, lacking: list[str]) -> Obstacle:
    """Make one obstacle of all CPU features at once: another CPU lacks dozens of them."""
    more = len(lacking) - TOLD_FEATURES
    told = ", ".join(lacking[:TOLD_FEATURES]) + (f" and {more} more" if more > 0 else "")
    return Obstacle(
        Code.CPU_FEATURE, Kind.LASTING, origin, missing=tuple(lacking), detail=f"needs {told}"
    )


def _unmet(selector: Selector, node: Node) -> Obstacle:
    label = labels.short(selector.key, selector.value)
    if selector.key == labels.SCHEDULABLE:
        return Obstacle(
            Code.NOT_SCHEDULABLE,
            Kind.PASSING,
            selector.origin,
            missing=(label,),
            detail="KubeVirt marks it as not schedulable",
        )
    kind = Kind.LASTING if selector.certain else Kind.PASSING
    if selector.code is Code.TSC_FREQUENCY and _gives_frequency(selector.key, node.labels):
        return Obstacle(
            selector.code,
            Kind.PASSING,
            selector.origin,
            missing=(label,),
            detail="can give this TSC frequency; virt-controller writes the label when it is used",
        )
    # The host name differs on every node; told in each, it would part nodes that are alike.
    has = "" if selector.key == labels.HOSTNAME else node.labels.get(selector.key)
    detail = f"needs {label}" + (f", has {has}" if has else "")
    return Obstacle(selector.code, kind, selector.origin, missing=(label,), detail=detail)


def _gives_frequency(key: str, node_labels: Mapping[str, str]) -> bool:
    wanted = int(key[len(labels.TSC_FREQUENCY) :] or 0)
    try:
        own = int(node_labels.get(labels.TSC_FREQUENCY_OF_NODE, ""))
    except ValueError:
        return False
    if abs(own - wanted) * 1_000_000 <= TSC_TOLERANCE_PPM * wanted:
        return True
    return node_labels.get(labels.TSC_SCALABLE) == "true" and own >= wanted


def _affinity_obstacles(requirements: Requirements, node: Node) -> Iterator[Obstacle]:
    terms = requirements.affinity
    if terms is not None and not any_matches(terms, node.name, node.labels):
        if not terms or all(not t.expressions and not t.fields for t in terms):
            yield Obstacle(
                Code.NODE_AFFINITY,
                Kind.LASTING,
                Origin.VM,
                detail="its required node affinity matches no node at all",
            )
        for term in terms:
            for expression in term.unsatisfied(node.name, node.labels):
                code = code_of(expression.key, Code.NODE_AFFINITY)
                origin = Origin.NETWORK if code is Code.NETWORK else Origin.VM
                unwanted = expression.operator in ("NotIn", "DoesNotExist")
                label = expression.missing()
                yield Obstacle(
                    code if code in (Code.NETWORK, Code.CPU_MANAGER) else Code.NODE_AFFINITY,
                    Kind.LASTING,
                    origin,
                    missing=() if unwanted else (label,),
                    present=(label,) if unwanted else (),
                    detail=f"must not have {label}" if unwanted else f"needs {label}",
                )
    for topology in requirements.topologies:
        if not any_matches(topology.terms, node.name, node.labels):
            keys = {
                expression.missing()
                for term in topology.terms
                for expression in term.unsatisfied(node.name, node.labels)
            }
            yield Obstacle(
                Code.VOLUME_TOPOLOGY,
                Kind.LASTING,
                topology.origin,
                missing=tuple(sorted(keys)),
                detail=f'volume "{topology.volume}" cannot be reached from it',
            )


def _state_obstacles(
    requirements: Requirements, node: Node, passing_taints: Sequence[str]
) -> Iterator[Obstacle]:
    open_taints = untolerated(node.taints, requirements.tolerations)
    tolerates_cordon = _tolerates_cordon(requirements)
    cordon_taint = any(t.key == UNSCHEDULABLE_TAINT for t in open_taints)
    if cordon_taint or (node.cordoned and not tolerates_cordon):
        yield Obstacle(Code.CORDONED, Kind.PASSING, Origin.KUBEVIRT, detail="is cordoned")
    if not node.ready:
        yield Obstacle(Code.NOT_READY, Kind.PASSING, Origin.KUBEVIRT, detail="is not ready")
    for taint in open_taints:
        if taint.key == UNSCHEDULABLE_TAINT or (not node.ready and taint.key in NOT_READY_TAINTS):
            continue
        yield Obstacle(
            Code.TAINT,
            Kind.PASSING if _matches(taint, passing_taints) else Kind.LASTING,
            Origin.KUBEVIRT,
            present=(str(taint),),
            detail=f"has the taint {taint}",
        )


def _tolerates_cordon(requirements: Requirements) -> bool:
    return not untolerated((_CORDON,), requirements.tolerations)


def _matches(taint: Taint, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(taint.key, glob) for glob in globs)


def size_faults(requests: Mapping[str, int], node: Node) -> tuple[tuple[Kind, str], ...]:
    """Return in which ways a node is too small, or has none of something, even if it were empty.

    Args:
        requests: What is asked for, in thousandths.
        node: The node.
    """
    if not node.capacity:
        return ()
    found = []
    for name, asked in requests.items():
        if asked <= 0 or asked <= node.allocatable.get(name, 0):
            continue
        has = node.capacity.get(name)
        if has is None:
            extended = "/" in name or name.startswith("hugepages-")
            if extended:
                found.append((Kind.LASTING, f"has no {name}"))
        elif has == 0:
            found.append((Kind.PASSING, f"has no {name} now"))
        elif asked > has:
            found.append((Kind.LASTING, f"has less {name} than the VM asks for"))
        else:
            found.append((Kind.PASSING, f"keeps too much {name} for itself"))
    return tuple(found)


def _size_obstacles(requirements: Requirements, node: Node) -> Iterator[Obstacle]:
    for kind, detail in size_faults(requirements.requests, node):
        yield Obstacle(Code.RESOURCES, kind, Origin.VM, detail=detail)
