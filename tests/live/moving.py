"""A VM that is being migrated, and the deadlines that are watched, on a real API server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import uuid_utils

from tests.testbed.bed.api import path
from webhook.cluster.connection import Connection
from webhook.control.deadlines import Deadlines, Standing
from webhook.model.snapshot import Snapshot
from webhook.policy.loading import load
from webhook.review.admission import Review
from webhook.review.decision import Decision, Outcome

if TYPE_CHECKING:
    from tests.live.conftest import ApiServer

NOTES = "migration-guard.io/"
KUBEVIRT = "kubevirt.io/v1"
MIGRATIONS = "virtualmachineinstancemigrations"
GROUPS = ["kubevirt.io", "admissionregistration.k8s.io"]
RUNNING_FOR = 3600.0
"""Seconds since the copying began, by the clock of the guard; its time is over after 800."""
CONFIGURATION = path("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")


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
        self.facts = facts
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


def allow(server: ApiServer, user: str, rules: list[dict[str, Any]]) -> None:
    """Give a user rights."""
    rbac = "rbac.authorization.k8s.io"
    named = {"metadata": {"name": f"of-{user}"}}
    server.api.create(path(f"{rbac}/v1", "clusterroles"), {**named, "rules": rules})
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": f"of-{user}"}
    subjects = [{"kind": "User", "name": user}]
    bound = {**named, "roleRef": role, "subjects": subjects}
    server.api.create(path(f"{rbac}/v1", "clusterrolebindings"), bound)
