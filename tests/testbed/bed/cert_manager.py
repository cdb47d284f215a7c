"""cert-manager on a test bed: its definitions, its controllers and its cainjector."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.testbed.bed.api import path
from tests.testbed.bed.component import STARTS_WITHIN, Component
from tests.testbed.bed.recipe import binary, data_folder
from tests.testbed.bed.testbed import TestBed

NAME = "cert-manager"
GROUP = "cert-manager.io/v1"


class CertManager:
    """cert-manager's own code without its webhook, as ``tools/cert-manager`` starts it.

    It acts as an administrator: what its own roles allow it is not tried.

    Args:
        bed: Where it is installed.

    Attributes:
        controller: Issues certificates.
        cainjector: Writes CAs into webhook configurations.
    """

    def __init__(self, bed: TestBed) -> None:
        self._bed = bed
        self.controller = self._program("controller")
        self.cainjector = self._program("cainjector")

    def install(self) -> None:
        """Make its definitions, and start both programs."""
        definitions = data_folder(NAME)
        # Some are too large for the annotation in which kubectl keeps what was applied last.
        made = self._bed.kubectl("apply", "--server-side", "-f", definitions)
        assert made.returncode == 0, made.stderr
        established = self._bed.kubectl(
            *("wait", "--for=condition=Established", f"--timeout={STARTS_WITHIN:.0f}s"),
            *("-f", definitions),
        )
        assert established.returncode == 0, established.stderr
        self._bed.more += [self.controller, self.cainjector]
        self.controller.start()
        self.cainjector.start()

    def uninstall(self) -> None:
        """End both programs, and take the definitions away with all that is of them."""
        for program in (self.controller, self.cainjector):
            program.stop()
            self._bed.more.remove(program)
        gone = self._bed.kubectl("delete", "-f", data_folder(NAME), "--timeout", "60s")
        assert gone.returncode == 0, gone.stderr

    def renew(self, namespace: str, name: str) -> None:
        """Ask for a Certificate's renewal by a condition in its status, as ``cmctl renew`` does."""
        where = path(GROUP, "certificates", namespace, name)
        renewal = {
            "type": "Issuing",
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "Certificate re-issuance manually triggered",
            "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        known = self._bed.api.get(where)["status"]["conditions"]
        others = [condition for condition in known if condition["type"] != "Issuing"]
        change = {"status": {"conditions": [*others, renewal]}}
        self._bed.api.patch(f"{where}/status", change)

    def _program(self, command: str) -> Component:
        name = f"{NAME}-{command}"
        kubeconfig = self._bed.plane.credentials(name, organization="system:masters")
        return Component(name, [binary(NAME), command, kubeconfig], self._bed.plane.log(name))
