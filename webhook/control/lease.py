"""Which replica leads: the one that holds a Lease of ``coordination.k8s.io``.

The rules are those of client-go (``tools/leaderelection/leaderelection.go``): whoever does not
hold the lease takes it only after it has seen it unchanged for as long as it is given for, on its
own clock, so that clocks need not agree. A leader that cannot renew stops some time before that.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from webhook.cluster.errors import UNREACHABLE, RequestFailed
from webhook.model import fields
from webhook.model.fields import InvalidObject

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.cluster.connection import Connection
    from webhook.model.fields import Object

LEASE_SECONDS = 30
"""How long others wait for a leader that says nothing."""
LEADS_SECONDS = 10.0
"""How long a renewal lets its holder lead: less, by as much as a request on its way can take where
the API server is slow and credentials are read anew (a connection and an answer, twice)."""
RENEW_SECONDS = 3.0
"""From one try to hold the lease to the next."""
ANSWER_SECONDS = 5.0
"""How long the API server may be silent when it is asked."""

_FOLDER = "/apis/coordination.k8s.io/v1/namespaces"


class Lease:
    """A lease, as one replica sees it; to be used from one thread, but for :attr:`held`.

    Attributes:
        holder: Who held it when it was last looked at; "" for nobody.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        name: str,
        identity: str,
        *,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime],
    ) -> None:
        """Take where the lease is; nothing is asked yet.

        Args:
            connection: The way to the cluster.
            namespace: Its namespace, which must be there.
            name: Its name.
            identity: This replica's; no other process may ever have the same.
            monotonic: A clock that never jumps, in seconds.
            clock: The time, aware; only people read what is written of it.
        """
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._monotonic = monotonic
        self._clock = clock
        self._leads_until = float("-inf")
        self._seen: tuple[str, float] = ("", float("-inf"))
        self.holder = ""

    @property
    def held(self) -> bool:
        """Whether this replica leads at this moment."""
        return self._monotonic() < self._leads_until

    def hold(self) -> bool:
        """Renew the lease, or take it if it is free; say whether this replica leads.

        Raises:
            RequestFailed: The API server does not say, or does not allow it. Until the last
                renewal is too old, this replica leads all the same.
        """
        asked = self._monotonic()
        try:
            standing = self._ask("GET", self._path)
        except RequestFailed as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            standing = None
        try:
            if standing is None:
                self._take("POST", self._folder, {"metadata": {"name": self._name}})
            elif self._may_take(standing):
                self._take("PUT", self._path, standing)
            else:
                self._leads_until = float("-inf")
                return False
        except RequestFailed as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            # Another one was quicker; next time its name is read.
            self._leads_until = float("-inf")
            return False
        except InvalidObject as error:
            raise RequestFailed(UNREACHABLE, f"lease {self._name}: {error}") from error
        self.holder = self._identity
        self._leads_until = asked + LEADS_SECONDS
        return True

    def release(self) -> None:
        """Give the lease back, if this replica has it, so that another one need not wait.

        Raises:
            RequestFailed: It is not given back, and runs out by itself.
        """
        self._leads_until = float("-inf")
        if self.holder != self._identity:
            return
        standing = self._ask("GET", self._path)
        try:
            spec = fields.mapping(standing, "spec")
            mine = fields.text(spec, "holderIdentity") == self._identity
        except InvalidObject as error:
            raise RequestFailed(UNREACHABLE, f"lease {self._name}: {error}") from error
        if mine:
            given_back = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
            self._ask("PUT", self._path, {**standing, "spec": given_back})

    def _may_take(self, standing: Object) -> bool:
        spec = fields.mapping(standing, "spec")
        self.holder = fields.text(spec, "holderIdentity")
        version = fields.text(standing, "metadata", "resourceVersion")
        if version != self._seen[0]:
            self._seen = (version, self._monotonic())
        if self.holder in ("", self._identity):
            return True
        given = fields.integer(spec, "leaseDurationSeconds") or LEASE_SECONDS
        return self._monotonic() - self._seen[1] >= given

    def _take(self, method: str, path: str, standing: Object) -> None:
        """Write this replica's name; a conflict where the lease has changed since it was read."""
        now = self._clock()
        before = fields.mapping(standing, "spec")
        mine = fields.text(before, "holderIdentity") == self._identity
        changes = fields.integer(before, "leaseTransitions") or 0
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime") if mine else _micro_time(now),
            "renewTime": _micro_time(now),
            "leaseTransitions": changes if mine or not before else changes + 1,
        }
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **standing, "spec": spec}
        self._ask(method, path, lease)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        if method == "GET":
            return self._connection.get(path, read_seconds=ANSWER_SECONDS)
        return self._connection.send(method, path, body, read_seconds=ANSWER_SECONDS)

    @property
    def _folder(self) -> str:
        return f"{_FOLDER}/{quote(self._namespace, safe='')}/leases"

    @property
    def _path(self) -> str:
        return f"{self._folder}/{quote(self._name, safe='')}"


def _micro_time(moment: datetime) -> str:
    """Return a moment as Kubernetes writes a MicroTime: RFC 3339 with six digits, in UTC."""
    utc = moment - (moment.utcoffset() or timedelta())
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
