"""50 evacuations and 50 workload updates that cannot succeed, and honest requests beside them."""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# The cluster is that of the test bed.
sys.path.append(str(Path(__file__).parents[1]))
from tests.testbed.bed import recipe
from tests.testbed.bed.guard import Guard
from tests.testbed.bed.load import SteadyLoad, movable_and_stuck, summary
from tests.testbed.bed.measures import (
    REQUESTS,
    WEBHOOKS,
    Durations,
    cpu_seconds,
    durations,
    total,
)
from tests.testbed.bed.pool import Pool
from tests.testbed.bed.testbed import TestBed
from tests.testbed.storms import Storm

VMS = 50
REVIEWS = "migration_guard_reviews_total"


@dataclass(frozen=True, slots=True)
class Moment:
    """What all parts have done so far."""

    at: float
    reviews: float
    not_answered: float
    requests: float
    cpu: dict[str, float]
    webhooks: dict[str, Durations]


class Observer:
    """Reads what guard and API server say of themselves, and what the system says of them."""

    def __init__(self, bed: TestBed, guard: Guard) -> None:
        self._bed = bed
        (self._replica,) = guard.replicas

    def look(self) -> Moment:
        said = self._replica.ask("/metrics")[1]
        told = self._bed.api.text("/metrics")
        reviews = total(said, REVIEWS)
        return Moment(
            time.monotonic(),
            reviews,
            reviews - total(said, REVIEWS, code="200"),
            total(told, REQUESTS),
            {part.name: cpu_seconds(part.pid) for part in self._bed.components if part.running},
            durations(told, WEBHOOKS, by="name"),
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5.0, help="that the storm lasts")
    parser.add_argument("--quiet-minutes", type=float, default=1.0, help="without it, before")
    args = parser.parse_args()
    if missing := recipe.stale():
        print(f"  left out: not built: {', '.join(p.name for p in missing)}; run: make testbed")
        return
    with tempfile.TemporaryDirectory(prefix="migration-guard-storms-") as folder:
        bed = TestBed(Path(folder, "bed"))
        try:
            bed.start()
            guard = Guard(bed, Path(folder, "guard"))
            guard.install()
            measure(bed, guard, args.quiet_minutes * 60, args.minutes * 60)
        finally:
            bed.stop()


def measure(bed: TestBed, guard: Guard, quiet: float, seconds: float) -> None:
    stuck, calm = Pool(bed, "storm"), Pool(bed, "calm")
    stuck.open()
    calm.open()
    storm = Storm(stuck, VMS, VMS)
    observer = Observer(bed, guard)
    with storm.prepared(), SteadyLoad(bed.api, movable_and_stuck(calm)) as load:
        started = observer.look()
        time.sleep(quiet)
        calm_until = observer.look()
        with storm.blowing(seconds):
            time.sleep(seconds)
            ended = observer.look()
    print(f"  load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for words, before, after in (
        ("without the storm", started, calm_until),
        ("in the storm", calm_until, ended),
    ):
        print(f"  {words}, {after.at - before.at:.0f} s:")
        show(before, after)
        answers = [a for a in load.answers if before.at <= a.began and a.ended <= after.at]
        times = sorted(answer.ended - answer.began for answer in answers)
        print(
            f"    honest requests: {summary(answers)}; p50 {statistics.median(times) * 1e3:.1f} "
            f"ms, p99 {times[int(len(times) * 0.99)] * 1e3:.1f} ms"
        )
    print("  what the API server waited for each webhook, in both:")
    show_webhooks(started.webhooks, ended.webhooks)
    tried = [d for d in guard.decisions() if d["namespace"] == "storm"]
    count = sum(d["outcome"] == "refused" for d in tried)
    let = sum(d["outcome"] == "warned" for d in tried)
    print(f"  {count} evacuations refused, {let} migrations let through with a warning")
    events = bed.api.items(stuck.at("v1", "events"))
    ours = [e for e in events if e["source"].get("component") == "migration-guard"]
    print(f"  Events by the guard: {len(ours)}, which count {sum(e['count'] for e in ours)}")


def show(before: Moment, after: Moment) -> None:
    took = after.at - before.at
    print(
        f"    the guard answered {(after.reviews - before.reviews) / took:.1f} reviews a second, "
        f"{after.not_answered - before.not_answered:.0f} of them not with 200; "
        f"the API server {(after.requests - before.requests) / took:.0f} requests a second"
    )
    used = {name: (after.cpu[name] - before.cpu.get(name, 0.0)) / took for name in after.cpu}
    print("    CPU of a core: " + ", ".join(f"{name} {share:.0%}" for name, share in used.items()))


def show_webhooks(before: dict[str, Durations], after: dict[str, Durations]) -> None:
    print(f"    {'webhook':60} {'calls':>7} {'mean, ms':>9} {'p50 <=':>7} {'p99 <=':>7}")
    rows = {name: now.since(before.get(name, Durations())) for name, now in after.items()}
    for name, seen in sorted(rows.items(), key=lambda row: ("migration-guard" not in row[0], row)):
        if seen.count:
            print(
                f"    {name:60} {seen.count:7.0f} {seen.mean * 1e3:9.1f} "
                f"{bound(seen.at_most(0.5)):>7} {bound(seen.at_most(0.99)):>7}"
            )


def bound(seconds: float) -> str:
    return "more" if math.isinf(seconds) else f"{seconds * 1e3:.0f}"


if __name__ == "__main__":
    main()
