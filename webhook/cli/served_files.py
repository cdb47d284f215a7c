"""What ``serve`` has read from files, read again when they change.

What is broken never replaces what works: the old one holds, and readiness, a metric and the log
say so until the file is mended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.loading import load_configuration, load_inventory, say_errors
from webhook.cli.printing import say
from webhook.policy.findings import ConfigurationError
from webhook.serving.watching import FileWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from webhook.cluster.inventory import Inventory
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

CONFIGURATION = "configuration"
FACTS = "facts"


class ServedFiles:
    """The configuration and the facts of the moment."""

    def __init__(
        self,
        config: Path | None,
        paths: Sequence[Path],
        readiness: Readiness,
        metrics: Metrics,
        report: Callable[[Configuration, Inventory], None],
    ) -> None:
        """Read both for the first time.

        Args:
            config: The configuration file; None for the defaults.
            paths: The inventory.
            readiness: Where a file that cannot be taken up is told.
            metrics: Likewise.
            report: Told what holds, after each reading.

        Raises:
            CommandError: A file cannot be read.
            ConfigurationError: The configuration is none.
        """
        self._config = config
        self._paths = paths
        self._readiness = readiness
        self._metrics = metrics
        self._report = report
        # Before the first reading: a change while it goes on is then seen as one.
        self._watches = [FileWatch(paths, self._read_inventory)]
        if config is not None:
            self._watches.append(FileWatch((config,), self._read_configuration))
        self._configuration = load_configuration(config)
        self._inventory = load_inventory(paths)
        say_errors(self._inventory.errors)
        self._taken_up(CONFIGURATION)
        self._taken_up(FACTS)

    def configuration(self) -> Configuration:
        """Return the settings that hold now."""
        return self._configuration

    def facts(self) -> Snapshot:
        """Return the facts that hold now."""
        return self._inventory.snapshot

    def watch(self) -> None:
        """Begin to read them again when they change."""
        for watch in self._watches:
            watch.start()

    def _read_configuration(self) -> None:
        try:
            self._configuration = load_configuration(self._config)
        except (CommandError, ConfigurationError) as error:
            self._kept(CONFIGURATION, str(error))
        else:
            self._taken_up(CONFIGURATION)

    def _read_inventory(self) -> None:
        try:
            found = load_inventory(self._paths)
        except CommandError as error:
            self._kept(FACTS, str(error))
            return
        if found.errors:
            self._kept(FACTS, str(found.errors[0]))
            return
        self._inventory = found
        self._taken_up(FACTS)

    def _taken_up(self, what: str) -> None:
        self._metrics.note_file(what, taken_up=True)
        self._report(self._configuration, self._inventory)

    def _kept(self, what: str, why: str) -> None:
        self._metrics.note_file(what, taken_up=False)
        first = " ".join(why.split())
        self._readiness.report(
            what, True, f"warning: the old one holds, the new is broken: {first}"
        )
        say(f"{what}: the old one holds, the new is broken: {first}")
