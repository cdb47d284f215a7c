"""A cluster of eight nodes, two vendors and five CPU generations."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from webhook.demo import sample
from webhook.demo.asking import ANNA, CONTROLLER, VIRTCTL, Request
from webhook.demo.program import Server
from webhook.demo.sample import INVENTORY, UNDER_WAY

if TYPE_CHECKING:
    from webhook.demo.sample import Object
    from webhook.demo.stage import Stage

CASCADE_LAKE = "cpu-model-migration.node.kubevirt.io/Cascadelake-Server-noTSX"


def play(stage: Stage) -> None:
    """Play the story.

    Raises:
        DemoError: The server answers otherwise than the story tells.
    """
    found = sample.objects(INVENTORY, UNDER_WAY)
    stage.heading("2. Eight nodes, two vendors")
    stage.say(
        "Intel: haswell-1, haswell-2 (without the VM network vlan100), cascade-1, cascade-2, "
        "icelake-1. AMD: rome-1, milan-1, milan-2 (cordoned)."
    )
    with Server(INVENTORY, UNDER_WAY) as server:
        _migrations(stage, server)
        _target_pods(stage, server, found)
        _models(stage, server, found)


def _migrations(stage: Stage, server: Server) -> None:
    stage.say("historian has the CPU of the only Ice Lake node. It cannot leave it:")
    stage.ask(
        server,
        Request(sample.migration("plant", "historian"), VIRTCTL),
        "refused",
        says=("migration of VM plant/historian from node icelake-1", "Assign a CPU model"),
    )
    stage.say("gateway needs vlan100, and somebody picks a node without it:")
    stage.ask(
        server,
        Request(sample.migration("shop", "gateway", "haswell-2"), ANNA),
        "refused",
        says=(
            "haswell-2",
            "network.harvesterhci.io/vlan100",
            "These would do: cascade-1, cascade-2 and icelake-1",
        ),
    )
    stage.say("cache could go to one node only, and that one is cordoned. That may pass:")
    stage.ask(
        server,
        Request(sample.migration("shop", "cache"), VIRTCTL),
        "warned",
        says=("must wait", "milan-2"),
    )
    stage.say("simulation is host-passthrough, and no other node has its CPU:")
    stage.ask(
        server,
        Request(sample.migration("lab", "simulation"), VIRTCTL),
        "warned",
        says=("is a risk", "host-passthrough"),
    )
    stage.say("web goes from EPYC-Rome to EPYC-Milan:")
    stage.ask(
        server,
        Request(sample.migration("shop", "web"), VIRTCTL),
        "changed",
        sets={"migration-guard.io/completion-timeout": "6400s"},
    )


def _target_pods(stage: Stage, server: Server, found: list[Object]) -> None:
    stage.say(
        "control is host-model and requires the feature aes. KubeVirt then leaves the CPU of its "
        "node out of the target pod: it could land on an older node, and fail there. The guard "
        "adds what is missing, to the migration and to its pod:"
    )
    stage.ask(
        server,
        Request(sample.migration("plant", "control"), VIRTCTL),
        "changed",
        sets={CASCADE_LAKE: "true"},
    )
    stage.ask(server, _target_pod(found, "control"), "changed", sets={CASCADE_LAKE: "true"})
    stage.say(
        "archive started on Cascade Lake and was migrated to icelake-1. Its guest still has the "
        "old CPU, which its pod remembers, so it can go back:"
    )
    stage.ask(server, Request(sample.migration("plant", "archive"), VIRTCTL), "changed")
    outcome = stage.ask(server, _target_pod(found, "archive"), "changed")
    stage.selectors(outcome)
    stage.say("But not to a node that lacks what it remembers:")
    stage.ask(
        server,
        Request(sample.migration("plant", "archive", "haswell-1"), ANNA),
        "refused",
        says=("haswell-1", "remembered from an earlier migration"),
    )


def _target_pod(found: list[Object], name: str) -> Request:
    vmim = next(
        obj
        for obj in found
        if obj["kind"] == "VirtualMachineInstanceMigration" and obj["spec"]["vmiName"] == name
    )
    vmi = sample.find(found, "VirtualMachineInstance", name)
    pod = sample.target_pod(vmi, sample.find(found, "Pod", name), vmim, "Intel")
    return Request(pod, CONTROLLER, namespace=vmi["metadata"]["namespace"])


def _models(stage: Stage, server: Server, found: list[Object]) -> None:
    build = sample.find(found, "VirtualMachine", "build")
    changed = copy.deepcopy(build)
    changed["spec"]["template"]["spec"]["domain"]["cpu"]["model"] = "SapphireRapids"
    stage.say("build is given a CPU model that is newer than all nodes:")
    stage.ask(
        server,
        Request(changed, ANNA, old=build),
        "warned",
        says=("is usable on no node",),
    )
    kubevirt = sample.find(found, "KubeVirt", "kubevirt")
    stage.say(
        "The cluster-wide CPU model is set to the same, then to one that three nodes can run:"
    )
    stage.ask(
        server,
        _with_model(kubevirt, "SapphireRapids"),
        "refused",
        says=("no schedulable node can run it",),
    )
    stage.ask(
        server,
        _with_model(kubevirt, "Cascadelake-Server-noTSX"),
        "warned",
        says=("leaves out", "haswell-1"),
    )


def _with_model(kubevirt: Object, model: str) -> Request:
    changed = copy.deepcopy(kubevirt)
    changed["spec"]["configuration"]["cpuModel"] = model
    return Request(changed, ANNA, old=kubevirt)
