"""The guard's own installation, held against what its code needs of it.

A webhook that the API server never calls is silent: nothing fails, and nothing is guarded. So the
live webhook configurations and KubeVirt's definitions are compared with what is reviewed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.cluster.expected_entries import NAME, VERSION, WORKLOAD_UPDATES
from webhook.cluster.live_entries import PATHS, LiveEntry
from webhook.model import fields
from webhook.model.fields import InvalidObject
from webhook.model.wording import escaped, listed
from webhook.review.deciding import KUBEVIRT, MUTATING, VALIDATING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from webhook.cluster.connection import Connection
    from webhook.model.fields import Object

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


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


def switched_off(connection: Connection, read_seconds: float) -> bool:
    """Tell whether somebody has taken the guard's webhook configuration away, to switch it off.

    Args:
        connection: The way to the cluster.
        read_seconds: For how long the API server may be silent.

    Raises:
        RequestFailed: The API server does not say.
    """
    return connection.find(configuration_path("mutating"), read_seconds=read_seconds) is None


def read_installation(connection: Connection) -> Installation:
    """Ask a cluster for what the guard's installation consists of.

    Raises:
        RequestFailed: The API server does not say.
    """
    return Installation(
        connection.find(configuration_path("mutating")),
        connection.find(configuration_path("validating")),
        {name: connection.find(f"{_DEFINITIONS}/{name}") for name in definitions_needed()},
    )


def configuration_path(kind: str) -> str:
    """Return where the ``mutating`` or the ``validating`` configuration stands in the API."""
    return f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/{NAME}"


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
        ("mutating", found.mutating, MUTATING),
        ("validating", found.validating, VALIDATING),
    )
    said: list[str] = []
    live: list[LiveEntry] = []
    for kind, configuration, reviewed in both:
        if configuration is None:
            said.append(f"there is no {kind} webhook configuration {NAME}: apply the manifests")
            continue
        try:
            entries = [LiveEntry(kind, e) for e in fields.items(configuration, "webhooks")]
            leading_here = [entry for entry in entries if entry.path == PATHS[kind]]
            said += _unasked(kind, leading_here, reviewed)
            for entry in entries:
                said += _of_trust(entry, distrust)
                said += entry.differences(kubevirt_namespaces)
            live += entries
            if kind == "mutating" and first_pods and not any(e.first_pods for e in entries):
                said.append(
                    "firstBoot is set, but first pods are not asked about: "
                    "add the component first-boot"
                )
        except InvalidObject as error:
            said.append(f"the {kind} webhook configuration cannot be read: {error}")
    said += _of_workload_updates(live)
    said += _of_definitions(found.definitions)
    said += _of_namespaces(live, kubevirt_namespaces)
    return tuple(said)


def _unasked(
    kind: str, entries: Sequence[LiveEntry], reviewed: Mapping[tuple[str, str, str], object]
) -> Iterator[str]:
    for group, reviewed_kind, operation in reviewed:
        resource = _plural(reviewed_kind)
        if not any(entry.asks(group, resource, operation) for entry in entries):
            yield f"no {kind} webhook asks about {resource} at {operation}"


def _of_trust(entry: LiveEntry, distrust: Callable[[bytes, str], str | None]) -> Iterator[str]:
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


def _of_workload_updates(entries: Sequence[LiveEntry]) -> Iterator[str]:
    """Check that the migrations which one entry leaves out are those that another asks about."""
    leaving = next((e for e in entries if e.expected is not None and e.expected.strict), None)
    updates = next((e for e in entries if e.name == WORKLOAD_UPDATES), None)
    if leaving is None or not leaving.accounts():
        return
    if updates is None:
        yield f"there is no {WORKLOAD_UPDATES}: workload updates pass unasked"
    elif updates.accounts() != leaving.accounts():
        yield (
            f"{updates.name} and {leaving.name} name different accounts: "
            "some migrations are asked about twice, or not at all"
        )


def _of_namespaces(
    entries: Sequence[LiveEntry], kubevirt_namespaces: Collection[str]
) -> Iterator[str]:
    """Say about which namespaces the guard is not asked because somebody wants it so."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        told = kubevirt_namespaces if entry.asks(KUBEVIRT, "kubevirts", "UPDATE") else ()
        for which in entry.narrowings(told):
            found.setdefault(which, []).append(entry.name)
    for which, names in found.items():
        verb = "is" if len(names) == 1 else "are"
        yield f"{listed(names)} {verb} not asked about namespaces {which}"


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
