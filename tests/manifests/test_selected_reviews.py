"""Which reviews a real API server asks for: those the guard has something to say on, no others."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.captured_cluster import captured
from tests.manifests.conftest import Kubectl, installation, lead_here
from tests.manifests.recording import Recorder, recording
from tests.manifests.rendering import MANIFESTS, Object
from tests.testbed.bed.api import Api, path
from tests.testbed.bed.control_plane import ControlPlane
from webhook.review.annotations import CPU_MODEL_SOURCE, OVERRIDE, OVERRIDE_BY, PROTECTED
from webhook.review.requester import GUARD

Asked = Callable[..., str]
BOTH = "mutate validate"


def collection(resource: str, namespace: str = "default", version: str = "v1") -> str:
    return path(f"kubevirt.io/{version}", resource, namespace)


VMIS = collection("virtualmachineinstances")
VMS = collection("virtualmachines")
MIGRATIONS = collection("virtualmachineinstancemigrations")
KUBEVIRTS = collection("kubevirts", "harvester-system")
PODS = path("v1", "pods", "default")


def reviewed(name: str) -> Object:
    """Return the object of a captured review, as it can be created anew."""
    obj = copy.deepcopy(captured(f"reviews-1.8.4/{name}.json")["request"]["object"])
    for key in ("uid", "creationTimestamp", "generation", "managedFields", "ownerReferences"):
        obj["metadata"].pop(key, None)
    for key in ("finalizers", "generateName", "namespace"):
        obj["metadata"].pop(key, None)
    return obj


def changed(obj: Object, change: Object) -> Object:
    """Return an object after a merge patch."""
    result = dict(obj)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = changed(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


def note(key: str, value: str | None) -> Object:
    return {"metadata": {"annotations": {key: value}}}


def model(name: str | None) -> Object:
    return {"spec": {"domain": {"cpu": {"model": name}}}}


def template(change: Object) -> Object:
    return {"spec": {"template": change}}


VMI = reviewed("vmi-create-direct-no-cpu-mutating-before-virt-api")
VM = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachine",
    "spec": {"runStrategy": "Always", "template": {"metadata": {}, "spec": VMI["spec"]}},
}
MIGRATION = reviewed("vmim-create-by-admin-mutating-before-virt-api")
KUBEVIRT = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "KubeVirt",
    "spec": {"configuration": {"developerConfiguration": {"featureGates": ["CPUManager"]}}},
}
TARGET = reviewed("target-pod-create-mutating-before")
SOURCE = reviewed("source-pod-create-mutating-before")
HOTPLUG = {"metadata": {"labels": {"kubevirt.io": "hotplug-disk"}}}
PROVISIONING = note("kubevirt.io/ephemeral-provisioning", "true")
RECEIVER = note("kubevirt.io/create-migration-target", "true")

CREATED = {
    "a VMI that names no model": (VMIS, VMI, "mutate"),
    "a VMI that names a model": (VMIS, changed(VMI, model("Haswell")), BOTH),
    "a VMI with host-model": (VMIS, changed(VMI, model("host-model")), "mutate"),
    "a VMI with the default": (
        VMIS,
        changed(changed(VMI, model("host-model")), note(CPU_MODEL_SOURCE, "default")),
        BOTH,
    ),
    "the receiver of a migration between clusters": (VMIS, changed(VMI, RECEIVER), ""),
    "a VM that names no model": (VMS, VM, ""),
    "a VM with host-passthrough": (VMS, changed(VM, template(model("host-passthrough"))), ""),
    "a VM that names a model": (VMS, changed(VM, template(model("Haswell"))), "validate"),
    "a VM with an override": (VMS, changed(VM, note(OVERRIDE, "why")), "validate"),
    "a VM whose template has an override": (
        VMS,
        changed(VM, template(note(OVERRIDE, "why"))),
        "validate",
    ),
    "a VM without a CPU": (VMS, changed(VM, template({"spec": {"domain": {"cpu": None}}})), ""),
    "a VM without a template": (VMS, changed(VM, {"spec": {"template": None}}), ""),
    "a migration": (MIGRATIONS, MIGRATION, BOTH),
    "a migration in an older version": (
        collection("virtualmachineinstancemigrations", version="v1alpha3"),
        {**MIGRATION, "apiVersion": "kubevirt.io/v1alpha3"},
        BOTH,
    ),
    "an evacuation": (
        MIGRATIONS,
        reviewed("vmim-create-by-evacuation-mutating-before-virt-api"),
        BOTH,
    ),
    "a migration in kube-system": (
        collection("virtualmachineinstancemigrations", "kube-system"),
        MIGRATION,
        "",
    ),
    "a migration in the guard's namespace": (
        collection("virtualmachineinstancemigrations", "migration-guard"),
        MIGRATION,
        "",
    ),
    "the pod of a migration": (PODS, TARGET, "mutate"),
    "the first pod of a VM": (PODS, SOURCE, ""),
    "a pod that plugs a disk in for a migration": (PODS, changed(TARGET, HOTPLUG), ""),
    "a pod that prepares a volume": (PODS, changed(TARGET, PROVISIONING), ""),
    "any other pod": (PODS, changed(TARGET, {"metadata": {"labels": None}}), ""),
    "the KubeVirt CR": (KUBEVIRTS, KUBEVIRT, ""),
    "a ConfigMap": (
        path("v1", "configmaps", "default"),
        {"metadata": {"annotations": {OVERRIDE: "why"}}},
        "",
    ),
}
STATUS = {"status": {"phase": "Running"}}
LABELS = {"metadata": {"labels": {"kubevirt.io/nodeName": "node01"}}}
FOREIGN = note("example.org/backup", "done")

UPDATED = {
    "the status of a VMI": (VMIS, VMI, STATUS, ""),
    "the labels of a VMI": (VMIS, VMI, LABELS, ""),
    "the CPU sockets of a VMI": (VMIS, VMI, {"spec": {"domain": {"cpu": {"sockets": 2}}}}, ""),
    "a foreign annotation of a VMI": (VMIS, VMI, FOREIGN, ""),
    "a foreign annotation of a VMI with an override": (
        VMIS,
        changed(VMI, note(OVERRIDE, "why")),
        FOREIGN,
        "",
    ),
    "an override that is written on a VMI": (VMIS, VMI, note(OVERRIDE, "why"), BOTH),
    "an override that is changed": (
        VMIS,
        changed(VMI, note(OVERRIDE, "why")),
        note(OVERRIDE, "therefore"),
        BOTH,
    ),
    "an override that is taken away": (
        VMIS,
        changed(VMI, note(OVERRIDE, "why")),
        note(OVERRIDE, None),
        "mutate",
    ),
    "an author who is forged": (VMIS, VMI, note(OVERRIDE_BY, "me@1"), "mutate"),
    "the model of a VM": (
        VMS,
        changed(VM, template(model("Haswell"))),
        template(model("Skylake-Server")),
        "validate",
    ),
    "the model of a VM that had none": (VMS, VM, template(model("Haswell")), "validate"),
    "a VM that is stopped": (
        VMS,
        changed(VM, template(model("Haswell"))),
        {"spec": {"runStrategy": "Halted"}},
        "",
    ),
    "an override on a VM": (VMS, VM, note(OVERRIDE, "why"), "validate"),
    "an override in a VM's template": (VMS, VM, template(note(OVERRIDE, "why")), "validate"),
    "a foreign annotation of a VM": (VMS, VM, FOREIGN, ""),
    "the labels of a migration": (MIGRATIONS, MIGRATION, LABELS, ""),
    "a foreign annotation of a migration": (MIGRATIONS, MIGRATION, FOREIGN, ""),
    "an override on a migration under way": (MIGRATIONS, MIGRATION, note(OVERRIDE, "why"), ""),
    "the features of the KubeVirt CR": (
        KUBEVIRTS,
        KUBEVIRT,
        {"spec": {"configuration": {"developerConfiguration": {"featureGates": []}}}},
        "",
    ),
    "the cluster's model": (
        KUBEVIRTS,
        KUBEVIRT,
        {"spec": {"configuration": {"cpuModel": "Haswell"}}},
        "validate",
    ),
    "the cluster's model, which is to be none": (
        KUBEVIRTS,
        changed(KUBEVIRT, {"spec": {"configuration": {"cpuModel": "Haswell"}}}),
        {"spec": {"configuration": {"cpuModel": "host-model"}}},
        "",
    ),
    "the labels of a migration's pod": (PODS, TARGET, LABELS, ""),
}


@pytest.fixture(scope="module")
def recorder(plane: ControlPlane, api: Api, kubectl: Kubectl) -> Iterator[Recorder]:
    """The manifests in effect, and a recorder in the guard's place."""
    pair = plane.authority.issue("guard", "migration-guard.migration-guard.svc")
    with (
        installation(plane, kubectl, MANIFESTS / "overlays" / "observe"),
        recording(plane.address, 8443, pair) as recorder,
    ):
        lead_here(plane, api)
        until = time.monotonic() + 30
        while len(recorder.taken()) < 2:
            assert time.monotonic() < until, "the webhooks are never called"
            time.sleep(0.1)
            api.create(MIGRATIONS, {**MIGRATION, "metadata": {"name": "first"}}, dryRun="All")
        yield recorder


@pytest.fixture
def asked(recorder: Recorder) -> Asked:
    """Make a request; return the passes that were asked because of it, in their order."""

    def during(request: Callable[..., Any], *args: Any, **more: Any) -> str:
        recorder.taken()
        request(*args, **more)
        # A patch of an object that the API server's cache has in an older state is tried again,
        # and asked about again.
        passes = dict.fromkeys(where.removeprefix("/") for where, _ in recorder.taken())
        return " ".join(passes)

    return during


@pytest.fixture
def named(api: Api) -> Iterator[Callable[[str, Object], Object]]:
    """Give an object a name of its own, and delete it in the end."""
    given: list[str] = []

    def give(where: str, obj: Object) -> Object:
        given.append(f"{where}/one")
        return changed(obj, {"metadata": {"name": "one"}})

    yield give
    for where in given:
        if api.find(where) is not None:
            api.patch(where, {"metadata": {"finalizers": None}})
        api.delete(where, grace=0)


@pytest.mark.parametrize("what", CREATED)
def test_a_creation_is_asked_about_where_there_is_something_to_say(
    what: str, asked: Asked, api: Api, named: Callable[[str, Object], Object]
) -> None:
    where, obj, expected = CREATED[what]
    assert asked(api.create, where, named(where, obj)) == expected


@pytest.mark.parametrize("what", UPDATED)
def test_an_update_is_asked_about_where_there_is_something_to_say(
    what: str, asked: Asked, api: Api, named: Callable[[str, Object], Object]
) -> None:
    where, before, change, expected = UPDATED[what]
    api.create(where, named(where, before))
    assert asked(api.patch, f"{where}/one", change) == expected


@pytest.mark.parametrize("key", PROTECTED)
def test_what_the_guard_wrote_on_a_migration_is_protected_from_all_but_the_guard(
    key: str, asked: Asked, api: Api, named: Callable[[str, Object], Object]
) -> None:
    api.create(MIGRATIONS, named(MIGRATIONS, changed(MIGRATION, note(key, "by the guard"))))
    guard = api.acting_as(GUARD, "system:masters")
    assert asked(guard.patch, f"{MIGRATIONS}/one", note(key, "by the guard again")) == ""
    assert asked(api.patch, f"{MIGRATIONS}/one", note(key, "by somebody")) == "validate"
    assert asked(api.patch, f"{MIGRATIONS}/one", note(key, None)) == "validate"
    assert asked(api.patch, f"{MIGRATIONS}/one", note(key, "")) == "validate"


@pytest.mark.parametrize("where", [VMIS, VMS, MIGRATIONS])
def test_what_is_on_its_way_out_is_left_alone(
    where: str, asked: Asked, api: Api, named: Callable[[str, Object], Object]
) -> None:
    obj = {VMIS: VMI, VMS: VM, MIGRATIONS: MIGRATION}[where]
    held = changed(obj, {"metadata": {"finalizers": ["example.org/held"]}})
    api.create(where, named(where, held))
    assert asked(api.delete, f"{where}/one") == ""
    assert asked(api.patch, f"{where}/one", note(OVERRIDE, "why")) == ""
    assert asked(api.patch, f"{where}/one", note(OVERRIDE_BY, "me")) == ""


def test_status_and_other_subresources_are_never_asked_about(
    asked: Asked, api: Api, named: Callable[[str, Object], Object]
) -> None:
    api.create(MIGRATIONS, named(MIGRATIONS, MIGRATION))
    assert asked(api.patch, f"{MIGRATIONS}/one/status", {"status": {"phase": "Running"}}) == ""
    api.create(PODS, named(PODS, TARGET))
    binding = {"metadata": {"name": "one"}, "target": {"kind": "Node", "name": "node01"}}
    assert asked(api.create, f"{PODS}/one/binding", binding) == ""


def test_a_dry_run_is_asked_about_and_says_so(recorder: Recorder, api: Api) -> None:
    recorder.taken()
    api.create(MIGRATIONS, {**MIGRATION, "metadata": {"name": "dry"}}, dryRun="All")
    assert [request["dryRun"] for _, request in recorder.taken()] == [True, True]


def test_an_older_version_arrives_as_the_one_that_the_guard_reads(
    recorder: Recorder, api: Api
) -> None:
    recorder.taken()
    where = collection("virtualmachineinstancemigrations", version="v1alpha3")
    old = {"apiVersion": "kubevirt.io/v1alpha3", "metadata": {"name": "old"}}
    api.create(where, {**MIGRATION, **old}, dryRun="All")
    assert {request["kind"]["version"] for _, request in recorder.taken()} == {"v1"}
