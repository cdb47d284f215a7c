"""One node drained, with VMs that no other node can take beside some that can move."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType

from tests.testbed.bed.api import ApiError, Object
from tests.testbed.bed.guard import SETTLED_AFTER
from tests.testbed.bed.pool import KUBEVIRT, POOL, Pool, vm_manifest

HEARTBEAT = (60.0, 132.0)
"""Seconds between two heartbeats of virt-handler, drawn anew each time: a minute, and up to 1.2
times that on top (KubeVirt, pkg/virt-handler/heartbeat). Each makes the evacuation controller try
again at once, however far its back-off has grown."""
DRAIN_SECONDS = 20
"""How long ``kubectl drain`` goes on before somebody starts it anew."""


@dataclass(frozen=True, slots=True)
class Departure:
    """What happened after a drain.

    Attributes:
        watched: Seconds for which it was watched.
        left: By VM, after how many seconds it ran on the other node.
    """

    watched: float
    left: dict[str, float] = field(default_factory=dict)


class Heartbeats:
    """Writes the annotation that virt-handler writes on its node, while the block runs.

    Args:
        pool: Whose nodes.
        every: Least and most seconds between two.
    """

    def __init__(self, pool: Pool, every: tuple[float, float]) -> None:
        self._pool = pool
        self._every = every
        self._over = threading.Event()
        self._writers = [
            threading.Thread(target=self._beat, args=(node,), daemon=True) for node in pool.nodes
        ]

    def __enter__(self) -> Heartbeats:
        for writer in self._writers:
            writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for writer in self._writers:
            writer.join()

    def _beat(self, node: str) -> None:
        # The first one falls anywhere in the time between two: the drain does not wait for it.
        pause = random.uniform(0.0, self._every[1])
        while not self._over.wait(pause):
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            with suppress(ApiError):
                self._pool.change_node(
                    node, {"metadata": {"annotations": {"kubevirt.io/heartbeat": now}}}
                )
            pause = random.uniform(*self._every)


class Evacuation:
    """A source node with VMs, one other node, and the drain of the source.

    Args:
        pool: Where; empty.
        stuck: How many VMs have the source node's own CPU, which the other node lacks.
        movable: How many have a model that both nodes have.
    """

    def __init__(self, pool: Pool, stuck: int, movable: int) -> None:
        self.pool = pool
        self.stuck = [f"stuck-{number}" for number in range(stuck)]
        self.movable = [f"movable-{number}" for number in range(movable)]

    def prepare(self) -> None:
        """Add the source, start all VMs there, and add the other node."""
        pool = self.pool
        pool.node("icelake")
        for name in [*self.stuck, *self.movable]:
            vm = vm_manifest(name, "host-model" if name in self.stuck else "Haswell")
            vm["spec"]["template"]["spec"]["nodeSelector"] = {POOL: pool.name}
            pool.api.create(pool.at(KUBEVIRT, "virtualmachines"), vm)
        for name in [*self.stuck, *self.movable]:
            pool.wait_running(name)
        pool.node("cascadelake")
        pool.wait_until_older(SETTLED_AFTER)

    def run(self, seconds: float, heartbeat: tuple[float, float] = HEARTBEAT) -> Departure:
        """Drain the source until the movable VMs have left, or the time is over.

        Args:
            seconds: The time.
            heartbeat: Least and most seconds between two heartbeats of a node.
        """
        source, target = self.pool.nodes
        over = threading.Event()
        draining = threading.Thread(target=self._drain, args=(source, over), daemon=True)
        began = time.monotonic()
        left: dict[str, float] = {}
        with Heartbeats(self.pool, heartbeat):
            draining.start()
            while len(left) < len(self.movable) and time.monotonic() - began < seconds:
                for vmi in self._vmis():
                    if vmi["status"].get("nodeName") == target:
                        left.setdefault(vmi["metadata"]["name"], time.monotonic() - began)
                time.sleep(0.5)
        watched = time.monotonic() - began
        over.set()
        draining.join()
        return Departure(watched, left)

    def _drain(self, source: str, over: threading.Event) -> None:
        """Drain until every VM was asked to leave; KubeVirt goes on from there by itself."""
        while not over.is_set() and any(
            vmi["status"].get("nodeName") == source and not vmi["status"].get("evacuationNodeName")
            for vmi in self._vmis()
        ):
            drain(self.pool, source, DRAIN_SECONDS)

    def _vmis(self) -> list[Object]:
        return self.pool.api.items(self.pool.at(KUBEVIRT, "virtualmachineinstances"))

    def attempts(self) -> int:
        """Return how many migrations the cluster has of these VMs, ended ones included."""
        where = self.pool.at(KUBEVIRT, "virtualmachineinstancemigrations")
        return len(self.pool.api.items(where))


def drain(pool: Pool, node: str, seconds: float) -> None:
    """Ask the VMs of a node to leave it, as ``kubectl drain`` does, for so many seconds."""
    pool.bed.kubectl(
        *("drain", node, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", f"--timeout={max(1, round(seconds))}s"),
    )
