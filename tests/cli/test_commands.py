"""candidates, forecast, baseline, check-config, schema, completion."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CLUSTER, DEMO, Run

WORKED = ("--inventory", DEMO / "worked_example" / "nodes", "--inventory")
AS_FOUND = (*WORKED, DEMO / "worked_example" / "as_found")
Write = Callable[[str, str], Path]


def test_candidates_says_of_every_node_whether_it_fits_and_why_not(checked: Run) -> None:
    ran = checked("candidates", "shop/web", "--inventory", CLUSTER)
    nodes = {node["name"]: node for node in ran.json["nodes"]}
    assert ran.status == 0
    assert (ran.json["source"], ran.json["cpuModel"]) == ("rome-1", "host-model")
    assert len(nodes) == 8
    assert nodes["milan-1"] == {"name": "milan-1", "fits": True, "obstacles": []}
    assert nodes["milan-2"]["obstacles"][0]["code"] == "cordoned"
    vendor = nodes["icelake-1"]["obstacles"][0]
    assert (vendor["code"], vendor["kind"], vendor["origin"]) == (
        "cpu-vendor",
        "lasting",
        "source-cpu",
    )
    assert vendor["missing"] == ["cpu-vendor.node.kubevirt.io/AMD"]


def test_candidates_exits_with_1_where_there_is_nowhere_to_go(checked: Run) -> None:
    assert checked("candidates", "default/vm-1", *AS_FOUND).status == 1


def test_candidates_of_a_stopped_vm_judges_a_start(checked: Run) -> None:
    ran = checked("candidates", "lab/build", "--inventory", CLUSTER)
    assert ran.json["source"] is None
    assert "same-node" not in ran.out


def test_candidates_of_a_stopped_vm_counts_with_the_model_that_the_guard_would_set(
    checked: Run, write: Write
) -> None:
    config = write("guard.yaml", "cpuModel: {default: Cascadelake-Server}\n")
    before = checked("candidates", "lab/build", "--inventory", CLUSTER).json
    ran = checked("candidates", "lab/build", "--inventory", CLUSTER, "--config", config)
    assert (before["cpuModel"], before["cpuModelSource"]) == ("host-model", "default")
    assert (ran.json["cpuModel"], ran.json["cpuModelSource"]) == ("Cascadelake-Server", "cluster")


def test_candidates_of_nobody_is_an_error_that_names_the_inventory(run: Run) -> None:
    ran = run("candidates", "shop/nobody", "--inventory", CLUSTER)
    assert ran.status == 2
    assert "no VM shop/nobody" in ran.err


def test_forecast_tells_what_can_move_and_which_node_can_be_drained(checked: Run) -> None:
    ran = checked("forecast", "--inventory", CLUSTER)
    verdicts = {vm["vm"]: vm["verdict"] for vm in ran.json["vms"]}
    assert verdicts["plant/historian"] == "stuck"
    assert verdicts["shop/cache"] == "waiting"
    assert verdicts["shop/web"] == "one-node"
    assert verdicts["shop/database"] == "movable"
    nodes = {node["name"]: node for node in ran.json["nodes"]}
    assert nodes["cascade-1"]["drainable"] is True
    assert nodes["icelake-1"] == {
        "name": "icelake-1",
        "drainable": False,
        "staying": ["plant/historian"],
    }
    assert ran.status == 1


def test_forecast_of_a_drain_counts_the_drained_nodes_out(checked: Run) -> None:
    ran = checked("forecast", "--inventory", CLUSTER, "--drain", "milan-1")
    web = next(vm for vm in ran.json["vms"] if vm["vm"] == "shop/web")
    assert web["targets"] == []


def test_forecast_of_an_unknown_node_is_an_error(run: Run) -> None:
    ran = run("forecast", "--inventory", CLUSTER, "--drain", "nowhere")
    assert ran.status == 2
    assert "nowhere" in ran.err


def test_forecast_of_a_cpu_model_tells_what_would_change(checked: Run) -> None:
    ran = checked("forecast", *AS_FOUND, "--cpu-model", "123")
    (change,) = ran.json["changes"]
    assert (change["vm"], change["verdictBefore"], change["verdictAfter"]) == (
        "default/vm-1",
        "stuck",
        "one-node",
    )


def test_forecast_of_a_joining_node_tells_who_gains_a_target(checked: Run) -> None:
    twin = CLUSTER / "nodes" / "icelake-1.yaml"
    text = twin.read_text(encoding="utf-8").replace("icelake-1", "icelake-2")
    assert "icelake-2" in text
    added = DEMO.parent.parent / ".cache" / "icelake-2.yaml"
    added.parent.mkdir(exist_ok=True)
    added.write_text(text, encoding="utf-8")
    try:
        ran = checked("forecast", "--inventory", CLUSTER, "--add-node", added)
    finally:
        added.unlink()
    gains = {c["vm"]: c["newTargets"] for c in ran.json["changes"] if "newTargets" in c}
    assert gains["plant/historian"] == ["icelake-2"]


def test_baseline_marks_the_newest_model_that_all_nodes_can_run(checked: Run) -> None:
    ran = checked("baseline", "--inventory", CLUSTER)
    assert ran.status == 0
    assert ran.json["common"] == ["SandyBridge"]
    shares = {m["model"]: m["nodeShare"] for m in ran.json["models"]}
    assert shares["SandyBridge"] == 1
    groups = {g["hostModel"]: g["canReceiveFrom"] for g in ran.json["hostModelGroups"]}
    assert "EPYC-Rome" in groups["EPYC-Milan"]


def test_baseline_without_nodes_exits_with_1_or_2_and_says_why(run: Run, write: Write) -> None:
    ran = run("baseline", "--inventory", write("empty.yaml", ""))
    assert ran.status == 1


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
@pytest.mark.parametrize(
    "command", [("baseline",), ("forecast",), ("candidates", "shop/web")], ids=lambda c: c[0]
)
def test_every_output_has_three_forms(run: Run, command: tuple[str, ...], form: str) -> None:
    ran = run(*command, "--inventory", CLUSTER, "-o", form)
    assert ran.status in (0, 1)
    assert ran.out.strip()
    assert "\x1b" not in ran.out


def test_check_config_accepts_a_sound_file(checked: Run, write: Write) -> None:
    ran = checked("check-config", write("ok.yaml", "maxMode: audit\n"))
    assert (ran.status, ran.json["valid"]) == (0, True)


def test_check_config_names_a_misspelt_key_and_the_nearest(checked: Run, write: Write) -> None:
    ran = checked("check-config", write("bad.yaml", "maxmode: audit\n"))
    assert (ran.status, ran.json["valid"]) == (2, False)
    (finding,) = ran.json["findings"]
    assert (finding["level"], finding["path"]) == ("error", "maxmode")
    assert "did you mean `maxMode`" in finding["message"]


def test_check_config_compares_the_deadline_with_kubevirts(checked: Run, write: Write) -> None:
    ran = checked("check-config", write("c.yaml", ""), "--inventory", CLUSTER)
    assert any("KubeVirt itself aborts after 1350 s" in f["message"] for f in ran.json["findings"])


def test_the_configurations_schema_is_printed_too(run: Run) -> None:
    assert run("schema", "configuration").json["additionalProperties"] is False


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(run: Run, shell: str) -> None:
    assert "migration-guard" in run("completion", shell).out


@pytest.mark.parametrize("argv", [(), ("nonsense",), ("candidates",), ("review",)])
def test_wrong_usage_exits_with_2(argv: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "webhook.cli", *argv], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "usage" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "command", ["review", "candidates", "forecast", "baseline", "serve", "check-config", "schema"]
)
def test_help_shows_examples(command: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "webhook.cli", command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0
    assert "example" in ran.stdout


def test_without_an_inventory_the_way_out_is_named(run: Run) -> None:
    ran = run("baseline")
    assert ran.status == 2
    assert "--inventory" in ran.err
    assert "kubectl get" in ran.err


def test_a_path_that_is_not_there_is_named(run: Run) -> None:
    ran = run("baseline", "--inventory", "/no/such/file")
    assert ran.status == 2
    assert "/no/such/file" in ran.err
