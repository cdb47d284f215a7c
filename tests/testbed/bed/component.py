"""One program of a test bed, as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
STARTS_WITHIN = 120.0
"""Seconds until a program must be ready; on a busy machine the API server has taken 20."""


class ComponentError(Exception):
    """A program ended, or is not ready in time; the message holds the end of its log."""


class Component:
    """A program with its log. It is the leader of a process group, which ends as a whole.

    On Linux it also ends with the process that started it, however that one ends; therefore it is
    to be started from the main thread, whose end the kernel watches.

    Args:
        name: Its name in messages and of its log.
        command: Program and arguments.
        log: What it prints is added to this file.
        ready: Says whether it does its work already.
        environment: Added to this process's own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        ready: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self._ready = ready
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; does not wait until it is ready."""
        command = self.command
        if (setpriv := shutil.which("setpriv")) is not None:
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ComponentError: It was not started.
        """
        if self._process is None:
            raise ComponentError(f"{self.name} was not started")
        return self._process.pid

    def wait_until_ready(self, seconds: float = STARTS_WITHIN) -> None:
        """Wait until it does its work.

        Raises:
            ComponentError: It ended, or is not ready in time.
        """
        until = time.monotonic() + seconds
        while not self._ready():
            if not self.running:
                raise ComponentError(f"{self.name} ended by itself\n{self.last_words()}")
            if time.monotonic() > until:
                raise ComponentError(
                    f"{self.name} is not ready after {seconds:.0f} s\n{self.last_words()}"
                )
            time.sleep(0.05)

    def send(self, what: signal.Signals) -> None:
        """Send its process group a signal; does nothing where it has ended."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, what)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and everything it started; does nothing where it has ended."""
        process = self._process
        if process is None:
            return
        self.send(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None

    def last_words(self, lines: int = 30) -> str:
        """Return the end of the log, with its path."""
        said = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        return "\n".join([f"{self.log}:", *said.splitlines()[-lines:]])
