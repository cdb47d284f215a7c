"""Events on a real API server: one for each thing to tell, with a count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.audit.test_events import of_migration
from tests.testbed.bed.pool import Pool
from webhook.audit.event_recorder import Dropped, EventRecorder
from webhook.audit.record import Record
from webhook.cluster.connection import connect

dropped: list[Dropped] = []


@pytest.fixture
def recorders(pool: Pool) -> Iterator[list[EventRecorder]]:
    dropped.clear()
    made = [
        EventRecorder(connect(pool.bed.kubeconfig), name, dropped.append)
        for name in ("guard-0", "guard-1")
    ]
    for recorder in made:
        recorder.start()
    yield made
    for recorder in made:
        recorder.stop()


def test_a_thousand_retries_make_one_event_with_a_count(
    pool: Pool, recorders: list[EventRecorder]
) -> None:
    for number in range(1000):
        recorders[0].tell(refused(pool, f"evacuation-{number}"))
    recorders[0].stop()
    (event,) = pool.events("VirtualMachineInstance", "web")
    assert (event["count"], event["reason"], event["type"]) == (1000, "MigrationRefused", "Warning")
    assert event["source"] == {"component": "migration-guard", "host": "guard-0"}


def test_replicas_count_in_the_same_event(pool: Pool, recorders: list[EventRecorder]) -> None:
    for recorder in recorders:
        recorder.tell(refused(pool, "evacuation-1"))
        recorder.stop()
    (event,) = pool.events("VirtualMachineInstance", "web")
    assert event["count"] == 2


def test_kubectl_describe_shows_it_beside_the_vmi(
    pool: Pool, recorders: list[EventRecorder]
) -> None:
    node = pool.node()
    vmi = pool.vm("web", on=node)
    record = refused(pool, "web-1", vm_uid=vmi["metadata"]["uid"])
    recorders[0].tell(record)
    recorders[0].stop()
    told = pool.bed.kubectl("describe", "vmi", "web", "--namespace", pool.namespace)
    assert "MigrationRefused" in told.stdout
    assert record.decision in told.stdout


def test_what_the_api_server_refuses_is_counted_and_stops_nothing(
    pool: Pool, recorders: list[EventRecorder]
) -> None:
    recorders[0].tell(of_migration(namespace="no-such", vm="no-such/web"))
    recorders[0].tell(refused(pool, "web-1"))
    recorders[0].stop()
    assert dropped == [Dropped.REFUSED]
    assert len(pool.events("VirtualMachineInstance", "web")) == 1


def refused(pool: Pool, name: str, **fields: Any) -> Record:
    given: dict[str, Any] = {
        "namespace": pool.namespace,
        "vm": f"{pool.namespace}/web",
        "name": name,
        **fields,
    }
    return of_migration(**given)
