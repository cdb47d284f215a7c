"""Kubernetes' control plane: etcd, API server, scheduler and controller manager."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.testbed.bed.address import APISERVER_PORT
from tests.testbed.bed.certificates import Authority, KeyPair
from tests.testbed.bed.component import Component
from tests.testbed.bed.recipe import binary

ETCD_PORT, ETCD_PEER_PORT = 2379, 2380
SCHEDULER_PORT, CONTROLLER_MANAGER_PORT = 10259, 10257

NODE_GRACE = "20m"
"""When a node without a sign of life counts as gone. Its lease is renewed that seldom, because
renewing a thousand leases every ten seconds takes a whole core."""

CONTROLLERS = (
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "garbage-collector-controller",
    "pod-garbage-collector-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "clusterrole-aggregation-controller",
    "disruption-controller",
    "resourcequota-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
)
"""Those that a part of KubeVirt, the scheduler or a test depends on."""


AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "verbs": ["create", "update", "patch"],
            "resources": [{"group": "kubevirt.io"}],
        },
        {"level": "None"},
    ],
}
"""Who wrote what of KubeVirt, with what the guard notes on each request."""


class ControlPlane:
    """The four programs, in the order in which they are started.

    Args:
        folder: Where state, logs and credentials are kept.
        address: The loopback address at which all of them listen.
        options: More options of the API server.
    """

    def __init__(self, folder: Path, address: str, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.address = address
        self.server = f"https://{address}:{APISERVER_PORT}"
        self.authority = Authority(folder / "pki")
        self._hosts = (address, "localhost", "10.0.0.1", "kubernetes.default.svc")
        self.kubeconfig = self.credentials("admin", organization="system:masters")
        self.etcd = self._etcd()
        self.apiserver = self._apiserver(options)
        self.scheduler = self._scheduler()
        self.controller_manager = self._controller_manager()

    def start(self) -> None:
        """Start all four and wait until each does its work."""
        # The API server waits for etcd by itself.
        self.etcd.start()
        self.apiserver.start()
        self.apiserver.wait_until_ready()
        self.scheduler.start()
        self.controller_manager.start()
        self.scheduler.wait_until_ready()
        self.controller_manager.wait_until_ready()

    @property
    def components(self) -> list[Component]:
        """The programs, in the order in which they are started."""
        return [self.etcd, self.apiserver, self.scheduler, self.controller_manager]

    def restart_apiserver(self) -> None:
        """Start the API server anew: it remembers no change from before."""
        self.apiserver.stop()
        self.apiserver.start()
        self.apiserver.wait_until_ready()

    def compact(self) -> None:
        """Let etcd forget every change from before."""
        # Any key will do to be told the revision.
        revision = self._ask_etcd("range", {"key": _base64("/")})["header"]["revision"]
        self._ask_etcd("compaction", {"revision": revision, "physical": True})

    def store(self, key: str, obj: Any) -> None:
        """Write an object of a custom kind, or what is none, past all that the API server checks.

        Args:
            key: Where the API server keeps it: ``/registry/<group>/<resource>/<namespace>/<name>``.
            obj: The object.
        """
        self._ask_etcd("put", {"key": _base64(key), "value": _base64(json.dumps(obj))})

    def _ask_etcd(self, what: str, body: dict[str, Any]) -> Any:
        where = f"http://{self.address}:{ETCD_PORT}/v3/kv/{what}"
        request = urllib.request.Request(where, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def credentials(self, user: str, organization: str = "") -> Path:
        """Write a kubeconfig with a certificate in a user's name."""
        pair = self.authority.issue(user, organization=organization)
        keys = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
        return self.write_kubeconfig(user.replace(":", "-"), keys)

    def write_kubeconfig(
        self, name: str, user: dict[str, str], namespace: str = "default", server: str = ""
    ) -> Path:
        """Write a kubeconfig for this API server.

        Args:
            name: Of the file, before ``.kubeconfig``.
            user: The credentials, as kubeconfigs have them.
            namespace: The one that holds where a command names none.
            server: The URL of what leads to it; "" for its own. The certificate holds for any
                port at its address.
        """
        cluster = {
            "server": server or self.server,
            "certificate-authority": str(self.authority.certificate),
        }
        context = {"cluster": "testbed", "user": name, "namespace": namespace}
        written = self.folder / f"{name}.kubeconfig"
        written.touch(mode=0o600)
        written.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "testbed", "cluster": cluster}],
                    "users": [{"name": name, "user": user}],
                    "contexts": [{"name": "testbed", "context": context}],
                    "current-context": "testbed",
                },
                indent=1,
            ),
            encoding="utf-8",
        )
        return written

    def log(self, name: str) -> Path:
        """Return the path of a program's log."""
        return self.folder / "logs" / f"{name}.log"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: an event a line, in JSON, of requests about KubeVirt."""
        return self.log("kube-apiserver-audit")

    def answers(self, port: int, where: str) -> bool:
        """Ask a program over TLS whether it is well; all of them tell that to anybody."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        connection = http.client.HTTPSConnection(self.address, port, context=context, timeout=5)
        try:
            connection.request("GET", where)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _etcd(self) -> Component:
        client, peer = (
            f"http://{self.address}:{ETCD_PORT}",
            f"http://{self.address}:{ETCD_PEER_PORT}",
        )
        command: list[str | Path] = [
            binary("etcd"),
            *("--data-dir", self.folder / "etcd"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
            # Nothing of a bed outlives it: no need to wait for disks.
            "--unsafe-no-fsync",
        ]
        return Component("etcd", command, self.log("etcd"))

    def _apiserver(self, options: Sequence[str]) -> Component:
        serving = self.authority.issue("kube-apiserver", *self._hosts)
        proxy = self.authority.issue("front-proxy")
        tokens = self.authority.service_account_keys()
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY), encoding="utf-8")
        command: list[str | Path] = [
            binary("kube-apiserver"),
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={APISERVER_PORT}",
            f"--etcd-servers=http://{self.address}:{ETCD_PORT}",
            *_serving(serving),
            f"--client-ca-file={self.authority.certificate}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            f"--service-account-issuer={self.server}",
            f"--service-account-key-file={tokens.certificate}",
            f"--service-account-signing-key-file={tokens.key}",
            # The aggregation layer: how virt-api's subresources are reached.
            f"--requestheader-client-ca-file={self.authority.certificate}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy.certificate}",
            f"--proxy-client-key-file={proxy.key}",
            *(f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"),
            *options,
        ]
        return Component(
            "kube-apiserver",
            command,
            self.log("kube-apiserver"),
            lambda: self.answers(APISERVER_PORT, "/readyz"),
        )

    def _scheduler(self) -> Component:
        command: list[str | Path] = [
            binary("kube-scheduler"),
            *self._as_user("system:kube-scheduler", SCHEDULER_PORT),
        ]
        return Component(
            "kube-scheduler",
            command,
            self.log("kube-scheduler"),
            lambda: self.answers(SCHEDULER_PORT, "/readyz"),
        )

    def _controller_manager(self) -> Component:
        pki = self.authority.certificate.parent
        command: list[str | Path] = [
            binary("kube-controller-manager"),
            *self._as_user("system:kube-controller-manager", CONTROLLER_MANAGER_PORT),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki / 'service-accounts.key'}",
            f"--root-ca-file={self.authority.certificate}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--node-monitor-grace-period={NODE_GRACE}",
        ]
        return Component(
            "kube-controller-manager",
            command,
            self.log("kube-controller-manager"),
            lambda: self.answers(CONTROLLER_MANAGER_PORT, "/healthz"),
        )

    def _as_user(self, user: str, port: int) -> list[str]:
        kubeconfig = self.credentials(user)
        serving = self.authority.issue(user, self.address, as_file=f"{user}-serving")
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={self.address}",
            f"--secure-port={port}",
            "--leader-elect=false",
            *_serving(serving),
        ]


def _base64(text: str) -> str:
    """Encode what etcd's JSON gateway takes as bytes."""
    return base64.b64encode(text.encode()).decode()


def _serving(pair: KeyPair) -> list[str]:
    return [f"--tls-cert-file={pair.certificate}", f"--tls-private-key-file={pair.key}"]
