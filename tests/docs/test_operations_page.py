"""docs/operations.md names everything that the operations port can show."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import pytest

from tests.cli.conftest import CLUSTER
from webhook.audit.event_recorder import Dropped
from webhook.cli.commands.serve import build
from webhook.cli.loading import FactsPlace
from webhook.cli.served_installation import PART as INSTALLATION
from webhook.review.decision import Blind
from webhook.serving.clients import Reason
from webhook.serving.connection import Ending
from webhook.serving.in_flight import Shed
from webhook.serving.key_pair import KeyPair
from webhook.serving.log_writer import LineKind
from webhook.serving.metrics import Metrics, Miss
from webhook.serving.readiness import REVIEWS
from webhook.serving.served_certificate import CLIENTS_PART
from webhook.serving.served_certificate import PART as CERTIFICATE

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_metric_has_a_row() -> None:
    helps = [line.split()[2] for line in Metrics().render().decode().splitlines() if "HELP" in line]
    own = [n for n in helps if n.startswith("migration_guard_") and not n.endswith("_created")]
    missing = [name for name in own if f"\n| `{name}" not in PAGE]
    assert own
    assert not missing


@pytest.mark.parametrize("value", [*Miss, *Blind, *Shed, *Ending, *Reason, *Dropped, *LineKind])
def test_every_value_of_a_label_is_named(value: StrEnum) -> None:
    assert f"`{value.value}`" in PAGE


def no_certificate() -> KeyPair:
    raise AssertionError("facts from files need none")


def test_every_part_of_readiness_has_a_row() -> None:
    board = build(None, FactsPlace((CLUSTER,)), no_certificate).readiness
    parts = {line.partition(":")[0] for line in board.lines()}
    parts |= {INSTALLATION, CERTIFICATE, CLIENTS_PART, REVIEWS}
    missing = sorted(part for part in parts if f"\n| `{part}` |" not in PAGE)
    assert not missing
