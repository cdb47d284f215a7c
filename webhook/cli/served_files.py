"""What ``serve`` has read from files, read again when they change.

What is broken never replaces what works: the old one holds, and readiness, a metric and the log
say so until the file is mended. The log also says when something new is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.loading import FactsPlace, load_inventory, say_errors
from webhook.cli.printing import say
from webhook.serving.watching import FileWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from webhook.cluster.inventory import Inventory
    from webhook.model.snapshot import Snapshot
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

_PART = "facts"


class ServedInventory:
    """The facts of the moment, from files; they never age."""

    def __init__(
        self,
        paths: Sequence[Path],
        readiness: Readiness,
        metrics: Metrics,
        changed: Callable[[], None],
    ) -> None:
        """Read them for the first time.

        Args:
            paths: The inventory.
            readiness: Where it is told what was read, and a file that cannot be taken up.
            metrics: Likewise.
            changed: Called when there are other facts.

        Raises:
            CommandError: A file cannot be read.
        """
        self._place = FactsPlace(tuple(paths))
        self._readiness = readiness
        self._metrics = metrics
        self._changed = changed
        # Before the first reading: a change while it goes on is then seen as one.
        self._watch = FileWatch(paths, self._read)
        self._inventory = load_inventory(self._place)
        say_errors(self._inventory.errors)
        self._taken_up()

    def snapshot(self) -> Snapshot:
        """Return the facts that hold now."""
        return self._inventory.snapshot

    def age(self) -> float | None:
        """Return None: files never age."""
        return None

    def watch(self) -> None:
        """Begin to read the files again when they change."""
        self._watch.start()

    def _read(self) -> None:
        try:
            found = load_inventory(self._place)
        except CommandError as error:
            note_kept(_PART, str(error), self._readiness, self._metrics)
            return
        if found.errors:
            note_kept(_PART, str(found.errors[0]), self._readiness, self._metrics)
            return
        self._inventory = found
        say_new(_PART, self._taken_up())
        self._changed()

    def _taken_up(self) -> str:
        """Tell what was read; return it in words."""
        words = _facts(self._inventory)
        note_taken_up(_PART, words, self._readiness, self._metrics)
        return words


def note_taken_up(part: str, detail: str, readiness: Readiness, metrics: Metrics) -> None:
    """Tell that the newest state of a file is in use, and what to know about it."""
    metrics.note_file(part, taken_up=True)
    readiness.report(part, True, detail)


def say_new(part: str, detail: str) -> None:
    """Log that a changed file is in use, a mended one too."""
    say(f"{part}: the new one is in use: {detail}")


def note_kept(part: str, why: str, readiness: Readiness, metrics: Metrics) -> None:
    """Tell that the newest state of a file is broken, so that the old one holds."""
    metrics.note_file(part, taken_up=False)
    first = " ".join(why.split())
    words = f"the old one holds, the new is broken: {first}"
    readiness.report(part, True, f"warning: {words}")
    say(f"{part}: {words}")


def _facts(inventory: Inventory) -> str:
    words = [_counted(inventory.counts)]
    if blind := inventory.snapshot.blind():
        words.append(f"warning: {blind}")
    if inventory.errors:
        count = len(inventory.errors)
        what = "1 document" if count == 1 else f"{count} documents"
        words.append(f"warning: {what} left out; the first: {inventory.errors[0]}")
    return "; ".join(words)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"
