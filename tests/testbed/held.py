"""Migrations that never end by themselves."""

from __future__ import annotations

from tests.testbed.bed.guard import SETTLED
from tests.testbed.bed.pool import HOLD, KUBEVIRT, Pool

MIGRATIONS = "virtualmachineinstancemigrations"


def allowing(seconds: int) -> str:
    """Return settings that allow so much time for the guests of a pool, which have 1 GiB."""
    return f"{SETTLED}deadline: {{secondsPerGiB: {seconds}}}\n"


def held_migration(pool: Pool) -> str:
    """Start a migration that never ends by itself; return its name once it copies."""
    source, _ = pool.node(), pool.node()
    pool.vm("web", on=source, annotations={HOLD: "yes"})
    name = pool.migrate("web")
    pool.api.wait_for(
        pool.at(KUBEVIRT, "virtualmachineinstances"),
        lambda vmi: "startTimestamp" in vmi["status"].get("migrationState", {}),
        60,
        "the copying has started",
    )
    return name


def gone(pool: Pool, name: str) -> bool:
    """Tell whether a migration is there no more."""
    return pool.api.find(pool.at(KUBEVIRT, MIGRATIONS, name)) is None
