"""What is answered where no time is left to decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.review.asking import (
    CONTROLLER,
    NOW,
    Cluster,
    launcher,
    migration,
    new_id,
    node,
    settings,
    vmi,
)
from webhook.review.admission import review_of_object
from webhook.review.deciding import mutate, validate
from webhook.review.decision import Decision

WORKED = (node("a", "XYZ"), node("b", "ABC"), vmi(), launcher())
LATE = "the time was over"

Pass = Callable[..., Decision]


def ask(
    pass_: Pass, obj: dict[str, Any], *, configuration: str = "", username: str = ""
) -> Decision:
    review = review_of_object(obj, username=username)
    facts = Cluster(*WORKED).facts
    return pass_(review, facts, settings(configuration), NOW, new_id, late=LATE)


@pytest.mark.parametrize(
    ("pass_", "says"),
    [(mutate, f"nothing changed: {LATE}"), (validate, f"not judged: {LATE}")],
)
def test_what_would_be_refused_is_allowed_with_the_reason_as_a_warning(
    pass_: Pass, says: str
) -> None:
    decision = ask(pass_, migration())
    assert (decision.outcome, decision.allowed) == ("blind", True)
    said = f"{says} (decision {decision.decision_id})"
    assert (decision.warnings, decision.patch) == ((said,), ())


def test_when_blind_deny_refuses_a_users_migration_in_the_validating_pass_alone() -> None:
    denies = "whenBlind: deny"
    assert ask(mutate, migration(), configuration=denies).allowed
    decision = ask(validate, migration(), configuration=denies)
    assert not decision.allowed
    assert decision.message.startswith(f"migration refused: {LATE}, so nobody can say")


def test_when_blind_deny_spares_a_workload_update() -> None:
    update = migration()
    update["metadata"]["annotations"] = {"kubevirt.io/workloadUpdateMigration": ""}
    decision = ask(validate, update, configuration="whenBlind: deny", username=CONTROLLER)
    assert (decision.outcome, decision.allowed) == ("blind", True)


def test_a_pod_is_left_alone() -> None:
    decision = ask(mutate, launcher(), username=CONTROLLER)
    assert (decision.outcome, decision.allowed, decision.patch) == ("blind", True, ())


def test_what_no_rule_speaks_of_is_not_blind() -> None:
    decision = ask(validate, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})
    assert (decision.outcome, decision.warnings) == ("not-reviewed", ())


def test_a_migration_of_a_vm_that_does_not_exist_is_left_to_kubevirt() -> None:
    unknown = migration()
    unknown["spec"]["vmiName"] = "nobody"
    assert ask(validate, unknown).outcome == "left-to-kubevirt"
