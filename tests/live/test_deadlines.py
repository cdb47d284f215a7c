"""Deadlines of migrations that run, on a real API server: made true, and enforced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uuid_utils

from tests.live.conftest import ApiServer
from tests.live.following import Followed
from tests.testbed.bed.api import path
from webhook.cluster.connection import Connection, connect
from webhook.cluster.errors import RequestFailed
from webhook.control.deadlines import (
    PAUSE_SECONDS,
    Deadlines,
    Standing,
)
from webhook.model.snapshot import Snapshot
from webhook.policy.loading import load
from webhook.review.admission import Review
from webhook.review.decision import Decision, Outcome

NOTES = "migration-guard.io/"
KUBEVIRT = "kubevirt.io/v1"
MIGRATIONS = "virtualmachineinstancemigrations"
GROUPS = ["kubevirt.io", "admissionregistration.k8s.io"]
RUNNING_FOR = 3600.0
"""Seconds since the copying began, by the clock of the guard; its time is over after 800."""


class Moving:
    """A VM of 1 GiB that is being migrated, as virt-controller and virt-handler would show it."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.vmi = server.add(
            {
                "apiVersion": KUBEVIRT,
                "kind": "VirtualMachineInstance",
                "metadata": {"name": "vm", "namespace": "default"},
                "spec": {"domain": {"memory": {"guest": "1Gi"}}},
                "status": {"phase": "Running", "nodeName": "a"},
            }
        )
        self.made = self.make()

    def make(self) -> Any:
        """Create a migration that copies the VM; KubeVirt's finalizer holds it when deleted."""
        made = self.server.add(
            {
                "apiVersion": KUBEVIRT,
                "kind": "VirtualMachineInstanceMigration",
                "metadata": {
                    "name": "move",
                    "namespace": "default",
                    "finalizers": ["kubevirt.io/migrationJobFinalize"],
                },
                "spec": {"vmiName": "vm"},
                "status": {"phase": "Running"},
            }
        )
        begins = made["metadata"]["creationTimestamp"]
        self.started = datetime.fromisoformat(begins)
        self.state(
            migrationUid=made["metadata"]["uid"],
            startTimestamp=begins,
            mode="PreCopy",
            sourceNode="a",
            targetNode="b",
        )
        return made

    def state(self, **changes: Any) -> None:
        """Change what the VMI tells of its migration."""
        self.server.change(self.vmi, {"status": {"migrationState": changes}})

    def ends(self) -> None:
        """Let the migration go, as virt-controller does once it is over."""
        self.server.change(self.made, {"metadata": {"finalizers": None}})

    @property
    def migration(self) -> Any:
        return self.server.api.get(path(KUBEVIRT, MIGRATIONS, "default", "move"))

    @property
    def deleted(self) -> bool:
        """Whether somebody has asked for the migration to be deleted."""
        return "deletionTimestamp" in self.migration["metadata"]


class Watch:
    """Deadlines with a clock and settings of the test's own, and what they told."""

    def __init__(
        self,
        connection: Connection,
        facts: Callable[[], Snapshot],
        settings: str = "",
        ahead: float = RUNNING_FOR,
    ) -> None:
        self.kept: list[Decision] = []
        self.leads: Callable[[], bool] = lambda: True
        self.logged: list[str] = []
        self.seconds = 0.0
        self.while_kept: Callable[[], None] = lambda: None
        self._deadlines = Deadlines(
            connection,
            facts,
            lambda: load(settings, "test"),
            self._keep,
            leads=lambda: self.leads(),
            user=lambda: "the guard",
            new_id=lambda: str(uuid_utils.uuid7()),
            clock=lambda: datetime.now(UTC) + timedelta(seconds=ahead),
            monotonic=lambda: self.seconds,
            log=self.logged.append,
        )

    def look(self) -> Standing:
        return self._deadlines.look()

    def _keep(self, review: Review, decision: Decision, facts: Snapshot) -> None:
        asked = "DELETE" if decision.outcome is Outcome.ABORTED else ""
        assert (review.operation, review.namespace, review.name) == (asked, "default", "move")
        self.while_kept()
        self.kept.append(decision)


@pytest.fixture
def moving(server: ApiServer, request: pytest.FixtureRequest) -> Any:
    """Make a VM that is being migrated; the API server's finalizers are taken off at the end."""
    made: list[Moving] = []

    def make() -> Moving:
        made.append(Moving(server))
        return made[-1]

    yield make
    for one in made:
        for obj in server.api.items(path(KUBEVIRT, MIGRATIONS, "default")):
            obj |= {"apiVersion": KUBEVIRT, "kind": "VirtualMachineInstanceMigration"}
            one.server.change(obj, {"metadata": {"finalizers": None}})


CONFIGURATION = path("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")


@pytest.fixture(autouse=True)
def switched_on(server: ApiServer) -> Iterator[None]:
    """Have the guard's webhook configuration there; nothing calls it."""
    server.api.create(CONFIGURATION, {"metadata": {"name": "migration-guard"}})
    yield
    server.api.delete(f"{CONFIGURATION}/migration-guard")


@pytest.fixture
def watch(server: ApiServer, follow: Callable[[Path], Followed]) -> Callable[..., Watch]:
    """Watch the deadlines of the cluster, once its migration is among the facts."""

    def begin(settings: str = "", **more: Any) -> Watch:
        followed = follow(server.kubeconfig)
        followed.synced()
        followed.wait(
            lambda facts: facts.migrations and "startTimestamp" in str(facts.vmis.get("default/vm"))
        )
        return Watch(connect(server.kubeconfig), followed.live.snapshot, settings, **more)

    return begin


def allow(server: ApiServer, user: str, rules: list[dict[str, Any]]) -> None:
    """Give a user rights."""
    rbac = "rbac.authorization.k8s.io"
    named = {"metadata": {"name": f"of-{user}"}}
    server.api.create(path(f"{rbac}/v1", "clusterroles"), {**named, "rules": rules})
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": f"of-{user}"}
    subjects = [{"kind": "User", "name": user}]
    bound = {**named, "roleRef": role, "subjects": subjects}
    server.api.create(path(f"{rbac}/v1", "clusterrolebindings"), bound)


def test_the_deadline_is_made_true_when_the_copying_has_started(moving, watch) -> None:
    vm = moving()
    found = watch(ahead=60.0)
    standing = found.look()
    ends = vm.started + timedelta(seconds=800)
    assert standing == Standing(running=1, overdue=0, next_end=ends)
    notes = vm.migration["metadata"]["annotations"]
    assert notes[f"{NOTES}completion-timeout"] == "800s"
    assert notes[f"{NOTES}completion-basis"].startswith("1 GiB x 800 s/GiB")
    assert datetime.fromisoformat(notes[f"{NOTES}completion-deadline"]) == ends
    version = vm.migration["metadata"]["resourceVersion"]
    found.look()
    assert vm.migration["metadata"]["resourceVersion"] == version
    assert (found.kept, found.logged, vm.deleted) == ([], [], False)


def test_what_overruns_is_kept_and_then_deleted_once(moving, watch) -> None:
    vm = moving()
    found = watch()
    asked_before_it_was_kept = []
    found.while_kept = lambda: asked_before_it_was_kept.append(vm.deleted)
    assert found.look().overdue == 1
    assert vm.deleted
    assert asked_before_it_was_kept == [False]
    found.look()
    (decision,) = found.kept
    assert (decision.outcome, decision.allowed) == (Outcome.ABORTED, False)
    assert "migration move of VM default/vm from node a to node b aborted" in decision.message
    vm.ends()


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ("maxMode: audit", Outcome.AUDITED),
        ("rules: {completion-deadline: {mode: warn}}", Outcome.WARNED),
        ("deadline: {mode: kubevirt}", Outcome.WARNED),
    ],
)
def test_a_mode_that_refuses_nobody_tells_once_and_ends_nothing(
    moving, watch, settings: str, outcome: Outcome
) -> None:
    vm = moving()
    found = watch(settings)
    for _ in range(3):
        found.look()
        found.seconds += PAUSE_SECONDS
    assert [decision.outcome for decision in found.kept] == [outcome]
    assert not vm.deleted


def test_an_overrun_that_was_only_told_is_ended_once_the_settings_say_so(moving, watch) -> None:
    vm = moving()
    text = ["maxMode: audit"]
    found = watch()
    found._deadlines._configuration = lambda: load(text[0], "test")
    found.look()
    assert not vm.deleted
    text[0] = ""
    found.look()
    assert [d.outcome for d in found.kept] == [Outcome.AUDITED, Outcome.ABORTED]
    assert len({d.decision_id for d in found.kept}) == 2
    assert vm.deleted


@pytest.mark.parametrize(
    "change", [{"completed": True}, {"mode": "PostCopy"}, {"abortRequested": True}], ids=str
)
def test_facts_that_lag_behind_end_nothing(moving, watch, server, change) -> None:
    vm = moving()
    found = watch()
    old = found._deadlines._facts()
    vm.state(**change)
    late = Watch(connect(server.kubeconfig), lambda: old)
    late.look()
    assert not vm.deleted
    assert [d.outcome for d in late.kept] == [Outcome.WARNED] * ("mode" in change)


def test_a_migration_made_anew_under_the_name_is_another_one(moving, watch, server) -> None:
    vm = moving()
    found = watch()
    old = found._deadlines._facts()
    server.remove(vm.made)
    vm.ends()
    vm.make()
    for ahead in (RUNNING_FOR, 60.0):
        Watch(connect(server.kubeconfig), lambda: old, ahead=ahead).look()
    assert not vm.deleted
    assert "annotations" not in vm.migration["metadata"]


def test_a_replica_that_does_not_lead_any_more_ends_nothing(moving, watch) -> None:
    vm = moving()
    found = watch()
    found.leads = lambda: False
    found.look()
    assert (found.kept, vm.deleted) == ([], False)
    # It may lose the lease at any moment, also when all is ready.
    leads = [True, False]
    found.leads = lambda: leads.pop(0)
    found.look()
    assert (found.kept, vm.deleted) == ([], False)


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
    facts = watch()._deadlines._facts
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
    moving, watch, server, forwarder, tmp_path
) -> None:
    vm = moving()
    facts = watch()._deadlines._facts
    found = Watch(connect(server.kubeconfig_through(forwarder.port, tmp_path)), facts)
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
    found = Watch(connect(server.plane.credentials("onlooker")), admin._deadlines._facts)
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
    moving, watch, server, forwarder, tmp_path
) -> None:
    vm = moving()
    facts = watch()._deadlines._facts
    found = Watch(connect(server.kubeconfig_through(forwarder.port, tmp_path)), facts)
    found.while_kept = lambda: forwarder.refuse(True)
    found.look()
    assert not vm.deleted
    assert [d.outcome for d in found.kept] == [Outcome.ABORTED]
    assert len(found.logged) == 1
    forwarder.refuse(False)
    found.look()
    assert vm.deleted
    assert len(found.kept) == 1


@pytest.mark.parametrize("ahead", [60.0, RUNNING_FOR], ids=["runs", "overdue"])
def test_a_guard_that_is_switched_off_writes_and_ends_nothing(
    moving, watch, server, ahead: float
) -> None:
    vm = moving()
    server.api.delete(f"{CONFIGURATION}/migration-guard")
    found = watch(ahead=ahead)
    assert found.look().switched_off
    assert (found.kept, found.logged, vm.deleted) == ([], [], False)
    assert "annotations" not in vm.migration["metadata"]
    server.api.create(CONFIGURATION, {"metadata": {"name": "migration-guard"}})
    found.seconds += PAUSE_SECONDS
    assert not found.look().switched_off
    assert "annotations" in vm.migration["metadata"] or vm.deleted


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
    moving, watch, server, forwarder, tmp_path
) -> None:
    vm = moving()
    facts = watch()._deadlines._facts
    found = Watch(connect(server.kubeconfig_through(forwarder.port, tmp_path)), facts)
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
    facts = watch()._deadlines._facts
    verbs = ["get", "delete"]
    allow(server, "ender", [{"apiGroups": GROUPS, "resources": ["*"], "verbs": verbs}])
    found = Watch(connect(server.plane.credentials("ender")), facts, ahead=60.0)
    found.look()
    (line,) = found.logged
    assert "cannot patch resource" in line
    found._deadlines._clock = lambda: datetime.now(UTC) + timedelta(seconds=RUNNING_FOR)
    found.look()
    assert vm.deleted


def test_a_migration_that_cannot_be_read_keeps_no_other_from_its_end(moving, watch, server) -> None:
    vm = moving()
    other = server.add(
        {
            "apiVersion": KUBEVIRT,
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {"name": "a-first", "namespace": "default"},
            "spec": {"vmiName": "odd"},
            "status": {"phase": "Running"},
        }
    )
    odd = {"migrationUid": other["metadata"]["uid"], "startTimestamp": "yesterday"}
    server.add(
        {
            "apiVersion": KUBEVIRT,
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "odd", "namespace": "default"},
            "spec": {},
            "status": {"phase": "Running", "nodeName": "a", "migrationState": odd},
        }
    )
    found = watch()
    found.look()
    assert vm.deleted
