"""The command line, driven as a person drives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from webhook.cli.main import main

DEMO = Path(__file__).parents[2] / "webhook" / "demo"
CLUSTER = DEMO / "inventory"


@dataclass
class Ran:
    """What a command left: its exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def no_cluster_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from asking the cluster of whoever runs them."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*argv: object) -> Ran:
        status = main([str(word) for word in argv])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Ran(status, printed.out, printed.err)

    return command


@pytest.fixture
def checked(run: Run) -> Run:
    """Run a command with ``-o json`` and hold its output against its published schema."""

    def command(name: str, *argv: object) -> Ran:
        schema = run("schema", name).json
        jsonschema.Draft202012Validator.check_schema(schema)
        ran = run(name, *argv, "-o", "json")
        jsonschema.validate(ran.json, schema)
        return ran

    return command


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def to_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to_file
