"""migration-guard on a test bed: installed by its own manifests, run as a process of its own.

Two things differ from a cluster. Nobody starts the guard's pod: its command line is run here,
with the files that it would mount. And the Service leads to this machine's loopback address.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.testbed.bed.api import Object, path
from tests.testbed.bed.component import Component
from tests.testbed.bed.recipe import CHECKOUT
from tests.testbed.bed.testbed import TestBed

NAMESPACE = NAME = "migration-guard"
MANIFESTS = CHECKOUT / "manifests"
PORT, OPS_PORT = 8443, 8080
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
    """

    def __init__(
        self, bed: TestBed, folder: Path, overlay: str = "overlays/kubevirt", database: str = ""
    ) -> None:
        self._bed = bed
        self._folder = folder
        self._overlay = MANIFESTS / overlay
        self._database = database
        self.server: Component | None = None

    @property
    def audit_folder(self) -> Path:
        """Where decisions are kept."""
        return self._folder / "audit"

    def install(self) -> None:
        """Apply the manifests, issue the certificate, start the server, wait until it is asked."""
        done = self._bed.kubectl("apply", "-k", self._overlay)
        assert done.returncode == 0, done.stderr
        self._lead_service_here()
        self._write("tls", self._issue_certificate())
        self._write("config", self._config_map()["data"])
        self._write("audit-database", {"url": self._database})
        self.configure(SETTLED)
        self._write_credentials()
        self.start()
        self._wait_until_asked()

    def uninstall(self) -> None:
        """Stop the server, take back the manifests, and wait until the next can be installed."""
        self.stop()
        gone = self._bed.kubectl(
            "delete", "-k", self._overlay, "--ignore-not-found", "--timeout", "60s"
        )
        assert gone.returncode == 0, gone.stderr

    def start(self) -> None:
        """Start the server, and wait until it has read the cluster."""
        self.server = Component(
            NAME,
            [sys.executable, "-m", "webhook.cli", "serve", *self._arguments()],
            self._bed.plane.log(NAME),
            lambda: self.ask("/readyz")[0] == http.HTTPStatus.OK,
        )
        self._bed.more.append(self.server)
        self.server.start()
        self.server.wait_until_ready()

    def stop(self) -> None:
        """End the server."""
        if self.server is not None:
            self.server.stop()
            self._bed.more.remove(self.server)
            self.server = None

    def configure(self, text: str) -> None:
        """Set the configuration; a server that runs reads it within a second or two."""
        (self._folder / "config" / "guard.yaml").write_text(text, encoding="utf-8")

    def wait_for_fact(self) -> None:
        """Give the server the time to hear of what was just written, and to take it as settled.

        Its facts lag behind by the time of a watch event, and nothing tells how far they are.
        """
        time.sleep(SETTLED_AFTER + _WATCH_LAG)

    def ask(self, where: str) -> tuple[int, str]:
        """Ask the operations port; status 0 where nobody answers."""
        connection = http.client.HTTPConnection(self._bed.address, OPS_PORT, timeout=5)
        try:
            connection.request("GET", where)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def decisions(self) -> list[dict[str, Any]]:
        """Return the decisions that the server has logged, the oldest first."""
        said = self._bed.plane.log(NAME).read_text(encoding="utf-8").splitlines()
        lines = [json.loads(line) for line in said if line.startswith("{")]
        return [line for line in lines if line.get("message") == "decision"]

    def _arguments(self) -> list[str]:
        (workload,) = (o for o in self._rendered() if o["kind"] in ("Deployment", "StatefulSet"))
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        here = [
            argument.replace(_TLS, f"{self._folder}/tls/")
            .replace(_CONFIG, f"{self._folder}/config/")
            .replace(_DATABASE, f"{self._folder}/audit-database/")
            .replace(_AUDIT, str(self.audit_folder))
            for argument in container["args"]
        ]
        credentials = self._folder / "guard.kubeconfig"
        return [*here, f"--bind={self._bed.address}", f"--kubeconfig={credentials}"]

    def _rendered(self) -> list[Object]:
        rendered = self._bed.kubectl("kustomize", self._overlay)
        assert rendered.returncode == 0, rendered.stderr
        return [obj for obj in yaml.safe_load_all(rendered.stdout) if obj]

    def _lead_service_here(self) -> None:
        services = path("v1", "services", NAMESPACE)
        self._bed.api.delete(f"{services}/{NAME}")
        spec = {"type": "ExternalName", "externalName": self._bed.address}
        self._bed.api.create(services, {"metadata": {"name": NAME}, "spec": spec})

    def _issue_certificate(self) -> dict[str, str]:
        issued = subprocess.run(
            [
                *(sys.executable, "-m", "webhook.cli", "certs", "issue", "--install"),
                *("--kubeconfig", self._bed.kubeconfig),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert issued.returncode == 0, issued.stderr
        secret = self._bed.api.get(path("v1", "secrets", NAMESPACE, f"{NAME}-tls"))
        return {name: base64.b64decode(data).decode() for name, data in secret["data"].items()}

    def _config_map(self) -> Object:
        return self._bed.api.get(path("v1", "configmaps", NAMESPACE, NAME))

    def _write(self, folder: str, files: dict[str, str]) -> None:
        for name, content in files.items():
            written = self._folder / folder / name
            written.parent.mkdir(parents=True, exist_ok=True)
            written.touch(mode=0o600)
            written.write_text(content, encoding="utf-8")

    def _write_credentials(self) -> None:
        """Write a kubeconfig of the guard's service account: all that its manifests allow it."""
        answer = self._bed.api.create(
            path("v1", "serviceaccounts", NAMESPACE, NAME) + "/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 7 * 24 * 3600},
            },
        )
        token = {"token": answer["status"]["token"]}
        made = self._bed.plane.write_kubeconfig(NAME, token, NAMESPACE)
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
        self._bed.api.wait_until(
            lambda: (
                "migration-guard.io/cpu-model"
                in _annotations(self._bed.api.create(vmis, sample, dryRun="All"))
            ),
            _WITHIN,
            "the API server asks the guard",
        )


def _annotations(obj: Object) -> dict[str, str]:
    found: dict[str, str] = obj["metadata"].get("annotations", {})
    return found
