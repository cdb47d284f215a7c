"""A drained node with 20 VMs that cannot move and 5 that can: how soon the 5 have left."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

# The cluster is that of the test bed.
sys.path.append(str(Path(__file__).parents[1]))
from tests.testbed.bed import recipe
from tests.testbed.bed.guard import SETTLED, Guard
from tests.testbed.bed.pool import Pool
from tests.testbed.bed.testbed import TestBed
from tests.testbed.evacuations import Departure, Evacuation

WARNED = f"{SETTLED}rules: {{incompatible-target: {{origins: {{evacuation: warn}}}}}}\n"
ARMS = {
    "drain": ("overlays/drain", SETTLED),
    "refused": ("overlays/kubevirt", SETTLED),
    "warned": ("overlays/kubevirt", WARNED),
    "without": None,
}
"""What is installed for each way of treating evacuations, and its configuration: with the component
drain, evictions are refused before there is an evacuation. None: no guard."""
STUCK, MOVABLE = 20, 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--runs", type=int, default=1, help="of each, one after another")
    parser.add_argument("--minutes", type=float, default=10.0, help="after which one is given up")
    args = parser.parse_args()
    if missing := recipe.stale():
        print(f"  left out: not built: {', '.join(p.name for p in missing)}; run: make testbed")
        return
    for arm in args.arms:
        with tempfile.TemporaryDirectory(prefix="migration-guard-evacuations-") as folder:
            bed = TestBed(Path(folder, "bed"))
            try:
                bed.start()
                runs(bed, Path(folder), arm, args.runs, args.minutes * 60)
            finally:
                bed.stop()


def runs(bed: TestBed, folder: Path, arm: str, count: int, seconds: float) -> None:
    installed = ARMS[arm]
    if installed is not None:
        overlay, settings = installed
        guard = Guard(bed, folder / "guard", overlay)
        guard.install()
        guard.restart(settings)
    ended = []
    for number in range(count):
        # Alone in the cluster: others would take some of its five slots.
        pool = Pool(bed, f"run-{number}")
        pool.open()
        evacuation = Evacuation(pool, STUCK, MOVABLE)
        evacuation.prepare()
        ended.append(evacuation.run(seconds))
        print(
            f"    {arm}, run {number + 1}: {shown(ended[-1])}; "
            f"{evacuation.attempts()} migrations were made",
            flush=True,
        )
        pool.close()
    for wanted in (1, MOVABLE):
        print(f"    {arm}, {wanted} of {MOVABLE} left after: {summary(ended, wanted)}", flush=True)


def shown(ended: Departure) -> str:
    times = " ".join(f"{after:.1f}" for after in sorted(ended.left.values()))
    return f"{len(ended.left)} left within {ended.watched:.0f} s, after {times or 'none'} s"


def summary(ended: list[Departure], wanted: int) -> str:
    """Say lowest, median and highest; a run that did not get so far counts as longer."""
    times = sorted(
        sorted(run.left.values())[wanted - 1] if len(run.left) >= wanted else float("inf")
        for run in ended
    )
    longest = max(run.watched for run in ended)
    lowest, middle, highest = (
        f"{value:.0f} s" if value != float("inf") else f"more than {longest:.0f} s"
        for value in (times[0], statistics.median(times), times[-1])
    )
    return f"lowest {lowest}, median {middle}, highest {highest}"


if __name__ == "__main__":
    main()
