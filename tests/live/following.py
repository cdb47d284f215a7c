"""A live cluster that a test follows, and how its facts compare with a list made anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from webhook.cluster.connection import connect
from webhook.cluster.facts import Facts
from webhook.cluster.kinds import add
from webhook.cluster.listing import read_cluster
from webhook.cluster.live import LiveFacts
from webhook.cluster.pruning import prune
from webhook.cluster.reflector import Following
from webhook.cluster.sharing import Sharing
from webhook.model.snapshot import Snapshot

SETTLE_AFTER = 420.0
"""Seconds; as by default."""
WITHIN = 60.0
"""Seconds; generous, for a busy machine."""


class Followed:
    """Live facts on a thread of their own, ended with the test."""

    def __init__(
        self, kubeconfig: Path, *, stale_after: float = 180.0, all_pods: bool = False
    ) -> None:
        self.settings = Following(stale_after, all_pods, SETTLE_AFTER)
        self.connection = connect(kubeconfig)
        self.live = LiveFacts(self.connection, lambda: self.settings)
        self.live.start()

    def wait(self, until: Callable[[Snapshot], Any], seconds: float = WITHIN) -> Snapshot:
        """Wait until the facts are as they should be."""
        return self.wait_for(lambda: until(self.live.snapshot()), seconds)

    def wait_for(self, until: Callable[[], Any], seconds: float = WITHIN) -> Snapshot:
        """Wait until something holds."""
        ends = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < ends, [str(k) for k in self.live.kinds]
            time.sleep(0.02)
        return self.live.snapshot()

    def synced(self) -> Snapshot:
        """Wait until every kind was read."""
        return self.wait_for(lambda: self.live.synced and not self.live.snapshot().stale)

    def state(self, name: str) -> str:
        """Say how a kind stands."""
        return next(str(k) for k in self.live.kinds if k.resource.name == name)


def listed(kubeconfig: Path, *, all_pods: bool = False) -> Snapshot:
    """Return the facts of a list made now."""
    return read_anew(kubeconfig, all_pods=all_pods).snapshot()


def read_anew(kubeconfig: Path, *, all_pods: bool = False) -> Facts:
    """Read the facts of a cluster from a list made now."""
    facts, sharing = Facts(), Sharing()
    for document in read_cluster(connect(kubeconfig), all_pods=all_pods):
        assert hasattr(document, "obj"), document
        add(facts, sharing, prune(str(document.obj["kind"]), document.obj))
    return facts


def told(snapshot: Snapshot) -> dict[str, Any]:
    """Return all that a snapshot says, whatever the order in which it was learned."""
    nodes = {
        n.name: (dict(n.labels), n.taints, n.cordoned, n.ready, n.allocatable)
        for n in snapshot.nodes.by_name.values()
    }
    return {
        "nodes": nodes,
        "free": {n.name: dict(snapshot.nodes.free(n)) for n in snapshot.nodes.by_name.values()},
        "kubevirt": snapshot.kubevirt,
        "vmis": snapshot.vmis,
        "vms": snapshot.vms,
        "migrations": snapshot.migrations,
        "pods": {uid: sorted(map(repr, pods)) for uid, pods in snapshot.pods.items()},
        "policies": sorted(map(repr, snapshot.policies)),
        "claims": snapshot.claims,
        "volumes": snapshot.volumes,
        "runtime_classes": snapshot.runtime_classes,
        "namespaces": snapshot.namespaces,
        "upgrading": snapshot.upgrading,
    }
