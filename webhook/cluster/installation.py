"""The guard's own installation, held against what its code needs of it.

A webhook that the API server never calls is silent: nothing fails, and nothing is guarded. So the
live webhook configurations and KubeVirt's definitions are compared with what is reviewed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from webhook.cluster.errors import RequestFailed
from webhook.model import fields, labels
from webhook.model.fields import InvalidObject
from webhook.model.wording import escaped
from webhook.review.deciding import KUBEVIRT, MUTATING, VALIDATING
from webhook.review.requester import CONTROLLER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from webhook.cluster.connection import Connection
    from webhook.model.fields import Object

NAME = "migration-guard"
"""Of both webhook configurations, of the Service and of its namespace."""

VERSION = "v1"
"""Of KubeVirt's kinds, the one that is read; the API server converts others to it."""

LONGEST_TIMEOUT = 5
"""Seconds. A guard that does not answer delays each request by this; the manifests say 2."""

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
_MIGRATIONS = "virtualmachineinstancemigrations"
_DEFAULT_TIMEOUT = 10


@dataclass(frozen=True, slots=True)
class Installation:
    """What stands in the cluster; None for what does not.

    Attributes:
        mutating: The MutatingWebhookConfiguration.
        validating: The ValidatingWebhookConfiguration.
        definitions: The CustomResourceDefinitions, by name.
    """

    mutating: Object | None
    validating: Object | None
    definitions: Mapping[str, Object | None]


def definitions_needed() -> tuple[str, ...]:
    """Return the names of the CustomResourceDefinitions whose kinds are reviewed."""
    kinds = {kind for group, kind, _ in (*MUTATING, *VALIDATING) if group == KUBEVIRT}
    return tuple(sorted(f"{_plural(kind)}.{KUBEVIRT}" for kind in kinds))


def read_installation(connection: Connection) -> Installation:
    """Ask a cluster for what the guard's installation consists of.

    Raises:
        RequestFailed: The API server does not say.
    """
    return Installation(
        _find(connection, configuration_path("mutating")),
        _find(connection, configuration_path("validating")),
        {name: _find(connection, f"{_DEFINITIONS}/{name}") for name in definitions_needed()},
    )


def configuration_path(kind: str) -> str:
    """Return where the ``mutating`` or the ``validating`` configuration stands in the API."""
    return f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/{NAME}"


def _find(connection: Connection, path: str) -> Object | None:
    try:
        found: Object = connection.get(path)
    except RequestFailed as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    return found


def drift(
    found: Installation,
    *,
    kubevirt_namespaces: Collection[str],
    first_pods: bool,
    distrust: Callable[[bytes, str], str | None],
) -> tuple[str, ...]:
    """Say how an installation differs from what is needed; empty where it does not.

    Args:
        found: What stands in the cluster.
        kubevirt_namespaces: Where KubeVirt is, or may be.
        first_pods: Whether the configuration wants to see the first pod of a VM (``firstBoot``).
        distrust: Says why a client that trusts these CAs, in PEM, and knows the server by this
            name refuses the served certificate; None where it does not.

    Returns:
        One sentence for each difference, the gravest first.
    """
    both = (
        ("mutating", "/mutate", found.mutating, MUTATING),
        ("validating", "/validate", found.validating, VALIDATING),
    )
    said: list[str] = []
    for kind, path, configuration, reviewed in both:
        if configuration is None:
            said.append(f"there is no {kind} webhook configuration {NAME}: apply the manifests")
            continue
        try:
            entries = [_Entry(e) for e in fields.items(configuration, "webhooks")]
            said += _unasked(kind, [e for e in entries if e.path == path], reviewed)
            for entry in entries:
                said += _of_trust(entry, distrust)
                said += _of_entry(entry, kubevirt_namespaces)
            if kind == "mutating" and first_pods and not any(e.first_pods for e in entries):
                said.append(
                    "firstBoot is set, but first pods are not asked about: "
                    "add the component first-boot"
                )
        except InvalidObject as error:
            said.append(f"the {kind} webhook configuration cannot be read: {error}")
    said += _of_definitions(found.definitions)
    return tuple(said)


class _Entry:
    """One webhook of a configuration."""

    def __init__(self, entry: Object) -> None:
        self.name = escaped(fields.text(entry, "name"))
        self.path = fields.text(entry, "clientConfig", "service", "path")
        self.service = (
            fields.text(entry, "clientConfig", "service", "namespace"),
            fields.text(entry, "clientConfig", "service", "name"),
        )
        self.by_url = bool(fields.text(entry, "clientConfig", "url"))
        self.bundle = fields.text(entry, "clientConfig", "caBundle")
        self.fails = fields.text(entry, "failurePolicy") == "Fail"
        self.exact = fields.text(entry, "matchPolicy") == "Exact"
        self.timeout = fields.integer(entry, "timeoutSeconds") or _DEFAULT_TIMEOUT
        self.conditions = " ".join(
            fields.text(c, "expression") for c in fields.items(entry, "matchConditions")
        )
        self._rules = tuple(fields.items(entry, "rules"))
        self._left_out = frozenset(
            value
            for expression in fields.items(entry, "namespaceSelector", "matchExpressions")
            if fields.text(expression, "key") == _NAMESPACE_NAME
            and fields.text(expression, "operator") == "NotIn"
            for value in fields.strings(expression, "values")
        )
        self._migrating_only = any(
            fields.text(e, "key") == labels.MIGRATION_UID
            and fields.text(e, "operator") in ("Exists", "In")
            for e in fields.items(entry, "objectSelector", "matchExpressions")
        )

    def asks(self, group: str, resource: str, operation: str) -> bool:
        """Tell whether the API server asks this entry about such a request, in version v1."""
        return any(
            _names(rule, "apiGroups", group)
            and _names(rule, "apiVersions", VERSION)
            and _names(rule, "resources", resource)
            and _names(rule, "operations", operation)
            for rule in self._rules
        )

    def leaves_out(self, namespace: str) -> bool:
        return namespace in self._left_out

    @property
    def first_pods(self) -> bool:
        """Whether it asks about pods that are no migration's too."""
        return self.asks("", "pods", "CREATE") and not self._migrating_only


def _names(rule: Object, field: str, value: str) -> bool:
    return bool({value, "*", "*/*"} & set(fields.strings(rule, field)))


def _unasked(
    kind: str, entries: Sequence[_Entry], reviewed: Mapping[tuple[str, str, str], object]
) -> Iterator[str]:
    for group, reviewed_kind, operation in reviewed:
        resource = _plural(reviewed_kind)
        if not any(entry.asks(group, resource, operation) for entry in entries):
            yield f"no {kind} webhook asks about {resource} at {operation}"


def _of_trust(entry: _Entry, distrust: Callable[[bytes, str], str | None]) -> Iterator[str]:
    """Check that the API server accepts the certificate; it calls a Service by this name.

    The name is ``<service>.<namespace>.svc``: apiserver/pkg/util/webhook/client.go.
    """
    if entry.by_url:
        # The certificate at an address may be that of something before the guard.
        return
    if not entry.bundle:
        yield f"{entry.name} has no caBundle: the API server trusts no certificate of the guard"
        return
    namespace, service = entry.service
    try:
        why = distrust(base64.b64decode(entry.bundle, validate=True), f"{service}.{namespace}.svc")
    except binascii.Error:
        why = "it is not in base64"
    if why is not None:
        yield (
            f"{entry.name} has a caBundle with which the API server refuses the served "
            f"certificate ({escaped(why)}), and asks nothing: see migration-guard certs"
        )


def _of_entry(entry: _Entry, kubevirt_namespaces: Collection[str]) -> Iterator[str]:
    if not entry.by_url and entry.service != (NAME, NAME):
        yield f"{entry.name} leads to the Service {escaped('/'.join(entry.service))}"
    if entry.fails and entry.asks("", "pods", "CREATE"):
        yield (
            f"{entry.name} says failurePolicy Fail: a refused pod leaves its migration "
            "pending for ever"
        )
    if entry.fails and entry.asks("", "pods/eviction", "CREATE"):
        yield (
            f"{entry.name} says failurePolicy Fail: without the guard no node with a virtual "
            "machine can be drained"
        )
    if entry.fails and entry.asks(KUBEVIRT, _MIGRATIONS, "CREATE"):
        yield from _of_updates(entry, kubevirt_namespaces)
    if entry.exact:
        yield f"{entry.name} says matchPolicy Exact: other versions of its kind pass unasked"
    if entry.timeout > LONGEST_TIMEOUT:
        yield f"{entry.name} waits for up to {entry.timeout} s: {LONGEST_TIMEOUT} is much"
    if entry.asks(KUBEVIRT, "kubevirts", "UPDATE"):
        for namespace in sorted(kubevirt_namespaces):
            if entry.leaves_out(namespace):
                yield f"{entry.name} leaves out {escaped(namespace)}, where KubeVirt is"


def _of_updates(entry: _Entry, kubevirt_namespaces: Collection[str]) -> Iterator[str]:
    """Check that a failing entry leaves out the migrations of KubeVirt's workload updater."""
    if labels.WORKLOAD_UPDATE not in entry.conditions:
        yield (
            f"{entry.name} says failurePolicy Fail for workload updates too: "
            "KubeVirt repeats a refused one many times a second"
        )
        return
    for namespace in sorted(kubevirt_namespaces):
        account = f"system:serviceaccount:{namespace}:{CONTROLLER}"
        if account not in entry.conditions:
            yield f"{entry.name} does not know {escaped(account)} as KubeVirt's workload updater"


def _of_definitions(definitions: Mapping[str, Object | None]) -> Iterator[str]:
    for name, definition in sorted(definitions.items()):
        if definition is None:
            yield f"{name} is not installed"
            continue
        try:
            served = [
                fields.text(version, "name")
                for version in fields.items(definition, "spec", "versions")
                if fields.flag(version, "served")
            ]
        except InvalidObject as error:
            yield f"{name} cannot be read: {error}"
            continue
        if VERSION not in served:
            versions = escaped(", ".join(served)) or "none"
            yield f"{name} is not served in {VERSION} ({versions}): its objects pass unasked"


def _plural(kind: str) -> str:
    """Return a kind as it stands in rules and definitions; all that are reviewed are regular."""
    return f"{kind.lower()}s"
