"""Pruning leaves out no field that a decision reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import captured_cluster
from tests.cluster.objects import other
from webhook.cluster.documents import Document, read
from webhook.cluster.facts import Facts
from webhook.cluster.inventory import snapshot_of
from webhook.cluster.kinds import add
from webhook.cluster.pruning import prune
from webhook.cluster.sharing import Sharing
from webhook.model.deadline import data_of
from webhook.model.forecasting import forecast
from webhook.model.obstacles import PASSING_TAINTS
from webhook.model.requests import derived_requests

DEMO = Path(__file__).parents[2] / "webhook" / "demo" / "inventory"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
TERM = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "zone"}

FULL_SPEC = {
    "architecture": "amd64",
    "accessCredentials": [{"sshPublicKey": {}}],
    "affinity": {
        "nodeAffinity": {
            REQUIRED: {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]
            }
        },
        "podAntiAffinity": {REQUIRED: [TERM]},
        "podAffinity": {REQUIRED: [TERM]},
    },
    "domain": {
        "cpu": {
            "cores": 2,
            "sockets": 2,
            "threads": 1,
            "model": "host-model",
            "features": [{"name": "invtsc", "policy": "require"}, {"name": "svm"}],
            "dedicatedCpuPlacement": True,
            "realtime": {},
        },
        "devices": {
            "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "default", "masquerade": {}}],
            "gpus": [{"name": "g", "deviceName": "nvidia.com/A100"}],
            "hostDevices": [{"name": "h", "deviceName": "intel.com/qat"}],
        },
        "features": {
            "acpi": {},
            "hyperv": {"vpindex": {"enabled": True}, "evmcs": {}, "reenlightenment": {}},
        },
        "launchSecurity": {"sev": {"policy": {"encryptedState": True}}, "snp": {}, "tdx": {}},
        "machine": {"type": "q35"},
        "memory": {"guest": "8Gi", "hugepages": {"pageSize": "1Gi"}},
        "resources": {"requests": {"memory": "8Gi", "cpu": "2"}, "limits": {"cpu": "4"}},
    },
    "networks": [{"name": "default", "pod": {}}],
    "nodeSelector": {"disk": "ssd"},
    "resourceClaims": [{"name": "claim"}],
    "runtimeClassName": "kata",
    "schedulerName": "mine",
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}],
    "volumes": [
        {"name": "root", "persistentVolumeClaim": {"claimName": "root", "hotpluggable": True}},
        {"name": "data", "dataVolume": {"name": "data"}},
        {"name": "tmp", "ephemeral": {"persistentVolumeClaim": {"claimName": "tmp"}}},
        {"name": "empty", "emptyDisk": {"capacity": "2Gi"}},
        {"name": "host", "hostDisk": {"capacity": "3Gi", "path": "/x", "type": "Disk"}},
        {"name": "init", "cloudInitNoCloud": {"userData": "password: geheim"}},
    ],
}
FULL_VMI = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstance",
    "metadata": {
        "name": "vm",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app": "web"},
        "annotations": {
            "migration-guard.io/override": "because",
            "kubevirt.io/create-migration-target": "false",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
        },
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z",
        "managedFields": [{"manager": "virt-api"}],
        "ownerReferences": [{"kind": "VirtualMachine", "name": "vm", "uid": "u-0"}],
    },
    "spec": FULL_SPEC,
    "status": {
        "conditions": [
            {
                "type": "LiveMigratable",
                "status": "False",
                "reason": "DisksNotLiveMigratable",
                "message": "no",
                "lastProbeTime": "2026-01-01T00:00:00Z",
            }
        ],
        "guestOSInfo": {"name": "Debian"},
        "interfaces": [{"ipAddress": "10.0.0.1"}],
        "machine": {"type": "pc-q35-rhel9.6.0"},
        "migratedVolumes": [
            {"volumeName": "data", "sourcePVCInfo": {"capacity": {"storage": "4Gi"}}}
        ],
        "migrationMethod": "BlockMigration",
        "nodeName": "node-1",
        "phase": "Running",
        "topologyHints": {"tscFrequency": 2000000000},
        "volumeStatus": [{"name": "root", "hotplugVolume": {}, "target": "vda", "size": 1}],
    },
}
FULL_VM = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachine",
    "metadata": {"name": "vm", "namespace": "shop", "annotations": {"migration-guard.io/x": "y"}},
    "spec": {
        "dataVolumeTemplates": [{"spec": {}}],
        "instancetype": {"name": "small", "kind": "VirtualMachineInstancetype"},
        "template": {
            "metadata": {
                "labels": {"app": "web"},
                "annotations": {"migration-guard.io/override": "y", "other/one": "z"},
            },
            "spec": FULL_SPEC,
        },
    },
    "status": {"printableStatus": "Running"},
}
FULL_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "virt-launcher-vm",
        "namespace": "shop",
        "uid": "p-1",
        "labels": {"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": "m"},
        "annotations": {"kubevirt.io/domain": "vm", "k8s.v1.cni.cncf.io/networks": "[]"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"kind": "VirtualMachineInstance", "name": "vm", "uid": "u-1"}],
    },
    "spec": {
        "affinity": FULL_SPEC["affinity"],
        "containers": [
            {
                "name": "compute",
                "image": "virt-launcher",
                "env": [{"name": "X"}],
                "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
            }
        ],
        "initContainers": [
            {"name": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}
        ],
        "nodeName": "node-1",
        "nodeSelector": {"a": "b"},
        "overhead": {"cpu": "100m"},
        "resourceClaims": [{"name": "c"}],
        "schedulerName": "mine",
        "tolerations": [{"key": "x", "operator": "Exists"}],
        "volumes": [{"name": "secret", "secret": {"secretName": "s"}}],
    },
    "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": []},
}
FULL_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-1", "labels": {"kubevirt.io/schedulable": "true", "zone": "z"}},
    "spec": {
        "unschedulable": True,
        "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}],
        "podCIDR": "10.0.0.0/24",
    },
    "status": {
        "allocatable": {"cpu": "8"},
        "capacity": {"cpu": "9"},
        "conditions": [{"type": "Ready", "status": "False", "lastHeartbeatTime": "x"}],
        "images": [{"names": ["x"]}],
    },
}
FULL_MIGRATION = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstanceMigration",
    "metadata": {
        "name": "m",
        "namespace": "shop",
        "uid": "m-1",
        "labels": {"kubevirt.io/vmi-name": "vm"},
        "annotations": {"kubevirt.io/evacuationMigration": "node-1"},
        "deletionTimestamp": "2026-01-02T00:00:00Z",
    },
    "spec": {"vmiName": "vm", "addedNodeSelector": {"a": "b"}, "sendTo": {"migrationID": "x"}},
    "status": {"phase": "Running", "migrationState": {"sourceNode": "node-1"}},
}
FULL = (FULL_NODE, FULL_VMI, FULL_VM, FULL_POD, FULL_MIGRATION)


class Recorded(Mapping):
    """A mapping that notes which of its leaves were read."""

    def __init__(self, value, path, read_paths):
        self._value = value
        self._path = path
        self._read = read_paths

    def __getitem__(self, key):
        return self._wrapped(self._value[key], (*self._path, key))

    def _wrapped(self, found, path):
        if isinstance(found, dict):
            return Recorded(found, path, self._read)
        if isinstance(found, list):
            return [self._wrapped(one, (*path, n)) for n, one in enumerate(found)]
        self._read.add(path)
        return found

    def __iter__(self):
        return iter(self._value)

    def __len__(self):
        return len(self._value)


def everything_asked(snapshot):
    """Ask all that is asked of facts beside the answer to a review."""
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    found: list[object] = [forecast(snapshot, passing_taints=PASSING_TAINTS, now=now)]
    for vmi in snapshot.vmis.values():
        demanded = snapshot.requirements(vmi)
        found.append(repr(demanded))
        found.append(repr(snapshot.conditions(demanded, PASSING_TAINTS, now)))
        found.append(data_of(vmi, snapshot.claims))
        found.append(derived_requests(vmi, snapshot.kubevirt))
    found += [repr(snapshot.requirements(vm.instance())) for vm in snapshot.vms.values()]
    return found


def kept(obj, path):
    here = obj
    for step in path:
        try:
            here = here[step]
        except (LookupError, TypeError):
            return False
    return True


@pytest.mark.parametrize("obj", FULL, ids=lambda obj: obj["kind"])
def test_every_field_that_is_read_survives(obj):
    claims = [
        other("v1", "PersistentVolumeClaim", n, "shop", spec={"volumeName": n})
        for n in ("root", "data", "tmp")
    ]
    read_paths: set[tuple] = set()
    facts, sharing = Facts(), Sharing()
    for one in (*FULL, *claims):
        recorded = Recorded(one, (), read_paths) if one is obj else one
        add(facts, sharing, recorded)
    everything_asked(facts.snapshot())
    pruned = prune(obj["kind"], obj)
    assert len(read_paths) > 5
    # An annotation that nobody knows is read along with the others, and of no consequence.
    of_consequence = {
        path
        for path in read_paths
        if "annotations" not in path or path[-1].startswith(("kubevirt.io/", "migration-guard.io/"))
    }
    assert [path for path in sorted(of_consequence, key=repr) if not kept(pruned, path)] == []


def documents():
    sources = [
        *captured_cluster.nodes(),
        captured_cluster.kubevirt(),
        captured_cluster.running_vmi(),
        captured_cluster.source_pod(),
        captured_cluster.migration(),
        *FULL,
    ]
    found = [Document("captured", n, obj) for n, obj in enumerate(sources)]
    return [*found, *(d for d in read([DEMO]) if isinstance(d, Document))]


def test_decisions_about_pruned_objects_are_those_about_whole_ones():
    whole = documents()
    pruned = [Document(d.file, d.index, prune(str(d.obj["kind"]), d.obj)) for d in whole]
    assert everything_asked(snapshot_of(pruned).snapshot) == everything_asked(
        snapshot_of(whole).snapshot
    )


def test_passwords_and_what_managers_wrote_are_not_kept():
    for obj in FULL:
        text = json.dumps(prune(str(obj["kind"]), obj))
        for word in ("geheim", "managedFields", "last-applied", "guestOSInfo", "images"):
            assert word not in text


def test_a_field_of_a_wrong_type_is_left_to_its_reader():
    for spec in ("x", None, 3, ["a"]):
        for kind in ("Node", "VirtualMachineInstance", "Pod", "VirtualMachine"):
            assert prune(kind, {"kind": kind, "spec": spec}) == {"kind": kind, "spec": spec}
    broken = {"kind": "VirtualMachineInstance", "spec": {"volumes": ["root", {"name": "a"}]}}
    assert prune("VirtualMachineInstance", broken) == broken
    assert prune("Secret", {"kind": "Secret", "data": {}}) == {"kind": "Secret", "data": {}}
