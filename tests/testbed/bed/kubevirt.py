"""KubeVirt: its definitions, virt-api and virt-controller. No operator, no virt-handler.

The definitions are those of virt-operator's own code, printed by ``tools/kubevirt/manifests``.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbed.bed.api import Api, Object, path
from tests.testbed.bed.component import STARTS_WITHIN, Component
from tests.testbed.bed.control_plane import ControlPlane
from tests.testbed.bed.recipe import KUBEVIRT, binary

NAMESPACE = "kubevirt"
API_PORT, CONSOLE_PORT, CONTROLLER_PORT = 28443, 28186, 28444
LAUNCHER_IMAGE = "registry.test/virt-launcher:1"

CR = path("kubevirt.io/v1", "kubevirts", NAMESPACE, "kubevirt")
_RBAC = "rbac.authorization.k8s.io/v1"
_RESOURCES = {
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "ClusterRole": (_RBAC, "clusterroles"),
    "ClusterRoleBinding": (_RBAC, "clusterrolebindings"),
    "Role": (_RBAC, "roles"),
    "RoleBinding": (_RBAC, "rolebindings"),
    "ValidatingWebhookConfiguration": (
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
    ),
    "MutatingWebhookConfiguration": (
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
    ),
    "APIService": ("apiregistration.k8s.io/v1", "apiservices"),
}


class KubeVirt:
    """virt-api and virt-controller on a control plane.

    Args:
        plane: Its Kubernetes.
        api: A client of the administrator.
    """

    def __init__(self, plane: ControlPlane, api: Api) -> None:
        self._plane = plane
        self._api = api
        self._certificate = plane.authority.issue(
            "virt", f"virt-api.{NAMESPACE}.svc", "localhost", plane.address
        )
        self.api = self._virt_api()
        self.controller = self.make_controller()

    @property
    def components(self) -> list[Component]:
        """The two programs, in the order in which they are started."""
        return [self.api, self.controller]

    def install(self) -> None:
        """Bring KubeVirt up on an empty cluster."""
        manifests = self._manifests()
        api = self._api
        api.create(path("v1", "namespaces"), {"metadata": {"name": NAMESPACE}})
        self._create(_read(manifests, "crds"))
        self._create(_read(manifests, "rbac"))
        self._create_what_the_operator_would()
        for obj in _read(manifests, "crds"):
            self._wait_established(obj["metadata"]["name"])
        self._create_cr()
        self._write_token("kubevirt-apiserver")
        self._write_token("kubevirt-controller")
        self.api.start()
        self.controller.start()
        self.api.wait_until_ready()
        # A webhook that does not answer yet would refuse the objects that virt-controller makes.
        self._create(self._pointed_here(_read(manifests, "webhooks")))
        self._create(self._pointed_here(_read(manifests, "apiservices")))
        self.controller.wait_until_ready()
        self._wait_available(_read(manifests, "apiservices"))

    def restart_controller(self, launcher_image: str = LAUNCHER_IMAGE) -> None:
        """Start virt-controller anew; another image makes every running VMI outdated."""
        self.controller.stop()
        self.controller = self.make_controller(launcher_image)
        self.controller.start()
        self.controller.wait_until_ready()

    def make_controller(self, launcher_image: str = LAUNCHER_IMAGE) -> Component:
        """Describe virt-controller."""
        command: list[str | Path] = [
            binary("virt-controller"),
            *self._common("kubevirt-controller", CONTROLLER_PORT),
            f"--launcher-image={launcher_image}",
            "--exporter-image=registry.test/virt-exportserver:1",
            f"--prom-cert-file={self._certificate.certificate}",
            f"--prom-key-file={self._certificate.key}",
        ]
        return Component(
            "virt-controller", command, self._plane.log("virt-controller"), self._controller_leads
        )

    @contextmanager
    def new_launcher_image(self, image: str) -> Iterator[None]:
        """Let every VM be outdated: virt-controller comes with another launcher image."""
        self._replace_controller(self.make_controller(image))
        try:
            yield
        finally:
            self._replace_controller(self.make_controller())

    def _replace_controller(self, controller: Component) -> None:
        self.controller.stop()
        self.controller = controller
        controller.start()
        controller.wait_until_ready()

    def _virt_api(self) -> Component:
        pair = self._certificate
        command: list[str | Path] = [
            binary("virt-api"),
            *self._common("kubevirt-apiserver", API_PORT),
            f"--console-server-port={CONSOLE_PORT}",
            *(f"--tls-cert-file={pair.certificate}", f"--tls-key-file={pair.key}"),
            *(f"--handler-cert-file={pair.certificate}", f"--handler-key-file={pair.key}"),
        ]
        return Component(
            "virt-api",
            command,
            self._plane.log("virt-api"),
            lambda: self._plane.answers(API_PORT, "/healthz"),
        )

    def _common(self, account: str, port: int) -> list[str]:
        kubeconfig = self._plane.folder / f"{account}.kubeconfig"
        return [f"--kubeconfig={kubeconfig}", f"--listen={self._plane.address}", f"--port={port}"]

    def _controller_leads(self) -> bool:
        lease = self._api.find(
            path("coordination.k8s.io/v1", "leases", NAMESPACE, "virt-controller")
        )
        leads = bool(lease and lease["spec"].get("holderIdentity"))
        return leads and self._plane.answers(CONTROLLER_PORT, "/healthz")

    def _manifests(self) -> Path:
        folder = self._plane.folder / "kubevirt"
        folder.mkdir()
        subprocess.run(
            [binary("kubevirt-manifests"), folder, KUBEVIRT], check=True, capture_output=True
        )
        return folder

    def _create(self, objects: Iterable[Object]) -> None:
        for obj in objects:
            version, resource = _RESOURCES[obj["kind"]]
            self._api.create(path(version, resource, obj["metadata"].get("namespace", "")), obj)

    def _create_what_the_operator_would(self) -> None:
        authority = self._plane.authority.certificate.read_text(encoding="ascii")
        api = self._api
        api.create(
            path("v1", "configmaps", NAMESPACE),
            {"metadata": {"name": "kubevirt-ca"}, "data": {"ca-bundle": authority}},
        )
        api.create(
            path("scheduling.k8s.io/v1", "priorityclasses"),
            {"metadata": {"name": "kubevirt-cluster-critical"}, "value": 1_000_000_000},
        )
        # An ExternalName is the only kind of Service that reaches a loopback address; the API
        # server resolves it itself. Ports stand in the webhooks and APIServices.
        api.create(
            path("v1", "services", NAMESPACE),
            {
                "metadata": {"name": "virt-api"},
                "spec": {"type": "ExternalName", "externalName": self._plane.address},
            },
        )

    def _create_cr(self) -> None:
        self._api.create(
            path("kubevirt.io/v1", "kubevirts", NAMESPACE),
            {
                "apiVersion": "kubevirt.io/v1",
                "kind": "KubeVirt",
                "metadata": {"name": "kubevirt"},
                "spec": {},
            },
        )
        status = {
            "phase": "Deployed",
            "observedKubeVirtVersion": KUBEVIRT,
            "targetKubeVirtVersion": KUBEVIRT,
            # Without it virt-api refuses every VMI.
            "defaultArchitecture": "amd64",
        }
        self._api.patch(f"{CR}/status", {"status": status})

    def _wait_established(self, name: str) -> None:
        self._api.wait_for(
            path(*_RESOURCES["CustomResourceDefinition"]),
            lambda obj: _condition(obj, "Established"),
            STARTS_WITHIN,
            f"{name} is established",
            fieldSelector=f"metadata.name={name}",
        )

    def _wait_available(self, services: list[Object]) -> None:
        for service in services:
            name = service["metadata"]["name"]
            self._api.wait_for(
                path(*_RESOURCES["APIService"]),
                lambda obj: _condition(obj, "Available"),
                STARTS_WITHIN,
                f"the APIService {name} is available",
                fieldSelector=f"metadata.name={name}",
            )

    def _write_token(self, account: str) -> None:
        answer = self._api.create(
            path("v1", "serviceaccounts", NAMESPACE, account) + "/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 7 * 24 * 3600},
            },
        )
        token = answer["status"]["token"]
        # virt-api and virt-controller take the namespace they are installed in from there.
        self._plane.write_kubeconfig(account, {"token": token}, NAMESPACE)

    def _pointed_here(self, objects: list[Object]) -> list[Object]:
        """Fill in port and CA; leave out the webhook of the operator, which does not run."""
        bundle = base64.b64encode(self._plane.authority.certificate.read_bytes()).decode("ascii")
        found = []
        for obj in objects:
            if obj["metadata"]["name"].startswith("virt-operator"):
                continue
            if obj["kind"] == "APIService":
                obj["spec"]["caBundle"] = bundle
                obj["spec"]["service"]["port"] = API_PORT
            for webhook in obj.get("webhooks", ()):
                webhook["clientConfig"]["caBundle"] = bundle
                webhook["clientConfig"]["service"]["port"] = API_PORT
            found.append(obj)
        return found


def _read(folder: Path, name: str) -> list[Object]:
    objects: list[Object] = json.loads((folder / f"{name}.json").read_bytes())["items"]
    return objects


def _condition(obj: Object, kind: str) -> bool:
    conditions = obj.get("status", {}).get("conditions", ())
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)
