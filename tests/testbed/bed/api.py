"""Kubernetes' API for the tests: raw JSON, and waiting by watching."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from kubernetes.config import new_client_from_config

Object = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
TIMEOUT = 60.0
"""Seconds until an answer must be there."""


class ApiError(Exception):
    """The API server said no.

    Attributes:
        status: The HTTP status.
        reason, message: Those of the Status object.
    """

    def __init__(self, status: int, body: bytes) -> None:
        try:
            told = json.loads(body)
        except ValueError:
            told = {"message": body.decode(errors="replace")}
        self.status = status
        self.reason: str = told.get("reason", "")
        self.message: str = told.get("message", "")
        super().__init__(f"HTTP {status} {self.reason}: {self.message}")


class NotInTime(AssertionError):
    """What a test waited for did not come; the message shows what was there instead."""


def path(api_version: str, resource: str, namespace: str = "", name: str = "") -> str:
    """Return the path of a collection or an object: ``path("v1", "pods", "default", "web")``."""
    parts = ["api" if "/" not in api_version else "apis", api_version]
    if namespace:
        parts += ["namespaces", namespace]
    parts.append(resource)
    if name:
        parts.append(quote(name))
    return "/" + "/".join(parts)


class Api:
    """A client as a user of a kubeconfig.

    Args:
        kubeconfig: The file with server and credentials.
        headers: Sent with every request, for impersonation.
    """

    def __init__(self, kubeconfig: Path, headers: Mapping[str, str] | None = None) -> None:
        self._kubeconfig = kubeconfig
        client = new_client_from_config(str(kubeconfig))
        self._server = client.configuration.host
        self._pool = client.rest_client.pool_manager
        self._headers = dict(headers or {})

    def acting_as(self, user: str, *groups: str) -> Api:
        """Return a client whose requests are those of another user."""
        headers = {"Impersonate-User": user}
        if groups:
            # One header for each group is the rule; a single one carries a single group.
            (headers["Impersonate-Group"],) = groups
        return Api(self._kubeconfig, headers)

    def get(self, where: str, **query: str) -> Object:
        """Read an object or a list."""
        return self._ask("GET", where, query=query)

    def text(self, where: str) -> str:
        """Read what is no JSON."""
        return self._send("GET", where).decode()

    def find(self, where: str) -> Object | None:
        """Read an object; None where there is none."""
        try:
            return self.get(where)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def items(self, where: str, **query: str) -> list[Object]:
        """Read the objects of a collection."""
        found: list[Object] = self.get(where, **query)["items"]
        return found

    def create(self, where: str, obj: Object, **query: str) -> Object:
        """Create an object in a collection."""
        return self._ask("POST", where, obj, query=query)

    def replace(self, where: str, obj: Object) -> Object:
        """Replace an object."""
        return self._ask("PUT", where, obj)

    def patch(self, where: str, change: Any, content_type: str = MERGE_PATCH) -> Object:
        """Change an object."""
        return self._ask("PATCH", where, change, content_type)

    def delete(self, where: str, grace: int | None = None, **query: str) -> None:
        """Delete an object, or all of a collection that the query selects; absent ones too."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        try:
            self._ask("DELETE", where, options, query=query)
        except ApiError as error:
            if error.status != 404:
                raise

    def wait_for(
        self,
        where: str,
        until: Callable[[Object], bool],
        seconds: float,
        what: str,
        **query: str,
    ) -> Object:
        """Watch a collection until one of its objects is as it should be.

        Args:
            where: The collection.
            until: Says whether an object is the awaited one.
            seconds: How long to wait.
            what: The awaited thing, for the message.
            query: ``fieldSelector``, ``labelSelector``.

        Raises:
            NotInTime: No object became so in time.
        """
        last = None
        for kind, obj in self.follow(where, seconds, **query):
            last = obj
            if kind != "DELETED" and until(obj):
                return obj
        raise NotInTime(f"not within {seconds:.0f} s: {what}; last seen: {_brief(last)}")

    def wait_until_empty(self, where: str, seconds: float, **query: str) -> None:
        """Watch a collection until the query selects nothing.

        Raises:
            NotInTime: Something is still there.
        """
        until = time.monotonic() + seconds
        while found := self.items(where, **query):
            names = {obj["metadata"]["name"] for obj in found}
            for kind, obj in self.follow(where, until - time.monotonic(), **query):
                if kind == "DELETED":
                    names.discard(obj["metadata"]["name"])
                if not names:
                    break
            else:
                raise NotInTime(f"not gone within {seconds:.0f} s: {where} {sorted(names)}")

    def wait_until(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        """Ask until something is true that no watch tells.

        Raises:
            NotInTime: It did not become true.
        """
        until = time.monotonic() + seconds
        while not true():
            if time.monotonic() > until:
                raise NotInTime(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.1)

    def follow(self, where: str, seconds: float, **query: str) -> Iterator[tuple[str, Object]]:
        """List a collection and watch it, until the time is over.

        Yields:
            The type of the event (``ADDED`` for what the list holds), and the object.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            listed = self.get(where, **query)
            for obj in listed["items"]:
                yield "ADDED", obj
            version = listed["metadata"]["resourceVersion"]
            for event in self._watch(where, left, {**query, "resourceVersion": version}):
                if event["type"] == "ERROR":
                    break
                yield event["type"], event["object"]

    def _watch(self, where: str, seconds: float, query: Mapping[str, str]) -> Iterator[Object]:
        asked = {**query, "watch": "1", "timeoutSeconds": str(max(1, round(seconds)))}
        response = self._pool.request(
            "GET",
            f"{self._server}{where}?{urlencode(asked)}",
            headers=self._headers,
            preload_content=False,
            timeout=seconds + TIMEOUT,
            retries=False,
        )
        try:
            if response.status != 200:
                raise ApiError(response.status, response.read())
            rest = b""
            for chunk in response.stream(None):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        finally:
            # Whoever stops listening early leaves the stream unread: such a connection is spent.
            response.close()

    def _ask(
        self,
        method: str,
        where: str,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        answer: Object = json.loads(self._send(method, where, body, content_type, query))
        return answer

    def _send(
        self,
        method: str,
        where: str,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> bytes:
        url = f"{self._server}{where}" + (f"?{urlencode(query)}" if query else "")
        response = self._pool.request(
            method,
            url,
            body=None if body is None else json.dumps(body),
            headers={**self._headers, "Content-Type": content_type},
            timeout=TIMEOUT,
            retries=False,
        )
        if response.status >= 300:
            raise ApiError(response.status, response.data)
        data: bytes = response.data
        return data


def _brief(obj: Object | None) -> str:
    if obj is None:
        return "nothing"
    shown = {"name": obj["metadata"].get("name"), "status": obj.get("status")}
    return json.dumps(shown)[:2000]
