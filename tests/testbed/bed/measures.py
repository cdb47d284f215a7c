"""What programs say and show of their own work: metrics and processor time."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

WEBHOOKS = "apiserver_admission_webhook_admission_duration_seconds"
"""Seconds that the API server waited for a webhook, answers over the network included
(k8s.io/apiserver, pkg/admission/metrics)."""
REQUESTS = "apiserver_request_total"


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram: durations in seconds, counted in buckets.

    Attributes:
        count: How many there were.
        total: Their sum.
        buckets: How many were no longer than each bound.
    """

    count: float = 0.0
    total: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict)

    def since(self, before: Durations) -> Durations:
        """Return what was counted after an earlier state."""
        buckets = {to: n - before.buckets.get(to, 0.0) for to, n in self.buckets.items()}
        return Durations(self.count - before.count, self.total - before.total, buckets)

    @property
    def mean(self) -> float:
        """The mean; 0 where nothing was counted."""
        return self.total / self.count if self.count else 0.0

    def at_most(self, share: float) -> float:
        """Return the lowest bound that a share of all did not exceed; infinite past the last."""
        reached = (to for to, n in sorted(self.buckets.items()) if n >= share * self.count)
        return next(reached, math.inf)


def durations(metrics: str, family: str, by: str) -> dict[str, Durations]:
    """Read a histogram of durations, one for each value of a label.

    Args:
        metrics: The text of a program's ``/metrics``.
        family: The histogram's name.
        by: The label; series that differ in others only are added up.
    """
    counts: dict[str, float] = defaultdict(float)
    totals: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for name, labels, value in samples(metrics, family):
        key = labels[by]
        if name.endswith("_bucket"):
            buckets[key][float(labels["le"])] += value
        elif name.endswith("_count"):
            counts[key] += value
        elif name.endswith("_sum"):
            totals[key] += value
    return {key: Durations(counts[key], totals[key], dict(buckets[key])) for key in counts}


def total(metrics: str, name: str, **labels: str) -> float:
    """Add up a counter over all series that have some labels."""
    return sum(
        value
        for sample, found, value in samples(metrics, name.removesuffix("_total"))
        if sample == name and labels.items() <= found.items()
    )


def samples(metrics: str, family: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Read the samples of one family of metrics: name, labels and value."""
    # An API server has 100,000 lines; only those that are asked for are parsed.
    wanted = "\n".join(
        line
        for line in metrics.splitlines()
        if line.removeprefix("# TYPE ").removeprefix("# HELP ").startswith(family)
    )
    for found in text_string_to_metric_families(wanted + "\n"):
        if found.name == family:
            for sample in found.samples:
                yield sample.name, sample.labels, sample.value


def processes(pid: int) -> list[int]:
    """Return a process and all that it started, in any depth."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(below for child in children for below in processes(int(child)))]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and those it started have used."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = 0
    for one in processes(pid):
        stat = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        used += int(stat[11]) + int(stat[12])
    return used / ticks
