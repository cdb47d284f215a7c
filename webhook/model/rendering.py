"""What KubeVirt puts on a virt-launcher pod, by version, and what the guard adds to it.

Sources, in KubeVirt's ``pkg/virt-controller``: ``services/nodeselectorrenderer.go`` and
``services/template.go`` (every pod), ``watch/migration/migration.go`` (target pods).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.model import fields, kubevirt, labels, limits
from webhook.model.cpu import architecture, effective_model, host_cpu
from webhook.model.migration import NO_SOURCE, Migration, RuntimeClass, Source
from webhook.model.node_affinity import read_terms
from webhook.model.obstacle import Code, Kind, Obstacle, Origin
from webhook.model.pod_affinity import read_pod_terms
from webhook.model.requests import derived_requests
from webhook.model.requirements import (
    Absent,
    AnyOf,
    Overridden,
    Requirements,
    Selector,
    Topology,
    code_of,
    selector,
)
from webhook.model.tolerations import read_tolerations
from webhook.model.virtual_machine import (
    HOST_MODEL,
    HOST_PASSTHROUGH,
    VirtualMachineInstance,
    feature_selectors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.cpu import HostCpu
    from webhook.model.kubevirt import KubeVirt, Version
    from webhook.model.migration import LauncherPod
    from webhook.model.node_affinity import Term
    from webhook.model.tolerations import Toleration

_Selectors = dict[str, tuple[str, Origin]]
# Policies by which a VM takes a feature of the host model out of its own hands.
_WAIVED = ("disable", "forbid", "force")
NO_POD = "no virt-launcher pod of the VM is among the facts: it is taken as never migrated"
UNKNOWN_GUEST_CPU = (
    "the CPU this guest booted with is unknown: an earlier migration went without its CPU model, "
    "so nothing is derived from the node it runs on now; a restart of the VM settles it"
)


def requirements(
    vmi: VirtualMachineInstance,
    source: Source,
    migration: Migration | None,
    kv: KubeVirt,
    *,
    topologies: tuple[Topology, ...] = (),
    runtime_class: RuntimeClass | None = None,
    not_judged: tuple[str, ...] = (),
    strict_passthrough: bool = False,
) -> Requirements:
    """Say what the target pod of a migration will demand of a node (or the pod of a start).

    Args:
        vmi: What is to move, or to start.
        source: Where it runs; :data:`NO_SOURCE` for a start.
        migration: The VMIM, for its added node selector; None when nobody asked yet.
        kv: KubeVirt's configuration and version.
        topologies: From where its volumes can be reached.
        runtime_class: The RuntimeClass of its pods.
        not_judged: What is known of its volumes that cannot be judged.
        strict_passthrough: Demand the source's very CPU for host-passthrough instead of calling
            its lack a risk.

    Raises:
        InvalidObject: A field of the VMI has a type that a VMI cannot have.
        TooLarge: More is demanded than is judged (:mod:`webhook.model.limits`).
    """
    _hold_selectors(vmi, source, migration)
    model = effective_model(vmi, kv).model
    cpu = source.cpu
    if cpu is None and source.node is not None:
        cpu = host_cpu(source.node.labels)
    by_version = [
        _selectors(vmi, source, cpu, migration, kv, version, model) for version in kv.versions
    ]
    chosen: dict[str, Selector] = {}
    for rendered in by_version:
        for key, (value, origin) in rendered.items():
            if key not in chosen:
                certain = len(by_version) == 1 or all(
                    other.get(key, ("",))[0] == value for other in by_version
                )
                chosen[key] = selector(key, value, origin, certain=certain)
    built = _Builder(vmi, source, cpu, kv, model, chosen)
    built.add_guard_demands(strict_passthrough=strict_passthrough)
    if runtime_class is not None:
        for key, value in runtime_class.node_selector.items():
            chosen.setdefault(key, selector(key, value, Origin.KUBEVIRT))
    absent = _absent(vmi, model)
    pod = source.pod
    scheduler = vmi.scheduler or (pod.scheduler if pod else "") or kv.scheduler
    pod_terms = read_pod_terms(vmi.affinity, vmi.namespace)
    limits.hold_pod_terms("spec.affinity", pod_terms)
    requests = pod.requests if pod and pod.requests else derived_requests(vmi, kv)
    limits.hold_entries("spec.domain.resources", requests, limits.MOST_RESOURCES)
    return Requirements(
        cpu_model=model,
        selectors=chosen,
        any_of=tuple(built.any_of),
        absent=absent,
        affinity=_affinity(vmi, closed=bool(absent)),
        topologies=topologies,
        pod_terms=pod_terms,
        tolerations=_tolerations(vmi, pod, runtime_class),
        requests=requests,
        source_node=source.node_name,
        source_settling_until=source.node.settling_until if source.node else None,
        passthrough=built.passthrough,
        everywhere=tuple(built.everywhere),
        overridden=_overridden(migration, chosen),
        notes=tuple(built.notes),
        not_judged=(*_unjudged(vmi, pod), *not_judged),
        foreign_scheduler="" if scheduler in ("", "default-scheduler") else scheduler,
        rolling_out=kv.rolling_out,
        namespace=vmi.namespace,
        vmi_labels=vmi.labels,
    )


def render(vmi: VirtualMachineInstance, kv: KubeVirt, version: Version, model: str) -> _Selectors:
    """Return the node selector of every virt-launcher pod of a VMI, with each entry's origin."""
    found: _Selectors = {labels.SCHEDULABLE: ("true", Origin.KUBEVIRT)}
    if vmi.architecture and "CrossArchitectureVirtualization" not in kv.gates:
        found[labels.ARCH] = (vmi.architecture, Origin.VM)
    for key, value in kv.node_selectors.items():
        found[key] = (value, Origin.KUBEVIRT)
    for key, value in vmi.node_selector.items():
        found[key] = (value, Origin.VM)
    if vmi.dedicated_cpus:
        found[labels.CPU_MANAGER] = ("true", Origin.VM)
    if "HypervStrictCheck" in kv.gates:
        for feature in vmi.hyperv:
            found[labels.HYPERV + feature] = ("true", Origin.VM)
        if vmi.evmcs:
            found[labels.CPU_VENDOR + "Intel"] = ("true", Origin.VM)
    if model not in (HOST_MODEL, HOST_PASSTHROUGH):
        found[labels.CPU_MODEL + model] = ("true", Origin.CPU_MODEL)
    for key, value in feature_selectors(vmi).items():
        found[key] = (value, Origin.VM)
    if vmi.evmcs:
        found.setdefault(labels.CPU_FEATURE + "vmx", ("true", Origin.VM))
    if vmi.machine_type and kv.does(kubevirt.MACHINE_TYPE_SELECTOR, version):
        found[labels.MACHINE_TYPE + vmi.machine_type] = ("true", Origin.VM)
    if vmi.tsc_frequency:
        found[f"{labels.TSC_FREQUENCY}{vmi.tsc_frequency}"] = ("true", Origin.VM)
    for kind in vmi.launch_security:
        found[f"kubevirt.io/{kind}"] = ("true", Origin.VM)
    return found


def _selectors(
    vmi: VirtualMachineInstance,
    source: Source,
    cpu: HostCpu | None,
    migration: Migration | None,
    kv: KubeVirt,
    version: Version,
    model: str,
) -> _Selectors:
    """Return the target pod's node selector as KubeVirt itself makes it."""
    found: _Selectors = {}
    if migration and kv.does(kubevirt.ADDED_NODE_SELECTOR, version):
        for key, value in migration.added_node_selector.items():
            found[key] = (value, Origin.CHOSEN_TARGET)
    rendered = render(vmi, kv, version, model)
    found.update(rendered)
    if not source.node_name:
        return found
    if model == HOST_MODEL:
        found.update(_host_model_selectors(rendered, source, cpu))
    set_already = any(key.startswith(labels.CPU_VENDOR) for key in found)
    guards = kv.does(kubevirt.VENDOR_GUARD, version) and not set_already
    if guards and cpu is not None and len(cpu.vendors) == 1:
        found[labels.CPU_VENDOR + cpu.vendors[0]] = ("true", Origin.SOURCE_CPU)
    return found


def _host_model_selectors(found: _Selectors, source: Source, cpu: HostCpu | None) -> _Selectors:
    """Return what KubeVirt copies from the source pod or, if that has nothing, the source node."""
    pod = source.pod
    # Without the pod among the facts its node selector is what KubeVirt renders for any pod.
    of_pod = pod.node_selector if pod else {key: value for key, (value, _) in found.items()}
    kept = {
        key: value
        for key, value in of_pod.items()
        if labels.CPU_FEATURE in key or labels.CPU_MODEL_MIGRATION in key
    }
    if kept:
        origin = Origin.REMEMBERED if pod and pod.migrated_here else Origin.VM
        return {k: (v, found[k][1] if k in found else origin) for k, v in kept.items()}
    if cpu is None or not cpu.model:
        return {}
    return {key: (value, Origin.SOURCE_CPU) for key, value in cpu.selectors.items()}


class _Builder:
    """Adds to KubeVirt's selectors what it should have set and did not."""

    def __init__(
        self,
        vmi: VirtualMachineInstance,
        source: Source,
        cpu: HostCpu | None,
        kv: KubeVirt,
        model: str,
        chosen: dict[str, Selector],
    ) -> None:
        self.vmi = vmi
        self.source = source
        self.cpu = cpu
        self.kv = kv
        self.model = model
        self.chosen = chosen
        self.any_of: list[AnyOf] = []
        self.everywhere: list[Obstacle] = []
        self.notes: list[str] = []
        self.passthrough: frozenset[str] = frozenset()

    def add_guard_demands(self, *, strict_passthrough: bool) -> None:
        source = self.source
        if not source.node_name:
            return
        cpu = self.cpu
        if cpu is None:
            self.notes.append(
                f'the source node "{source.node_name}" is not among the facts: '
                "nothing is derived from its CPU"
            )
            return
        if self.model == HOST_MODEL:
            self._host_model(cpu)
        self._vendor(cpu)
        if self.model == HOST_PASSTHROUGH and architecture(self.vmi, self.kv) != "arm64":
            self.passthrough = cpu.identity
            if strict_passthrough:
                for key in sorted(cpu.identity):
                    self._demand(key, "true", Code.PASSTHROUGH_CPU)
                self.passthrough = frozenset()

    def _host_model(self, cpu: HostCpu) -> None:
        pod = self.source.pod
        if pod is None:
            self.notes.append(NO_POD)
        if pod is not None and pod.migrated_here:
            if not any(key.startswith(labels.CPU_MODEL_MIGRATION) for key in pod.node_selector):
                self.notes.append(UNKNOWN_GUEST_CPU)
            return
        if not cpu.model:
            label = labels.HOST_MODEL_CPU + "*"
            self.everywhere.append(
                Obstacle(
                    Code.SOURCE_CPU_UNKNOWN,
                    Kind.LASTING,
                    Origin.SOURCE_CPU,
                    missing=(label,),
                    detail=f'the source node "{self.source.node_name}" has no label {label}, so '
                    "nobody knows what CPU the guest has",
                )
            )
            return
        waived = {labels.CPU_FEATURE + f.name for f in self.vmi.cpu_features if f.policy in _WAIVED}
        for key, value in cpu.selectors.items():
            if key not in waived:
                self._demand(key, value)

    def _vendor(self, cpu: HostCpu) -> None:
        if not cpu.vendors:
            return
        set_keys = [key for key in self.chosen if key.startswith(labels.CPU_VENDOR)]
        kubevirt_guards = self.kv.does(kubevirt.VENDOR_GUARD)
        by_source = self.model in (HOST_MODEL, HOST_PASSTHROUGH)
        if not (by_source or kubevirt_guards):
            return
        if len(cpu.vendors) > 1:
            keys = tuple(labels.CPU_VENDOR + vendor for vendor in cpu.vendors)
            self.any_of.append(AnyOf(keys, Origin.SOURCE_CPU, Code.CPU_VENDOR))
            self.notes.append(
                f'the source node "{self.source.node_name}" has {len(cpu.vendors)} cpu-vendor '
                f"labels ({', '.join(cpu.vendors)}), one of them stale: KubeVirt picks "
                "one at random; remove the wrong one"
            )
            return
        own = labels.CPU_VENDOR + cpu.vendors[0]
        switched_off = any(key != own or self._is_foreign(key) for key in set_keys)
        if not kubevirt_guards or switched_off:
            self._demand(own, "true", Code.CPU_VENDOR)

    def _is_foreign(self, key: str) -> bool:
        return self.chosen[key].origin is not Origin.SOURCE_CPU

    def _demand(self, key: str, value: str, code: Code | None = None) -> None:
        """Add a selector of the guard's own.

        An added node selector that says the same is the guard's doing in the mutating pass.
        """
        known = self.chosen.get(key)
        if known is None:
            told = code or code_of(key)
            self.chosen[key] = Selector(key, value, Origin.SOURCE_CPU, told, by_guard=True)
        elif known.origin is Origin.CHOSEN_TARGET and known.value == value:
            self.chosen[key] = replace(known, origin=Origin.SOURCE_CPU)


def _hold_selectors(
    vmi: VirtualMachineInstance, source: Source, migration: Migration | None
) -> None:
    if migration is not None:
        limits.hold_entries("spec.addedNodeSelector", migration.added_node_selector)
    limits.hold_entries("spec.nodeSelector", vmi.node_selector)
    limits.hold_entries("spec.domain.cpu.features", vmi.cpu_features)
    if source.pod is not None:
        limits.hold_entries("spec.nodeSelector of its virt-launcher pod", source.pod.node_selector)


def _absent(vmi: VirtualMachineInstance, model: str) -> tuple[Absent, ...]:
    found = []
    if model == HOST_MODEL:
        found.append(Absent(labels.OBSOLETE_HOST_MODEL, Origin.KUBEVIRT, Code.HOST_MODEL_OBSOLETE))
    found.extend(
        Absent(labels.CPU_FEATURE + f.name, Origin.VM, Code.CPU_FEATURE)
        for f in vmi.cpu_features
        if f.policy == "forbid"
    )
    return tuple(found)


def _affinity(vmi: VirtualMachineInstance, *, closed: bool) -> tuple[Term, ...] | None:
    """Read the required node affinity.

    KubeVirt writes its own expressions into every term, so that with them an empty term, which
    by itself matches nothing, is empty no more and leaves only theirs to satisfy (``closed``).
    """
    at = ("spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    required = fields.mapping(vmi.affinity, *at[2:])
    if not required:
        return None
    terms = read_terms(required.get("nodeSelectorTerms"), *at, "nodeSelectorTerms")
    limits.hold_terms(".".join((*at, "nodeSelectorTerms")), terms)
    if closed and any(not term.expressions and not term.fields for term in terms):
        return None
    return terms


def _tolerations(
    vmi: VirtualMachineInstance, pod: LauncherPod | None, runtime_class: RuntimeClass | None
) -> tuple[Toleration, ...]:
    own = read_tolerations(vmi.spec.get("tolerations"), "spec", "tolerations")
    more = (
        *(pod.tolerations if pod else ()),
        *(runtime_class.tolerations if runtime_class else ()),
    )
    every = tuple(dict.fromkeys((*own, *more)))
    limits.hold_entries("spec.tolerations", every)
    return every


def _overridden(
    migration: Migration | None, chosen: Mapping[str, Selector]
) -> tuple[Overridden, ...]:
    if migration is None:
        return ()
    return tuple(
        Overridden(key, asked, chosen[key].value)
        for key, asked in sorted(migration.added_node_selector.items())
        if key in chosen and chosen[key].value != asked
    )


def _unjudged(vmi: VirtualMachineInstance, pod: LauncherPod | None) -> tuple[str, ...]:
    found = []
    if vmi.spec.get("topologySpreadConstraints"):
        found.append("topologySpreadConstraints")
    if vmi.spec.get("resourceClaims") or (pod and pod.resource_claims):
        found.append("resourceClaims")
    return tuple(found)


__all__ = ["NO_SOURCE", "Requirements", "render", "requirements"]
