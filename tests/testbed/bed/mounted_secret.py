"""A Secret in a folder, as a kubelet mounts it for a pod."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

DATA = "..data"
MODE = 0o440
"""That of the manifests (``defaultMode``)."""


def mount(folder: Path, files: Mapping[str, bytes]) -> None:
    """Mount a Secret, or another version of one that is mounted.

    The files are links through ``..data``, which leads to a folder with one version of all. One
    rename leads it to the next version, so nobody ever finds half of a file
    (kubernetes/pkg/volume/util/atomic_writer.go). A kubelet looks for a new version about once a
    minute; here each is mounted when it is told.

    Args:
        folder: Where it is mounted; is made where it is missing.
        files: The content of each by its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = Path(tempfile.mkdtemp(prefix="..version-", dir=folder))
    for name, content in files.items():
        (version / name).write_bytes(content)
        (version / name).chmod(MODE)
    data, unfinished = folder / DATA, folder / f"{DATA}_tmp"
    before = data.resolve() if data.is_symlink() else None
    unfinished.symlink_to(version.name)
    unfinished.replace(data)
    for name in files:
        with suppress(FileExistsError):
            (folder / name).symlink_to(Path(DATA, name))
    if before is not None:
        shutil.rmtree(before)
