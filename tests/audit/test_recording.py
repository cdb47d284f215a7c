"""What is kept of a decision, and what never is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.audit.recorded import an_id, change, refusal
from tests.cli.conftest import CLUSTER
from webhook.audit.events import events_of
from webhook.audit.importance import IMPORTANCE, Importance
from webhook.audit.record import LARGEST_RECORD, LONGEST_TEXT, Record, decode
from webhook.audit.recording import is_kept, record_of
from webhook.cluster.documents import read
from webhook.cluster.inventory import snapshot_of
from webhook.policy.configuration import Configuration
from webhook.review.admission import Review, review_of_object
from webhook.review.deciding import mutate, validate
from webhook.review.decision import Circumstances, Decision, Outcome
from webhook.review.overruns import review_of_overrun
from webhook.review.requester import GUARD

NOW = datetime(2026, 11, 26, 12, 0, 0, 123456, tzinfo=UTC)
FACTS = snapshot_of(read([CLUSTER]))
HOSTILE = "\x1b[2J\x00'; DROP TABLE audit_record; --\u202e=cmd|' /C calc'!A0"


def migration(vm: str, namespace: str = "plant", **metadata) -> dict:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {"generateName": "move-", "namespace": namespace, **metadata},
        "spec": {"vmiName": vm},
    }


def decided(review: Review, *, mutating: bool = False) -> tuple[Decision, Record]:
    decide = mutate if mutating else validate
    decision = decide(review, FACTS.snapshot, Configuration(), NOW, an_id)
    around = Circumstances(mutating, FACTS.snapshot, NOW, seconds=0.0012345678)
    return decision, record_of(review, decision, around)


def stuck() -> str:
    """Return the VM of the sample cluster whose migration is refused."""
    for key in FACTS.snapshot.vmis:
        namespace, _, name = key.partition("/")
        decision, _ = decided(review_of_object(migration(name, namespace)))
        if not decision.allowed:
            return key
    raise AssertionError("the sample cluster has no VM that cannot move")


def test_a_refusal_says_who_asked_for_what_and_why_it_was_refused() -> None:
    key = stuck()
    namespace, _, name = key.partition("/")
    review = review_of_object(migration(name, namespace), username="anna", groups=("ops",))
    decision, record = decided(review)
    vmi = FACTS.snapshot.vmis[key]
    assert record.decision == decision.decision_id
    assert record.to_json()["time"] == "2026-11-26T12:00:00.123456Z"
    assert (record.outcome, record.rule, record.mode) == (
        Outcome.REFUSED,
        "incompatible-target",
        "enforce",
    )
    assert (record.user, record.groups, record.origin) == ("anna", ("ops",), "user")
    assert (record.vm, record.vm_uid, record.source) == (key, vmi.uid, vmi.node_name)
    assert (record.generate_name, record.name, record.phase) == ("move-", "", "validating")
    assert record.cpu_model
    assert record.message == decision.message
    assert record.latency == 0.001235
    nodes = sum(part["count"] for part in record.obstacles)
    assert nodes == len(FACTS.snapshot.nodes.by_name) - 1
    assert all(part["nodes"] and part["obstacles"] for part in record.obstacles)
    assert record.missing


def test_the_end_of_a_migration_is_a_record_of_its_vm_and_matters_like_a_refusal() -> None:
    vmi = next(v for v in FACTS.snapshot.vmis.values() if v.running)
    obj = migration(vmi.name, vmi.namespace, name="move-1", uid="uid-of-migration")
    decision = Decision(False, Outcome.ABORTED, an_id(), "it took too long")
    review = review_of_overrun(obj, decision, GUARD)
    record = record_of(review, decision, Circumstances(False, FACTS.snapshot, NOW))
    assert is_kept(review, decision)
    assert IMPORTANCE[record.outcome] is Importance.REFUSAL
    assert (record.operation, record.name, record.user) == ("DELETE", "move-1", GUARD)
    assert (record.vm, record.vm_uid, record.source) == (vmi.key, vmi.uid, vmi.node_name)
    assert record.object_uid == "uid-of-migration"
    assert decode(record.encode()) == record


def test_an_overrun_that_is_only_told_is_nobodys_request() -> None:
    obj = migration("web", name="move-1", uid="uid-of-migration")
    decision = Decision(True, Outcome.WARNED, an_id(), "it takes long")
    review = review_of_overrun(obj, decision, GUARD)
    record = record_of(review, decision, Circumstances(False, FACTS.snapshot, NOW))
    assert (record.operation, record.user, record.name) == ("", "", "move-1")
    assert [event.reason for event in events_of(record)] == ["MigrationWarned"] * 2


def test_a_record_is_read_again_as_it_was_written() -> None:
    _, record = decided(review_of_object(migration(stuck().partition("/")[2]), username=HOSTILE))
    for one in (record, refusal(user=HOSTILE), change(name="x" * 1000)):
        read_again = decode(one.encode())
        assert read_again.encode() == one.encode()
        assert read_again.user == one.user


CONTROLLER = min(FACTS.snapshot.kubevirt.service_account("kubevirt-controller"))


@pytest.mark.parametrize(("user", "evacuated"), [(CONTROLLER, "rome-1"), ("anna", "")])
def test_an_evacuation_is_believed_of_the_controller_only(user: str, evacuated: str) -> None:
    namespace, _, name = stuck().partition("/")
    notes = {"kubevirt.io/evacuationMigration": "rome-1"}
    obj = migration(name, namespace, annotations=notes)
    _, record = decided(review_of_object(obj, username=user))
    assert record.evacuated_node == evacuated
    assert record.origin == ("evacuation" if evacuated else "user")


def test_a_record_of_an_older_version_is_read_with_defaults_for_what_it_lacks() -> None:
    older = json.loads(refusal(via="virtctl", facts_age=1.5).encode())
    del older["via"], older["factsAge"]
    older["gone"] = "a field that is no more"
    record = decode(json.dumps(older))
    assert (record.via, record.facts_age, record.user) == ("", None, refusal().user)


def test_the_object_and_its_secrets_are_never_kept() -> None:
    volumes = [{"name": "c", "cloudInitNoCloud": {"userData": "hunter2"}}]
    obj = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"token": "hunter2"}},
        "spec": {"domain": {"devices": {}}, "volumes": volumes},
    }
    decision, record = decided(review_of_object(obj), mutating=True)
    assert decision.outcome is Outcome.CHANGED
    assert record.patch
    assert record.cpu_model == "host-model"
    assert (record.vm, record.phase) == ("shop/web", "mutating")
    assert b"hunter2" not in record.encode()


def test_long_values_are_cut_and_named() -> None:
    obj = migration("web", name="n" * (LONGEST_TEXT + 1))
    review = review_of_object(obj, username="u" * LONGEST_TEXT, groups=("g",) * 10_000)
    _, record = decided(review)
    assert record.user == "u" * LONGEST_TEXT
    assert record.name == "n" * LONGEST_TEXT
    assert record.cut == ("groups", "name")
    assert len(record.encode()) <= LARGEST_RECORD


def test_a_record_that_is_too_large_as_a_whole_leaves_out_lists() -> None:
    encoded = refusal(groups=("g" * LONGEST_TEXT,) * 20).encode()
    assert len(encoded) <= LARGEST_RECORD
    assert decode(encoded).cut == ("groups", "obstacles", "patch")
    assert decode(encoded).message


def test_the_change_of_a_migration_that_will_be_refused_is_not_kept() -> None:
    namespace, _, name = stuck().partition("/")
    review = review_of_object(migration(name, namespace))
    first, _ = decided(review, mutating=True)
    second, _ = decided(review)
    assert first.outcome is Outcome.CHANGED
    assert not is_kept(review, first)
    assert is_kept(review, second)


def test_a_dry_run_is_not_kept() -> None:
    namespace, _, name = stuck().partition("/")
    review = review_of_object(migration(name, namespace), dry_run=True)
    decision, _ = decided(review)
    assert not decision.allowed
    assert not is_kept(review, decision)


def test_retries_fold_whatever_their_ids_times_and_made_up_names() -> None:
    first = refusal()
    again = refusal(
        time=first.time + 1, latency=1.0, request_uid="another", name="kubevirt-evacuation-x7k"
    )
    assert first.decision != again.decision
    assert first.fold() == again.fold()


@pytest.mark.parametrize(
    "other",
    [
        {"user": "anna"},
        {"vm": "shop/db"},
        {"vm_uid": "33333333-3333-3333-3333-333333333333"},
        {"outcome": Outcome.WARNED},
        {"evacuated_node": "node-b"},
        {"message": "refused for another reason"},
        {"overridden_by": "anna"},
    ],
)
def test_what_differs_in_what_matters_does_not_fold(other) -> None:
    assert refusal(**other).fold() != refusal().fold()
