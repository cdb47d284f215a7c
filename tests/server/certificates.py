"""Certificates of a test's own, issued by a CA of their own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from webhook.serving.issuing import Usage, general_name, issue
from webhook.serving.key_pair import KeyPair, read_pair


@dataclass(frozen=True)
class Certificate:
    """A certificate in a folder, as three files."""

    certificate: Path
    key: Path
    authority: Path

    def pair(self) -> KeyPair:
        return read_pair(self.certificate, self.key)


def issued(folder: Path, *names: str, now: datetime | None = None, days=90, **how) -> Certificate:
    """Issue a certificate into a new folder; ``how`` is what ``issue`` takes."""
    moment = now or datetime.now(UTC)
    made = issue(tuple(map(_name, names)), moment, timedelta(days=days), **how)
    folder.mkdir(parents=True)
    files = Certificate(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    files.certificate.write_bytes(made.certificate)
    files.key.write_bytes(made.key)
    files.authority.write_bytes(made.authority)
    return files


def _name(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text) if "://" in text else general_name(text)


def client(folder: Path, common_name: str, *names: str, **how) -> Certificate:
    """Issue a certificate for a client."""
    return issued(folder, *names, common_name=common_name, usage=Usage.CLIENT, **how)


def show(context: ssl.SSLContext, certificate: Certificate) -> ssl.SSLContext:
    """Let a client's context show a certificate."""
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context
