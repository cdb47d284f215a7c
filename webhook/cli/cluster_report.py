"""What is to know about a cluster as a whole, on the readiness board."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.deadlines import compare_with_kubevirt

if TYPE_CHECKING:
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.serving.readiness import Readiness


class ClusterReport:
    """Tells which KubeVirt there is, and where its limits and the guard's differ."""

    def __init__(self, readiness: Readiness) -> None:
        """Take the board."""
        self._readiness = readiness
        self._told: tuple[object, ...] = ()

    def tell(self, configuration: Configuration, snapshot: Snapshot) -> None:
        """Put on the board what holds; costs nothing where nothing of it has changed."""
        rests_on = (configuration, snapshot.kubevirt, snapshot.policies)
        if all(a is b for a, b in zip(rests_on, self._told, strict=False)) and self._told:
            return
        self._told = rests_on
        kubevirt = snapshot.kubevirt
        if not kubevirt.known:
            words = f"no KubeVirt CR among the facts; taken as {kubevirt.version}"
        elif not kubevirt.version_known:
            words = f"warning: its version cannot be read from the CR; taken as {kubevirt.version}"
        else:
            words = str(kubevirt.version)
        self._readiness.report("kubevirt", True, words)
        self._tell_deadlines(configuration, snapshot)

    def _tell_deadlines(self, configuration: Configuration, snapshot: Snapshot) -> None:
        found = compare_with_kubevirt(configuration, snapshot)
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            words = f"warning: {found[0].message}{more}"
        else:
            words = "no limit of KubeVirt's comes before the guard's"
        self._readiness.report("deadline", True, words)
