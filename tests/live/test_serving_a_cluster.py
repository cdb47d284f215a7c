"""The real server and the commands on a live cluster, as an administrator runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.guard import Guard
from tests.cluster.objects import node, other, vmi
from tests.testbed.bed.api import path
from tests.testbed.bed.forwarder import Forwarder

MODEL = {"cpu-model.node.kubevirt.io/Penryn": "true"}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], Guard]]:
    started: list[Guard] = []

    def start(kubeconfig: Path) -> Guard:
        started.append(Guard(tmp_path, kubeconfig=kubeconfig))
        return started[-1]

    yield start
    for guard in started:
        guard.stop()


def with_a_vm(server):
    """Put a VM with a named model on one of two nodes; the other one lacks that model."""
    for name, marks in (("a", MODEL), ("b", {})):
        server.add_ready(node(name, marks))
    server.add(vmi("vm", node_name="a", cpu={"model": "Penryn"}, memory={"guest": "1Gi"}))


def ready(guard):
    try:
        return guard.ops("/readyz") == "ready\n"
    except urllib.error.HTTPError:
        return False


def readiness(guard):
    try:
        return guard.ops("/readyz?verbose")
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_the_server_answers_from_the_cluster_as_it_is_now(server, serve):
    with_a_vm(server)
    guard = serve(server.kubeconfig)
    guard.until(lambda: ready(guard))
    # Both nodes joined a moment ago: what they lack may yet come.
    told = guard.migrate("default", "vm")
    assert told["allowed"]
    assert "cpu-model.node.kubevirt.io/Penryn" in told["warnings"][0]
    server.remove(node("b"))
    guard.until(lambda: not guard.migrate("default", "vm")["allowed"])
    message = guard.migrate("default", "vm")["status"]["message"]
    assert "there is no other node" in message
    server.add_ready(node("c", MODEL))
    guard.until(lambda: guard.migrate("default", "vm").get("warnings", []) == [])
    metrics = guard.ops("/metrics")
    assert 'migration_guard_facts_objects{kind="nodes"} 2.0' in metrics
    assert 'migration_guard_facts_age_seconds{kind="nodes"}' in metrics


def test_it_is_not_ready_and_blind_until_all_was_read_and_then_stays_ready(
    server, forwarder, serve, tmp_path
):
    with_a_vm(server)
    forwarder.refuse(True)
    guard = serve(server.kubeconfig_through(forwarder.port, tmp_path))
    guard.until(lambda: "warning" in readiness(guard))
    assert not ready(guard)
    assert "nodes: not ready" in readiness(guard)
    told = guard.migrate("default", "vm")
    assert told["allowed"]
    assert "facts are missing or too old" in told["warnings"][0]
    assert 'migration_guard_facts_age_seconds{kind="nodes"} +Inf' in guard.ops("/metrics")
    forwarder.refuse(False)
    guard.until(lambda: ready(guard))
    guard.config.write_text("facts: {staleAfter: 2s}\n", encoding="utf-8")
    guard.until(lambda: "after only 2 s" in readiness(guard))
    forwarder.refuse(True)
    guard.until(lambda: "facts are missing" in str(guard.migrate("default", "vm")))
    assert ready(guard)
    guard.until(lambda: "without a sign of life for too long" in readiness(guard))
    guard.until(lambda: re.search("cannot be reached|broke off", guard.read_log()) is not None)


@pytest.fixture
def home(server):
    """Make the guard's namespace when it is called for; nobody here gives namespaces up."""
    where = path("v1", "namespaces")
    name = "migration-guard"

    yield lambda: server.api.create(where, {"metadata": {"name": name}})
    server.api.delete(path("coordination.k8s.io/v1", "leases", name))
    server.api.delete(f"{where}/{name}")
    if server.api.find(f"{where}/{name}"):
        given_up = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        server.api.replace(f"{where}/{name}/finalize", {**given_up, "spec": {"finalizers": []}})


def test_deadlines_are_enforced_by_the_server_that_has_the_lease(server, serve, home):
    with_a_vm(server)
    one = serve(server.kubeconfig)
    one.until(lambda: ready(one))
    # Nothing was installed here: there is no place for a lease.
    one.until(lambda: 'namespaces "migration-guard" not found' in readiness(one))
    assert ready(one)
    home()
    one.until(lambda: "(deadlines are enforced here; 0 run)" in readiness(one))
    assert "migration_guard_leader 1.0" in one.ops("/metrics")
    assert one.read_log().count("migrations: no lease: ") == 1


def test_a_server_that_stops_gives_the_lease_back(server, serve, home):
    home()
    guard = serve(server.kubeconfig)
    guard.until(lambda: "deadlines are enforced here" in readiness(guard))
    lease = path("coordination.k8s.io/v1", "leases", "migration-guard", "migration-guard")
    assert server.api.get(lease)["spec"]["holderIdentity"]
    guard.process.terminate()
    guard.process.wait(20)
    assert server.api.get(lease)["spec"]["holderIdentity"] == ""


def test_a_server_told_not_to_enforces_no_deadline(server, tmp_path):
    guard = Guard(tmp_path, "--no-deadlines", kubeconfig=server.kubeconfig)
    try:
        guard.until(lambda: ready(guard))
        assert "migrations: " not in readiness(guard).replace("instancemigrations: ", "")
    finally:
        guard.stop()


def test_a_server_whose_account_may_not_read_names_what_it_lacks(server, serve):
    guard = serve(server.plane.credentials("stranger"))
    guard.until(lambda: 'cannot watch resource "nodes"' in readiness(guard))
    assert not ready(guard)
    guard.until(lambda: "facts: nodes: " in guard.read_log())
    assert guard.read_log().count("facts: nodes: ") == 1


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "webhook.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def inventory(server, folder):
    """Write what kubectl prints of the cluster."""
    listed = [
        obj | {"apiVersion": version, "kind": kind}
        for version, kind, where in (
            ("v1", "Node", "/api/v1/nodes"),
            ("kubevirt.io/v1", "KubeVirt", "/apis/kubevirt.io/v1/kubevirts"),
            (
                "kubevirt.io/v1",
                "VirtualMachineInstance",
                "/apis/kubevirt.io/v1/virtualmachineinstances",
            ),
        )
        for obj in server.api.items(where)
    ]
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(listed), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "words",
    [("forecast",), ("candidates", "default/vm"), ("baseline",)],
    ids=lambda words: words[0],
)
def test_a_command_says_of_a_cluster_what_it_says_of_its_inventory(server, tmp_path, words):
    with_a_vm(server)
    server.add(
        other(
            "kubevirt.io/v1",
            "KubeVirt",
            "kubevirt",
            "default",
            status={"observedKubeVirtVersion": "v1.8.4"},
        )
    )
    live = run(*words, "--kubeconfig", server.kubeconfig, "-o", "json")
    told = run(*words, "--inventory", inventory(server, tmp_path), "-o", "json")
    assert live.stderr == ""
    assert json.loads(live.stdout) == json.loads(told.stdout)
    assert live.returncode == told.returncode


def test_a_manifest_is_reviewed_against_the_cluster(server, tmp_path):
    with_a_vm(server)
    manifest = tmp_path / "migration.yaml"
    migration = other(
        "kubevirt.io/v1",
        "VirtualMachineInstanceMigration",
        "m",
        "default",
        spec={"vmiName": "vm"},
    )
    manifest.write_text(yaml.safe_dump(migration), encoding="utf-8")
    ran = run("review", "-f", manifest, "--kubeconfig", server.kubeconfig, "-o", "json")
    (item,) = json.loads(ran.stdout)["items"]
    assert (ran.returncode, item["allowed"]) == (1, False)
    assert "cpu-model.node.kubevirt.io/Penryn" in item["message"]


def test_a_person_without_rights_is_told_each_kind_that_is_missing(server):
    ran = run("forecast", "--kubeconfig", server.plane.credentials("guest"), "-o", "json")
    assert ran.returncode == 2
    named = {error["document"] for error in json.loads(ran.stdout)["errors"]}
    assert {"nodes", "pods", "virtualmachineinstances"} <= named
    # Without rights on nodes the baseline says so; of the rest it reads nothing.
    ran = run("baseline", "--kubeconfig", server.plane.credentials("guest"), "-o", "json")
    assert [error["document"] for error in json.loads(ran.stdout)["errors"]] == ["nodes"]


def test_a_cluster_that_cannot_be_reached_is_one_line(server, tmp_path):
    forwarder = Forwarder(server.plane.address, [])
    ran = run("forecast", "--kubeconfig", server.kubeconfig_through(forwarder.port, tmp_path))
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "cannot be reached: connection refused" in ran.stderr
