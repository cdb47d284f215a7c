"""Reading all objects of a kind, once: page by page."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.documents import Document, DocumentError
from webhook.cluster.errors import UNREACHABLE, RequestFailed
from webhook.cluster.resources import RESOURCES, served_version
from webhook.model import fields
from webhook.model.fields import InvalidObject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from webhook.cluster.connection import Connection
    from webhook.cluster.resources import Resource
    from webhook.model.fields import Object

FIRST_PAGE = 25
LARGEST_PAGE = 500


class Page(NamedTuple):
    """Some objects of a list.

    Attributes:
        objects: As the API server has them, each with its kind and version.
        revision: The list's resource version: a watch can begin there.
    """

    objects: Sequence[Object]
    revision: str


def pages(
    connection: Connection,
    resource: Resource,
    version: str,
    selectors: Mapping[str, str],
    *,
    limit: int = LARGEST_PAGE,
) -> Iterator[Page]:
    """Yield all objects of a kind as the cluster has them at one moment.

    Args:
        connection: Whom to ask.
        resource: The kind.
        version: In which version.
        selectors: The part of the query that says which objects.
        limit: The most objects on one page.

    Raises:
        RequestFailed: The list cannot be read to its end.
    """
    path, more = resource.path(version), ""
    stamp = {
        "apiVersion": f"{resource.group}/{version}" if resource.group else version,
        "kind": resource.kind,
    }
    while True:
        query = {**selectors, "limit": str(limit)}
        if more:
            query["continue"] = more
        answer = connection.get(path, query)
        try:
            # Items of a list do not say themselves what they are.
            objects = [{**item, **stamp} for item in fields.items(answer, "items")]
            revision = fields.text(answer, "metadata", "resourceVersion")
            more = fields.text(answer, "metadata", "continue")
        except InvalidObject as error:
            raise RequestFailed(UNREACHABLE, f"{connection.host}{path}: {error}") from error
        yield Page(objects, revision)
        if not more:
            return


def read_cluster(
    connection: Connection, *, only: Collection[str] = (), all_pods: bool = False
) -> Iterator[Document | DocumentError]:
    """Yield every object of the kinds that facts are read from, as the cluster has them now.

    A kind that is not installed yields nothing. One that may not be read, or breaks off, yields an
    error, and the others are read.

    Args:
        connection: Whom to ask.
        only: The plural names of the kinds that are wanted; empty for all.
        all_pods: Whether all pods are wanted, not only those of virtual machines.

    Raises:
        RequestFailed: The cluster cannot be reached at all, or does not know who asks.
    """
    for resource in RESOURCES:
        if only and resource.name not in only:
            continue
        index = 0
        try:
            version = served_version(connection, resource)
            if version is None:
                continue
            selectors = resource.selectors(all_pods=all_pods)
            for page in pages(connection, resource, version, selectors):
                for obj in page.objects:
                    yield Document(resource.name, index, obj)
                    index += 1
        except RequestFailed as error:
            if error.status in (UNREACHABLE, HTTPStatus.UNAUTHORIZED):
                raise
            if resource.needed:
                yield DocumentError(resource.name, str(error))
