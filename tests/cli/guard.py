"""A guard that runs as a process of its own, for the tests of ``serve``."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import CLUSTER

SECONDS = 20
"""How long a test waits before it gives up; nothing comes near it."""


class Guard:
    """A running server, its configuration file and its inventory, or the cluster it follows.

    Its stderr is a file, unless it is given a descriptor.
    """

    def __init__(
        self,
        folder: Path,
        *options: object,
        kubeconfig: Path | None = None,
        stderr: int | None = None,
        **environment: str,
    ) -> None:
        self.config = folder / "guard.yaml"
        self.config.write_text("", encoding="utf-8")
        self.inventory = folder / "inventory"
        shutil.copytree(CLUSTER, self.inventory, dirs_exist_ok=True)
        ports = folder / "ports.json"
        ports.unlink(missing_ok=True)
        words = ["serve", "--bind", "127.0.0.1", "--port", "0", "--ops-port", "0"]
        words += ["--config", str(self.config)]
        if kubeconfig is None:
            words += ["--inventory", str(self.inventory)]
        else:
            words += ["--kubeconfig", str(kubeconfig)]
        words += ["--certs-dir", str(folder / "certs"), "--ports-file", str(ports)]
        words += map(str, options)
        self.log = (folder / "log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "webhook.cli", *words],
            stderr=self.log if stderr is None else stderr,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self.until(ports.exists)
        found = json.loads(ports.read_text(encoding="utf-8"))
        self.port, self.ops_port = found["port"], found["opsPort"]
        self.tls = ssl.create_default_context(cafile=folder / "certs" / "ca.crt")

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, self.read_log()[-2000:]
            time.sleep(0.05)

    def read_log(self) -> str:
        return Path(self.log.name).read_text(encoding="utf-8")

    def ops(self, path: str) -> str:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.ops_port}{path}", timeout=SECONDS
        ) as r:
            text: str = r.read().decode()
            return text

    def migrate(self, namespace: str, name: str, user: str = "anna") -> Any:
        kind = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstanceMigration"}
        request = {
            "uid": "1",
            "kind": kind,
            "operation": "CREATE",
            "namespace": namespace,
            "userInfo": {"username": user},
            "object": {"metadata": {"generateName": "m-"}, "spec": {"vmiName": name}},
        }
        review = {
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": request,
        }
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.tls, timeout=SECONDS
        )
        headers = {"Content-Type": "application/json"}
        try:
            connection.request("POST", "/validate?timeout=2s", json.dumps(review), headers)
            return json.loads(connection.getresponse().read())["response"]
        finally:
            connection.close()

    def refused(self, user: str) -> str:
        """Have a migration refused; return the decision id that the user is given."""
        message: str = self.migrate("plant", "historian", user)["status"]["message"]
        return message.rsplit("Decision ", 1)[1].rstrip(".")

    def kill(self) -> None:
        """Kill all its processes, as a node that fails does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)
        self.log.close()

    def stop(self) -> None:
        """Stop it as Kubernetes does."""
        self.process.terminate()
        assert self.process.wait(SECONDS) == 0
        self.log.close()

    def allows(self) -> bool:
        return bool(self.migrate("plant", "historian")["allowed"])
