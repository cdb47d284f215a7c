"""The guard's own installation, looked at again and again while it serves."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from webhook.cli.printing import say
from webhook.cluster.errors import ClusterError
from webhook.cluster.installation import drift, read_installation
from webhook.policy.configuration import FirstBoot
from webhook.serving.errors import StartError
from webhook.serving.key_pair import parse_certificates
from webhook.serving.tls import handshake_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from webhook.cluster.connection import Connection
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.serving.key_pair import KeyPair
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

PART = "installation"
"""Its name on the readiness board and in the log."""

EVERY_SECONDS = 60.0
"""On average, so that replicas do not ask at the same moment. Six small requests each time."""


class ServedInstallation:
    """Tells how the installation differs from what is needed: readiness board, metric and log.

    A difference never makes the server unready: the reviews that still arrive want an answer.
    """

    def __init__(
        self,
        connection: Connection,
        configuration: Callable[[], Configuration],
        snapshot: Callable[[], Snapshot],
        certificate: Callable[[], KeyPair],
        readiness: Readiness,
        metrics: Metrics,
    ) -> None:
        """Take the way to the cluster; :meth:`watch` begins.

        Args:
            connection: The way to the cluster.
            configuration: The settings of the moment.
            snapshot: The facts of the moment.
            certificate: The one that is served at the moment.
            readiness: Where differences are told.
            metrics: Where they are counted.
        """
        self._connection = connection
        self._configuration = configuration
        self._snapshot = snapshot
        self._certificate = certificate
        self._readiness = readiness
        self._metrics = metrics
        self._told = ""

    def watch(self) -> None:
        """Begin to look; the thread ends with the process."""
        threading.Thread(target=self._look_on, name=PART, daemon=True).start()

    def look(self) -> None:
        """Look once."""
        try:
            found = read_installation(self._connection)
        except ClusterError as error:
            self._metrics.note_drift(None)
            self._tell(f"warning: not known: {error}", [f"not known: {error}"])
            return
        differences = drift(
            found,
            kubevirt_namespaces=self._snapshot().kubevirt.namespaces,
            first_pods=self._configuration().first_boot is FirstBoot.PREFER_MIGRATABLE,
            distrust=self._distrust,
        )
        self._metrics.note_drift(len(differences))
        words = "as needed"
        if differences:
            words = f"warning: {differences[0]}"
            if len(differences) > 1:
                words += f" (and {len(differences) - 1} more, in the log)"
        self._tell(words, differences)

    def _distrust(self, bundle: bytes, name: str) -> str | None:
        try:
            authorities = parse_certificates(bundle, "it")
            return handshake_fault(self._certificate(), authorities, name)
        except (StartError, OSError) as error:
            # ssl.SSLError is an OSError: OpenSSL does not take all that the other parser does.
            return str(error)

    def _tell(self, words: str, lines: Sequence[str]) -> None:
        self._readiness.report(PART, True, words)
        said = "\n".join(lines)
        if said == self._told:
            return
        self._told = said
        for line in lines or ("as needed again",):
            say(f"{PART}: {line}")

    def _look_on(self) -> None:
        pause = threading.Event()
        while True:
            self.look()
            pause.wait(EVERY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
