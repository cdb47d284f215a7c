"""The live cluster that ``serve`` guards: its facts, and what is told about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.printing import say
from webhook.cli.served_installation import ServedInstallation
from webhook.cluster.live import LiveFacts
from webhook.cluster.reflector import Following

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.cluster.connection import Connection
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.serving.key_pair import KeyPair
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

_PART = "facts"


class ServedCluster:
    """The facts of the moment, from a cluster that is followed as it changes.

    Readiness latches: once every kind was read, a stale one is told in ``/readyz?verbose``, the
    metrics and each reply, and does not take all replicas out of the Service at once.
    """

    def __init__(
        self,
        connection: Connection,
        configuration: Callable[[], Configuration],
        certificate: Callable[[], KeyPair],
        readiness: Readiness,
        metrics: Metrics,
        changed: Callable[[], None],
    ) -> None:
        """Take the way to the cluster; :meth:`watch` begins.

        Args:
            connection: The way to the cluster.
            configuration: The settings of the moment.
            certificate: The one that is served at the moment.
            readiness: Where it is told how each kind stands.
            metrics: Likewise.
            changed: Called when there are other facts, and every second.
        """
        self._configuration = configuration
        self._readiness = readiness
        self._changed = changed
        self._was_synced = False
        self._errors: dict[str, str] = {}
        self._details: dict[str, tuple[bool, str]] = {}
        self._live = LiveFacts(connection, self._following, told=self._tell, log=say)
        for kind in self._live.kinds:
            metrics.follow_kind(kind.resource.name, kind)
        self._installation = ServedInstallation(
            connection, configuration, self.snapshot, certificate, readiness, metrics
        )
        self._host = connection.host
        self._report(_PART, False, f"{self._host}: nothing read yet")

    def snapshot(self) -> Snapshot:
        """Return the facts of this moment; what is missing or too old is named in them."""
        return self._live.snapshot()

    def age(self) -> float | None:
        """Return the seconds since the last sign of life of the kind that is longest silent."""
        return self._live.age

    def watch(self) -> None:
        """Begin to follow the cluster."""
        self._live.start()
        self._installation.watch()

    def _following(self) -> Following:
        facts = self._configuration().facts
        return Following(facts.stale_after, facts.all_pods, facts.settle_after)

    def _tell(self, live: LiveFacts) -> None:
        for kind in live.kinds:
            name = kind.resource.name
            ready = kind.synced or not kind.resource.needed or self._was_synced
            self._report(f"{_PART}: {name}", ready, str(kind))
            self._log(name, kind.error)
        if not self._was_synced and live.synced:
            self._was_synced = True
            say(f"facts: all read from {self._host}")
        waiting = [k.resource.name for k in live.kinds if k.resource.needed and not k.synced]
        stale = live.stale() if self._was_synced else ()
        words = self._host
        if waiting:
            words += f"; not read yet: {', '.join(waiting)}"
        elif stale:
            words += f"; warning: without a sign of life for too long: {', '.join(stale)}"
        elif blind := live.snapshot().blind():
            words += f"; warning: {blind}"
        self._report(_PART, self._was_synced, words)
        self._changed()

    def _report(self, part: str, ready: bool, detail: str) -> None:
        # What has not changed needs no lock and no clock.
        if self._details.get(part) != (ready, detail):
            self._details[part] = (ready, detail)
            self._readiness.report(part, ready, detail)

    def _log(self, name: str, error: str) -> None:
        before = self._errors.get(name, "")
        if error == before:
            return
        self._errors[name] = error
        say(f"facts: {name}: {error}" if error else f"facts: {name}: well again")
