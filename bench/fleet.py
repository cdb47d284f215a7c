"""The forecast of a whole fleet: 10,000 VMs against 5,000 nodes of 24 CPU types, on one core."""

from __future__ import annotations

import gc
import os
import resource
import time
from collections import Counter

from sample.clusters import cluster

from webhook.model.forecasting import forecast
from webhook.model.obstacles import PASSING_TAINTS

NODES = 5_000
VMS = 10_000
TARGET_SECONDS = 5.0
TARGET_MIB = 1024


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    snapshot = cluster(NODES, VMS)
    facts = peak_mib()
    gc.collect()
    began = time.perf_counter()
    found = forecast(snapshot, passing_taints=PASSING_TAINTS)
    judged = time.perf_counter() - began
    targets = sum(len(vm.targets) for vm in found.vms)
    listed = time.perf_counter() - began
    reasons = sum(len(vm.reasons) for vm in found.vms)
    told = time.perf_counter() - began
    verdicts = Counter(vm.verdict.value for vm in found.vms)
    drainable = sum(node.drainable for node in found.nodes)
    print(f"  {len(found.vms):,} VMs x {len(found.nodes):,} nodes, one core")
    print(f"  verdicts: {', '.join(f'{n:,} {name}' for name, n in verdicts.most_common())}")
    print(f"  {drainable:,} nodes can be drained; {targets:,} targets, {reasons:,} reasons")
    print(f"  verdicts and advice    {judged:6.2f} s")
    print(f"  + all targets by name  {listed:6.2f} s (target: at most {TARGET_SECONDS} s)")
    print(f"  + all reasons          {told:6.2f} s")
    print(f"  peak memory {peak_mib():,.0f} MiB (target: at most {TARGET_MIB} MiB);")
    print(f"  of that {facts:,.0f} MiB were in use before, by the facts themselves")


if __name__ == "__main__":
    main()
