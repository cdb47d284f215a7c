"""Two replicas behind a Service, and what a steady load of reviews meets when they come and go."""

from __future__ import annotations

from tests.testbed.bed.guard import Guard
from tests.testbed.bed.load import SteadyLoad, movable_and_stuck
from tests.testbed.bed.pool import Pool

OVERLAY = "overlays/high-availability"
DATABASE = True


def test_a_roll_out_under_load_loses_no_review(pool: Pool, guard: Guard) -> None:
    with SteadyLoad(pool.api, movable_and_stuck(pool)) as load:
        guard.roll_out()
        load.settle()
    assert load.not_right() == []
