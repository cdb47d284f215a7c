"""A real API server on a real etcd, with definitions of KubeVirt's kinds and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.following import Followed
from tests.live.moving import CONFIGURATION, KUBEVIRT, MIGRATIONS, Moving, Watch
from tests.testbed.bed import recipe
from tests.testbed.bed.address import APISERVER_PORT, free_address
from tests.testbed.bed.api import Api, path
from tests.testbed.bed.conditions import has_condition
from tests.testbed.bed.control_plane import ControlPlane
from tests.testbed.bed.forwarder import Forwarder
from webhook.cluster.connection import connect

DEFINITIONS = "apiextensions.k8s.io/v1"
KINDS = {
    "virtualmachines": "VirtualMachine",
    "virtualmachineinstances": "VirtualMachineInstance",
    "virtualmachineinstancemigrations": "VirtualMachineInstanceMigration",
    "kubevirts": "KubeVirt",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder: they need the programs of the test bed."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.testbed)


def definition(plural: str, kind: str, group: str = "kubevirt.io", version: str = "v1") -> Any:
    """Return a definition that takes any object."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    one = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": DEFINITIONS,
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [one]},
    }


def define(api: Api, made: Any) -> None:
    """Install a definition, and wait until its kind is served."""
    api.create(path(DEFINITIONS, "customresourcedefinitions"), made)
    api.wait_for(
        path(DEFINITIONS, "customresourcedefinitions"),
        lambda obj: has_condition(obj, "Established"),
        60,
        f"{made['spec']['names']['plural']} is established",
        fieldSelector=f"metadata.name={made['metadata']['name']}",
    )


class ApiServer:
    """etcd and kube-apiserver."""

    def __init__(self, folder: Path) -> None:
        (folder / "logs").mkdir(parents=True)
        self.plane = ControlPlane(folder, free_address())
        self.kubeconfig = self.plane.kubeconfig
        self.api = Api(self.kubeconfig)

    def start(self) -> None:
        """Start both."""
        self.plane.etcd.start()
        self.start_server()

    def start_server(self) -> None:
        """Start the API server alone."""
        self.plane.apiserver.start()
        self.plane.apiserver.wait_until_ready()

    def stop(self) -> None:
        """End both."""
        self.plane.apiserver.stop()
        self.plane.etcd.stop()

    def define(self, plural: str, kind: str, **more: str) -> None:
        """Install a definition, and wait until its kind is served."""
        define(self.api, definition(plural, kind, **more))

    def add(self, obj: Any) -> Any:
        """Create an object."""
        return self.api.create(self._path(obj), obj)

    def add_ready(self, node: Any) -> None:
        """Create a node without the taint that keeps pods away until a kubelet takes it off."""
        self.add(node)
        self.change(node, {"spec": {"taints": None}})

    def change(self, obj: Any, change: Any) -> Any:
        """Merge a change into an object."""
        return self.api.patch(self._path(obj, obj["metadata"]["name"]), change)

    def remove(self, obj: Any) -> None:
        """Delete an object."""
        self.api.delete(self._path(obj, obj["metadata"]["name"]), grace=0)

    @staticmethod
    def _path(obj: Any, name: str = "") -> str:
        plural = obj["kind"].lower() + ("es" if obj["kind"].endswith("s") else "s")
        namespace = obj["metadata"].get("namespace", "")
        return path(obj["apiVersion"], plural, namespace, name)

    def kubeconfig_through(self, port: int, folder: Path) -> Path:
        """Return the administrator's kubeconfig for another port of the same address."""
        config = json.loads(self.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://{self.plane.address}:{port}"
        written = folder / "forwarded.kubeconfig"
        written.write_text(json.dumps(config))
        return written


@pytest.fixture(scope="session")
def _one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    programs = [p for p in recipe.stale() if p.name in ("etcd", "kube-apiserver")]
    if programs:
        names = ", ".join(program.name for program in programs)
        pytest.fail(f"not built, or by another recipe: {names}; run: make testbed", pytrace=False)
    server = ApiServer(tmp_path_factory.mktemp("live") / "server")
    try:
        server.start()
        for plural, kind in KINDS.items():
            server.define(plural, kind)
        # No controller is there that would make one.
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        server.api.create(path("v1", "serviceaccounts", "default"), account)
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(_one_server: ApiServer) -> Iterator[ApiServer]:
    """The API server, without objects of an earlier test."""
    yield _one_server
    if not _one_server.plane.apiserver.running:
        _one_server.start_server()
    for plural in KINDS:
        _one_server.api.delete(path("kubevirt.io/v1", plural, "default"))
    _one_server.api.delete(path("v1", "nodes"))
    _one_server.api.delete(path("v1", "pods", "default"), grace=0)


@pytest.fixture
def forwarder(server: ApiServer) -> Iterator[Forwarder]:
    """What stands between the guard and the API server."""
    made = Forwarder(server.plane.address, [(server.plane.address, APISERVER_PORT)])
    yield made
    made.close()


@pytest.fixture
def follow() -> Iterator[Callable[..., Followed]]:
    """Follow a cluster until the test ends."""
    made: list[Followed] = []

    def start(kubeconfig: Path, **settings: Any) -> Followed:
        made.append(Followed(kubeconfig, **settings))
        return made[-1]

    yield start
    for one in made:
        one.live.stop()


@pytest.fixture
def switched_on(server: ApiServer) -> Iterator[None]:
    """Have the guard's webhook configuration there; nothing calls it."""
    server.api.create(CONFIGURATION, {"metadata": {"name": "migration-guard"}})
    yield
    server.api.delete(f"{CONFIGURATION}/migration-guard")


@pytest.fixture
def moving(server: ApiServer, switched_on: None) -> Iterator[Callable[[], Moving]]:
    """Make a VM that is being migrated; the API server's finalizers are taken off at the end."""
    made: list[Moving] = []

    def make() -> Moving:
        made.append(Moving(server))
        return made[-1]

    yield make
    for one in made:
        for obj in server.api.items(path(KUBEVIRT, MIGRATIONS, "default")):
            obj |= {"apiVersion": KUBEVIRT, "kind": "VirtualMachineInstanceMigration"}
            one.server.change(obj, {"metadata": {"finalizers": None}})


@pytest.fixture
def watch(server: ApiServer, follow: Callable[[Path], Followed]) -> Callable[..., Watch]:
    """Watch the deadlines of the cluster, once its migration is among the facts."""

    def begin(settings: str = "", **more: Any) -> Watch:
        followed = follow(server.kubeconfig)
        followed.synced()
        followed.wait(
            lambda facts: facts.migrations and "startTimestamp" in str(facts.vmis.get("default/vm"))
        )
        return Watch(connect(server.kubeconfig), followed.live.snapshot, settings, **more)

    return begin


@pytest.fixture
def watch_through(
    server: ApiServer,
    watch: Callable[..., Watch],
    forwarder: Forwarder,
    tmp_path: Path,
) -> Callable[[], Watch]:
    """Watch likewise; what is asked and written goes through the forwarder."""

    def begin() -> Watch:
        kubeconfig = server.kubeconfig_through(forwarder.port, tmp_path)
        return Watch(connect(kubeconfig), watch().facts)

    return begin
