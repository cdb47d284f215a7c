"""docs/audit.md names everything that an administrator can meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from webhook.audit import schema
from webhook.audit.database import VERSION_TABLE
from webhook.audit.importance import Importance
from webhook.audit.keeper import AuditStatus
from webhook.audit.loss import Reason
from webhook.audit.shipping import ShippingStatus
from webhook.audit.spool import SpoolStatus
from webhook.cli.main import build_parser
from webhook.serving.audit_metrics import AuditCollector

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_a_loss_has_a_row(reason: Reason) -> None:
    assert f"\n| `{reason.value}` |" in PAGE


@pytest.mark.parametrize("importance", Importance)
def test_every_importance_is_named(importance: Importance) -> None:
    assert f"`{importance.name.lower()}`" in PAGE


def test_every_metric_has_a_row() -> None:
    nothing = AuditStatus(SpoolStatus(0, 0, {}, {}, None), ShippingStatus(0, "", None, 0.0))
    for metric in AuditCollector(lambda: nothing).collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        assert f"\n| `{name}" in PAGE


def test_every_table_has_a_row() -> None:
    for name in (*schema.metadata.tables, VERSION_TABLE):
        assert f"\n| `{name}` |" in PAGE


def test_every_option_of_the_server_has_a_row() -> None:
    (commands,) = (a for a in build_parser()._actions if a.dest == "command")
    options = [
        option
        for action in dict(commands.choices or {})["serve"]._actions
        for option in action.option_strings
        if option.startswith("--audit")
    ]
    assert len(options) == 7
    assert all(f"\n| `{option} " in PAGE for option in options)
