"""VirtualMachineInstances and VirtualMachines, pruned to what the decision reads.

Source of the fields: KubeVirt ``staging/src/kubevirt.io/api/core/v1/schema.go`` and ``types.go``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import fields, labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.fields import Object

HOST_MODEL = "host-model"
HOST_PASSTHROUGH = "host-passthrough"
# Hyper-V features that get a node label of their own under the gate HypervStrictCheck.
HYPERV_LABELLED = (
    "vpindex",
    "runtime",
    "reset",
    "synic",
    "synictimer",
    "frequencies",
    "reenlightenment",
    "tlbflush",
    "ipi",
)
FINAL_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class CpuFeature:
    """A CPU feature that a VM names; ``policy`` "" means require."""

    name: str
    policy: str

    @property
    def required(self) -> bool:
        """Whether KubeVirt makes a node selector of it."""
        return self.policy in ("", "require")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume that is backed by a claim."""

    name: str
    claim: str
    hotplugged: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """A status condition."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class VirtualMachineInstance:
    """A VMI: what runs, or is about to.

    Attributes:
        cpu_model: ``spec.domain.cpu.model``, "" where none is set.
        hyperv: The Hyper-V features that are on and have a node label.
        evmcs: Whether the enlightened VMCS is on (it needs an Intel CPU, and adds ``vmx``).
        machine_type: The concrete type from the status, else the one of the spec.
        launch_security: Of ``realtime sev sev-es sev-snp s390-pv tdx`` those that are asked for.
        affinity: ``spec.affinity`` as it is written.
        spec: The raw spec, for the few readers of rare fields.
        status: The raw status, likewise.
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: str
    architecture: str
    cpu_model: str
    cpu_features: tuple[CpuFeature, ...]
    dedicated_cpus: bool
    hyperv: tuple[str, ...]
    evmcs: bool
    machine_type: str
    tsc_frequency: int
    launch_security: tuple[str, ...]
    node_selector: Mapping[str, str]
    affinity: Object
    scheduler: str
    phase: str
    node_name: str
    conditions: tuple[Condition, ...]
    volumes: tuple[Volume, ...]
    spec: Object
    status: Object
    deleting: bool = False

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def final(self) -> bool:
        """Whether the VMI has ended."""
        return self.phase in FINAL_PHASES

    @property
    def running(self) -> bool:
        """Whether the VMI runs, and on which node is known."""
        return self.phase == "Running" and bool(self.node_name)

    def condition(self, kind: str) -> Condition | None:
        """Return the status condition of a type, if it is there."""
        return next((c for c in self.conditions if c.type == kind), None)

    @classmethod
    def from_object(cls, obj: Object) -> VirtualMachineInstance:
        """Read a kubevirt.io VirtualMachineInstance of any served version.

        Raises:
            InvalidObject: A field has a type that a VMI cannot have.
        """
        spec = fields.mapping(obj, "spec")
        status = fields.mapping(obj, "status")
        return _read(obj, spec, status)


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """A VM: the definition that VMIs are made from."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]
    template_annotations: Mapping[str, str]
    cpu_model: str
    instancetype: str
    deleting: bool
    obj: Object

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @classmethod
    def from_object(cls, obj: Object) -> VirtualMachine:
        """Read a kubevirt.io VirtualMachine of any served version.

        Raises:
            InvalidObject: A field has a type that a VM cannot have.
        """
        template = ("spec", "template")
        return cls(
            namespace=fields.text(obj, "metadata", "namespace") or "default",
            name=fields.text(obj, "metadata", "name"),
            uid=fields.text(obj, "metadata", "uid"),
            annotations=fields.labels(obj, "metadata", "annotations"),
            template_annotations=fields.labels(obj, *template, "metadata", "annotations"),
            cpu_model=fields.text(obj, *template, "spec", "domain", "cpu", "model"),
            instancetype=fields.text(obj, "spec", "instancetype", "name"),
            deleting=bool(fields.text(obj, "metadata", "deletionTimestamp")),
            obj=obj,
        )

    def instance(self) -> VirtualMachineInstance:
        """Return the VMI that a start would make of the template, before any defaulting."""
        template = fields.mapping(self.obj, "spec", "template")
        return VirtualMachineInstance.from_object(
            {
                "metadata": {
                    **fields.mapping(template, "metadata"),
                    "name": self.name,
                    "namespace": self.namespace,
                },
                "spec": fields.mapping(template, "spec"),
            }
        )


def _read(obj: Object, spec: Object, status: Object) -> VirtualMachineInstance:
    cpu = fields.mapping(spec, "domain", "cpu")
    hyperv = fields.mapping(spec, "domain", "features", "hyperv")
    features = tuple(
        CpuFeature(fields.text(f, "name"), fields.text(f, "policy"))
        for f in fields.items(cpu, "features")
    )
    evmcs = hyperv.get("evmcs") is not None
    evmcs = evmcs and fields.flag(hyperv, "evmcs", "enabled") is not False
    owners = fields.items(obj, "metadata", "ownerReferences")
    return VirtualMachineInstance(
        namespace=fields.text(obj, "metadata", "namespace") or "default",
        name=fields.text(obj, "metadata", "name") or fields.text(obj, "metadata", "generateName"),
        uid=fields.text(obj, "metadata", "uid"),
        labels=fields.labels(obj, "metadata", "labels"),
        annotations=fields.labels(obj, "metadata", "annotations"),
        owner=next(
            (fields.text(o, "name") for o in owners if o.get("kind") == "VirtualMachine"), ""
        ),
        architecture=fields.text(spec, "architecture").lower(),
        cpu_model=fields.text(cpu, "model"),
        cpu_features=features,
        dedicated_cpus=bool(fields.flag(cpu, "dedicatedCpuPlacement")),
        hyperv=tuple(f for f in HYPERV_LABELLED if _hyperv_on(hyperv, f)),
        evmcs=evmcs,
        machine_type=fields.text(status, "machine", "type")
        or fields.text(spec, "domain", "machine", "type"),
        tsc_frequency=_tsc_frequency(features, hyperv, status),
        launch_security=_launch_security(cpu, spec),
        node_selector=fields.labels(spec, "nodeSelector"),
        affinity=fields.mapping(spec, "affinity"),
        scheduler=fields.text(spec, "schedulerName"),
        phase=fields.text(status, "phase"),
        node_name=fields.text(status, "nodeName"),
        conditions=tuple(
            Condition(*(fields.text(c, key) for key in ("type", "status", "reason", "message")))
            for c in fields.items(status, "conditions")
        ),
        volumes=_volumes(spec, status),
        spec=spec,
        status=status,
        deleting=bool(fields.text(obj, "metadata", "deletionTimestamp")),
    )


def _hyperv_on(hyperv: Object, feature: str) -> bool:
    return feature in hyperv and fields.flag(hyperv, feature, "enabled") is True


def _tsc_frequency(features: tuple[CpuFeature, ...], hyperv: Object, status: Object) -> int:
    """Return the TSC frequency that every target must give, in Hz; 0 where none is needed."""
    needed = _hyperv_on(hyperv, "reenlightenment") or any(
        f.name == "invtsc" and f.policy in ("require", "force") for f in features
    )
    hint = fields.integer(status, "topologyHints", "tscFrequency") if needed else None
    return max(hint or 0, 0)


def _launch_security(cpu: Object, spec: Object) -> tuple[str, ...]:
    security = fields.mapping(spec, "domain", "launchSecurity")
    asked = []
    on_s390x = fields.text(spec, "architecture").lower() == "s390x"
    if on_s390x and fields.mapping(spec, "domain").get("launchSecurity") is not None:
        asked.append("s390-pv")
    if cpu.get("realtime") is not None:
        asked.append("realtime")
    sev = security.get("sev")
    if sev is not None:
        asked.append("sev-es" if fields.flag(sev, "policy", "encryptedState") else "sev")
    if security.get("snp") is not None:
        asked.append("sev-snp")
    if security.get("tdx") is not None:
        asked.append("tdx")
    return tuple(asked)


def _volumes(spec: Object, status: Object) -> tuple[Volume, ...]:
    plugged = {
        fields.text(v, "name")
        for v in fields.items(status, "volumeStatus")
        if v.get("hotplugVolume") is not None
    }
    found = []
    for volume in fields.items(spec, "volumes"):
        name = fields.text(volume, "name")
        for kind, field in (
            ("persistentVolumeClaim", "claimName"),
            ("dataVolume", "name"),
            ("ephemeral", "claimName"),
        ):
            source = fields.mapping(volume, kind)
            if kind == "ephemeral":
                source = fields.mapping(source, "persistentVolumeClaim")
            if claim := fields.text(source, field):
                hot = bool(fields.flag(source, "hotpluggable")) or name in plugged
                found.append(Volume(name, claim, hot))
    return tuple(found)


def feature_selectors(instance: VirtualMachineInstance) -> dict[str, str]:
    """Return the node selector that the VM's own required features make."""
    return {labels.CPU_FEATURE + f.name: "true" for f in instance.cpu_features if f.required}
