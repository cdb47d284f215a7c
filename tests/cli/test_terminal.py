"""What is printed where: terminals, pipes, colour, progress."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import CLUSTER
from webhook.cli import progress as progress_module
from webhook.cli.main import PLUGIN, program_name
from webhook.cli.printing import Screen, Styled
from webhook.cli.progress import Progress

ROWS = [("node-1", Styled("no", "red"), "lacks cpu-model.node.kubevirt.io/Skylake-Server")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_a_table_on_a_terminal_has_colour_and_fits_its_width(terminal: Terminal) -> None:
    Screen(terminal).table(("NODE", "FITS", "WHY"), ROWS)
    assert "\x1b[31mno" in terminal.getvalue()


def test_no_color_keeps_a_terminal_without_colour(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(terminal).table(("NODE", "FITS", "WHY"), ROWS)
    assert "\x1b[31m" not in terminal.getvalue()


def test_no_line_is_wider_than_the_terminal(terminal: Terminal) -> None:
    Screen(terminal).table(("NODE", "FITS", "WHY"), ROWS)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 40


def test_elsewhere_a_table_is_plain_and_a_row_is_one_line() -> None:
    file = io.StringIO()
    Screen(file).table(("NODE", "FITS", "WHY"), ROWS)
    assert file.getvalue().splitlines() == [
        "NODE    FITS  WHY",
        "node-1  no    lacks cpu-model.node.kubevirt.io/Skylake-Server",
    ]


def test_text_of_an_object_cannot_steer_the_terminal(terminal: Terminal) -> None:
    Screen(terminal).line("name \x1b]0;title\x07 [bold]x[/bold]")
    assert "\x1b]0" not in terminal.getvalue()
    assert "[bold]x[/bold]" in terminal.getvalue()


def test_short_work_shows_no_progress() -> None:
    file = io.StringIO()
    with Progress("reading a file", stream=file):
        pass
    assert file.getvalue() == ""


def test_long_work_says_in_plain_lines_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "QUIET_SECONDS", 0.0)

    class Waiting(io.StringIO):
        def write(self, text: str) -> int:
            length = super().write(text)
            said.set()
            return length

    said = threading.Event()
    file = Waiting()
    with Progress("reading a file", stream=file) as progress:
        progress.update(1200)
        assert said.wait(20)
    assert file.getvalue().startswith("migration-guard: reading a file: ")
    assert "\x1b" not in file.getvalue()
    assert progress.line().startswith("migration-guard: reading a file: 1,200 objects, ")


def test_as_a_plugin_of_kubectl_the_program_is_named_as_it_is_typed() -> None:
    assert program_name(f"/usr/bin/{PLUGIN}") == "kubectl migration_guard"
    assert program_name("/usr/bin/migration-guard") == "migration-guard"


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "webhook.cli", "forecast", "--inventory", str(CLUSTER)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 141
    assert errors == b""
