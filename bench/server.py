"""The whole guard over TLS against a bare webhook in Go: two jobs, at 1, 8 and 32 connections."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sample import reviews

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[1]
BUILT = CHECKOUT / ".cache" / "bench"
CONNECTIONS = (1, 8, 32)
START_SECONDS = 30
WARM_UP_SECONDS = 0.5
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Job:
    """What is asked, and the text that tells the right answer from any other."""

    name: str
    path: str
    want: str
    bodies: tuple[bytes, ...]
    target: float


@dataclass
class Server:
    """One of the two servers, listening."""

    name: str
    process: subprocess.Popen[Any]
    port: int

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, by its worker process too."""
        return sum(_cpu_seconds(pid) for pid in self._pids())

    def memory(self) -> float:
        """Return the memory in use, in MiB, of all its processes."""
        return sum(_memory(pid) for pid in self._pids())

    def _pids(self) -> Iterator[int]:
        pid = self.process.pid
        yield pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        yield from map(int, children.split())


@dataclass
class Figures:
    """What was measured of one server at one job and number of connections, round by round."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def _cpu_seconds(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS


def _memory(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def build() -> None:
    """Compile the webhook and the load generator; needs no module but Go's own library."""
    BUILT.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["go", "build", "-trimpath", "-o", f"{BUILT}/", "./webhook", "./load"],  # noqa: S607 - Go of the PATH
        cwd=Path(__file__).parent / "go",
        env={**os.environ, "CGO_ENABLED": "0", "GOCACHE": str(BUILT / "go-build")},
        check=True,
    )


def start(core: int, words: list[str], **kwargs: Any) -> subprocess.Popen[Any]:
    """Start a program on one core; all its threads and processes stay there."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(words, **kwargs)
    finally:
        os.sched_setaffinity(0, ours)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a program."""
    process.terminate()
    try:
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_guard(folder: Path, core: int, name: str = "guard", checkout: Path = CHECKOUT) -> Server:
    """Start the guard of a checkout as an administrator does, its log going into a file."""
    ports, log_file = folder / f"{name}-ports.json", folder / f"{name}.log"
    python = checkout / ".venv" / "bin" / "python"
    words = [str(python), "-m", "webhook.cli", "serve", "--bind", "127.0.0.1"]
    words += ["--port", "0", "--ops-port", "0", "--ports-file", str(ports)]
    words += ["--certs-dir", str(folder), "--inventory", str(folder / "inventory.json")]
    with log_file.open("wb") as log:
        process = start(core, words, cwd=checkout, stderr=log)
    end = time.monotonic() + START_SECONDS
    while b"reviews on" not in log_file.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            stop(process)
            raise SystemExit(f"the guard did not start: {log_file.read_text()}")
        time.sleep(0.05)
    return Server(name, process, json.loads(ports.read_bytes())["port"])


def start_go(folder: Path, core: int) -> Server:
    """Start the webhook in Go, with the guard's certificate and inventory."""
    words = [str(BUILT / "webhook"), "-inventory", str(folder / "inventory.json")]
    words += ["-cert", str(folder / "tls.crt"), "-key", str(folder / "tls.key")]
    process = start(
        core, words, stdout=subprocess.PIPE, text=True, env={**os.environ, "GOMAXPROCS": "1"}
    )
    assert process.stdout is not None
    version = subprocess.run(
        ["go", "version"],  # noqa: S607 - Go of the PATH
        capture_output=True,
        text=True,
        check=True,
    )
    return Server(version.stdout.split()[2], process, int(process.stdout.readline()))


def load(
    server: Server, job: Job, connections: int, seconds: float, core: int, folder: Path
) -> dict[str, Any]:
    """Ask one server for some seconds; every answer is held against what the job wants."""
    words = [str(BUILT / "load"), "-address", f"127.0.0.1:{server.port}", "-path", job.path]
    words += ["-ca", str(folder / "ca.crt"), "-bodies", str(folder / job.path.strip("/"))]
    words += ["-want", job.want, "-connections", str(connections), "-seconds", str(seconds)]
    process = start(
        core, words, stdout=subprocess.PIPE, text=True, env={**os.environ, "GOMAXPROCS": "1"}
    )
    told, _ = process.communicate()
    found: dict[str, Any] = json.loads(told)
    if found["failures"]:
        raise SystemExit(
            f"{server.name}: {found['failures']} wrong answers: {found['lastFailure']}"
        )
    return found


def measure(
    server: Server, job: Job, connections: int, seconds: float, core: int, folder: Path
) -> tuple[float, float, float, float]:
    """Return requests a second, p50 and p99 in ms, and processor time a request in µs."""
    before = server.cpu_seconds()
    found = load(server, job, connections, seconds, core, folder)
    used = server.cpu_seconds() - before
    return (
        found["answered"] / found["seconds"],
        found["p50"] * 1e3,
        found["p99"] * 1e3,
        used / found["answered"] * 1e6,
    )


def _ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the ratios of the rounds: their median, the lowest and the highest."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"


def report(job: Job, connections: int, guard: Figures, other: Figures) -> None:
    """Print one line: medians of both, and the ratios of rounds that ran side by side."""
    at = statistics.median
    print(
        f"  {job.name:<10}{connections:>5}"
        f"{at(guard.rate):>8,.0f} /{at(other.rate):>7,.0f}  {_ratio(guard.rate, other.rate):<18}"
        f"{at(guard.p50):>6.2f} /{at(other.p50):>6.2f} {at(guard.p99):>7.2f} /{at(other.p99):>6.2f}"
        f"{at(guard.cpu):>7,.0f} /{at(other.cpu):>5,.0f}  {_ratio(other.cpu, guard.cpu)}",
        flush=True,
    )


def jobs() -> tuple[Job, ...]:
    pods, migrations = tuple(reviews.target_pods()), tuple(reviews.migrations())
    return (
        Job("(a) pod", "/mutate", '"patchType":"JSONPatch"', pods, 1.5),
        Job("(b) migr.", "/validate", "no other node can take it", migrations, 1.0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one run (1.5)")
    parser.add_argument("--rounds", type=int, default=5, help="of all runs (5)")
    parser.add_argument(
        "--beside", type=Path, help="another checkout of the guard, with its .venv; instead of Go"
    )
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if shutil.which("go") is None or len(cores) < 2:
        print("  left out: it needs Go on the PATH (https://go.dev/dl/) and two cores")
        return
    build()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        items = {"apiVersion": "v1", "kind": "List", "items": reviews.inventory()}
        (folder / "inventory.json").write_text(json.dumps(items), encoding="utf-8")
        for job in jobs():
            (folder / job.path.strip("/")).write_bytes(b"\n".join(job.bodies))
        guard = start_guard(folder, cores[0])
        ends.callback(stop, guard.process)
        if options.beside is None:
            other = start_go(folder, cores[0])
        else:
            other = start_guard(folder, cores[0], "other", options.beside.resolve())
        ends.callback(stop, other.process)
        compare((guard, other), cores[1], folder, options.seconds, options.rounds)


def compare(
    servers: tuple[Server, Server], core: int, folder: Path, seconds: float, rounds: int
) -> None:
    """Measure both servers in turns, and print what was found."""
    other = servers[1]
    print(f"  guard / {other.name}, each on one core, the client on another; TLS 1.3")
    print(
        "  job       conns   requests a second, ratio          "
        f"p50 ms          p99 ms          CPU us, ratio ({other.name}/guard)"
    )
    for job in jobs():
        for server in servers:
            load(server, job, max(CONNECTIONS), WARM_UP_SECONDS, core, folder)
    found = {(j.name, c, s.name): Figures() for j in jobs() for c in CONNECTIONS for s in servers}
    for _ in range(rounds):
        # In turns, so that a slow moment of the machine slows both.
        for job in jobs():
            for connections in CONNECTIONS:
                for server in servers:
                    figures = found[job.name, connections, server.name]
                    values = measure(server, job, connections, seconds, core, folder)
                    for kept, value in zip(
                        (figures.rate, figures.p50, figures.p99, figures.cpu), values, strict=True
                    ):
                        kept.append(value)
    for job in jobs():
        for connections in CONNECTIONS:
            ours, theirs = (found[job.name, connections, s.name] for s in servers)
            report(job, connections, ours, theirs)
        if other.name != "other":
            print(f"  {job.name}: target {job.target} times Go")
    used = ", ".join(f"{one.name} {one.memory():.0f} MiB" for one in servers)
    print(f"  memory afterwards: {used}")


if __name__ == "__main__":
    main()
