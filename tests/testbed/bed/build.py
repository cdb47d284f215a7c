"""Build the programs of the test bed: ``python -m tests.testbed.bed.build``.

Does nothing where all of them are there and were built by this very recipe. An interrupted build
goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbed.bed import recipe
from tests.testbed.bed.recipe import BUILD_FLAGS, Program
from tests.testbed.bed.toolchain import ToolchainError, environment, find_go, own_caches

TOLD_EVERY = 30.0
"""Seconds between two lines of progress where the output is no terminal."""

_PACKAGE = re.compile(r"^[\w.-]+(/[\w.~-]+)*$")


def main() -> int:
    """Build what is missing."""
    if not recipe.stale():
        return 0
    recipe.cache().mkdir(parents=True, exist_ok=True)
    try:
        with _locked():
            _build_all(recipe.stale())
    except (ToolchainError, BuildError) as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


class BuildError(Exception):
    """A program could not be built; the message holds the end of what Go said."""


def _build_all(programs: list[Program]) -> None:
    began = time.monotonic()
    go = find_go()
    if programs:
        print(
            f"testbed: building {len(programs)} programs with {go}, once "
            "(about 17 minutes on two busy cores)",
            flush=True,
        )
    for number, program in enumerate(programs, 1):
        _build(go, program, f"[{number}/{len(programs)}] {program.name}")
    # All of it went into the programs; a new recipe needs other sources.
    shutil.rmtree(own_caches(), ignore_errors=True)
    if programs:
        print(f"testbed: built in {time.monotonic() - began:.0f} s", flush=True)


def _build(go: Path, program: Program, title: str) -> None:
    began = time.monotonic()
    there = recipe.binary(program.name)
    there.parent.mkdir(parents=True, exist_ok=True)
    unfinished = there.with_suffix(".new")
    progress = _Progress(title, _count(go, program))
    command: list[str | Path] = [
        *("nice", "-n", "10", go, "build", "-v", *BUILD_FLAGS),
        *("-ldflags", program.linker_flags, "-o", unfinished, program.package),
    ]
    said = []
    with subprocess.Popen(
        command, cwd=program.folder, env=environment(go), stderr=subprocess.PIPE, text=True
    ) as building:
        assert building.stderr is not None
        for line in building.stderr:
            if _PACKAGE.match(line.strip()):
                progress.step()
            else:
                said.append(line)
    if building.returncode != 0:
        raise BuildError(f"{program.name} could not be built:\n{''.join(said[-20:])}")
    recipe.stamp_path(program).unlink(missing_ok=True)
    unfinished.replace(there)
    if program.data is not None:
        _keep_data(go, program, *program.data)
    recipe.stamp_path(program).write_text(program.digest(), encoding="ascii")
    progress.done(f"{time.monotonic() - began:.0f} s")


def _keep_data(go: Path, program: Program, module: str, folder: str) -> None:
    """Copy the files of a module's folder beside the program: the sources do not stay."""
    sources = _ask(go, program, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module).strip()
    there = recipe.data_folder(program.name)
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir()
    for file in (Path(sources) / folder).iterdir():
        # Sources are read-only, which would stay in the way of whoever removes the copies.
        shutil.copyfile(file, there / file.name)


def _count(go: Path, program: Program) -> int:
    """Load the sources; return how many packages the program consists of.

    Raises:
        BuildError: They cannot be loaded, or a checksum differs from go.sum.
    """
    return len(_ask(go, program, "list", *BUILD_FLAGS, "-deps", program.package).splitlines())


def _ask(go: Path, program: Program, *arguments: str) -> str:
    """Run a command of Go where a program's sources are pinned; return what it prints.

    Raises:
        BuildError: It failed.
    """
    asked = subprocess.run(
        [go, *arguments],
        cwd=program.folder,
        env=environment(go),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        raise BuildError(f"the sources of {program.name}:\n{asked.stderr.strip()[-2000:]}")
    return asked.stdout


class _Progress:
    """One line that counts on a terminal; elsewhere a line now and then."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._compiled = 0
        self._told = time.monotonic()
        self._terminal = sys.stdout.isatty()
        if self._terminal:
            self._tell()

    def step(self) -> None:
        self._compiled += 1
        if self._terminal or time.monotonic() - self._told > TOLD_EVERY:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        text = f"{self._title}: {self._compiled} of at most {self._total} packages"
        print(f"\r{text}" if self._terminal else text, end="" if self._terminal else "\n")
        sys.stdout.flush()

    def done(self, took: str) -> None:
        print(f"{chr(13) if self._terminal else ''}{self._title}: {took:60}".rstrip(), flush=True)


@contextmanager
def _locked() -> Iterator[None]:
    with (recipe.cache() / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("testbed: waiting for another build", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
