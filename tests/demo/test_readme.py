"""README.md and docs/architecture.md say what is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from webhook.cli.main import build_parser
from webhook.demo import sample
from webhook.demo.asking import VIRTCTL, Request, ask
from webhook.demo.program import Server
from webhook.demo.worked_example_story import AS_FOUND, NODES, VM

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
DECISION = re.compile(r"Decision [0-9a-f-]{36}\.")


def test_the_first_screen_names_both_commands_and_the_debian_packages():
    first = README.partition("\n## ")[0]
    assert len(first.splitlines()) <= 25
    for text in ("make demo", "make test", "`git`, `make` and `python3-venv`"):
        assert text in first


def test_the_refusal_in_the_readme_is_what_the_server_says():
    (quoted,) = re.findall(r"^> (.+)$", README, re.MULTILINE)
    with Server(NODES, AS_FOUND) as server:
        said = ask(server, Request(sample.migration("default", VM), VIRTCTL)).message
    assert DECISION.sub("", quoted) == DECISION.sub("", said)
    assert DECISION.search(quoted)


@pytest.mark.parametrize("line", re.findall(r"`(migration-guard [^`…]+)`", README))
def test_every_command_line_of_the_readme_is_one(line):
    build_parser().parse_args(shlex.split(line)[1:])


def test_every_command_has_a_line_in_the_readme():
    commands = re.findall(r"^\| `([a-z-]+)` \|", README, re.MULTILINE)
    assert {*commands, "serve"} == set(command_names())


def command_names() -> list[str]:
    actions = [a for a in build_parser()._actions if a.dest == "command"]
    return list(actions[0].choices or ())


@pytest.mark.parametrize("page", [README, ARCHITECTURE], ids=["README", "architecture"])
def test_every_link_leads_to_a_file(page):
    folder = CHECKOUT if page is README else CHECKOUT / "docs"
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        assert (folder / target).exists(), target


def test_every_file_that_the_architecture_names_is_there():
    for file in re.findall(r"`(webhook/[\w/]+\.py)`", ARCHITECTURE):
        assert (CHECKOUT / file).is_file(), file


def test_every_layer_is_in_the_architecture():
    for package in sorted((CHECKOUT / "webhook").glob("*/__init__.py")):
        assert f"| `webhook/{package.parent.name}/` |" in ARCHITECTURE
