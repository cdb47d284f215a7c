"""An end that was decided is carried out or taken back, whatever fails or changes meanwhile."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.live.moving import GROUPS, NOTES, RUNNING_FOR, Watch, allow
from webhook.cluster.connection import connect
from webhook.cluster.errors import RequestFailed
from webhook.control.deadlines import PAUSE_SECONDS
from webhook.review.decision import Outcome


def test_one_that_loses_the_lease_after_the_record_takes_it_back(moving, watch) -> None:
    vm = moving()
    found = watch()
    leads = [True, True, False]
    found.leads = lambda: leads.pop(0) if leads else True
    found.look()
    assert not vm.deleted
    assert [d.outcome for d in found.kept] == [Outcome.ABORTED, Outcome.NOT_ABORTED]
    assert "this replica does not lead any more" in found.kept[1].message
    # It leads again, and nobody else has ended it.
    found.look()
    assert vm.deleted
    assert len({d.decision_id for d in found.kept}) == 2


@pytest.mark.parametrize(
    ("meanwhile", "why"),
    [
        ({"mode": "PostCopy"}, "its guest runs on the target already"),
        ({"completed": True}, "it has ended by itself"),
    ],
    ids=["post-copy", "completed"],
)
def test_what_changes_while_the_record_is_written_takes_it_back(
    moving, watch, meanwhile, why: str
) -> None:
    vm = moving()
    found = watch()
    found.while_kept = lambda: vm.state(**meanwhile)
    found.look()
    assert not vm.deleted
    aborted, back = found.kept
    assert (aborted.outcome, back.outcome) == (Outcome.ABORTED, Outcome.NOT_ABORTED)
    assert aborted.decision_id == back.decision_id
    assert f"was not aborted after all: {why}" in back.message


def test_an_override_written_at_the_last_moment_counts(moving, watch, server) -> None:
    vm = moving()
    found = watch()
    uid = vm.vmi["metadata"]["uid"]
    override = {f"{NOTES}override": "soon done", f"{NOTES}override-by": f"root@{uid}"}
    found.while_kept = lambda: server.change(vm.vmi, {"metadata": {"annotations": override}})
    found.look()
    assert not vm.deleted
    assert [d.outcome for d in found.kept] == [Outcome.ABORTED, Outcome.NOT_ABORTED]
    assert "an override or other settings allow it to go on" in found.kept[1].message


def test_a_migration_that_is_gone_once_the_record_is_written_takes_it_back(moving, watch) -> None:
    vm = moving()
    found = watch()

    def ends() -> None:
        vm.ends()
        vm.server.remove(vm.made)
        found.while_kept = lambda: None

    found.while_kept = ends
    found.look()
    assert [d.outcome for d in found.kept] == [Outcome.ABORTED, Outcome.NOT_ABORTED]
    assert "it has ended by itself" in found.kept[1].message


def test_what_fails_again_and_again_is_tried_less_and_less_often(moving, watch, server) -> None:
    vm = moving()
    facts = watch().facts
    allow(server, "reader", [{"apiGroups": GROUPS, "resources": ["*"], "verbs": ["get"]}])
    found = Watch(connect(server.plane.credentials("reader")), facts)
    failed = []
    for second in range(1000):
        found.seconds = second
        found.look()
        if found.logged:
            failed.append(second)
        found.logged.clear()
    pauses = [after - before for before, after in itertools.pairwise(failed)]
    assert pauses == [10, 20, 40, 80, 160, 320, 320]
    assert (found.kept, vm.deleted) == ([], False)


def test_what_keeps_all_requests_from_being_made_is_over_at_once_for_all(
    moving, watch_through, forwarder
) -> None:
    vm = moving()
    found = watch_through()
    forwarder.refuse(True)
    for second in range(400):
        found.seconds = second
        found.look()
    (line,) = found.logged
    assert line.startswith("not known whether the guard is switched off: ")
    forwarder.refuse(False)
    found.look()
    assert vm.deleted


def test_who_may_not_delete_keeps_no_record_that_says_it_did(moving, watch, server) -> None:
    vm = moving()
    admin = watch()
    allow(
        server,
        "onlooker",
        [{"apiGroups": GROUPS, "resources": ["*"], "verbs": ["get", "patch"]}],
    )
    found = Watch(connect(server.plane.credentials("onlooker")), admin.facts)
    found.look()
    found.look()
    assert (found.kept, vm.deleted) == ([], False)
    (line,) = found.logged
    assert line.startswith("migration default/move: ")
    assert "cannot delete resource" in line
    found.seconds += PAUSE_SECONDS
    found.look()
    assert len(found.logged) == 2


def test_a_deletion_that_fails_after_the_record_is_tried_again_without_another_record(
    moving, watch_through, forwarder
) -> None:
    vm = moving()
    found = watch_through()
    found.while_kept = lambda: forwarder.refuse(True)
    found.look()
    assert not vm.deleted
    assert [d.outcome for d in found.kept] == [Outcome.ABORTED]
    assert len(found.logged) == 1
    forwarder.refuse(False)
    found.look()
    assert vm.deleted
    assert len(found.kept) == 1


@pytest.mark.parametrize("ended", [True, False], ids=["taken", "not taken"])
def test_a_deletion_to_which_no_answer_came_is_settled_by_what_became_of_it(
    moving, watch, ended: bool
) -> None:
    vm = moving()
    found = watch()
    send = found._deadlines._send

    def broken(method: str, where: str, body: Any, *more: Any) -> bool:
        if method == "DELETE" and "dryRun" not in body:
            if ended:
                send(method, where, body, *more)
                vm.ends()
            else:
                vm.server.change(vm.made, {"status": {"phase": "Succeeded"}})
            raise RequestFailed(0, "the connection broke off")
        return send(method, where, body, *more)

    found._deadlines._send = broken
    found.look()
    assert "the connection broke off" in found.logged[0]
    found.look()
    told = [Outcome.ABORTED] if ended else [Outcome.ABORTED, Outcome.NOT_ABORTED]
    assert [d.outcome for d in found.kept] == told
    found.look()
    assert len(found.kept) == len(told)


def test_what_is_on_record_is_settled_also_by_a_replica_that_does_not_lead_any_more(
    moving, watch_through, forwarder
) -> None:
    vm = moving()
    found = watch_through()
    found.while_kept = lambda: forwarder.refuse(True)
    found.look()
    forwarder.refuse(False)
    found.while_kept = lambda: None
    found.leads = lambda: False
    found._deadlines.settle()
    assert not vm.deleted
    assert [d.outcome for d in found.kept] == [Outcome.ABORTED, Outcome.NOT_ABORTED]


def test_a_deadline_that_may_not_be_written_keeps_no_migration_from_its_end(
    moving, watch, server
) -> None:
    vm = moving()
    facts = watch().facts
    verbs = ["get", "delete"]
    allow(server, "ender", [{"apiGroups": GROUPS, "resources": ["*"], "verbs": verbs}])
    found = Watch(connect(server.plane.credentials("ender")), facts, ahead=60.0)
    found.look()
    (line,) = found.logged
    assert "cannot patch resource" in line
    found._deadlines._clock = lambda: datetime.now(UTC) + timedelta(seconds=RUNNING_FOR)
    found.look()
    assert vm.deleted
