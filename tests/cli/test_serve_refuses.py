"""serve: what keeps it from starting is told before a port is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import CLUSTER, Run

Write = Callable[[str, str], Path]


def test_a_server_without_cluster_and_inventory_does_not_start(run: Run) -> None:
    ran = run("serve")
    assert ran.status == 2
    assert "--kubeconfig FILE" in ran.err
    assert "--inventory PATH" in ran.err


def test_a_server_takes_its_facts_from_one_place(run: Run) -> None:
    ran = run("serve", "--inventory", CLUSTER, "--context", "production")
    assert ran.status == 2
    assert "--inventory and --context" in ran.err


def test_a_server_with_a_broken_configuration_names_the_setting(run: Run, write: Write) -> None:
    path = write("guard.yaml", "maxMode: sometimes\n")
    ran = run("serve", "--inventory", CLUSTER, "--config", path)
    assert ran.status == 2
    assert "maxMode" in ran.err


def test_a_server_does_not_read_stdin(run: Run) -> None:
    assert run("serve", "--inventory", "-").status == 2
