"""The server's certificate files: those it is given, or those it makes for development."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from webhook.serving.errors import StartError
from webhook.serving.files import write_atomically
from webhook.serving.issuing import Issued, general_name, issue
from webhook.serving.key_pair import path_to, read_authorities, read_pair, valid_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CERTIFICATE_NAME = "tls.crt"
KEY_NAME = "tls.key"
AUTHORITY_NAME = "ca.crt"

VALIDITY = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=1)
"""A development certificate that ends sooner than this is replaced at the next start."""

NAMES: tuple[x509.GeneralName, ...] = tuple(
    map(general_name, ("localhost", "127.0.0.1", "::1", "migration-guard.migration-guard.svc"))
)
"""What a development certificate is good for: this machine, and the Service of the manifests."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate and its key lie, in PEM.

    Attributes:
        authority: The CAs that clients are to trust; None where nobody said.
    """

    certificate: Path
    key: Path
    authority: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> CertificateFiles:
        """Return the files as they are named in a folder, and in a Secret of cert-manager."""
        return cls(folder / CERTIFICATE_NAME, folder / KEY_NAME, folder / AUTHORITY_NAME)


def development_certificate(folder: Path, now: datetime) -> CertificateFiles:
    """Return the development certificate in a folder, made anew unless there is a good one.

    A CA is made with it, for clients to trust (``ca.crt``). A certificate is good if it is valid
    for more than a day, issued by that CA for the names this version serves, and if its key
    matches and is readable by its owner alone.

    Args:
        folder: Where ``ca.crt``, ``tls.crt`` and ``tls.key`` are kept; created if missing.
        now: The present time, with its time zone.

    Raises:
        StartError: The folder cannot be created or written.
    """
    files = CertificateFiles.in_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if not _is_good(files, folder / AUTHORITY_NAME, now):
                authority_name = "migration-guard development CA"
                write(folder, issue(NAMES, now, VALIDITY, authority_name=authority_name))
    except OSError as error:
        raise StartError(
            f"cannot keep a development certificate in {folder}: {error.strerror}; "
            "name another folder, or give a certificate and its key"
        ) from error
    return files


def write(folder: Path, issued: Issued) -> None:
    """Write a certificate, its key and its CA into a folder; each file whole or not at all.

    Raises:
        OSError: A file cannot be written.
    """
    # The key first: with the certificate, a server that watches the folder has both.
    write_atomically(folder / KEY_NAME, issued.key, mode=0o600)
    write_atomically(folder / CERTIFICATE_NAME, issued.certificate)
    write_atomically(folder / AUTHORITY_NAME, issued.authority)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep two programs that start at once from each making a part of the files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_good(files: CertificateFiles, authority: Path, now: datetime) -> bool:
    try:
        pair = read_pair(files.certificate, files.key)
        path = path_to(read_authorities(authority)[:1], pair.certificates)
        names = pair.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        mode = stat.S_IMODE(files.key.stat().st_mode)
    except (StartError, OSError, ValueError, x509.ExtensionNotFound):
        return False
    return (
        bool(path)
        and pair.leaf.not_valid_before_utc <= now
        and valid_until(path) - now > RENEWED_BEFORE
        and set(names) == set(NAMES)
        and mode & 0o077 == 0
    )
