"""candidates: which VM is meant, and who chose its CPU model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CLUSTER, Run

Write = Callable[[str, str], Path]
VM = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {{name: vm, namespace: default}}
spec: {{template: {{spec: {{domain: {{cpu: {{model: "{vm}"}}}}}}}}}}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: vm, namespace: default, uid: u, annotations: {{{notes}}}}}
spec: {{architecture: {architecture}, domain: {{cpu: {{model: "{vmi}"}}, memory: {{guest: 1Gi}}}}}}
status: {{phase: Running, nodeName: node-1, conditions: [{conditions}]}}
---
apiVersion: kubevirt.io/v1
kind: KubeVirt
metadata: {{name: kubevirt, namespace: kubevirt}}
spec: {{configuration: {{cpuModel: "{cluster}"}}}}
"""


def documents(vm="", vmi="", cluster="", notes="", architecture="amd64", conditions=""):
    return VM.format(
        vm=vm,
        vmi=vmi,
        cluster=cluster,
        notes=notes,
        architecture=architecture,
        conditions=conditions,
    )


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (documents(vm="Haswell", vmi="Haswell"), "vm"),
        (documents(vmi="host-model"), "default"),
        (documents(vmi="Haswell", cluster="Haswell"), "cluster"),
        (documents(vmi="host-passthrough", architecture="arm64"), "architecture"),
        (
            documents(
                vmi="Haswell",
                notes="migration-guard.io/cpu-model: Haswell, "
                "migration-guard.io/cpu-model-source: instancetype",
            ),
            "instancetype",
        ),
    ],
    ids=["vm", "default", "cluster", "architecture", "noted by the guard"],
)
def test_who_chose_the_cpu_model_is_told(
    checked: Run, write: Write, text: str, source: str
) -> None:
    ran = checked("candidates", "default/vm", "--inventory", write("vm.yaml", text))
    assert ran.json["cpuModelSource"] == source


def test_what_is_wrong_with_the_vm_itself_is_a_blocker(checked: Run, write: Write) -> None:
    condition = "{type: LiveMigratable, status: 'False', reason: DisksNotLiveMigratable}"
    text = documents(vmi="host-model", conditions=condition)
    ran = checked("candidates", "vm", "--inventory", write("vm.yaml", text))
    assert ran.status == 1
    (blocker,) = ran.json["blockers"]
    assert blocker["code"] == "not-live-migratable"
    assert "DisksNotLiveMigratable" in blocker["message"]


def test_a_name_alone_is_of_the_namespace_given(checked: Run) -> None:
    ran = checked("candidates", "web", "-n", "shop", "--inventory", CLUSTER)
    assert ran.json["vm"] == "shop/web"


def test_a_name_that_is_nearly_right_names_the_right_one(run: Run) -> None:
    assert "shop/web" in run("candidates", "default/web", "--inventory", CLUSTER).err
    assert "shop/database" in run("candidates", "shop/databse", "--inventory", CLUSTER).err


@pytest.mark.parametrize("vm", ["a/b/c", "/web", "shop/"])
def test_what_is_no_name_is_refused(run: Run, vm: str) -> None:
    assert run("candidates", vm, "--inventory", CLUSTER).status == 2


def test_a_broken_document_beside_is_told_and_the_vm_is_judged(checked: Run, write: Write) -> None:
    broken = write("broken.yaml", "apiVersion: v1\nkind: Node\nmetadata: 3\n")
    words = ("candidates", "shop/web", "--inventory", CLUSTER, "--inventory", broken)
    ran = checked(*words)
    assert ran.status == 2
    assert ran.json["nodes"]
    assert ran.json["errors"][0]["document"] == f"{broken}#0"
    assert f"{broken}#0" in ran.err
    assert "node without a name cannot be read" in str(ran.json["notes"])


def test_a_vm_whose_own_pod_cannot_be_read_has_a_note_that_says_so(
    checked: Run, write: Write
) -> None:
    metadata = "{name: p, namespace: default, labels: {kubevirt.io/created-by: u}}"
    pod = f"apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec: 3\n"
    both = write("both.yaml", f"{documents(vmi='host-model')}---\n{pod}")
    ran = checked("candidates", "default/vm", "--inventory", both, "--inventory", CLUSTER)
    assert "pod default/p cannot be read" in str(ran.json["notes"])
