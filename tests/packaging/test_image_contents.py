"""What the image will hold, run as the image runs it: unprivileged, nothing to write to."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.test_dockerfile import CHECKOUT, STAGES, instructions
from tests.server.certificates import Certificate, issued

SECONDS = 60
"""How long a test waits before it gives up; nothing comes near it."""
USER = int(instructions(STAGES[-1], "USER")[0][0].split(":")[0])
CONFINED = [
    "unshare",
    *(() if os.geteuid() == 0 else ("--user", "--map-root-user")),
    "--mount",
    *("sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"),
    *("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}"),
]
"""Runs a command as the image's user, without capabilities, on a root it cannot write to."""


def can_confine() -> bool:
    """Whether namespaces may be made here."""
    try:
        ran = subprocess.run([*CONFINED, "true"], capture_output=True, check=False, timeout=SECONDS)
    except FileNotFoundError:
        return False
    return ran.returncode == 0


pytestmark = pytest.mark.skipif(not can_confine(), reason="no namespaces can be made here")


@dataclass(frozen=True)
class Image:
    """What stands for the image's file system, and for what is mounted into it."""

    packages: Path
    certificate: Certificate


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Do what the first stage does to the sources; the packages are those of the tests."""
    folder = tmp_path_factory.mktemp("image")
    source, wheels, packages = (folder / name for name in ("source", "wheel", "packages"))
    source.mkdir()
    for *names, target in instructions(STAGES[0], "COPY"):
        for name in names:
            given = CHECKOUT / name
            if given.is_dir():
                without = shutil.ignore_patterns("__pycache__")
                shutil.copytree(given, source / target, ignore=without)
            else:
                shutil.copy(given, source / target)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    subprocess.run([*pip, *build, wheels, source], check=True, timeout=SECONDS)
    (wheel,) = wheels.iterdir()
    put = ["install", "--no-deps", "--no-index", "--no-compile", "--target"]
    subprocess.run([*pip, *put, packages, wheel], check=True, timeout=SECONDS)
    return Image(packages, issued(folder / "certificate", "localhost"))


def start(image: Image) -> subprocess.Popen[str]:
    """Run the image's entry point as its user, without a home."""
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", STAGES[-1], flags=re.MULTILINE)
    program, *words = json.loads(entry)
    words += ["--inventory", str(image.packages / "webhook" / "demo" / "inventory")]
    words += ["--bind", "127.0.0.1", "--port", "0", "--ops-port", "0"]
    words += ["--tls-cert", str(image.certificate.certificate)]
    words += ["--tls-key", str(image.certificate.key)]
    return subprocess.Popen(
        [*CONFINED, sys.executable, Path(sys.executable).with_name(program), *words],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(image.packages)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def server(image: Image) -> Iterator[tuple[int, str, str]]:
    """A server that runs: its process, and the addresses of its two ports."""
    process = start(image)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"reviews on (\S+), health and metrics on (http://[^\s;]+)", line)
        assert found, line + process.stderr.read()
        yield process.pid, found[1], found[2]
    finally:
        process.terminate()
        status = process.wait(SECONDS)
        rest = process.stderr.read()
        process.stderr.close()
    assert (status, "Traceback" in rest) == (0, False)


def test_it_is_unprivileged_and_its_root_is_read_only(server):
    process = Path(f"/proc/{server[0]}")
    status = (process / "status").read_text(encoding="utf-8")
    assert re.findall(r"^CapEff:\s+0+$", status, flags=re.MULTILINE)
    mounts = [line.split() for line in (process / "mounts").read_text().splitlines()]
    options = [mount[3].split(",") for mount in mounts if mount[1] == "/"]
    assert "ro" in options[-1]
    assert (process / "cwd").readlink() == Path("/")
    assert b"HOME=" not in (process / "environ").read_bytes()


def test_it_runs_what_was_installed(image, server):
    ran = subprocess.run(
        [sys.executable, "-c", "import webhook.serving.server as s; print(s.__file__)"],
        env={"PYTHONPATH": str(image.packages)},
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        timeout=SECONDS,
    )
    assert ran.stdout.startswith(str(image.packages))


def test_every_file_of_the_package_is_installed(image):
    def files(folder):
        found = (folder / "webhook").rglob("*")
        return {
            str(path.relative_to(folder))
            for path in found
            if path.is_file() and "__pycache__" not in path.parts
        }

    assert files(image.packages) == files(CHECKOUT)


def test_it_answers_a_review(image, server):
    tls = ssl.create_default_context(cafile=image.certificate.authority)
    request = urllib.request.Request(
        server[1].replace("127.0.0.1", "localhost") + "/validate?timeout=10s",
        data=(CHECKOUT / "tests" / "fixtures" / "demo-migration.json").read_bytes(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=tls, timeout=SECONDS) as answer:
        response = json.loads(answer.read())["response"]
    assert (response["uid"], response["allowed"]) == ("1", False)
    assert "no other node can take it" in response["status"]["message"]


def test_it_is_ready(server):
    with urllib.request.urlopen(server[2] + "/readyz?verbose", timeout=SECONDS) as page:
        assert page.status == 200
        assert "certificate: ready" in page.read().decode()
