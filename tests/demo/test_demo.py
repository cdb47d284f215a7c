"""``python -m webhook.demo``, as `make demo` runs it, and what it does when a server misbehaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from webhook.cli.exit_status import PIPE_CLOSED
from webhook.cli.printing import Screen
from webhook.demo import sample
from webhook.demo.asking import VIRTCTL, Request
from webhook.demo.errors import DemoError
from webhook.demo.program import Server
from webhook.demo.stage import Stage
from webhook.demo.worked_example_story import AS_FOUND, NODES, VM

CHECKOUT = Path(__file__).parents[2]
SECONDS = 60
"""How long a test waits before it gives up; nothing comes near it."""

# A block of the output: a request, then what came of it.
BLOCK = re.compile(r"^  > (?P<request>.+)\n(?P<outcome>(?:    .+\n)+)", re.MULTILINE)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.fixture(scope="module")
def played() -> subprocess.CompletedProcess[str]:
    return run("-m", "webhook.demo")


@pytest.fixture(scope="module")
def outcomes(played) -> list[tuple[str, str]]:
    return [(found["request"], found["outcome"]) for found in BLOCK.finditer(played.stdout)]


def outcome_of(outcomes: list[tuple[str, str]], request: str, number: int = 0) -> str:
    found = [outcome for asked, outcome in outcomes if asked.startswith(request)]
    assert len(found) > number, f"no request {request} in {outcomes}"
    return found[number]


def test_the_demo_ends_well_and_says_which_kubevirt_it_plays(played):
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stderr == ""
    assert "KubeVirt v1.8.4" in played.stdout.splitlines()[0]


def test_a_demo_that_is_not_on_a_terminal_is_plain(played):
    assert "\x1b" not in played.stdout


def test_a_vm_without_a_model_gets_the_default_and_its_annotations(outcomes):
    told = outcome_of(outcomes, "CREATE VirtualMachineInstance default/vm-1")
    assert "changed  spec.domain.cpu.model: host-model\n" in told
    assert "changed  migration-guard.io/cpu-model-source: default\n" in told


def test_the_host_model_vm_is_refused_with_both_ways_out(outcomes):
    told = outcome_of(outcomes, "CREATE VirtualMachineInstanceMigration default/vm-1")
    assert told.startswith("    refused  ")
    assert "node-b lacks cpu-model-migration.node.kubevirt.io/XYZ" in told
    assert 'here "123" (2 of 2 nodes), at cluster level' in told
    assert "or in the VM (spec.template.spec.domain.cpu.model), and restart the VM" in told


@pytest.mark.parametrize(("number", "source"), [(1, "cluster"), (2, "vm")])
def test_both_ways_out_let_it_move_in_6400_seconds(outcomes, number, source):
    started = outcome_of(outcomes, "CREATE VirtualMachineInstance default/vm-1", number)
    migration = outcome_of(outcomes, "CREATE VirtualMachineInstanceMigration default/vm-1", number)
    assert f"migration-guard.io/cpu-model-source: {source}\n" in started
    assert "migration-guard.io/completion-timeout: 6400s" in migration
    assert migration.endswith("    allowed\n")


def test_the_selectors_of_the_target_pod_are_shown(outcomes):
    told = outcome_of(outcomes, "CREATE Pod default/virt-launcher-vm-1")
    assert told.endswith(
        "the pod demands of its node: "
        "cpu-model.node.kubevirt.io/123, cpu-vendor.node.kubevirt.io/Intel\n"
    )


@pytest.mark.parametrize(
    ("request_line", "word", "text"),
    [
        ("CREATE VirtualMachineInstanceMigration plant/historian", "refused", "icelake-1"),
        ("CREATE VirtualMachineInstanceMigration shop/gateway", "refused", "haswell-2 lacks"),
        ("CREATE VirtualMachineInstanceMigration shop/cache", "warned", "milan-2 is cordoned"),
        ("CREATE VirtualMachineInstanceMigration lab/simulation", "warned", "is a risk"),
        ("CREATE VirtualMachineInstanceMigration plant/control", "changed", "addedNodeSelector"),
        ("CREATE Pod plant/virt-launcher-control", "changed", "Cascadelake-Server-noTSX"),
        ("UPDATE VirtualMachine lab/build", "warned", "usable on no node"),
        ("UPDATE KubeVirt harvester-system/kubevirt", "refused", "SapphireRapids"),
    ],
)
def test_the_larger_cluster_shows(outcomes, request_line, word, text):
    told = outcome_of(outcomes, request_line)
    assert told.startswith(f"    {word:<9}")
    assert text in told


def test_a_guest_that_migrated_before_goes_where_its_remembered_selectors_fit(outcomes):
    request = "CREATE VirtualMachineInstanceMigration plant/archive"
    assert outcome_of(outcomes, request).endswith("    allowed\n")
    assert "remembered from an earlier migration" in outcome_of(outcomes, request, 1)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("candidates shop/gateway", "haswell-2"),
        ("forecast --drain icelake-1", "plant/historian"),
        ("baseline", "Haswell-noTSX-IBRS"),
    ],
)
def test_the_commands_print_their_tables(played, command, line):
    _, _, after = played.stdout.partition(f"$ migration-guard {command} --inventory ")
    table, _, _ = after.partition("\n$ ")
    assert any(row.startswith(line) for row in table.splitlines()[1:])


def test_it_says_where_to_look_next(played):
    last = played.stdout.splitlines()[-1]
    for page in re.findall(r"[\w/]+\.md", last):
        assert (CHECKOUT / page).is_file(), page
    assert "README.md" in last


def test_a_server_that_does_not_answer_as_told_ends_the_demo_with_a_clear_line():
    done = run(
        "-c",
        "import sys; from webhook.demo import asking, __main__ as demo; "
        "sys.argv[1:] = []; asking.MUTATE = '/nowhere'; sys.exit(demo.main())",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("migration-guard: demo failed: POST /nowhere: HTTP 404")
    assert done.stderr.count("\n") == 1


def test_a_demo_that_is_ended_stops_its_server():
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "webhook.demo"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith("  > "):
            assert demo.poll() is None
        children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text("utf-8").split()
        demo.terminate()
        assert demo.wait(SECONDS) == 128 + signal.SIGTERM
    assert children
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_reader_that_goes_away_ends_the_demo_quietly():
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "webhook.demo"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.stderr.read() == ""
        assert demo.wait(SECONDS) == PIPE_CLOSED


def test_a_server_that_cannot_start_is_an_error_that_says_why(tmp_path):
    with pytest.raises(DemoError, match="no such file or folder"), Server(tmp_path / "absent"):
        pass


def test_an_answer_other_than_the_story_tells_is_an_error_and_the_server_is_stopped(capsys):
    request = Request(sample.migration("default", VM), VIRTCTL)
    wanted = r"default/vm-1-\* by kubevirt-apiserver: expected allowed, and it was refused"
    with Server(NODES, AS_FOUND) as server:
        pid = server.pid
        stage = Stage(Screen())
        with pytest.raises(DemoError, match=wanted):
            stage.ask(server, request, "allowed")
        with pytest.raises(DemoError, match='does not say "because"'):
            stage.ask(server, request, "refused", says=["because"])
        with pytest.raises(DemoError, match="expected cpu-model: 123, and it is None"):
            stage.ask(server, request, "refused", sets={"cpu-model": "123"})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
