"""CPU models that suit a whole cluster, and which host models can follow which.

A node counts when it has the label ``kubevirt.io/schedulable``, whatever its value: cordoned
nodes, nodes that are not ready and nodes whose virt-handler is silent come back, and the guests
must be able to go there then. Nodes without the label do not run KubeVirt.

Sources: KubeVirt ``pkg/virt-handler/node-labeller`` (the labels),
``pkg/virt-controller/watch/migration/migration.go`` (what a host-model guest needs elsewhere).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.model import cpu_generations, labels
from webhook.model.cpu_kinds import CpuKind, cpu_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from webhook.model.node import Node


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A named CPU model that a cluster could use.

    Attributes:
        model: As in ``spec.domain.cpu.model``.
        vendor: Of the nodes that can run it where they have one in common, else of the model
            itself; "" where neither is known.
        generation: As :func:`webhook.model.cpu_generations.generation`; None: not known.
        nodes: How many nodes can run it.
        node_share: Those of all nodes, 0 to 1.
        core_share: The CPUs of those nodes of all CPUs, 0 to 1; 0 where no node reports any.
        memory_share: Likewise for memory.
    """

    model: str
    vendor: str
    generation: int | None
    nodes: int
    node_share: float
    core_share: float
    memory_share: float


@dataclass(frozen=True, slots=True)
class HostModelGroup:
    """Nodes with one host model and one set of features that it requires.

    Attributes:
        host_model: "" where the nodes have no such label; their host-model guests cannot leave.
        nodes: Their names, sorted.
        can_receive_from: The host models, sorted, whose host-model guests every one of these nodes
            can take. Where several groups have one host model, from all of these groups.
    """

    host_model: str
    nodes: tuple[str, ...]
    can_receive_from: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a cluster's nodes have in common.

    Attributes:
        models: Those worth a choice, by vendor and the newest first. Left out are models for which
            there is a better one of the same vendor: as new and on more nodes, or newer and on as
            many. Models of unknown age are never left out.
        common: The newest model that all nodes can run; where there is none, for each vendor the
            newest that all of its nodes can run.
        host_model_groups: Nodes by host model.
    """

    models: tuple[ModelChoice, ...]
    common: tuple[str, ...]
    host_model_groups: tuple[HostModelGroup, ...]


def baseline(nodes: Sequence[Node]) -> Baseline:
    """Work out what a cluster's nodes have in common; the order of the nodes does not matter."""
    kinds = cpu_kinds(nodes)
    return Baseline(
        models=_choices(kinds), common=_common(kinds), host_model_groups=_host_model_groups(kinds)
    )


def newest_common(nodes: Iterable[Node], architecture: str = "") -> str | None:
    """Return the newest model that all nodes can run, None where there is none.

    Args:
        nodes: All nodes; those without the label ``kubevirt.io/schedulable`` do not count.
        architecture: Only nodes of this one count, where it is given: amd64.
    """
    if architecture:
        nodes = [n for n in nodes if n.labels.get(labels.ARCH, architecture) == architecture]
    return _newest(cpu_kinds(nodes))


def to_json(found: Baseline) -> dict[str, Any]:
    """Return a baseline as the command line and the server print it."""
    return {
        "models": [
            {
                "model": choice.model,
                "vendor": choice.vendor,
                "generation": choice.generation,
                "nodes": choice.nodes,
                "nodeShare": choice.node_share,
                "coreShare": choice.core_share,
                "memoryShare": choice.memory_share,
            }
            for choice in found.models
        ],
        "common": list(found.common),
        "hostModelGroups": [
            {
                "hostModel": group.host_model,
                "nodes": list(group.nodes),
                "canReceiveFrom": list(group.can_receive_from),
            }
            for group in found.host_model_groups
        ],
    }


def _age(model: str) -> tuple[cpu_generations.Order, str]:
    return cpu_generations.order(model), model


def _newest(kinds: Sequence[CpuKind]) -> str | None:
    if not kinds:
        return None
    return max(frozenset.intersection(*(kind.models for kind in kinds)), key=_age, default=None)


def _common(kinds: Sequence[CpuKind]) -> tuple[str, ...]:
    everywhere = _newest(kinds)
    if everywhere is not None:
        return (everywhere,)
    by_vendor: dict[str, list[CpuKind]] = {}
    for kind in kinds:
        by_vendor.setdefault(kind.vendor, []).append(kind)
    found = (_newest(by_vendor[vendor]) for vendor in sorted(by_vendor))
    return tuple(dict.fromkeys(model for model in found if model is not None))


def _choices(kinds: Sequence[CpuKind]) -> tuple[ModelChoice, ...]:
    able: dict[str, list[CpuKind]] = {}
    for kind in kinds:
        for model in kind.models:
            able.setdefault(model, []).append(kind)
    nodes, cores, memory = _totals(kinds)
    found = []
    for model, here in able.items():
        its_nodes, its_cores, its_memory = _totals(here)
        found.append(
            ModelChoice(
                model=model,
                vendor=_vendor(model, here),
                generation=cpu_generations.generation(model),
                nodes=its_nodes,
                node_share=_share(its_nodes, nodes),
                core_share=_share(its_cores, cores),
                memory_share=_share(its_memory, memory),
            )
        )
    found.sort(key=lambda c: (cpu_generations.order(c.model), c.nodes, c.model), reverse=True)
    found.sort(key=lambda c: c.vendor)
    return tuple(_unbeaten(found))


def _unbeaten(newest_first: Iterable[ModelChoice]) -> Iterator[ModelChoice]:
    best: dict[str, tuple[int, cpu_generations.Order]] = {}
    for choice in newest_first:
        order = cpu_generations.order(choice.model)
        most = best.get(choice.vendor)
        if choice.generation is None:
            yield choice
        elif most is None or choice.nodes > most[0] or (choice.nodes, order) == most:
            best[choice.vendor] = (choice.nodes, order)
            yield choice


def _totals(kinds: Iterable[CpuKind]) -> tuple[int, int, int]:
    nodes = cores = memory = 0
    for kind in kinds:
        nodes += len(kind.names)
        cores += kind.cores
        memory += kind.memory
    return nodes, cores, memory


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _vendor(model: str, kinds: Iterable[CpuKind]) -> str:
    of_nodes = {kind.vendor for kind in kinds}
    only = of_nodes.pop() if len(of_nodes) == 1 else ""
    return only or cpu_generations.vendor(model) or ""


def _host_model_groups(kinds: Sequence[CpuKind]) -> tuple[HostModelGroup, ...]:
    by_cpu: dict[tuple[str, frozenset[str]], list[CpuKind]] = {}
    # Of nodes whose guests need the same elsewhere, one speaks for all.
    sources: dict[str, dict[object, CpuKind]] = {}
    for kind in kinds:
        by_cpu.setdefault((kind.host_model, kind.required), []).append(kind)
        if kind.host_model:
            alike = sources.setdefault(kind.host_model, {})
            alike.setdefault((kind.required, kind.vendors), kind)
    groups = [
        HostModelGroup(
            host_model=host_model,
            nodes=tuple(sorted(name for kind in members for name in kind.names)),
            can_receive_from=_receivable(members, sources),
        )
        for (host_model, _), members in by_cpu.items()
    ]
    return tuple(sorted(groups, key=lambda group: (group.host_model, group.nodes)))


def _receivable(
    members: Sequence[CpuKind], sources: Mapping[str, Mapping[object, CpuKind]]
) -> tuple[str, ...]:
    return tuple(
        host_model
        for host_model in sorted(sources)
        if all(m.can_take_from(source) for m in members for source in sources[host_model].values())
    )
