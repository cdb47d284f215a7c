"""The time of one decision about a migration, at 5, 500 and 5,000 nodes of 24 CPU types.

And what the guard itself does for the two jobs of server.py: from the bytes of a review to the
bytes of the answer, with metrics and log, without network. ``--beside`` measures another checkout
in turns with this one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sample import reviews
from sample.clusters import cluster, kind_of

from webhook.cli.decision_log import DecisionLog, LogForm
from webhook.cli.ids import new_id
from webhook.cli.loading import FactsPlace, load_inventory
from webhook.model.obstacles import PASSING_TAINTS
from webhook.model.placement import assess
from webhook.policy.configuration import Configuration
from webhook.review.answer import MUTATE, VALIDATE, Answerer
from webhook.serving.log_writer import LogWriter
from webhook.serving.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.review.admission import Review
    from webhook.review.decision import Circumstances, Decision

SIZES = (5, 500, 5_000)
VMS_A_NODE = 2
VMS_TRIED = 30
ROUNDS = 15
TARGET = 1.5
CHECKOUT = Path(__file__).parents[1]
JOBS = {"pod": (MUTATE, reviews.target_pods), "migration": (VALIDATE, reviews.migrations)}
FIRST, AGAIN = "facts new", "again"
REPEATED = 4


def _vms(snapshot: Snapshot) -> dict[str, list[VirtualMachineInstance]]:
    """Return VMs to ask about, by what they demand; at every size on the same CPU types."""
    kinds = {kind_of(index) for index in range(SIZES[0])}
    plain = [
        vmi
        for vmi in snapshot.vmis.values()
        if not (vmi.affinity or vmi.node_selector or vmi.conditions or vmi.cpu_features)
        and kind_of(int(vmi.node_name[len("node-") :])) in kinds
    ]
    found = {
        "host-model": [v for v in plain if v.cpu_model == "host-model"],
        "named model": [v for v in plain if not v.cpu_model.startswith("host-")],
    }
    return {name: several[:VMS_TRIED] for name, several in found.items()}


def _review(vmi: VirtualMachineInstance) -> bytes:
    kind = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstanceMigration"}
    request = {
        "uid": "8f7acb8c-f067-4f93-a57f-c43314bbcef7",
        "kind": kind,
        "resource": {**kind, "resource": "virtualmachineinstancemigrations"},
        "name": "bench",
        "namespace": vmi.namespace,
        "operation": "CREATE",
        "userInfo": {"username": "bench", "groups": ["system:authenticated"]},
        "object": {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {"name": "bench", "namespace": vmi.namespace},
            "spec": {"vmiName": vmi.name},
        },
        "oldObject": None,
        "dryRun": False,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(review).encode()


def _unasked(snapshot: Snapshot) -> Snapshot:
    """Return the same facts, of which no VM was asked about; the pods are in order already."""
    facts = replace(snapshot)
    object.__setattr__(facts, "neighbours", snapshot.neighbours)
    return facts


def _model(snapshot: Snapshot, vmi: VirtualMachineInstance) -> Callable[[], object]:
    facts = _unasked(snapshot)

    def decide() -> object:
        demanded = facts.requirements(vmi)
        under = facts.conditions(demanded, PASSING_TAINTS, None)
        found = assess(demanded, facts.nodes, under)
        return found.possible, found.fits_somewhere

    return decide


def _answer(snapshot: Snapshot, vmi: VirtualMachineInstance) -> Callable[[], object]:
    configuration, body = Configuration(), _review(vmi)
    numbers = itertools.count()
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def new_id() -> str:
        return f"0190a5b2-0000-7000-8000-{next(numbers):012x}"

    def answerer() -> Answerer:
        facts = _unasked(snapshot)
        return Answerer(lambda: facts, lambda: configuration, lambda: moment, new_id)

    assert b'"uid":"8f7acb8c' in answerer().answer(VALIDATE, body).body.replace(b": ", b":")
    asked = answerer()
    return lambda: asked.answer(VALIDATE, body)


def _seconds(ask: Callable[[], object]) -> float:
    began = time.process_time()
    ask()
    return time.process_time() - began


def _first(snapshot: Snapshot, asks: list[Callable[[], object]]) -> float:
    """Return the median time of a decision when nothing is remembered of earlier ones.

    Each asks facts of its own, which share their nodes.
    """
    times = []
    for ask in asks:
        snapshot.nodes.memory.clear()
        times.append(_seconds(ask))
    return statistics.median(times)


def _own_part(folder: Path) -> Callable[[str, str], float]:
    """Return what measures a job, in microseconds of processor time a review."""
    items = {"apiVersion": "v1", "kind": "List", "items": reviews.inventory()}
    (folder / "inventory.json").write_text(json.dumps(items), encoding="utf-8")
    snapshot = load_inventory(FactsPlace((folder / "inventory.json",))).snapshot
    configuration, metrics = Configuration(), Metrics()
    # The thread that writes counts too.
    stream = LogWriter(os.open(folder / "log", os.O_WRONLY | os.O_CREAT))
    stream.start()
    log = DecisionLog(lambda: datetime.now(UTC), stream, LogForm.JSON)

    def keep(review: Review, decision: Decision, _: Circumstances) -> None:
        for result in decision.rules:
            metrics.count_decision(result.rule.value, result.mode.value, result.outcome.value)
        log.write(review, decision)

    facts = snapshot
    answerer = Answerer(
        lambda: facts, lambda: configuration, lambda: datetime.now(UTC), new_id, keep
    )

    def measure(job: str, when: str) -> float:
        nonlocal facts
        path, make = JOBS[job]
        bodies = made[job] if job in made else made.setdefault(job, make())
        used = 0
        for body in bodies * REPEATED:
            # New as after a pod that came: what was found out about nodes stays.
            facts = replace(snapshot) if when == FIRST else snapshot
            began = time.process_time_ns()
            answerer.answer(path, body)
            used += time.process_time_ns() - began
        return used / len(bodies) / REPEATED / 1e3

    made: dict[str, list[bytes]] = {}
    return measure


def serve_own_part() -> None:
    """Measure what is asked for, a line of standard input each."""
    with tempfile.TemporaryDirectory() as folder:
        measure = _own_part(Path(folder))
        for line in sys.stdin:
            job, when = line.rstrip("\n").split("\t")
            print(measure(job, when), flush=True)


def compare_own_part(checkouts: list[Path]) -> None:
    """Print what a review costs in each checkout; they take turns."""
    with ExitStack() as ends:
        programs = []
        for checkout in checkouts:
            program = ends.enter_context(
                subprocess.Popen(
                    [sys.executable, __file__, "--own-part"],
                    env={**os.environ, "PYTHONPATH": str(checkout)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            programs.append(program)
        asked = list(itertools.product(JOBS, (AGAIN, FIRST)))
        found: dict[object, list[float]] = {}
        for _ in range(ROUNDS):
            for question in asked:
                for checkout, program in zip(checkouts, programs, strict=True):
                    assert program.stdin is not None
                    assert program.stdout is not None
                    program.stdin.write("\t".join(question) + "\n")
                    program.stdin.flush()
                    took = float(program.stdout.readline())
                    found.setdefault((checkout, question), []).append(took)
        for program in programs:
            assert program.stdin is not None
            program.stdin.close()
    columns = "".join(f"{f'{job}, {when}':>22}" for job, when in asked)
    print(f"  {'microseconds of processor time a review, median':<52}{columns}")
    for checkout in checkouts:
        row = "".join(f"{statistics.median(found[checkout, q]):>22,.0f}" for q in asked)
        print(f"  {checkout!s:<52}{row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, action="append", default=[], metavar="CHECKOUT")
    parser.add_argument("--own-part", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.own_part:
        serve_own_part()
        return
    if not options.beside:
        compare_sizes()
    compare_own_part([*(path.resolve() for path in options.beside), CHECKOUT])


def compare_sizes() -> None:
    """Print what a decision costs at each number of nodes."""
    snapshots = {nodes: cluster(nodes, max(nodes * VMS_A_NODE, 100)) for nodes in SIZES}
    columns = "".join(f"{f'{n:,} nodes':>14}" for n in SIZES)
    print(f"  {'microseconds of processor time, median':<62}{columns}{'growth':>9}")
    worst = 0.0
    for what, make in (("requirements and assessment", _model), ("a review answered", _answer)):
        for name in ("host-model", "named model"):
            asked = {n: [make(s, vmi) for vmi in _vms(s)[name]] for n, s in snapshots.items()}
            first = {n: _first(snapshots[n], asks) for n, asks in asked.items()}
            times: dict[int, list[float]] = {n: [] for n in SIZES}
            # The sizes take turns, so that whatever slows the machine down slows all of them.
            for _ in range(ROUNDS):
                for nodes, asks in asked.items():
                    times[nodes] += map(_seconds, asks)
            typical = {n: statistics.median(several) for n, several in times.items()}
            for when, found in (("first of its kind", first), ("again", typical)):
                growth = found[SIZES[-1]] / found[SIZES[0]]
                if make is _answer and when == "again":
                    worst = max(worst, growth)
                row = "".join(f"{found[n] * 1e6:>14,.0f}" for n in SIZES)
                print(f"  {f'{what}, {name}, {when}':<62}{row}{growth:>8.2f}x")
    print(
        f"  growth of a review answered, {SIZES[0]} to {SIZES[-1]:,} nodes: {worst:.2f}x "
        f"(target: at most {TARGET}x)"
    )


if __name__ == "__main__":
    main()
