"""Memory of a serving guard, with an empty cluster and with 1,000 nodes and 2,000 VMs in a file."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

SAMPLE = Path(__file__).parents[1] / "webhook" / "demo" / "inventory"
SIZES = ((0, 0), (1_000, 2_000))
STARTS_WITHIN = 120
MIB = 1024


def inventory(nodes: int, vms: int) -> list[Object]:
    """Repeat the sample cluster: each VM with its VMI and its pod, spread over the nodes."""
    documents = [
        doc for path in sorted(SAMPLE.rglob("*.yaml")) for doc in yaml.safe_load_all(path.open())
    ]
    kinds = {
        kind: [d for d in documents if d["kind"] == kind] for kind in {d["kind"] for d in documents}
    }
    made = [renamed(node, i) for i, node in enumerate(islice(cycle(kinds["Node"]), nodes))]
    for kind in ("VirtualMachine", "VirtualMachineInstance", "Pod"):
        for i, obj in enumerate(islice(cycle(kinds[kind]), vms)):
            made.append(placed(renamed(obj, i), made[i % nodes]["metadata"]["name"]))
    return [*made, *kinds["KubeVirt"]]


def renamed(obj: Object, number: int) -> Object:
    name = f"{obj['metadata']['name']}-{number}"
    copied = copy.deepcopy(obj)
    copied["metadata"] |= {"name": name, "uid": f"{number:08}-{obj['kind']}"}
    if obj["kind"] == "Node":
        copied["metadata"]["labels"]["kubernetes.io/hostname"] = name
    return copied


def placed(obj: Object, node: str) -> Object:
    if obj["kind"] == "Pod":
        obj["spec"]["nodeName"] = node
    elif obj["kind"] == "VirtualMachineInstance":
        obj["status"]["nodeName"] = node
    return obj


def processes(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from processes(int(child))


def kib(pid: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(nodes: int, vms: int) -> tuple[float, float]:
    """Return MiB at rest (shared memory counted once), and at the peak of the start."""
    with tempfile.TemporaryDirectory(prefix="migration-guard-memory-") as folder:
        facts, ports = Path(folder, "facts.json"), Path(folder, "ports.json")
        facts.write_text(
            json.dumps({"kind": "List", "apiVersion": "v1", "items": inventory(nodes, vms)})
        )
        command = [
            *(sys.executable, "-m", "webhook.cli", "serve", "--inventory", str(facts)),
            *("--bind", "127.0.0.1", "--port", "0", "--ops-port", "0"),
            *("--certs-dir", folder, "--ports-file", str(ports)),
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            until = time.monotonic() + STARTS_WITHIN
            while "reviews on" not in server.stderr.readline():
                assert server.poll() is None, "it ended by itself"
                assert time.monotonic() < until, "it does not start"
            running = list(processes(server.pid))
            rest = sum(kib(pid, "smaps_rollup", "Pss") for pid in running)
            grown = sum(
                kib(pid, "status", "VmHWM") - kib(pid, "status", "VmRSS") for pid in running
            )
            server.terminate()
            server.communicate()
    return rest / MIB, (rest + grown) / MIB


def main() -> None:
    for nodes, vms in SIZES:
        rest, peak = measure(nodes, vms)
        print(f"  {nodes:,} nodes, {vms:,} VMs: {rest:.0f} MiB at rest, {peak:.0f} MiB at the peak")


if __name__ == "__main__":
    main()
