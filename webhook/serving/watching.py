"""Noticing that files have changed.

A mounted ConfigMap changes by a swap of symbolic links, which sends no event for the files behind
them; what a file looks like from outside is therefore asked again and again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from webhook.serving.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SECONDS = 1.0
"""Between two looks."""


def signature(paths: Sequence[Path]) -> tuple[tuple[str, int, int, int], ...]:
    """Return what some files look like from outside, those in folders too.

    Two signatures differ when a file was written, replaced, added or removed.
    """
    return tuple(sorted(_looks(paths)))


def _looks(paths: Sequence[Path]) -> Iterator[tuple[str, int, int, int]]:
    for path in paths:
        try:
            seen = path.stat()
            inside = sorted(path.iterdir()) if path.is_dir() else []
        except OSError:
            yield str(path), 0, 0, 0
            continue
        yield str(path), seen.st_mtime_ns, seen.st_size, seen.st_ino
        yield from _looks(inside)


class FileWatch:
    """Calls somebody when files have changed, from a thread of its own."""

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None]) -> None:
        """Take the files as they are now; :meth:`start` begins to look.

        Args:
            paths: Files and folders.
            changed: Called after each change. Where it raises, that is logged, and it is called
                again a second later.
        """
        self._paths = paths
        self._changed = changed
        self._known = signature(paths)
        # The failure of the look before, by its type.
        self._failure: type[Exception] | None = None
        self._thread = threading.Thread(target=self._watch, name="file-watch", daemon=True)

    def start(self) -> None:
        """Begin to look; the thread ends with the process."""
        self._thread.start()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(SECONDS)
            try:
                self._look()
            except Exception as error:
                # The thread must outlive what nobody has thought of. The log is told once, not
                # every second.
                if type(error) is not self._failure:
                    log_failure("changed files could not be taken up", error, text=False)
                self._failure = type(error)
            else:
                self._failure = None

    def _look(self) -> None:
        # Taken before reading: a change while it is read is seen the next time.
        now = signature(self._paths)
        if now != self._known:
            self._changed()
            self._known = now
