"""Migrations that KubeVirt's controllers start again and again, and that cannot succeed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.testbed.bed.guard import SETTLED_AFTER
from tests.testbed.bed.kubevirt import CR
from tests.testbed.bed.pool import KUBEVIRT, POOL, Pool, vm_manifest
from tests.testbed.evacuations import DRAIN_SECONDS, HEARTBEAT, Heartbeats, drain

PER_NODE = 5
NEW_IMAGE = "registry.test/virt-launcher:storm"
_PREFIX = "only"


class Storm:
    """VMs that can leave their nodes for nowhere: some are to be evacuated, others updated.

    Each node's CPU requires a feature that no other has, so its host-model VMs fit nowhere else.
    Changes the KubeVirt CR; the caller puts it back.

    Args:
        pool: Where; empty.
        evacuated, updated: How many VMs of either sort, five on a node.
    """

    def __init__(self, pool: Pool, evacuated: int, updated: int) -> None:
        self.pool = pool
        self.evacuated = [f"evacuated-{number}" for number in range(evacuated)]
        self.updated = [f"updated-{number}" for number in range(updated)]
        self._drained: list[str] = []

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Start all VMs. Within the block, those to be updated are outdated and no other VM is.

        VMs that others start within the block are not outdated either.
        """
        kubevirt = self.pool.bed.kubevirt
        assert kubevirt is not None
        # As many as there are: what is let through must not keep the rest from being tried.
        most = len(self.evacuated) + len(self.updated)
        migrations = {"parallelMigrationsPerCluster": most}
        self.pool.api.patch(CR, {"spec": {"configuration": {"migrations": migrations}}})
        self._start(self.updated)
        with kubevirt.new_launcher_image(NEW_IMAGE):
            self._drained = self._start(self.evacuated)
            for node in self.pool.nodes:
                self.pool.cordon(node, on=False)
            self.pool.wait_until_older(SETTLED_AFTER)
            yield
            self._update_by([])

    @contextmanager
    def blowing(self, seconds: float) -> Iterator[None]:
        """Let both controllers try, at least as long as the block lasts.

        Args:
            seconds: How long ``kubectl drain`` repeats its evictions.
        """
        drained = [
            threading.Thread(target=self._drain, args=(node, seconds), daemon=True)
            for node in self._drained
        ]
        for one in drained:
            one.start()
        self._update_by(["LiveMigrate"])
        with Heartbeats(self.pool, HEARTBEAT):
            yield
        for one in drained:
            one.join()

    def _start(self, names: list[str]) -> list[str]:
        """Start VMs, five on a node, one node after another; return the nodes."""
        made = []
        for first in range(0, len(names), PER_NODE):
            feature = f"{_PREFIX}-{len(self.pool.nodes)}"
            own = {
                f"cpu-feature.node.kubevirt.io/{feature}": "true",
                f"host-model-required-features.node.kubevirt.io/{feature}": "true",
            }
            made.append(self.pool.node("icelake", labels=own))
            here = names[first : first + PER_NODE]
            for name in here:
                vm = vm_manifest(name, "host-model")
                vm["spec"]["template"]["spec"]["nodeSelector"] = {POOL: self.pool.name}
                self.pool.api.create(self.pool.at(KUBEVIRT, "virtualmachines"), vm)
            for name in here:
                self.pool.wait_running(name)
            # What comes next must start elsewhere.
            self.pool.cordon(made[-1])
        return made

    def _update_by(self, methods: list[str]) -> None:
        # All at once: by default ten a minute.
        strategy = {
            "workloadUpdateMethods": methods,
            "batchEvictionSize": len(self.updated),
            "batchEvictionInterval": "1s",
        }
        self.pool.api.patch(CR, {"spec": {"workloadUpdateStrategy": strategy}})

    def _drain(self, node: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            drain(self.pool, node, min(left, DRAIN_SECONDS))
