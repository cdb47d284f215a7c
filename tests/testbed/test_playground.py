"""`make playground`: a cluster to try things on, and nothing of it is left."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.bed import recipe

COMMAND = (sys.executable, "-m", "tests.testbed.bed.playground")
ENDS = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "playground"


@pytest.fixture
def playground(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, "--folder", folder],
        cwd=recipe.CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.terminate()
            running.wait(ENDS)


def printed_until(running: subprocess.Popen[str], last: str) -> str:
    assert running.stdout is not None
    said = ""
    for line in running.stdout:
        said += line
        if last in line:
            return said
    raise AssertionError(f"it ended by itself:\n{said}")


def after(words: str, said: str) -> str:
    """Return the word that follows in what was printed."""
    found = re.search(re.escape(words) + r"(\S+)", said)
    assert found is not None, words
    return found[1]


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of this machine that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found


def test_a_playground_refuses_what_it_says_and_ends_without_a_trace(
    playground: subprocess.Popen[str], folder: Path
) -> None:
    said = printed_until(playground, "ends it all")
    kubeconfig = after("export KUBECONFIG=", said)

    def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [recipe.binary(program), "--kubeconfig", kubeconfig, *words],
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("virtctl", "migrate", "web").returncode == 0
    refused = run("virtctl", "migrate", "database")
    assert refused.returncode == 1
    assert "no other node can take it" in refused.stderr
    made = run("kubectl", "apply", "-f", after("kubectl apply -f ", said))
    assert made.returncode == 0
    assert "Warning: " in made.stderr
    assert "Icelake-Server" in made.stderr
    with urllib.request.urlopen(after('curl "', said).rstrip('"')) as ready:
        assert ready.status == 200
    assert '"decision"' in Path(after("tail -f ", said)).read_text("utf-8")

    second = subprocess.run(
        [*COMMAND, "--folder", folder], cwd=recipe.CHECKOUT, capture_output=True, text=True
    )
    assert second.returncode == 1
    assert "one is running" in second.stderr

    stopped = subprocess.run(
        [*COMMAND, "stop", "--folder", folder], cwd=recipe.CHECKOUT, capture_output=True, text=True
    )
    assert stopped.stdout == "playground: stopped\n"
    assert playground.wait(ENDS) == 0
    assert processes_of(folder) == []


def test_a_playground_that_is_ended_while_it_starts_leaves_nothing(
    playground: subprocess.Popen[str], folder: Path
) -> None:
    printed_until(playground, "[1/3]")
    playground.terminate()
    assert playground.wait(ENDS) == 0
    assert processes_of(folder) == []


def test_stopping_where_none_runs_says_so(folder: Path) -> None:
    stopped = subprocess.run(
        [*COMMAND, "stop", "--folder", folder], cwd=recipe.CHECKOUT, capture_output=True, text=True
    )
    assert (stopped.returncode, stopped.stdout) == (0, "playground: none is running\n")
