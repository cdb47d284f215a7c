"""serve: the real server, started as an administrator starts it."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CLUSTER

SECONDS = 20
"""How long a test waits before it gives up; nothing comes near it."""
AUDIT = "maxMode: audit\n"


class Guard:
    """A running server, its configuration file and its inventory."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "guard.yaml"
        self.config.write_text("", encoding="utf-8")
        self.inventory = folder / "inventory"
        shutil.copytree(CLUSTER, self.inventory)
        ports = folder / "ports.json"
        words = ["serve", "--bind", "127.0.0.1", "--port", "0", "--ops-port", "0"]
        words += ["--config", str(self.config), "--inventory", str(self.inventory)]
        words += ["--certs-dir", str(folder / "certs"), "--ports-file", str(ports)]
        self.log = (folder / "log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "webhook.cli", *words], stderr=self.log
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

    def migrate(self, namespace: str, name: str) -> Any:
        kind = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstanceMigration"}
        request = {
            "uid": "1",
            "kind": kind,
            "operation": "CREATE",
            "namespace": namespace,
            "userInfo": {"username": "anna"},
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

    def allows(self) -> bool:
        return bool(self.migrate("plant", "historian")["allowed"])


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    running = Guard(tmp_path)
    try:
        yield running
    finally:
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        running.log.close()


def test_a_refusal_is_answered_logged_and_counted_under_one_id(guard: Guard) -> None:
    message = guard.migrate("plant", "historian")["status"]["message"]
    decision = message.rsplit("Decision ", 1)[1].rstrip(".")
    guard.until(lambda: decision in guard.read_log())
    line = next(text for text in guard.read_log().splitlines() if decision in text)
    kept = json.loads(line)
    assert (kept["outcome"], kept["user"], kept["namespace"]) == ("refused", "anna", "plant")
    counted = 'migration_guard_decisions_total{mode="enforce",outcome="refused"'
    assert counted in guard.ops("/metrics")


def test_a_changed_configuration_is_taken_up_and_a_broken_one_keeps_the_old(guard: Guard) -> None:
    assert not guard.allows()
    guard.config.write_text(AUDIT, encoding="utf-8")
    guard.until(guard.allows)
    guard.config.write_text("maxmode: enforce\n", encoding="utf-8")
    guard.until(lambda: "the old one holds" in guard.ops("/readyz?verbose"))
    assert guard.allows()
    assert "did you mean `maxMode`" in guard.ops("/readyz?verbose")
    assert 'migration_guard_file_taken_up{file="configuration"} 0.0' in guard.ops("/metrics")
    assert "the old one holds" in guard.read_log()
    guard.config.write_text("", encoding="utf-8")
    guard.until(lambda: not guard.allows())
    assert 'migration_guard_file_taken_up{file="configuration"} 1.0' in guard.ops("/metrics")


def test_a_changed_inventory_is_taken_up_and_a_broken_one_keeps_the_old(guard: Guard) -> None:
    node = guard.inventory / "nodes" / "icelake-1.yaml"
    twin = node.with_name("icelake-2.yaml")
    whole = node.read_text(encoding="utf-8").replace("icelake-1", "icelake-2")
    twin.write_text(whole, encoding="utf-8")
    guard.until(guard.allows)
    twin.write_text("kind: [", encoding="utf-8")
    guard.until(lambda: "the old one holds" in guard.ops("/readyz?verbose"))
    assert guard.allows()
    twin.unlink()
    guard.until(lambda: not guard.allows())


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--config", "maxmode: x", "did you mean"), ("--inventory", None, "no such file")],
)
def test_what_cannot_start_says_so_in_a_line_and_exits_with_2(
    tmp_path: Path, option: str, value: str | None, says: str
) -> None:
    path = tmp_path / "given"
    if value is not None:
        path.write_text(value, encoding="utf-8")
    words = ["serve", "--inventory", str(CLUSTER), "--port", "0", "--ops-port", "0"]
    ran = subprocess.run(
        [sys.executable, "-m", "webhook.cli", *words, option, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ran.returncode == 2
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
