"""The configuration that ``serve`` follows: its file is read again when it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.loading import load_configuration
from webhook.cli.served_files import note_kept, note_taken_up, say_new
from webhook.policy.checking import check
from webhook.policy.findings import ConfigurationError, Level
from webhook.serving.watching import FileWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from webhook.policy.configuration import Configuration
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

_PART = "configuration"


class ServedConfiguration:
    """The configuration of the moment; a broken file never replaces one that works."""

    def __init__(
        self,
        path: Path | None,
        readiness: Readiness,
        metrics: Metrics,
        changed: Callable[[], None],
    ) -> None:
        """Read it for the first time.

        Args:
            path: The file; None for the defaults.
            readiness: Where it is told what holds, and a file that cannot be taken up.
            metrics: Likewise.
            changed: Called when another configuration holds.

        Raises:
            CommandError: The file cannot be read.
            ConfigurationError: It is no configuration.
        """
        self._path = path
        self._readiness = readiness
        self._metrics = metrics
        self._changed = changed
        # Before the first reading: a change while it goes on is then seen as one.
        self._watch = FileWatch((path,), self._read) if path is not None else None
        self._configuration = load_configuration(path)
        self._taken_up()

    def current(self) -> Configuration:
        """Return the settings that hold now."""
        return self._configuration

    def watch(self) -> None:
        """Begin to read the file again when it changes."""
        if self._watch is not None:
            self._watch.start()

    def _read(self) -> None:
        try:
            self._configuration = load_configuration(self._path)
        except (CommandError, ConfigurationError) as error:
            note_kept(_PART, str(error), self._readiness, self._metrics)
        else:
            say_new(_PART, self._taken_up())
            self._changed()

    def _taken_up(self) -> str:
        """Tell what holds; return it in words."""
        findings = [f for f in check(self._configuration) if f.level is Level.WARNING]
        where = str(self._path) if self._path is not None else "defaults"
        words = "; ".join((where, *map(str, findings)))
        note_taken_up(_PART, words, self._readiness, self._metrics)
        return words
