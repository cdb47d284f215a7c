"""The audit: what it adds to a review, and lists and sums over many records.

Usage: audit.py [RECORDS]; 50,000 unless given, 0 for the reviews alone.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from webhook.audit.database import database_url, engine_of, migrate, sqlite_url
from webhook.audit.following import Follower
from webhook.audit.importance import Importance
from webhook.audit.queries import Reader
from webhook.audit.record import VALIDATING, Record
from webhook.audit.results import Filter
from webhook.audit.retention import Retention
from webhook.audit.segments import Frame
from webhook.audit.shipping import Shipper
from webhook.audit.spool import Spool, SpoolLimits
from webhook.audit.store import DAY, Store
from webhook.review.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

CHECKOUT = Path(__file__).parents[1]
INVENTORY = CHECKOUT / "webhook" / "demo" / "inventory"
RECORDS = 50_000
KEPT = 6_400
REVIEWS = 500
A_SECOND = 200
ROUNDS = 3
QUERIES = 15
BATCH = 500
LAST = 20_000
DAYS = 365
START = 1_735_689_600_000_000
SPOOL_RECORDS = 20_000


def _vm(chance: random.Random) -> str:
    """Return one of 10,000 VMs in 200 namespaces."""
    number = chance.randrange(10_000)
    return f"team-{number % 200}/vm-{number}"


def _record(number: int, records: int, chance: random.Random) -> Record:
    vm = _vm(chance)
    node = chance.randrange(500)
    outcome = chance.choices((Outcome.REFUSED, Outcome.WARNED, Outcome.CHANGED), (3, 2, 5))[0]
    rule = {
        Outcome.REFUSED: "incompatible-target",
        Outcome.WARNED: "no-room-now",
        Outcome.CHANGED: "target-selectors",
    }[outcome]
    decision = f"019ac000-0000-7000-8000-{number:012x}"
    labels = [f"cpu-feature.node.kubevirt.io/f{chance.randrange(80)}" for _ in range(3)]
    obstacle = {
        "code": "cpu-feature",
        "kind": "lasting",
        "origin": "source-cpu",
        "missing": labels,
        "present": [],
        "detail": "",
    }
    names = [f"node-{chance.randrange(500)}" for _ in range(8)]
    parts = ({"nodes": names, "count": 400, "obstacles": [obstacle]},)
    return Record(
        decision=decision,
        time=START + number * DAYS * DAY // records,
        phase=VALIDATING,
        outcome=outcome,
        allowed=outcome is not Outcome.REFUSED,
        rule=rule,
        mode="enforce",
        rules=({"rule": rule, "mode": "enforce", "outcome": outcome.value, "detail": ""},),
        operation="CREATE",
        group="kubevirt.io",
        version="v1",
        kind="VirtualMachineInstanceMigration",
        namespace=vm.partition("/")[0],
        name=f"migrate-{number}",
        vm=vm,
        vm_uid=f"uid-{vm}",
        user=f"user-{chance.randrange(300)}",
        groups=("system:authenticated",),
        origin="user",
        source=f"node-{node}",
        cpu_model="host-model",
        cpu_model_source="default",
        obstacles=() if outcome is Outcome.CHANGED else parts,
        message=f"migration of VM {vm} from node node-{node} refused: no other node can take it: "
        f"{', '.join(names[:4])} and 396 more lack {', '.join(labels)} (the source node's CPU "
        f"demands it). Decision {decision}.",
        latency=0.0006,
    )


class _Server:
    """A guard over the sample cluster."""

    def __init__(self, folder: Path, *options: str) -> None:
        ports = folder / "ports.json"
        words = ["serve", "--bind", "127.0.0.1", "--port", "0", "--ops-port", "0"]
        words += ["--inventory", str(INVENTORY), "--certs-dir", str(folder / "certs")]
        words += ["--ports-file", str(ports), *options]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "webhook.cli", *words],
            stderr=subprocess.DEVNULL,
        )
        while not ports.exists():
            time.sleep(0.05)
        self._port = json.loads(ports.read_text())["port"]
        self._tls = ssl.create_default_context(cafile=folder / "certs" / "ca.crt")

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self._port, context=self._tls)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def _review(vm: str, user: str) -> bytes:
    kind = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstanceMigration"}
    namespace, _, name = vm.partition("/")
    request = {
        "uid": "1",
        "kind": kind,
        "operation": "CREATE",
        "namespace": namespace,
        "userInfo": {"username": user},
        "object": {"metadata": {"generateName": "m-"}, "spec": {"vmiName": name}},
    }
    review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(review).encode()


def _ask(connection: http.client.HTTPSConnection, body: bytes, *, allowed: bool) -> float:
    began = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/validate?timeout=10s", body, headers)
    answer = connection.getresponse().read()
    took = time.perf_counter() - began
    assert json.loads(answer)["response"]["allowed"] is allowed
    return took


def _times(server: _Server, vm: str, *, allowed: bool, clients: int) -> list[float]:
    times: list[float] = []

    def client(number: int) -> None:
        connection = server.connection()
        for turn in range(REVIEWS // clients):
            took = _ask(connection, _review(vm, f"u{number}-{turn}"), allowed=allowed)
            times.append(took)
            time.sleep(max(0.0, clients / A_SECOND - took))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _latency() -> None:
    heads = f"{'off p50':>9}{'p99':>8}{'on p50':>9}{'p99':>8}"
    print(f"  {'one of 200 reviews a second, milliseconds':<46}{heads}")
    with tempfile.TemporaryDirectory() as without, tempfile.TemporaryDirectory() as kept:
        servers = {
            "off": _Server(Path(without)),
            "on": _Server(Path(kept), "--audit-dir", str(Path(kept) / "audit")),
        }
        try:
            for what, vm, allowed, clients in (
                ("refused, one client", "plant/historian", False, 1),
                ("refused, 8 clients", "plant/historian", False, 8),
                ("allowed, one client", "shop/web", True, 1),
                ("allowed, 8 clients", "shop/web", True, 8),
            ):
                times: dict[str, list[float]] = {"off": [], "on": []}
                # They take turns, so that whatever slows the machine down slows both.
                for _ in range(ROUNDS):
                    for name, server in servers.items():
                        times[name] += _times(server, vm, allowed=allowed, clients=clients)
                cells = ""
                for name in ("off", "on"):
                    cut = statistics.quantiles(times[name], n=100)
                    cells += f"{cut[49] * 1e3:>9.2f}{cut[98] * 1e3:>8.2f}"
                print(f"  {what:<46}{cells}")
        finally:
            for server in servers.values():
                server.stop()


def _kept() -> None:
    """Keep refusals from one event loop, as the server does, without the review around them."""
    heads = f"{'p50':>9}{'p99':>8}{'a second':>12}"
    print(f"  {'a refusal until it is on disk, milliseconds':<46}{heads}")
    chance = random.Random(5)
    payload = _record(0, 1, chance).encode()

    async def ask(spool: Spool, times: list[float], turns: int) -> None:
        for _ in range(turns):
            began = time.perf_counter()
            future = spool.keep(payload, Importance.REFUSAL)
            assert future is not None
            assert await asyncio.wrap_future(future)
            times.append(time.perf_counter() - began)

    async def several(spool: Spool, clients: int) -> list[float]:
        times: list[float] = []
        await asyncio.gather(*(ask(spool, times, KEPT // clients) for _ in range(clients)))
        return times

    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder))
        spool.start()
        for clients in (1, 8, 64):
            began = time.perf_counter()
            times = asyncio.run(several(spool, clients))
            rate = len(times) / (time.perf_counter() - began)
            cut = statistics.quantiles(times, n=100)
            cells = f"{cut[49] * 1e3:>9.2f}{cut[98] * 1e3:>8.2f}{rate:>12,.0f}"
            print(f"  {f'{clients} at once':<46}{cells}")
        spool.stop()
        spool.close()


def _filled(url: URL, records: int) -> float:
    """Fill a database; return the seconds that the last ``LAST`` records took to be written."""
    engine = engine_of(url)
    migrate(engine)
    store, chance, took = Store(engine), random.Random(7), 0.0
    for first in range(0, records, BATCH):
        frames = [
            Frame(number + 1, _record(number, records, chance).encode())
            for number in range(first, min(first + BATCH, records))
        ]
        began = time.perf_counter()
        store.write("bench", frames)
        if first >= records - LAST:
            took += time.perf_counter() - began
    with engine.connect() as connection:
        # What autovacuum and the server's own retention do in time.
        connection.execution_options(isolation_level="AUTOCOMMIT")
        analyze = "PRAGMA optimize" if url.get_backend_name() == "sqlite" else "VACUUM ANALYZE"
        connection.exec_driver_sql(analyze)
    engine.dispose()
    return took


def _queried(reader: Reader, records: int) -> None:
    chance = random.Random(3)
    end = START + DAYS * DAY

    def node() -> str:
        return f"node-{chance.randrange(500)}"

    def user() -> str:
        return f"user-{chance.randrange(300)}"

    def namespace() -> str:
        return f"team-{chance.randrange(200)}"

    wanted: dict[str, Any] = {
        "newest": Filter,
        "an outcome": lambda: Filter(outcomes=("refused",)),
        "a rule": lambda: Filter(rule="no-room-now"),
        "a namespace": lambda: Filter(namespace=namespace()),
        "a VM": lambda: Filter(vm=_vm(chance)),
        "a user": lambda: Filter(user=user()),
        "a node": lambda: Filter(node=node()),
        "a user, refused": lambda: Filter(user="user-7", outcomes=("refused",)),
        "a node, a rule": lambda: Filter(node=node(), rule="no-room-now"),
        "a user, a namespace": lambda: Filter(user=user(), namespace=namespace()),
        "a user, a VM that he never had": lambda: Filter(user=user(), vm=_vm(chance)),
        "a VM, another namespace": lambda: Filter(vm="team-1/vm-1", namespace="team-2"),
        "a user, a namespace, a rule without the outcome": lambda: Filter(
            user=user(), namespace=namespace(), rule="no-room-now", outcomes=("changed",)
        ),
        "a user, a rule, another outcome": lambda: Filter(
            user=user(), rule="no-room-now", outcomes=("refused",)
        ),
        "a namespace, two rare outcomes": lambda: Filter(
            namespace=namespace(), outcomes=("blind", "exempt")
        ),
        "a rule, another outcome": lambda: Filter(rule="no-room-now", outcomes=("refused",)),
        "a day two months ago": lambda: Filter(since=end - 60 * DAY, until=end - 59 * DAY),
        "a text, of one day": lambda: Filter(since=end - DAY, text="node-499 and"),
        "a text that is nowhere": lambda: Filter(text="nowhere"),
        "a text that is nowhere, a node, a rule": lambda: Filter(
            text="nowhere", node=node(), rule="no-room-now"
        ),
    }
    for name, make in wanted.items():
        _report(f"list: {name}", [_seconds(reader.page, make(), 50) for _ in range(QUERIES)])
    ids = [f"019ac000-0000-7000-8000-{chance.randrange(records):012x}" for _ in range(QUERIES)]
    _report("show: a decision id", [_seconds(reader.by_decision, one) for one in ids])
    follower = Follower(reader, Filter())
    _report(
        "list -f: nothing new", [_seconds(lambda: list(follower.news())) for _ in range(QUERIES)]
    )
    for number in (30, 90, 180, 270, 364):
        times = [_seconds(reader.stats, end - number * DAY, None, 20) for _ in range(QUERIES)]
        _report(f"stats: {number} days", times)
    middle = (end - 270 * DAY, end - 90 * DAY)
    times = [_seconds(reader.stats, *middle, 20) for _ in range(QUERIES)]
    _report("stats: 180 days in the middle", times)
    _report("stats: all", [_seconds(reader.stats, None, None, 20) for _ in range(QUERIES)])


def _seconds(ask: Any, *arguments: Any) -> float:
    began = time.perf_counter()
    ask(*arguments)
    return time.perf_counter() - began


def _report(what: str, times: list[float]) -> None:
    print(f"    {what:<56}{statistics.median(times) * 1e3:>10.1f}{max(times) * 1e3:>10.1f}")


def _shipped(folder: Path, url: URL) -> None:
    """Fill a spool, then ship it."""
    chance = random.Random(9)
    payloads = [_record(n, SPOOL_RECORDS, chance).encode() for n in range(SPOOL_RECORDS)]
    spool = Spool(folder, SpoolLimits(size=1 << 30))
    spool.start()
    began = time.perf_counter()
    futures = [spool.keep(payload, Importance.REFUSAL) for payload in payloads]
    assert all(future is not None and future.result() for future in futures)
    kept = time.perf_counter() - began
    size = spool.status().size
    shipper = Shipper(spool, url, Retention(seconds=1e9, rows=1 << 40))
    began = time.perf_counter()
    shipper.start()
    while spool.status().waiting:
        time.sleep(0.05)
    took = time.perf_counter() - began
    spool.stop()
    shipper.stop()
    spool.close()
    full = SpoolLimits().size / size * took
    print(
        f"    a spool of {SPOOL_RECORDS:,} refusals, {size / 1e6:.0f} MB: {kept:.1f} s to keep, "
        f"{took:.1f} s to ship; a full one of {SpoolLimits().size >> 20} MiB: about {full:.0f} s"
    )


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, URL]]:
    # The tests' own PostgreSQL server; they lie beside this folder.
    sys.path.insert(0, str(CHECKOUT))
    from tests.audit.postgres import Postgres

    server = Postgres()
    try:
        for name in ("bench", "ship"):
            server.execute(f"create database {name}")
        yield {
            "SQLite": sqlite_url(folder),
            "PostgreSQL": database_url(server.url("bench")),
            "ship SQLite": sqlite_url(folder / "ship"),
            "ship PostgreSQL": database_url(server.url("ship")),
        }
    finally:
        server.close()


def _size(url: URL) -> int:
    if url.get_backend_name() == "sqlite":
        return sum(path.stat().st_size for path in Path(str(url.database)).parent.glob("*sqlite*"))
    engine = engine_of(url)
    with engine.connect() as connection:
        found: int = connection.scalar(sa.text("select pg_database_size(current_database())"))
    engine.dispose()
    return found


def main() -> None:
    records = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else RECORDS
    _kept()
    _latency()
    if not records:
        return
    with tempfile.TemporaryDirectory() as folder, _databases(Path(folder)) as urls:
        (Path(folder) / "ship").mkdir()
        for name in ("SQLite", "PostgreSQL"):
            url = urls[name]
            took = _filled(url, records)
            size = _size(url)
            print(
                f"  {name}: {records:,} records, {size / 1e6:,.0f} MB ({size / records:,.0f} bytes "
                f"each), the last written at {min(records, LAST) / took:,.0f} a second"
            )
            _shipped(Path(folder) / f"spool {name}", urls[f"ship {name}"])
            print(f"    {'milliseconds':<56}{'median':>10}{'worst':>10}")
            reader = Reader(url)
            _queried(reader, records)
            reader.close()


if __name__ == "__main__":
    main()
