"""Which replica leads, on a real API server, with clocks that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from tests.live.conftest import ApiServer
from tests.testbed.bed.api import ApiError, path
from tests.testbed.bed.forwarder import Forwarder
from webhook.cluster.connection import connect
from webhook.cluster.errors import RequestFailed
from webhook.control.lease import LEADS_SECONDS, LEASE_SECONDS, Lease

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
WHERE = path("coordination.k8s.io/v1", "leases", "default", "guard")


class Replica:
    """A replica with a clock of its own, in seconds."""

    def __init__(self, kubeconfig, name: str, clock: datetime = NOW) -> None:
        self.seconds = 1000.0
        self.lease = Lease(
            connect(kubeconfig),
            "default",
            "guard",
            name,
            monotonic=lambda: self.seconds,
            clock=lambda: clock + timedelta(seconds=self.seconds - 1000.0),
        )

    def passes(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def replica(server: ApiServer) -> Iterator[Callable[..., Replica]]:
    yield lambda name, **more: Replica(server.kubeconfig, name, **more)
    with suppress(ApiError):
        server.api.delete(WHERE)


def test_the_first_to_ask_leads_and_the_others_know_who_does(replica, server) -> None:
    one, two = replica("one"), replica("two")
    assert one.lease.hold()
    assert not two.lease.hold()
    assert (one.lease.held, two.lease.held, two.lease.holder) == (True, False, "one")
    spec = server.api.get(WHERE)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("one", LEASE_SECONDS)
    assert spec["renewTime"] == "2026-11-27T12:00:00.000000Z"


def test_a_leader_that_renews_is_never_succeeded(replica, server) -> None:
    one, two = replica("one"), replica("two")
    assert one.lease.hold()
    acquired = server.api.get(WHERE)["spec"]["acquireTime"]
    for _ in range(5):
        assert not two.lease.hold()
        two.passes(LEASE_SECONDS - 1)
        one.passes(LEASE_SECONDS - 1)
        assert one.lease.hold()
    spec = server.api.get(WHERE)["spec"]
    assert (spec["acquireTime"], spec["leaseTransitions"]) == (acquired, 0)


def test_one_that_falls_silent_stops_leading_before_another_begins(replica) -> None:
    one, two = replica("one"), replica("two")
    assert one.lease.hold()
    assert not two.lease.hold()
    for one_is_to_lead, seconds in ((True, LEADS_SECONDS - 1), (False, 1)):
        one.passes(seconds)
        two.passes(seconds)
        assert one.lease.held is one_is_to_lead
        assert not two.lease.hold()
    two.passes(LEASE_SECONDS - LEADS_SECONDS)
    assert two.lease.hold()
    assert not one.lease.hold()
    assert one.lease.holder == "two"


def test_how_long_a_leader_was_silent_is_seen_on_ones_own_clock(replica) -> None:
    one = replica("one")
    assert one.lease.hold()
    # A clock years ahead sees a renewal of long ago, and still waits.
    two = replica("two", clock=datetime(2036, 1, 1, tzinfo=UTC))
    assert not two.lease.hold()
    two.passes(LEASE_SECONDS)
    assert two.lease.hold()


def test_a_lease_given_back_is_free_at_once(replica, server) -> None:
    one, two = replica("one"), replica("two")
    assert one.lease.hold()
    one.lease.release()
    assert not one.lease.held
    assert two.lease.hold()
    assert server.api.get(WHERE)["spec"]["leaseTransitions"] == 1
    one.lease.release()
    assert two.lease.hold()


def test_of_two_that_take_a_free_lease_at_once_one_gets_it(replica) -> None:
    one, two = replica("one"), replica("two")
    connection = one.lease._connection
    find = connection.find

    def asked_late(*args, **more):
        found = find(*args, **more)
        # Between the reading and the writing of the one, the other takes it.
        assert two.lease.hold()
        return found

    assert one.lease.hold()
    one.lease.release()
    connection.find = asked_late
    assert not one.lease.hold()
    assert (one.lease.held, two.lease.held) == (False, True)


def test_a_leader_that_cannot_ask_leads_until_its_last_renewal_is_too_old(
    server, replica, forwarder: Forwarder, tmp_path
) -> None:
    one = Replica(server.kubeconfig_through(forwarder.port, tmp_path), "one")
    assert one.lease.hold()
    forwarder.refuse(True)
    with pytest.raises(RequestFailed, match="cannot be reached"):
        one.lease.hold()
    assert one.lease.held
    one.passes(LEADS_SECONDS)
    assert not one.lease.held
    forwarder.refuse(False)
    assert one.lease.hold()


def test_a_lease_that_may_not_be_read_or_has_no_namespace_is_told(server) -> None:
    stranger = Replica(server.plane.credentials("stranger"), "stranger")
    with pytest.raises(RequestFailed, match="forbidden"):
        stranger.lease.hold()
    nowhere = Lease(
        connect(server.kubeconfig), "nowhere", "guard", "one", monotonic=float, clock=lambda: NOW
    )
    with pytest.raises(RequestFailed, match='"nowhere" not found'):
        nowhere.hold()
    assert not nowhere.held
