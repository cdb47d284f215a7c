"""A cluster to try things on: ``python -m tests.testbed.bed.playground [stop] [--folder FOLDER]``.

Real Kubernetes and KubeVirt with the guard installed, a few nodes and VMs; it runs until Ctrl-C,
SIGTERM or ``stop``, and leaves nothing behind but its logs.
"""

from __future__ import annotations

import argparse
import fcntl
import http
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import yaml

from tests.testbed.bed import build, recipe
from tests.testbed.bed.api import ApiError, NotInTime, path
from tests.testbed.bed.component import ComponentError
from tests.testbed.bed.guard import Guard
from tests.testbed.bed.pool import KUBEVIRT, WITHIN, Pool, node_manifest, vm_manifest
from tests.testbed.bed.replica import OPS_PORT
from tests.testbed.bed.testbed import TestBed

SAMPLES = (
    ("cascade-1", "cascadelake", (("web", None), ("cache", "host-passthrough"))),
    ("ice-1", "icelake", (("database", "host-model"), ("shop", "Haswell"))),
    ("milan-1", "milan", ()),
    ("cascade-2", "cascadelake", ()),
)
"""Nodes in the order in which they join, their CPUs, the VMs that start there and their models."""

WHAT_TO_TRY = """
The playground is up. In another terminal:

  export KUBECONFIG={kubeconfig}
  export PATH={programs}:{scripts}:$PATH

  kubectl get nodes,vms,vmis            what is there
  virtctl migrate web                   moves to cascade-2: the same CPU
  virtctl migrate database              refused: no other node has its CPU; read why
  kubectl describe vmi database         the same as an Event
  virtctl migrate shop                  moves: its model, Haswell, runs on every Intel node
  kubectl apply -f {new_vm}
                                        made, with a warning: one node alone can run its model
  kubectl migration_guard candidates default/database
  kubectl migration_guard forecast --drain ice-1
  kubectl drain ice-1 --delete-emptydir-data --force --timeout 30s
                                        what can leave does; it says why database cannot

Guests and kubelets are played; everything that decides is real. What the guard says:

  curl "{guard}/readyz?verbose"         its state; /metrics beside it
  tail -f {logs}/migration-guard.log    each decision; the other programs' logs beside it

Ctrl-C here, or `make playground-stop`, ends it all.
"""


def main(arguments: list[str]) -> int:
    """Run the playground, or stop the one that runs."""
    parser = argparse.ArgumentParser(prog="playground", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "stop"), default="run")
    parser.add_argument(
        "--folder",
        type=Path,
        default=recipe.CHECKOUT / ".cache" / "playground",
        help="for state and logs",
    )
    asked = parser.parse_args(arguments)
    home: Path = asked.folder.absolute()
    if asked.what == "stop":
        return stop(home)
    if (status := build.main()) != 0:
        return status
    home.mkdir(parents=True, exist_ok=True)
    with (home / "pid").open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("playground: one is running; `make playground-stop` ends it", file=sys.stderr)
            return 1
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        try:
            _run(home / "state")
        except (ComponentError, ApiError, NotInTime) as error:
            print(f"playground: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
    return 0


def stop(home: Path) -> int:
    """End the playground that runs in a folder, and wait until all of it has ended."""
    with suppress(FileNotFoundError), (home / "pid").open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.kill(int(held.read()), signal.SIGTERM)
            # The lock is free once that process has ended.
            fcntl.flock(held, fcntl.LOCK_EX)
            print("playground: stopped")
            return 0
    print("playground: none is running")
    return 0


def _run(state: Path) -> None:
    """Bring it up and wait for Ctrl-C or SIGTERM, which end it at any moment of the start, too.

    Raises:
        KeyboardInterrupt: One of them came; everything has ended.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shutil.rmtree(state, ignore_errors=True)
    bed = TestBed(state)
    try:
        print("[1/3] Kubernetes and KubeVirt", flush=True)
        bed.start()
        print("[2/3] migration-guard, by manifests/overlays/drain", flush=True)
        Guard(bed, state / "guard", "overlays/drain").install()
        print("[3/3] sample nodes and VMs", flush=True)
        _populate(bed)
        print(
            WHAT_TO_TRY.format(
                kubeconfig=bed.kubeconfig,
                programs=recipe.binary("kubectl").parent,
                scripts=Path(sys.executable).parent,
                new_vm=_write_new_vm(state),
                guard=f"http://{bed.address}:{OPS_PORT}",
                logs=state / "logs",
            ),
            flush=True,
        )
        signal.pause()
    finally:
        # A second Ctrl-C must not leave half of it running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("playground: ending", flush=True)
        bed.stop()


def _populate(bed: TestBed) -> None:
    """Let the nodes join one after another, each with its VMs while the others are cordoned."""
    pool = Pool(bed, "default")
    for name, cpu, vms in SAMPLES:
        pool.create_nodes([node_manifest(name, cpu)])
        for vm, model in vms:
            bed.api.create(path(KUBEVIRT, "virtualmachines", "default"), vm_manifest(vm, model))
            pool.wait_running(vm)
        pool.cordon(name)
    for name in pool.nodes:
        pool.cordon(name, on=False)
    # For a moment a new node may still get labels, and nothing is refused because of it.
    bed.api.wait_until(lambda: _is_refused(pool, "database"), WITHIN, "the new nodes count")


def _write_new_vm(state: Path) -> Path:
    """Write the manifest of a VM that only the newest node can run."""
    manifest = state / "new-vm.yaml"
    manifest.write_text(yaml.safe_dump(vm_manifest("analytics", "Icelake-Server")), "utf-8")
    return manifest


def _is_refused(pool: Pool, vmi: str) -> bool:
    migrations = pool.at(KUBEVIRT, "virtualmachineinstancemigrations")
    try:
        pool.api.create(migrations, pool.migration_manifest(vmi), dryRun="All")
    except ApiError as error:
        if error.status != http.HTTPStatus.FORBIDDEN:
            raise
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
