"""``certs issue --install``: the certificate's Secret, and its CA in both webhook configurations.

It needs these rights, and no others: get and patch on the two webhook configurations, and get,
create and patch on the Secret (docs/installation.md).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from webhook.cli.certificate_report import names_of
from webhook.cli.errors import CommandError
from webhook.cluster.connection import JSON_PATCH, MERGE_PATCH
from webhook.cluster.errors import RequestFailed
from webhook.cluster.installation import configuration_path
from webhook.model import fields
from webhook.model.fields import InvalidObject
from webhook.serving.errors import StartError
from webhook.serving.issuing import AUTHORITY, general_name, issue
from webhook.serving.key_pair import moment, parse_certificates, path_to, valid_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, timedelta

    from cryptography import x509

    from webhook.cluster.connection import Connection
    from webhook.model.fields import Object

SECRET = "migration-guard-tls"  # noqa: S105 - a name, no secret
_CERTIFICATE, _KEY, _AUTHORITY = "tls.crt", "tls.key", "ca.crt"
_RENEWED = 1 / 3
"""The last part of its life, in which a certificate is replaced unasked."""
_CERT_MANAGER = "cert-manager.io/"


@dataclass(frozen=True, slots=True)
class Installed:
    """What was done.

    Attributes:
        certificate: The one that is in the Secret now.
        bundle: The CAs that the webhook configurations trust now, in PEM.
        secret: ``created``, ``replaced`` or ``kept``.
        webhooks: To how many webhooks the CAs had to be written.
    """

    certificate: x509.Certificate
    bundle: bytes
    secret: str
    webhooks: int


@dataclass(frozen=True, slots=True)
class _Held:
    """What a Secret holds."""

    certificates: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    bundle: bytes


def install(
    connection: Connection,
    namespace: str,
    names: Sequence[str],
    now: datetime,
    validity: timedelta,
    *,
    replacing: bool = False,
) -> Installed:
    """Put a certificate into the cluster, unless a good one is there.

    The CA goes first: the API server trusts the new certificate before the guard shows it, and the
    old one until it ends. Called again, it changes nothing, or finishes what was interrupted.

    Args:
        connection: The way to the cluster.
        namespace: Of the Secret.
        names: What the certificate must be good for.
        now: The present time, with its time zone.
        validity: For how long a new certificate is valid.
        replacing: Whether a good one is replaced too, and one that somebody else issued.

    Raises:
        CommandError: The guard is not installed, cert-manager does this already, somebody else's
            certificate stands there, or a right is lacking.
    """
    try:
        configurations = {kind: _configuration(connection, kind) for kind in _KINDS}
        found = connection.find(_path(namespace, SECRET))
        if found is not None:
            _leave_to_cert_manager(found, f"the Secret {namespace}/{SECRET}")
        held = _held(found)
        kept = not replacing and held is not None and _good(held, names, now)
        if kept and held is not None:
            bundle, certificate = held.bundle, held.certificates[0]
        else:
            if found is not None and not replacing:
                _refuse_foreign(held, f"{namespace}/{SECRET}")
            issued = issue([general_name(name) for name in names], now, validity)
            bundle = issued.authority + _before(held, now)
            (certificate,) = parse_certificates(issued.certificate, "what was issued")
        written = sum(
            _trust(connection, kind, configuration, bundle)
            for kind, configuration in configurations.items()
        )
        if kept:
            return Installed(certificate, bundle, "kept", written)
        content = {_CERTIFICATE: issued.certificate, _KEY: issued.key, _AUTHORITY: bundle}
        _store(connection, namespace, content, found)
        return Installed(certificate, bundle, "replaced" if found else "created", written)
    except RequestFailed as error:
        raise CommandError(
            f"{error}; nothing is half done that a second call would not finish"
        ) from error
    except InvalidObject as error:
        raise CommandError(f"the cluster's answer cannot be read: {error}") from error


_KINDS = ("mutating", "validating")


def _path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")


def _configuration(connection: Connection, kind: str) -> Object:
    found: Object | None = connection.find(configuration_path(kind))
    if found is None:
        raise CommandError(
            f"there is no {kind} webhook configuration migration-guard in {connection.host}; "
            "install the manifests first: kubectl apply -k"
        )
    _leave_to_cert_manager(found, f"the {kind} webhook configuration")
    return found


def _leave_to_cert_manager(obj: Object, what: str) -> None:
    if any(key.startswith(_CERT_MANAGER) for key in fields.labels(obj, "metadata", "annotations")):
        raise CommandError(
            f"{what} is kept by cert-manager, which would undo this; leave out the component "
            "cert-manager, apply, and delete the Secret"
        )


def _held(secret: Object | None) -> _Held | None:
    """Return what a Secret holds; None where it is no certificate with its key and CA."""
    if secret is None:
        return None
    data = fields.labels(secret, "data")
    try:
        chain, key, bundle = (
            base64.b64decode(data.get(name, ""), validate=True)
            for name in (_CERTIFICATE, _KEY, _AUTHORITY)
        )
        certificates = parse_certificates(chain, _CERTIFICATE)
        authorities = parse_certificates(bundle, _AUTHORITY)
        private = load_pem_private_key(key, password=None)
    except (StartError, binascii.Error, ValueError, TypeError):
        return None
    if private.public_key() != certificates[0].public_key():
        return None
    return _Held(certificates, authorities, bundle)


def _good(held: _Held, names: Sequence[str], now: datetime) -> bool:
    path = path_to(held.authorities, held.certificates)
    if not path or not set(names) <= set(names_of(path[0])):
        return False
    begins, ends = path[0].not_valid_before_utc, valid_until(path)
    return begins <= now < ends - (ends - begins) * _RENEWED


def _refuse_foreign(held: _Held | None, where: str) -> None:
    if held is None:
        raise CommandError(
            f"the Secret {where} holds no certificate with its key and CA; give --replace to "
            "write it anew"
        )
    issuer = held.certificates[0].issuer.rfc4514_string()
    if issuer != f"CN={AUTHORITY}":
        ends = moment(valid_until(held.certificates))
        raise CommandError(
            f"the Secret {where} holds a certificate that {issuer!r} issued, which ends {ends}; "
            "give --replace to put one of this command in its place"
        )


def _before(held: _Held | None, now: datetime) -> bytes:
    """Return the CA before, as long as it is valid."""
    if held is None or now >= held.authorities[0].not_valid_after_utc:
        return b""
    return held.authorities[0].public_bytes(Encoding.PEM)


def _trust(connection: Connection, kind: str, configuration: Object, bundle: bytes) -> int:
    """Write the CAs to the webhooks that lack them; return to how many."""
    encoded = base64.b64encode(bundle).decode()
    changes = list(_changes(configuration, encoded))
    if not changes:
        return 0
    version = fields.text(configuration, "metadata", "resourceVersion")
    # Entries are named by their place, so they must be those that were read.
    same = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    connection.send("PATCH", configuration_path(kind), [same, *changes], JSON_PATCH)
    return len(changes)


def _changes(configuration: Object, encoded: str) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(fields.items(configuration, "webhooks")):
        if fields.text(entry, "clientConfig", "caBundle") != encoded:
            yield {
                "op": "add",
                "path": f"/webhooks/{number}/clientConfig/caBundle",
                "value": encoded,
            }


def _store(
    connection: Connection, namespace: str, content: dict[str, bytes], found: Object | None
) -> None:
    data = {name: base64.b64encode(value).decode() for name, value in content.items()}
    if found is None:
        labels = {"app.kubernetes.io/name": "migration-guard"}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "labels": labels},
            "type": "kubernetes.io/tls",
            "data": data,
        }
        connection.send("POST", _path(namespace), secret)
        return
    version = fields.text(found, "metadata", "resourceVersion")
    change = {"metadata": {"resourceVersion": version}, "data": data}
    connection.send("PATCH", _path(namespace, SECRET), change, MERGE_PATCH)
