"""Two nodes with different CPUs, and the two ways to let a VM move between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.demo import sample
from webhook.demo.asking import CONTROLLER, VIRTCTL, Request
from webhook.demo.program import Server
from webhook.demo.sample import WORKED_EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.demo.stage import Stage

NODES = WORKED_EXAMPLE / "nodes"
AS_FOUND = WORKED_EXAMPLE / "as_found"
CLUSTER_MODEL = WORKED_EXAMPLE / "cluster_model"
VM_MODEL = WORKED_EXAMPLE / "vm_model"
VM = "vm-1"
ANNOTATION = "migration-guard.io/"


def play(stage: Stage) -> None:
    """Play the story.

    Raises:
        DemoError: The server answers otherwise than the story tells.
    """
    stage.heading("1. Two nodes, two CPUs")
    stage.say(
        "node-a has the host model XYZ, node-b has ABC; both can run the CPU model 123. "
        "vm-1 has 8 GiB, names no CPU model, and starts on node-a."
    )
    with Server(NODES, AS_FOUND) as server:
        _found_stuck(stage, server)
    stage.say('Way out 1: the KubeVirt CR now has cpuModel "123", and vm-1 is restarted.')
    with Server(NODES, CLUSTER_MODEL) as server:
        _moves(stage, server, CLUSTER_MODEL, "cluster")
    stage.say('Way out 2: the VM itself names the model "123", and is restarted.')
    with Server(NODES, VM_MODEL) as server:
        _moves(stage, server, VM_MODEL, "vm")


def _found_stuck(stage: Stage, server: Server) -> None:
    vm = sample.find(sample.objects(AS_FOUND), "VirtualMachine", VM)
    stage.ask(
        server,
        Request(sample.started(vm), CONTROLLER),
        "changed",
        sets={
            "model": "host-model",
            ANNOTATION + "cpu-model": "host-model",
            ANNOTATION + "cpu-model-source": "default",
        },
    )
    stage.say(
        "Its guest now has the CPU of node-a. `virtctl migrate vm-1` is to bring it to node-b:"
    )
    stage.ask(
        server,
        Request(sample.migration("default", VM), VIRTCTL),
        "refused",
        says=(
            "node-b lacks cpu-model-migration.node.kubevirt.io/XYZ",
            '"123" (2 of 2 nodes)',
            "spec.configuration.cpuModel of the KubeVirt CR",
            "spec.template.spec.domain.cpu.model",
            "restart the VM",
        ),
    )


def _moves(stage: Stage, server: Server, folder: Path, source: str) -> None:
    found = sample.objects(folder)
    vm = sample.find(found, "VirtualMachine", VM)
    model = {} if source == "vm" else {"model": "123"}
    stage.ask(
        server,
        Request(sample.started(vm), CONTROLLER),
        "changed",
        sets={
            **model,
            ANNOTATION + "cpu-model": "123",
            ANNOTATION + "cpu-model-source": source,
        },
    )
    stage.ask(
        server,
        Request(sample.migration("default", VM), VIRTCTL),
        "changed",
        sets={ANNOTATION + "completion-timeout": "6400s"},
    )
    vmi = sample.find(found, "VirtualMachineInstance", VM)
    pod = sample.target_pod(
        vmi,
        sample.find(found, "Pod", VM),
        next(obj for obj in found if obj["kind"] == "VirtualMachineInstanceMigration"),
        "Intel",
    )
    outcome = stage.ask(
        server,
        Request(pod, CONTROLLER, namespace="default"),
        "changed",
        sets={ANNOTATION + "completion-timeout": "6400s"},
    )
    stage.selectors(outcome)
