"""From the spool into the database: in order, each record once, whatever happens to either."""

from __future__ import annotations

import json
import random
import shutil
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.audit.conftest import SECONDS, eventually, rows_by_decision
from tests.audit.postgres import Postgres
from tests.audit.recorded import NOON, an_id, change, refusal
from webhook.audit.database import database_url, engine_of, sqlite_url
from webhook.audit.importance import Importance
from webhook.audit.loss import Loss, Reason
from webhook.audit.retention import Retention
from webhook.audit.shipping import Shipper
from webhook.audit.spool import Spool
from webhook.audit.store import Store

FOR_EVER = Retention(seconds=1e9, rows=10**9)


class Replica:
    """A spool with its shipper, and what it was given."""

    def __init__(self, folder: Path, url) -> None:
        self.folder = folder
        self.losses: list[Loss] = []
        self.spool = Spool(folder, on_loss=self.losses.append)
        self.shipper = Shipper(self.spool, url, FOR_EVER)
        self.kept: list[str] = []
        self.spool.start()
        self.shipper.start()

    def refuse(self, number: int) -> None:
        """Keep a refusal for a user of its own, which no other is folded into."""
        record = refusal(user=f"{self.spool.replica} {number}", time=NOON + number)
        future = self.spool.keep(record.encode(), Importance.REFUSAL)
        assert isinstance(future, Future)
        assert future.result(SECONDS)
        self.kept.append(record.decision)

    def stop(self) -> None:
        self.spool.stop()
        self.shipper.stop()
        self.spool.close()


class Load(threading.Thread):
    """Keeps refusals until it is told to end."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self.replica = replica
        self.ends = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.ends.wait(0.002):
            self.replica.refuse(number)
            number += 1

    def end(self) -> None:
        self.ends.set()
        self.join(SECONDS)


@pytest.fixture
def replica(tmp_path, url):
    running = Replica(tmp_path / "spool", url)
    yield running
    running.stop()


@pytest.fixture
def fragile():
    """A PostgreSQL server that the test may stop, cut and crash."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def quick(monkeypatch):
    """Try again soon, so that a test of many failures takes seconds."""
    monkeypatch.setattr("webhook.audit.shipping.LONGEST_PAUSE", 0.3)


def counts(url) -> dict[str, list[int]]:
    """Return the counts of the rows that each decision id leads to."""
    engine = engine_of(url)
    found = rows_by_decision(engine)
    engine.dispose()
    return found


def each_once(replicas: list[Replica]) -> dict[str, list[int]]:
    return {decision: [1] for replica in replicas for decision in replica.kept}


def test_what_is_kept_is_soon_in_the_database(replica, url) -> None:
    for number in range(20):
        replica.refuse(number)
    eventually(lambda: replica.shipper.status().shipped == 20)
    assert counts(url) == each_once([replica])
    assert replica.spool.status().waiting == 0
    assert replica.shipper.status().lag == 0.0


def test_a_restart_ships_what_is_left_and_nothing_twice(tmp_path, url) -> None:
    before = Replica(tmp_path / "spool", url)
    for number in range(20):
        before.refuse(number)
    before.stop()
    after = Replica(tmp_path / "spool", url)
    after.refuse(20)
    eventually(lambda: len(counts(url)) == 21)
    after.stop()
    assert counts(url) == each_once([before, after])


def test_what_the_database_had_before_a_restart_is_not_counted_as_shipped_again(
    tmp_path, url
) -> None:
    before = Replica(tmp_path / "spool", url)
    for number in range(20):
        before.refuse(number)
    eventually(lambda: before.shipper.status().shipped == 20)
    before.stop()
    after = Replica(tmp_path / "spool", url)
    after.refuse(20)
    eventually(lambda: len(counts(url)) == 21)
    after.stop()
    assert after.shipper.status().shipped == 1


def test_copies_of_one_folder_lose_nothing_and_double_nothing(tmp_path, url) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    spool = Spool(folders[0])
    spool.start()
    waiting = [refusal(user=f"before {number}", time=NOON + number) for number in range(30)]
    for record in waiting:
        spool.keep(record.encode(), Importance.REFUSAL)
    spool.stop()
    spool.close()
    shutil.copytree(*folders)
    running = [Replica(folder, url) for folder in folders]
    assert running[0].spool.replica == running[1].spool.replica
    for number in range(60):
        # Another user each, so that no record is folded into one of the other's.
        running[number % 2].refuse(number)
    eventually(lambda: all(one.spool.status().waiting == 0 for one in running))
    for one in running:
        one.stop()
    assert counts(url) == {record.decision: [1] for record in waiting} | each_once(running)
    assert sum(one.shipper.status().shipped for one in running) == 90
    assert not any(one.losses for one in running)


def test_what_came_while_a_stopping_server_shipped_is_shipped_too(
    tmp_path, url, monkeypatch
) -> None:
    shipping, go_on, write = threading.Event(), threading.Event(), Store.write

    def held(*given) -> int:
        shipping.set()
        assert go_on.wait(SECONDS)
        return write(*given)

    monkeypatch.setattr(Store, "write", held)
    replica = Replica(tmp_path / "spool", url)
    replica.refuse(0)
    assert shipping.wait(SECONDS)
    replica.refuse(1)
    stopping = threading.Thread(target=replica.stop)
    stopping.start()
    # It waits for the batch that is under way.
    stopping.join(0.2)
    go_on.set()
    stopping.join(SECONDS)
    assert counts(url) == each_once([replica])


def test_a_record_that_the_database_does_not_take_is_told_and_holds_up_no_other(
    replica, url
) -> None:
    for number in range(3):
        replica.refuse(number)
    replica.spool.keep(b"no record", Importance.NOTE)
    # Year 0, which no calendar here has.
    broken = change(time=NOON).encode().replace(b"2025-11-26", b"0000-11-26")
    replica.spool.keep(broken, Importance.NOTE)
    for number in range(3, 6):
        replica.refuse(number)
    eventually(lambda: replica.spool.status().waiting == 0)
    assert counts(url) == each_once([replica])
    assert [loss.reason for loss in replica.losses] == [Reason.REJECTED] * 2
    assert [loss.payload for loss in replica.losses] == [b"no record", broken]


# What a record may look like that a later version wrote.
UNKNOWN_FORMS = {
    "a rule without its detail": {"rules": [{"rule": "r", "mode": "m", "outcome": "refused"}]},
    "rules that are none": {"rules": ["refused"]},
    "an obstacle without its labels": {"obstacles": [{"obstacles": [{}]}]},
    "a user that is no text": {"user": {"name": "anna"}},
    "a node that is a list": {"source": ["node-a"]},
    "a message that is none": {"message": None},
    "an outcome that is not known": {"outcome": "postponed"},
}


@pytest.mark.parametrize("form", UNKNOWN_FORMS)
def test_a_record_of_a_form_that_is_not_known_is_set_aside_and_holds_up_no_other(
    replica, url, form
) -> None:
    unknown = json.dumps(json.loads(refusal().encode()) | UNKNOWN_FORMS[form]).encode()
    replica.refuse(0)
    replica.spool.keep(unknown, Importance.NOTE)
    replica.refuse(1)
    eventually(lambda: replica.spool.status().waiting == 0)
    replica.refuse(2)
    eventually(lambda: replica.shipper.status().shipped == 3)
    assert counts(url) == each_once([replica])
    (loss,) = replica.losses
    assert (loss.reason, loss.payload) == (Reason.REJECTED, unknown)
    (aside,) = replica.folder.glob("*.rejected")
    assert aside.read_bytes() == unknown
    assert aside.name in loss.detail


def test_a_server_that_is_stopped_under_load_delays_records_and_loses_none(
    fragile, tmp_path, quick
) -> None:
    url = database_url(fragile.url())
    running = [Replica(tmp_path / name, url) for name in ("one", "two")]
    loads = [Load(one) for one in running]
    for load in loads:
        load.start()
    for _ in range(3):
        eventually(lambda: all(one.shipper.status().failure == "" for one in running))
        fragile.stop()
        eventually(lambda: all(one.shipper.status().failure for one in running))
        fragile.start()
    for load in loads:
        load.end()
    eventually(lambda: all(one.spool.status().waiting == 0 for one in running))
    for one in running:
        one.stop()
    assert counts(url) == each_once(running)
    assert not any(one.losses for one in running)


def test_connections_cut_and_crashes_in_the_middle_of_commits_write_nothing_twice(
    fragile, tmp_path, quick
) -> None:
    url = database_url(fragile.url())
    running = [Replica(tmp_path / name, url) for name in ("one", "two")]
    loads = [Load(one) for one in running]
    for load in loads:
        load.start()
    chance = random.Random(5)
    cut = (
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'migration-guard'"
    )
    for turn in range(40):
        time.sleep(chance.uniform(0.0, 0.1))
        if turn % 20 == 10:
            fragile.stop(signal.SIGQUIT)
            fragile.start()
        else:
            fragile.execute(cut)
    for load in loads:
        load.end()
    eventually(lambda: all(one.spool.status().waiting == 0 for one in running))
    for one in running:
        one.stop()
    assert counts(url) == each_once(running)


def test_a_database_that_is_locked_delays_and_loses_nothing(tmp_path, quick) -> None:
    url = sqlite_url(tmp_path)
    replica = Replica(tmp_path / "spool", url)
    replica.refuse(0)
    eventually(lambda: replica.shipper.status().shipped == 1)
    engine = engine_of(url)
    with engine.begin():
        for number in range(1, 30):
            replica.refuse(number)
        time.sleep(0.5)
        assert replica.shipper.status().shipped == 1
    eventually(lambda: replica.shipper.status().shipped == 30)
    replica.stop()
    engine.dispose()
    assert counts(url) == each_once([replica])


def test_one_id_given_again_and_again_is_one_row(replica, url) -> None:
    same = an_id()
    for number in range(50):
        record = refusal(decision=same, time=NOON + number)
        replica.spool.keep(record.encode(), Importance.REFUSAL)
    eventually(lambda: replica.shipper.status().shipped == 50)
    assert counts(url) == {same: [50]}
