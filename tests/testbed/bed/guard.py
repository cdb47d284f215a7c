"""migration-guard on a test bed: installed by its own manifests, run as processes of its own.

Two things differ from a cluster. Nobody starts the workload's pods: their command line is run
here, with the files that they would mount. And the Service leads to this machine's loopback
address: to the one replica there is, or to a forwarder before as many as the manifests ask for.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.testbed.bed.address import free_address
from tests.testbed.bed.api import Api, Object, path
from tests.testbed.bed.forwarder import Forwarder
from tests.testbed.bed.mounted_secret import mount
from tests.testbed.bed.recipe import CHECKOUT
from tests.testbed.bed.replica import Replica
from tests.testbed.bed.testbed import TestBed

NAMESPACE = NAME = "migration-guard"
SECRET = f"{NAME}-tls"
MANIFESTS = CHECKOUT / "manifests"
PORT = 8443
SETTLED_AFTER = 1.0
SETTLED = "facts: {settleAfter: 1s}\n"
"""Nodes of a test are young, and their labels are all there from the beginning."""
_CONFIG, _TLS = "/etc/migration-guard/", "/etc/migration-guard-tls/"
_AUDIT, _DATABASE = "/var/lib/migration-guard", "/etc/migration-guard-audit/"
_WITHIN = 30.0
_WATCH_LAG = 1.0


class Guard:
    """An installation of the guard.

    Args:
        bed: Where it is installed.
        folder: For its configuration, certificate and credentials; must be empty.
        overlay: The folder in ``manifests`` that is installed.
        database: The URL of the audit's database, for an overlay that wants PostgreSQL.
        server: The URL at which the servers reach the API server; "" for the API server's own.

    Attributes:
        bed: Where it is installed.
        replicas: The servers to which the Service leads, dead ones among them.
    """

    def __init__(
        self,
        bed: TestBed,
        folder: Path,
        overlay: str = "overlays/kubevirt",
        database: str = "",
        *,
        server: str = "",
    ) -> None:
        self.bed = bed
        self._folder = folder
        self._overlay = MANIFESTS / overlay
        self._database = database
        self._server = server
        self._service: Forwarder | None = None
        self.replicas: list[Replica] = []

    @property
    def audit_folder(self) -> Path:
        """Where the one replica keeps decisions."""
        return self._folder / "audit"

    def install(self) -> None:
        """Apply the manifests, issue the certificate, start the servers, wait until asked."""
        done = self.bed.kubectl("apply", "-k", self._overlay)
        assert done.returncode == 0, done.stderr
        lead_service_to(self.bed.address, self.bed.api)
        self._obtain_certificate()
        self.mount_certificate()
        self._write("config", self._config_map()["data"])
        self._write("audit-database", {"url": self._database})
        self.configure(SETTLED)
        self._write_credentials()
        self.start()
        self._wait_until_asked()

    def uninstall(self) -> None:
        """Stop the servers, take back the manifests, and wait until the next can be installed."""
        self.stop()
        gone = self.bed.kubectl(
            "delete", "-k", self._overlay, "--ignore-not-found", "--timeout", "60s"
        )
        assert gone.returncode == 0, gone.stderr

    def start(self) -> None:
        """Start as many servers as the manifests ask for, and wait until they are ready."""
        wanted = self._workload["spec"]["replicas"]
        if wanted == 1:
            self.start_replica(NAME)
            return
        self._service = Forwarder(self.bed.address, [], PORT)
        for ordinal in range(wanted):
            self.start_replica(f"{NAME}-{ordinal}")

    def stop(self) -> None:
        """End the servers."""
        for replica in self.replicas:
            replica.stop()
        self.replicas = []
        if self._service is not None:
            self._service.close()
            self._service = None

    def restart(self, settings: str) -> None:
        """Start the servers anew, with another configuration file."""
        self.stop()
        self.configure(settings)
        self.start()

    def start_replica(self, name: str) -> Replica:
        """Start a server; the Service leads there once it is ready.

        Args:
            name: Of its pod. A later one of the same name finds the earlier one's volume.
        """
        address = self.bed.address if self._service is None else free_address()
        replica = Replica(self.bed, name, address, self._arguments(name))
        replica.start()
        self.replicas.append(replica)
        self._lead_to_replicas()
        return replica

    def kill(self, *replicas: Replica) -> None:
        """End servers as a crash does; the Service leads there until they are taken out."""
        for replica in replicas:
            replica.stop(signal.SIGKILL)

    def take_out(self, *replicas: Replica) -> None:
        """Take servers out of the Service, as happens once they are known not to be ready."""
        self.replicas = [replica for replica in self.replicas if replica not in replicas]
        self._lead_to_replicas()

    def put_back(self, *replicas: Replica) -> None:
        """Lead to servers again that were taken out, as happens once they are ready again."""
        self.replicas += replicas
        self._lead_to_replicas()

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Kill all servers and take them out of the Service, and start as many afterwards."""
        killed = tuple(self.replicas)
        self.kill(*killed)
        self.take_out(*killed)
        yield
        for replica in killed:
            self.start_replica(replica.name)

    def roll_out(self) -> None:
        """Replace one server after another, the last one first, as a StatefulSet does."""
        for replica in reversed(self.replicas):
            self._delete(replica)
            self.start_replica(replica.name)

    def _delete(self, replica: Replica) -> None:
        """Let a server end as a pod does that is deleted."""
        pod = self._workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        pause: float = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        # While the preStop hook runs, the news that the endpoint is gone is still on its way.
        time.sleep(pause / 2)
        self.take_out(replica)
        time.sleep(pause / 2)
        replica.ask_to_stop()
        self.bed.api.wait_until(
            lambda: not replica.running,
            pod["terminationGracePeriodSeconds"] - pause,
            f"{replica.name} ends before it is killed",
        )
        replica.stop()

    def _lead_to_replicas(self) -> None:
        if self._service is not None:
            self._service.lead_to([(replica.address, PORT) for replica in self.replicas])

    def configure(self, text: str) -> None:
        """Set the configuration; servers that run read it within a second or two."""
        (self._folder / "config" / "guard.yaml").write_text(text, encoding="utf-8")

    def mount_certificate(self) -> None:
        """Write the certificate's files as the Secret has them; servers read them in a second."""
        secret = self.bed.api.get(path("v1", "secrets", NAMESPACE, SECRET))
        files = {name: base64.b64decode(data) for name, data in secret["data"].items()}
        mount(self._folder / "tls", files)

    def wait_for_fact(self) -> None:
        """Give the server the time to hear of what was just written, and to take it as settled.

        Its facts lag behind by the time of a watch event, and nothing tells how far they are.
        """
        time.sleep(SETTLED_AFTER + _WATCH_LAG)

    def decisions(self) -> list[dict[str, Any]]:
        """Return the decisions that the servers have logged, the oldest of each first."""
        return [line for replica in self.replicas for line in replica.decisions()]

    def _arguments(self, name: str) -> list[str]:
        volume = self.audit_folder if name == NAME else self._folder / name
        (container,) = self._workload["spec"]["template"]["spec"]["containers"]
        here = [
            argument.replace(_TLS, f"{self._folder}/tls/")
            .replace(_CONFIG, f"{self._folder}/config/")
            .replace(_DATABASE, f"{self._folder}/audit-database/")
            .replace(_AUDIT, str(volume))
            for argument in container["args"]
        ]
        return [*here, f"--kubeconfig={self._folder / 'guard.kubeconfig'}"]

    @cached_property
    def _workload(self) -> Object:
        workloads = ("Deployment", "StatefulSet")
        (found,) = (obj for obj in self._rendered() if obj["kind"] in workloads)
        return found

    def _rendered(self) -> list[Object]:
        rendered = self.bed.kubectl("kustomize", self._overlay)
        assert rendered.returncode == 0, rendered.stderr
        return [obj for obj in yaml.safe_load_all(rendered.stdout) if obj]

    def _obtain_certificate(self) -> None:
        """Wait for cert-manager where the manifests ask it for certificates; else issue one."""
        if any(obj["kind"] == "Certificate" for obj in self._rendered()):
            self.bed.api.wait_for(
                path("v1", "secrets", NAMESPACE),
                lambda _: True,
                _WITHIN,
                "cert-manager issues the certificate",
                fieldSelector=f"metadata.name={SECRET}",
            )
            return
        issued = subprocess.run(
            [
                *(sys.executable, "-m", "webhook.cli", "certs", "issue", "--install"),
                *("--kubeconfig", self.bed.kubeconfig),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert issued.returncode == 0, issued.stderr

    def _config_map(self) -> Object:
        return self.bed.api.get(path("v1", "configmaps", NAMESPACE, NAME))

    def _write(self, folder: str, files: dict[str, str]) -> None:
        for name, content in files.items():
            written = self._folder / folder / name
            written.parent.mkdir(parents=True, exist_ok=True)
            written.touch(mode=0o600)
            written.write_text(content, encoding="utf-8")

    def _write_credentials(self) -> None:
        """Write a kubeconfig of the guard's service account: all that its manifests allow it."""
        answer = self.bed.api.create(
            path("v1", "serviceaccounts", NAMESPACE, NAME) + "/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 7 * 24 * 3600},
            },
        )
        token = {"token": answer["status"]["token"]}
        made = self.bed.plane.write_kubeconfig(NAME, token, NAMESPACE, self._server)
        made.replace(self._folder / "guard.kubeconfig")

    def _wait_until_asked(self) -> None:
        """Wait until the API server calls the webhooks: it takes them up a moment later."""
        # A VMI that asks for nothing gets its CPU model from the guard, and no other annotation.
        sample = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"generateName": "is-the-guard-asked-"},
            "spec": {"domain": {"devices": {}, "memory": {"guest": "64Mi"}}},
        }
        vmis = path("kubevirt.io/v1", "virtualmachineinstances", "default")
        self.bed.api.wait_until(
            lambda: (
                "migration-guard.io/cpu-model"
                in _annotations(self.bed.api.create(vmis, sample, dryRun="All"))
            ),
            _WITHIN,
            "the API server asks the guard",
        )


def lead_service_to(address: str, api: Api) -> None:
    """Let the Service of the manifests lead to an address instead of pods."""
    services = path("v1", "services", NAMESPACE)
    api.delete(f"{services}/{NAME}")
    spec = {"type": "ExternalName", "externalName": address}
    api.create(services, {"metadata": {"name": NAME}, "spec": spec})


def _annotations(obj: Object) -> dict[str, str]:
    found: dict[str, str] = obj["metadata"].get("annotations", {})
    return found
