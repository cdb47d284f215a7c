"""The program ``migration-guard`` as a process: the server, and one command after another."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from webhook.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = (sys.executable, "-m", "webhook.cli")
_ROOT = Path(__file__).parents[2]
_STARTED = "reviews on"
_LONGEST_START = 30.0
_LONGEST_ANSWER = 5.0
_LONGEST_STOP = 10.0


class Server:
    """``migration-guard serve`` on free ports of the loopback address, until the block ends."""

    def __init__(self, *inventory: Path) -> None:
        self._inventory = inventory
        self._folder = tempfile.TemporaryDirectory(prefix="migration-guard-demo-")
        self._process: subprocess.Popen[str] | None = None
        self._said: list[str] = []
        self._reader: threading.Thread | None = None
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Server:
        """Start the server.

        Raises:
            DemoError: It does not start.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server, whatever happened."""
        self.stop()

    def post(self, path: str, body: bytes) -> dict[str, object]:
        """Post a review as the API server does: one connection, kept alive.

        Raises:
            DemoError: There is no answer, or none with status 200.
        """
        assert self._connection is not None  # noqa: S101 - only used inside the block
        headers = {
            "Accept": "application/json, */*",
            "Content-Type": "application/json",
            "User-Agent": "kube-apiserver-admission",
        }
        try:
            self._connection.request("POST", path, body=body, headers=headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DemoError(
                f"POST {path}: no answer: {str(error) or type(error).__name__}"
            ) from error
        if response.status != http.client.OK:
            raise DemoError(f"POST {path}: HTTP {response.status}: {text[:200].decode()}")
        found: dict[str, object] = json.loads(text)
        return found

    def _start(self) -> None:
        folder = Path(self._folder.name)
        ports = folder / "ports.json"
        options = ["--bind", "127.0.0.1", "--port", "0", "--ops-port", "0"]
        options += ["--ports-file", str(ports), "--certs-dir", str(folder / "certs")]
        for path in self._inventory:
            options += ["--inventory", str(path)]
        self._process = subprocess.Popen(  # noqa: S603 - the project's own program
            [*_PROGRAM, "serve", *options],
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None  # noqa: S101 - a pipe was asked for
        self._await_start(self._process.stderr)
        port = json.loads(ports.read_text("utf-8"))["port"]
        trust = ssl.create_default_context(cafile=str(folder / "certs" / "ca.crt"))
        self._connection = http.client.HTTPSConnection(
            "localhost", port, context=trust, timeout=_LONGEST_ANSWER
        )

    def _await_start(self, stderr: IO[str]) -> None:
        """Read until the server says that it serves; then go on reading, so that it can log."""
        begun = threading.Event()

        def read() -> None:
            with stderr:
                for line in stderr:
                    self._said.append(line.rstrip())
                    if _STARTED in line:
                        begun.set()
            begun.set()

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()
        begun.wait(_LONGEST_START)
        if not any(_STARTED in line for line in self._said):
            why = self._said[-1] if self._said else "it said nothing"
            raise DemoError(f"the server did not start: {why}")

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None  # noqa: S101 - only used inside the block
        return self._process.pid

    def stop(self) -> None:
        """Stop the server by its process id, and remove what it wrote."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_LONGEST_STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._reader is not None:
            self._reader.join(_LONGEST_STOP)
        self._folder.cleanup()


def run(arguments: Sequence[str]) -> int:
    """Run a command with this process's own output; return its exit status."""
    sys.stdout.flush()
    done = subprocess.run(  # noqa: S603 - the project's own program
        [*_PROGRAM, *arguments], check=False, env=_environment()
    )
    return done.returncode


def _environment() -> dict[str, str]:
    """Return this process's environment, in which the package is also found uninstalled."""
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
