"""The spool's folder: whose it is, what it is called, and what a look into it finds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
import uuid
from typing import TYPE_CHECKING

from webhook.audit.errors import AuditError
from webhook.audit.record import Record, decode
from webhook.audit.segments import SUFFIX, Segment, pieces
from webhook.audit.set_aside import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_SECONDS = 10.0
"""How long a new process waits for a former one to let go of the folder."""

_LOCK = "lock"
_REPLICA = "replica"
_REPLICA_FORM = re.compile(r"[A-Za-z0-9.-]{1,80}")


def waiting_records(folder: Path, decision: str) -> Iterator[tuple[str, int, Record]]:
    """Yield what a spool holds of a decision; a server may be using it meanwhile.

    Yields:
        The name of the process that wrote it, the record's sequence number, and the record.

    Raises:
        AuditError: The folder cannot be read.
    """
    sought = decision.encode()
    if not (folder / _REPLICA).is_file():
        return
    try:
        name = (folder / _REPLICA).read_text(encoding="ascii", errors="replace").strip()
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            segment = Segment.named(path, name)
            if segment is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                for piece in pieces(path.read_bytes()):
                    if piece.frame is None or sought not in piece.frame.payload:
                        continue
                    record = decode(piece.frame.payload)
                    if record.decision == decision:
                        yield segment.writer, piece.frame.sequence, record
    except (OSError, ValueError) as error:
        raise AuditError(f"{folder}: the spool cannot be read: {error}") from error


def locked(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock until the process ends.

    Raises:
        AuditError: Another process holds it.
        OSError: The file cannot be made.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                raise AuditError(
                    f"{folder}: another process keeps its audit there; give each its own folder"
                ) from None
            time.sleep(0.1)
        else:
            return descriptor


def replica_name(folder: Path) -> str:
    """Return the folder's name, made at the first start; a copy of the folder has it too.

    Raises:
        AuditError: The file with the name holds none.
        OSError: It cannot be read or made.
    """
    path = folder / _REPLICA
    try:
        found = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60]
        found = f"{host}-{uuid.uuid4().hex[:12]}"
        write_whole(path, f"{found}\n".encode())
    except UnicodeDecodeError:
        found = ""
    if not _REPLICA_FORM.fullmatch(found):
        raise AuditError(f"{path}: holds no name; restore it, or move the folder away")
    return found
