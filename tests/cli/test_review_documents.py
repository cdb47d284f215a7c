"""What review makes of documents that are odd or broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CLUSTER, Run

Write = Callable[[str, str], Path]
ODD = """\
apiVersion: admission.k8s.io/v1
kind: AdmissionReview
---
apiVersion: v1
kind: [x]
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata: {generateName: m-, namespace: shop}
spec: {vmiName: database}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: x}
spec: {domain: 3}
"""
VMI = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: database, namespace: shop}
spec: {domain: {memory: {guest: 1Gi}}}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata: {name: m, namespace: shop}
spec: {vmiName: database}
"""


def test_each_broken_document_is_one_error_in_order_and_names_the_field(
    checked: Run, write: Write
) -> None:
    path = write("odd.yaml", ODD)
    ran = checked("review", "-f", path, "--inventory", CLUSTER)
    errors = ran.json["errors"]
    assert ran.status == 2
    assert [error["document"] for error in errors] == [f"{path}#{i}" for i in (0, 1, 3)]
    assert "request" in errors[0]["message"]
    assert "kind" in errors[1]["message"]
    assert "domain" in errors[2]["message"]
    assert [item["document"] for item in ran.json["items"]] == [f"{path}#2"]


def test_a_manifest_without_status_does_not_stand_for_the_vmi_that_runs(
    checked: Run, write: Write
) -> None:
    ran = checked("review", "-f", write("both.yaml", VMI), "--inventory", CLUSTER)
    migration = ran.json["items"][1]
    assert migration["outcome"] == "changed"
    assert any(o["code"] == "same-node" for n in migration["nodes"] for o in n["obstacles"])


def test_a_file_that_holds_nothing_is_an_error(run: Run, write: Write) -> None:
    path = write("empty.yaml", "")
    ran = run("review", "-f", path, "--inventory", CLUSTER)
    assert ran.status == 2
    assert str(path) in ran.err


def test_a_missing_file_is_named_and_the_others_are_reviewed(checked: Run, write: Write) -> None:
    path = write("both.yaml", VMI)
    ran = checked("review", "-f", "/no/such.yaml", path, "--inventory", CLUSTER)
    assert ran.status == 2
    assert ran.json["errors"][0]["document"] == "/no/such.yaml"
    assert len(ran.json["items"]) == 2


def test_delete_is_allowed_untouched(checked: Run, write: Write) -> None:
    path = write("both.yaml", VMI)
    ran = checked("review", "-f", path, "--operation", "DELETE", "--inventory", CLUSTER)
    assert ran.status == 0
    assert {item["outcome"] for item in ran.json["items"]} == {"not-reviewed"}


@pytest.mark.parametrize("time", ["yesterday", "2026-03-01T12:00:00", "12:00Z"])
def test_a_time_that_is_not_rfc_3339_is_refused(
    time: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    from webhook.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["review", "-f", str(write("v.yaml", VMI)), "--now", time])
    assert ended.value.code == 2
    assert "RFC 3339" in capsys.readouterr().err


def test_two_readers_of_stdin_are_refused(run: Run) -> None:
    ran = run("review", "-f", "-", "--inventory", "-")
    assert ran.status == 2
    assert "stdin" in ran.err


def test_an_override_counts_for_a_group_that_is_entitled(checked: Run, write: Write) -> None:
    path = write(
        "m.yaml",
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstanceMigration\n"
        "metadata:\n  {name: m, namespace: plant, "
        "annotations: {migration-guard.io/override: known risk}}\n"
        "spec: {vmiName: historian}\n",
    )
    words = ("review", "-f", path, "--inventory", CLUSTER, "--as", "anna")
    assert checked(*words).json["items"][0]["outcome"] == "refused"
    ran = checked(*words, "--as-group", "system:masters")
    assert (ran.status, ran.json["items"][0]["outcome"]) == (0, "overridden")
