"""A whole test bed: a real control plane with KubeVirt, played nodes, on loopback."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.testbed.bed.address import free_address
from tests.testbed.bed.api import Api, path
from tests.testbed.bed.component import Component
from tests.testbed.bed.control_plane import ControlPlane
from tests.testbed.bed.kubevirt import KubeVirt
from tests.testbed.bed.recipe import binary

PLAYERS = Path(__file__).parents[1] / "players"
LEASE_SECONDS = 600
"""Half of what the controller manager allows (``NODE_GRACE``)."""


class TestBed:
    """Everything that runs.

    Args:
        folder: State, logs and credentials; must be empty.
        with_kubevirt: False: Kubernetes and nodes alone.
    """

    __test__ = False  # pytest would take it for a class of tests

    def __init__(self, folder: Path, *, with_kubevirt: bool = True) -> None:
        (folder / "logs").mkdir(parents=True)
        self.folder = folder
        self.address = free_address()
        self.plane = ControlPlane(folder, self.address)
        self.kubeconfig = self.plane.kubeconfig
        self.api = Api(self.kubeconfig)
        self.kubevirt = KubeVirt(self.plane, self.api) if with_kubevirt else None
        self.kwok = self._kwok()
        self.more: list[Component] = []

    @property
    def components(self) -> list[Component]:
        """Every program, in the order in which they are started."""
        of_kubevirt = self.kubevirt.components if self.kubevirt else []
        return [*self.plane.components, *of_kubevirt, self.kwok, *self.more]

    def start(self) -> None:
        """Bring everything up; whatever fails, nothing is left running."""
        try:
            self.plane.start()
            if self.kubevirt is not None:
                self.kubevirt.install()
            self.kwok.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process. All are asked at once: none has anything left to keep."""
        for component in reversed(self.components):
            component.send(signal.SIGTERM)
        for component in reversed(self.components):
            component.stop()

    def revive(self) -> None:
        """Start what has ended: virt-controller does when it cannot renew its lease in time."""
        for component in self.components:
            if not component.running:
                component.start()
                component.wait_until_ready()

    def restart_kwok(self) -> None:
        """Start the player anew; it waits for its own old leases unless they are gone."""
        self.kwok.stop()
        self.api.delete(path("coordination.k8s.io/v1", "leases", "kube-node-lease"))
        self.kwok.start()

    def kubectl(
        self, *arguments: str | Path, stdin: str = "", kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as the administrator unless a kubeconfig is named."""
        return self._run("kubectl", arguments, stdin, kubeconfig)

    def virtctl(
        self, *arguments: str | Path, stdin: str = "", kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run virtctl, as the administrator unless a kubeconfig is named."""
        return self._run("virtctl", arguments, stdin, kubeconfig)

    def _run(
        self, program: str, arguments: Sequence[str | Path], stdin: str, kubeconfig: Path | None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary(program), "--kubeconfig", kubeconfig or self.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            # kubectl keeps what it knows of an API server; this one's address may come again.
            env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin"},
        )

    def _kwok(self) -> Component:
        stages = [PLAYERS / "node.yaml", PLAYERS / "pod.yaml"]
        if self.kubevirt is not None:
            stages.append(PLAYERS / "virt-handler.yaml")
        config = self.folder / "kwok.yaml"
        config.write_text("\n---\n".join(stage.read_text("utf-8") for stage in stages), "utf-8")
        command: list[str | Path] = [
            binary("kwok"),
            *("--config", config, "--kubeconfig", self.kubeconfig),
            "--manage-all-nodes",
            f"--node-lease-duration-seconds={LEASE_SECONDS}",
        ]
        return Component("kwok", command, self.plane.log("kwok"))

    def log_sizes(self) -> dict[Path, int]:
        """Return how much each program has printed so far, to tell later what is new."""
        return {log: log.stat().st_size for log in (self.folder / "logs").iterdir()}

    def keep_logs(self, folder: Path, since: dict[Path, int]) -> None:
        """Copy what each program printed after some moment."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in (self.folder / "logs").iterdir():
            with suppress(OSError), log.open("rb") as said:
                said.seek(since.get(log, 0))
                (folder / log.name).write_bytes(said.read())
