"""What of a spool cannot be used, kept beside it for a person to look at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 16 * 1024 * 1024
"""In all: what comes later is not kept, so that the folder stays bounded."""
_SUFFIXES = (".damaged", ".rejected")


class SetAside:
    """The files of a folder that hold what could not be used; only people delete them."""

    def __init__(self, folder: Path) -> None:
        """Take the folder."""
        self._folder = folder

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return (self._folder / name).exists()

    def put(self, name: str, content: bytes) -> str:
        """Write a file, whole or not at all; return why it was not, "" where it was."""
        try:
            used = sum(path.stat().st_size for path in self._files())
            if used + len(content) > MOST_BYTES:
                return f"there are {used} bytes already; look at them and delete them"
            write_whole(self._folder / name, content)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def notices(self) -> list[str]:
        """Tell in words what is there; nothing where nothing is."""
        files = self._files()
        if not files:
            return []
        return [f"{self._folder}: {len(files)} files *.damaged or *.rejected wait for a person"]

    def _files(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.suffix in _SUFFIXES]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is on disk with all of its content, or not there.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        # On a full disk the half of it must not take the room that is left.
        draft.unlink(missing_ok=True)
        raise
