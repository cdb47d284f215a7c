"""Two replicas behind a Service, and what a steady load of reviews meets when they come and go."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from tests.testbed.bed.api import ApiError
from tests.testbed.bed.guard import SETTLED, Guard
from tests.testbed.bed.load import CLIENTS, DECISION, Outcome, Question, SteadyLoad, failed_calls
from tests.testbed.bed.pool import Pool
from tests.testbed.bed.replica import Replica
from tests.testbed.bed.testbed import TestBed
from tests.testbed.held import allowing, gone, held_migration
from tests.testbed.knowing import Probe, wait_until_known
from tests.testbed.test_guarded_audit import decision_in
from webhook.audit import schema
from webhook.audit.database import engine_of
from webhook.control.lease import LEASE_SECONDS

OVERLAY = "overlays/high-availability"
DATABASE = True
NOTICED_AFTER = 2.0
"""Seconds; a kubelet looks for ended containers once a second, and the news has a way to go."""
WEBHOOK_TIMEOUT = 2.0
"""Seconds; timeoutSeconds of the manifests. A request waits for two webhooks, one after another."""
SLACK = 2.0
REFUSALS = 40
Questions = tuple[Question, Question]


def test_when_the_replica_that_enforces_deadlines_is_killed_the_other_one_goes_on(
    guard: Guard, pool: Pool
) -> None:
    def leaders() -> list[Replica]:
        return [r for r in guard.replicas if "migration_guard_leader 1.0" in r.ask("/metrics")[1]]

    pool.api.wait_until(lambda: len(leaders()) == 1, LEASE_SECONDS + SLACK, "one replica leads")
    (killed,) = leaders()
    guard.configure(allowing(10))
    guard.wait_for_fact()
    name = held_migration(pool)
    began = time.monotonic()
    guard.kill(killed)
    try:
        pool.api.wait_until(lambda: gone(pool, name), 60, "the other one ends the migration")
        print(f"ended {time.monotonic() - began:.0f} s after the leader was killed")
        aborted = [d for d in guard.decisions() if d["outcome"] == "aborted"]
        assert [d["name"] for d in aborted] == [name]
    finally:
        guard.take_out(killed)
        guard.configure(SETTLED)
        guard.start_replica(killed.name)


def test_a_roll_out_under_load_loses_no_review(
    testbed: TestBed, guard: Guard, questions: Questions, probe: Probe
) -> None:
    failed = failed_calls(testbed.api)
    with SteadyLoad(testbed.api, questions) as load:
        guard.roll_out()
        probe.turn()
        wait_until_known(probe, guard)
        load.settle()
    assert load.not_right() == []
    assert failed_calls(testbed.api) == failed


def test_a_killed_replica_costs_no_more_than_the_reviews_on_its_connections(
    testbed: TestBed, guard: Guard, questions: Questions, probe: Probe
) -> None:
    failed = failed_calls(testbed.api)
    killed, _ = guard.replicas
    with SteadyLoad(testbed.api, questions) as load:
        guard.take_out(killed)
        guard.kill(killed)
        load.settle()
        probe.turn()
        wait_until_known(probe, guard)
        guard.start_replica(killed.name)
        load.settle()
        wait_until_known(probe, guard)
    # failurePolicy Ignore: whom nobody answered goes on without the guard, and is not refused.
    assert load.not_right(Outcome.LET_THROUGH) == []
    # A client waits for one answer before it asks again, and two webhooks are called for each.
    assert len(load.not_right()) <= CLIENTS
    lost = failed_calls(testbed.api) - failed
    print(f"calls of webhooks that failed: {lost:.0f}")
    assert lost <= 2 * CLIENTS


def test_a_dead_replica_that_is_still_led_to_costs_reviews_until_it_is_taken_out(
    testbed: TestBed, guard: Guard, questions: Questions
) -> None:
    failed = failed_calls(testbed.api)
    _, killed = guard.replicas
    with SteadyLoad(testbed.api, questions) as load:
        began = time.monotonic()
        guard.kill(killed)
        time.sleep(NOTICED_AFTER)
        guard.take_out(killed)
        ended = time.monotonic()
        load.settle()
        guard.start_replica(killed.name)
        load.settle()
    lost = load.not_right()
    assert {answer.outcome for answer in lost} <= {Outcome.LET_THROUGH}
    assert all(answer.overlaps(began, ended) for answer in lost)
    calls = failed_calls(testbed.api) - failed
    print(f"calls of webhooks that failed: {calls:.0f}")
    assert calls >= len(lost)


def test_a_replica_that_hangs_costs_each_call_its_timeout_until_it_is_taken_out(
    testbed: TestBed, guard: Guard, questions: Questions, probe: Probe
) -> None:
    failed = failed_calls(testbed.api)
    with SteadyLoad(testbed.api, questions) as load:
        # The API server keeps to the connections that it has: at least one of the two has some.
        for replica in tuple(guard.replicas):
            with replica.hung():
                # As a readiness probe does, which tells a hung server by its silence alone.
                assert replica.ask("/readyz") == (0, "")
                guard.take_out(replica)
                load.settle()
                probe.turn()
            guard.put_back(replica)
            wait_until_known(probe, guard)
            load.settle()
    lost = load.not_right()
    assert {answer.outcome for answer in lost} == {Outcome.LET_THROUGH}
    slowest = max(answer.ended - answer.began for answer in lost)
    print(f"calls of webhooks that failed: {failed_calls(testbed.api) - failed:.0f}")
    print(f"let through: {len(lost)}, the slowest after {slowest:.1f} s")
    assert slowest < 2 * WEBHOOK_TIMEOUT + SLACK


def test_every_refusal_of_two_replicas_is_found_though_one_was_killed_right_after_its_last(
    guard: Guard, questions: Questions, testbed: TestBed, database: str
) -> None:
    (stuck,) = (question for question in questions if not question.allowed)
    killed, other = guard.replicas
    numbers = itertools.count()

    def refusals() -> set[str]:
        """Have a stuck migration refused to many users, each of whom is told another id."""

        def be_refused(_: int) -> str:
            user = testbed.api.acting_as(f"user-{next(numbers)}", "system:masters")
            with pytest.raises(ApiError, match="Decision ") as refused:
                user.create(stuck.where, stuck.obj)
            return decision_in(refused.value.message)

        with ThreadPoolExecutor(CLIENTS) as clients:
            return set(clients.map(be_refused, range(REFUSALS)))

    guard.take_out(other)
    of_the_killed = refusals()
    guard.kill(killed)
    guard.put_back(other)
    guard.take_out(killed)
    of_the_other = refusals()
    guard.start_replica(killed.name)

    assert len(of_the_killed | of_the_other) == 2 * REFUSALS
    engine = engine_of(make_url(database))
    query = sa.select(schema.decision.c.decision)

    def found() -> set[str]:
        with engine.connect() as connection:
            return set(connection.scalars(query))

    try:
        testbed.api.wait_until(
            lambda: of_the_killed | of_the_other <= found(), 60, "all are in the database"
        )
    finally:
        engine.dispose()


def test_with_both_replicas_dead_the_cluster_works_as_without_the_guard(
    testbed: TestBed, guard: Guard, questions: Questions, probe: Probe, pool: Pool
) -> None:
    with SteadyLoad(testbed.api, questions) as load:
        with guard.dead():
            source, target = pool.node(), pool.node()
            pool.vm("web", on=source)
            migration = pool.wait_migration(pool.migrate("web"))
            assert DECISION not in migration["metadata"].get("annotations", {})
            assert pool.vmi("web")["status"]["nodeName"] == target
            probe.turn()
        load.settle()
        wait_until_known(probe, guard)
    assert {answer.outcome for answer in load.not_right()} == {Outcome.LET_THROUGH}
