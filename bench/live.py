"""Reviews beside a busy cluster: 1,000 nodes that kwok plays, 2,000 VMs."""

from __future__ import annotations

import argparse
import http.client
import json
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubernetes.config import new_client_from_config
from memory import kib, processes
from sample import cluster_objects

# The API server is that of the test bed.
sys.path.append(str(Path(__file__).parents[1]))
from tests.live.conftest import KINDS, define, definition
from tests.testbed.bed import recipe
from tests.testbed.bed.measures import cpu_seconds
from tests.testbed.bed.testbed import TestBed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Object = dict[str, Any]

VMIM = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstanceMigration"}
WRITERS = 8
SECONDS = 20.0
PER_SECOND = 20
STARTS_WITHIN = 180
# Of each second: heartbeats of 1,000 nodes by virt-handler and kubelet, guest information of
# VMIs, which change nothing; and VMs that start and stop.
HEARTBEATS, GUESTS, STARTS = 20, 20, 10
NODE_CHANGES = 1
SETTINGS = (
    ("facts: {settleAfter: 1s}", "all nodes known for long"),
    ("", "all nodes new, so that their labels may still come"),
)


class Cluster:
    """The API server that is filled."""

    def __init__(self, kubeconfig: Path) -> None:
        client = new_client_from_config(str(kubeconfig))
        self._server = client.configuration.host
        self._pool = client.rest_client.pool_manager

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        response = self._pool.request(
            method,
            f"{self._server}{path}",
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": kind},
            retries=False,
        )
        assert response.status < 300 or response.status == 409, response.data[:300]
        return response.json()

    def create(self, obj: Object) -> Object:
        created: Object = self.ask("POST", path_of(obj), obj)
        return created

    def merge(self, obj: Object, change: Object) -> None:
        path = f"{path_of(obj)}/{obj['metadata']['name']}"
        self.ask("PATCH", path, change, "application/merge-patch+json")

    def delete(self, obj: Object) -> None:
        self.ask("DELETE", f"{path_of(obj)}/{obj['metadata']['name']}", {"gracePeriodSeconds": 0})


def path_of(obj: Object) -> str:
    version, namespace = obj["apiVersion"], obj["metadata"].get("namespace")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = obj["kind"].lower() + "s"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def fill(cluster: Cluster, nodes: int, vms: int) -> None:
    def place(index: int) -> None:
        vm, vmi, pod = cluster_objects.virtual_machine(index, nodes)
        cluster.create(vm)
        uid = cluster.create(vmi)["metadata"].get("uid")
        pod["metadata"]["labels"]["kubevirt.io/created-by"] = uid
        cluster.create(pod)

    def join(index: int) -> None:
        node = cluster_objects.node(index)
        # Those are kwok's to write, now and at each heartbeat.
        del node["status"]["conditions"]
        cluster.create(node)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(cluster.create, cluster_objects.namespaces()))
        list(writers.map(join, range(nodes)))
        list(writers.map(place, range(vms)))


class Churn:
    """Changes the cluster at a steady pace until it is told to end."""

    def __init__(self, cluster: Cluster, nodes: int, vms: int) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._vms = vms
        self._seed = random.Random(1)
        self._numbers = count(1_000_000)
        self._ending = threading.Event()
        self.events = 0

    def _steps(self) -> Iterator[Callable[[], None]]:
        cluster, seed = self._cluster, self._seed

        def heartbeat() -> None:
            node = cluster_objects.node(seed.randrange(self._nodes))
            notes = {"annotations": {"kubevirt.io/heartbeat": str(next(self._numbers))}}
            cluster.merge(node, {"metadata": notes})

        def guest() -> None:
            _, vmi, _ = cluster_objects.virtual_machine(seed.randrange(self._vms), self._nodes)
            cluster.merge(vmi, {"status": {"guestOSInfo": {"id": str(next(self._numbers))}}})

        def start() -> None:
            _, vmi, pod = cluster_objects.virtual_machine(next(self._numbers), self._nodes)
            uid = cluster.create(vmi)["metadata"]["uid"]
            pod["metadata"]["labels"]["kubevirt.io/created-by"] = uid
            cluster.create(pod)
            cluster.delete(pod)
            cluster.delete(vmi)
            self.events += 3

        def change() -> None:
            node = cluster_objects.node(seed.randrange(self._nodes))
            cluster.merge(node, {"metadata": {"labels": {"x": str(next(self._numbers) % 3)}}})

        while True:
            steps = [*[heartbeat] * HEARTBEATS, *[guest] * GUESTS, *[start] * STARTS]
            steps += [change] * NODE_CHANGES
            seed.shuffle(steps)
            yield from steps

    def run(self) -> None:
        every = 1.0 / (HEARTBEATS + GUESTS + STARTS + NODE_CHANGES)
        due = time.monotonic()
        for step in self._steps():
            due += every
            if self._ending.wait(max(due - time.monotonic(), 0)):
                return
            step()
            self.events += 1

    def end(self) -> None:
        self._ending.set()


def review(index: int, nodes: int) -> bytes:
    _, vmi, _ = cluster_objects.virtual_machine(index, nodes)
    name, namespace = vmi["metadata"]["name"], vmi["metadata"]["namespace"]
    request = {
        "uid": f"{index:08}-f067-4f93-a57f-c43314bbcef7",
        "kind": VMIM,
        "resource": {**VMIM, "resource": "virtualmachineinstancemigrations"},
        "name": "bench",
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "bench", "groups": ["system:authenticated"]},
        "object": {
            "apiVersion": "kubevirt.io/v1",
            "kind": VMIM["kind"],
            "metadata": {"name": "bench", "namespace": namespace},
            "spec": {"vmiName": name},
        },
        "oldObject": None,
        "dryRun": False,
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(whole).encode()


def asked(port: int, authority: Path, nodes: int, vms: int, seconds: float) -> list[float]:
    """Ask at a steady pace over one connection; return how long each answer took, in seconds."""
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    seed, times = random.Random(2), []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        body = review(seed.randrange(vms), nodes)
        began = time.perf_counter()
        connection.request("POST", "/validate", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        times.append(time.perf_counter() - began)
        told = answer["response"]
        assert not any("facts are missing" in w for w in told.get("warnings", ())), told
        time.sleep(1 / PER_SECOND)
    connection.close()
    return times


def shown(times: list[float]) -> str:
    ordered = sorted(times)
    p99 = ordered[int(len(ordered) * 0.99)]
    return (
        f"p50 {statistics.median(times) * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, "
        f"longest {ordered[-1] * 1e3:.1f} ms of {len(times)}"
    )


def ready(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/readyz") as answer:
        return bool(answer.status == 200)
    return False


@contextmanager
def played_cluster() -> Iterator[Path]:
    """Start Kubernetes, and kwok for nodes and pods; yield the administrator's kubeconfig."""
    with tempfile.TemporaryDirectory(prefix="migration-guard-live-") as folder:
        bed = TestBed(Path(folder, "bed"), with_kubevirt=False)
        # A namespace gets its service account a moment later, and no pod here uses it.
        bed.plane.apiserver.command.append("--disable-admission-plugins=ServiceAccount")
        try:
            bed.start()
            for plural, kind in KINDS.items():
                define(bed.api, definition(plural, kind))
            yield bed.kubeconfig
        finally:
            bed.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--vms", type=int, default=2_000)
    args = parser.parse_args()
    if missing := recipe.stale():
        print(f"  left out: not built: {', '.join(p.name for p in missing)}; run: make testbed")
        return
    with played_cluster() as kubeconfig:
        cluster = Cluster(kubeconfig)
        began = time.monotonic()
        fill(cluster, args.nodes, args.vms)
        print(f"  filled in {time.monotonic() - began:.0f} s", flush=True)
        for settings, words in SETTINGS:
            print(f"  {words}:")
            serve(args, cluster, kubeconfig, settings)


def serve(args: argparse.Namespace, cluster: Cluster, kubeconfig: Path, settings: str) -> None:
    with tempfile.TemporaryDirectory(prefix="migration-guard-live-") as folder:
        ports, config = Path(folder, "ports.json"), Path(folder, "guard.yaml")
        config.write_text(settings)
        command = [
            *(sys.executable, "-m", "webhook.cli", "serve", "--kubeconfig", str(kubeconfig)),
            *("--bind", "127.0.0.1", "--port", "0", "--ops-port", "0"),
            *("--certs-dir", folder, "--ports-file", str(ports), "--config", str(config)),
        ]
        began = time.monotonic()
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen(command, stderr=log) as server,
        ):
            try:
                measure(args, cluster, server, ports, began)
            finally:
                server.terminate()


def measure(
    args: argparse.Namespace,
    cluster: Cluster,
    server: subprocess.Popen[bytes],
    ports: Path,
    began: float,
) -> None:
    while not ports.exists():
        assert time.monotonic() - began < STARTS_WITHIN
        time.sleep(0.01)
    opened = json.loads(ports.read_text())
    authority = ports.parent / "ca.crt"
    while not ready(opened["opsPort"]):
        assert time.monotonic() - began < STARTS_WITHIN
        time.sleep(0.05)
    print(f"  ready {time.monotonic() - began:.1f} s after exec")
    time.sleep(2)
    pids = list(processes(server.pid))
    rest = sum(kib(pid, "smaps_rollup", "Pss") for pid in pids)
    peak = sum(kib(pid, "status", "VmHWM") for pid in pids)
    print(f"  memory {rest / 1024:.0f} MiB (PSS), peak of the processes {peak / 1024:.0f} MiB")

    def ask() -> list[float]:
        return asked(opened["port"], authority, args.nodes, args.vms, SECONDS)

    ask()
    before = cpu_seconds(server.pid)
    print(f"  quiet: {shown(ask())}; CPU {(cpu_seconds(server.pid) - before) / SECONDS:.1%}")
    churn = Churn(cluster, args.nodes, args.vms)
    thread = threading.Thread(target=churn.run)
    thread.start()
    before = cpu_seconds(server.pid)
    times = ask()
    churn.end()
    thread.join()
    print(
        f"  busy, {churn.events / SECONDS:.0f} events/s: {shown(times)}; "
        f"CPU {(cpu_seconds(server.pid) - before) / SECONDS:.1%}"
    )
    rest = sum(kib(pid, "smaps_rollup", "Pss") for pid in pids)
    print(f"  memory then {rest / 1024:.0f} MiB (PSS)")


if __name__ == "__main__":
    main()
