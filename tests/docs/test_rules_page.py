"""docs/rules.md names everything that a reader can meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from webhook.model.obstacle import Code, Kind, Origin
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule
from webhook.review import annotations as own
from webhook.review.decision import Outcome

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "rules.md").read_text(encoding="utf-8")


def row_of(name: str) -> str:
    """Return the line of a table that starts with a name in code."""
    return next((line for line in PAGE.splitlines() if line.startswith("|") and name in line), "")


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_has_a_row_with_its_default_mode(rule: Rule) -> None:
    row = row_of(f"| `{rule.value}` |")
    assert row, f"docs/rules.md has no row for {rule.value}"
    assert row.rstrip(" |").endswith(rule.default.value)


@pytest.mark.parametrize("code", Code)
def test_every_obstacle_code_is_explained(code: Code) -> None:
    assert row_of(f"`{code.value}`"), f"docs/rules.md has no row for {code.value}"


@pytest.mark.parametrize("mode", Mode)
def test_every_mode_is_explained(mode: Mode) -> None:
    assert f"`{mode.value}`" in PAGE


@pytest.mark.parametrize("value", [*Outcome, *Origin])
def test_every_outcome_and_origin_is_named(value: Outcome | Origin) -> None:
    assert f"`{value.value}`" in PAGE


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_obstacle_is_explained(kind: Kind) -> None:
    assert f"**{kind.value}**" in PAGE


def test_every_annotation_of_the_guard_is_explained() -> None:
    written = [v for k, v in vars(own).items() if k.isupper() and isinstance(v, str)]
    missing = [v for v in written if v != own.PREFIX and not row_of(f"`{v}`")]
    assert not missing


def test_who_starts_a_migration_is_explained() -> None:
    for origin in MigrationOrigin:
        assert origin.value.replace("-", " ") in PAGE.replace("-", " ")
