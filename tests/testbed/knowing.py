"""Whether a guard knows a cluster as it is: by what it decides, and by what it keeps."""

from __future__ import annotations

from tests.live.following import read_anew
from tests.testbed.bed.api import NotInTime
from tests.testbed.bed.guard import Guard
from tests.testbed.bed.load import Outcome, Question, migration_of
from tests.testbed.bed.pool import WITHIN, Pool
from tests.testbed.bed.testbed import TestBed
from webhook.cluster.resources import RESOURCES
from webhook.model.migration import LauncherPod, Migration

CLOSED = {"key": "test/closed", "effect": "NoSchedule"}


class Probe:
    """A VM that may migrate while the only other node with its CPU is open.

    Args:
        pool: Where it is started, on nodes of its own.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        source, self._target = pool.node("milan"), pool.node("milan")
        pool.vm("probe", on=source)
        self._open = True

    def turn(self) -> None:
        """Close the other node, or open it again."""
        self._open = not self._open
        self._pool.change_node(self._target, {"spec": {"taints": [] if self._open else [CLOSED]}})

    @property
    def question(self) -> Question:
        """Ask whether it may migrate, as things are now."""
        return migration_of(self._pool, "probe", allowed=self._open)


def wait_until_known(probe: Probe, guard: Guard) -> None:
    """Wait until the guard decides by the cluster of this moment, and keeps what a list shows.

    Raises:
        NotInTime: It does not; the message says how many objects of each kind are kept and listed.
    """
    bed = guard.bed
    bed.api.wait_until(
        lambda: probe.question.ask(bed.api)[0] is Outcome.RIGHT,
        WITHIN,
        "the guard decides by the cluster as it is",
    )
    try:
        bed.api.wait_until(lambda: _kept(guard) == [_listed(bed)] * len(guard.replicas), WITHIN, "")
    except NotInTime:
        raise NotInTime(f"kept: {_kept(guard)}; listed: {_listed(bed)}") from None


def _kept(guard: Guard) -> list[dict[str, float]]:
    return [replica.metrics("migration_guard_facts_objects") for replica in guard.replicas]


def _listed(bed: TestBed) -> dict[str, float]:
    facts = read_anew(bed.kubeconfig)
    return {
        resource.name: sum(
            not (isinstance(value, LauncherPod | Migration) and value.finished)
            for value in facts.of(resource.facts.store).values()
        )
        for resource in RESOURCES
    }
