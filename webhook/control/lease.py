"""Which replica leads: the one that holds a Lease of ``coordination.k8s.io``.

The rules are those of client-go (``tools/leaderelection/leaderelection.go``): whoever does not
hold the lease takes it only after it has seen it unchanged for as long as it is given for, on its
own clock, so that clocks need not agree. A leader that cannot renew stops some time before that.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.audit.record import microseconds, rfc3339
from webhook.cluster.errors import UNREACHABLE, RequestFailed
from webhook.model import fields
from webhook.model.fields import InvalidObject

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

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
        taken = True
        try:
            standing = self._connection.find(self._path, read_seconds=ANSWER_SECONDS)
            if standing is None:
                self._take("POST", self._folder, {"metadata": {"name": self._name}})
            elif self._may_take(standing):
                self._take("PUT", self._path, standing)
            else:
                taken = False
        except RequestFailed as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            # Another one was quicker; next time its name is read.
            taken = False
        except InvalidObject as error:
            raise self._unreadable(error) from error
        if taken:
            self.holder = self._identity
        self._leads_until = asked + LEADS_SECONDS if taken else float("-inf")
        return taken

    def release(self) -> None:
        """Give the lease back, if this replica has it, so that another one need not wait.

        Raises:
            RequestFailed: It is not given back, and runs out by itself.
        """
        self._leads_until = float("-inf")
        if self.holder != self._identity:
            return
        standing = self._connection.get(self._path, read_seconds=ANSWER_SECONDS)
        try:
            spec = fields.mapping(standing, "spec")
            mine = fields.text(spec, "holderIdentity") == self._identity
        except InvalidObject as error:
            raise self._unreadable(error) from error
        if mine:
            given_back = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
            self._write("PUT", self._path, {**standing, "spec": given_back})

    def _unreadable(self, error: InvalidObject) -> RequestFailed:
        return RequestFailed(UNREACHABLE, f"lease {self._name}: {error}")

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
        now = rfc3339(microseconds(self._clock()))
        before = fields.mapping(standing, "spec")
        mine = fields.text(before, "holderIdentity") == self._identity
        changes = fields.integer(before, "leaseTransitions") or 0
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime") if mine else now,
            "renewTime": now,
            "leaseTransitions": changes if mine or not before else changes + 1,
        }
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **standing, "spec": spec}
        self._write(method, path, lease)

    def _write(self, method: str, path: str, lease: Object) -> None:
        self._connection.send(method, path, lease, read_seconds=ANSWER_SECONDS)

    @property
    def _folder(self) -> str:
        return f"{_FOLDER}/{quote(self._namespace, safe='')}/leases"

    @property
    def _path(self) -> str:
        return f"{self._folder}/{quote(self._name, safe='')}"
