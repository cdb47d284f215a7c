"""Which programs the test bed consists of, and how each is built."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
MODULES = Path(__file__).parents[1] / "tools"

ETCD = "v3.6.16"
KUBERNETES = "v1.36.3"
KUBEVIRT = "v1.8.4"
KWOK = "v0.8.0"
CERT_MANAGER = "v1.21.2"

_LINKED_KUBERNETES = "k8s.io/component-base/version"
_LINKED_KUBEVIRT = "kubevirt.io/client-go/version"


@dataclass(frozen=True, slots=True)
class Program:
    """A program, built from a Go module that pins every source by its checksum.

    Attributes:
        module: The folder in ``tests/testbed/tools`` whose go.mod and go.sum pin the sources.
        package: The Go package to build.
        variables: Go variables set while linking; releases are made in the same way.
        data: A Go module and a folder in it whose files the program needs and does not hold in
            itself; they are kept beside it.
    """

    name: str
    module: str
    package: str
    variables: tuple[tuple[str, str], ...] = ()
    data: tuple[str, str] | None = None

    @property
    def folder(self) -> Path:
        """The folder of the module."""
        return MODULES / self.module

    @property
    def linker_flags(self) -> str:
        """What is passed to ``go build -ldflags``: no symbol table, and the variables."""
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.variables)])

    def digest(self) -> str:
        """Return a hash of all that decides what the program becomes."""
        known = hashlib.sha256()
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        for path in files:
            known.update(f"{path.relative_to(self.folder)}\0".encode())
            known.update(hashlib.sha256(path.read_bytes()).digest())
        machine = os.uname()
        how = [self.package, self.linker_flags, BUILD_FLAGS, machine.sysname, machine.machine]
        how += self.data or ()
        known.update(json.dumps(how).encode())
        return known.hexdigest()


BUILD_FLAGS = ("-mod=readonly", "-modcacherw", "-buildvcs=false", "-trimpath")
"""Sums are checked against go.sum, nothing is added to it; caches can be removed by their owner."""

_KUBERNETES_VERSION = (
    (f"{_LINKED_KUBERNETES}.gitVersion", KUBERNETES),
    (f"{_LINKED_KUBERNETES}.gitMajor", KUBERNETES.removeprefix("v").split(".")[0]),
    (f"{_LINKED_KUBERNETES}.gitMinor", KUBERNETES.split(".")[1]),
)
# virtctl asks virt-api for its version before it reports an error: without one it reports another.
_KUBEVIRT_VERSION = (
    (f"{_LINKED_KUBEVIRT}.gitVersion", KUBEVIRT),
    (f"{_LINKED_KUBEVIRT}.gitCommit", "dfaa398f086692d19e01be21d83a01036e07815f"),
    (f"{_LINKED_KUBEVIRT}.gitTreeState", "clean"),
)

_CERT_MANAGER_VERSION = (
    ("github.com/cert-manager/cert-manager/pkg/util.AppVersion", CERT_MANAGER),
)
_CERT_MANAGER_DEFINITIONS = ("github.com/cert-manager/cert-manager", "deploy/crds")


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_VERSION)


def _kubevirt(name: str) -> Program:
    return Program(name, "kubevirt", f"kubevirt.io/kubevirt/cmd/{name}", _KUBEVIRT_VERSION)


PROGRAMS = (
    Program("etcd", "kubernetes", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kubectl"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kube-controller-manager"),
    _kubevirt("virt-controller"),
    _kubevirt("virtctl"),
    _kubevirt("virt-api"),
    Program("kubevirt-manifests", "kubevirt", "./manifests", _KUBEVIRT_VERSION),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    Program("cert-manager", "cert-manager", ".", _CERT_MANAGER_VERSION, _CERT_MANAGER_DEFINITIONS),
)
"""In the order in which they are built: what the smallest bed needs comes first."""


def cache() -> Path:
    """Return where the programs are kept: ``TESTBED_CACHE``, else ``.cache/testbed``."""
    named = os.environ.get("TESTBED_CACHE", "")
    return Path(named).absolute() if named else CHECKOUT / ".cache" / "testbed"


def binary(name: str) -> Path:
    """Return where a program lies once it is built."""
    return cache() / "bin" / name


def data_folder(name: str) -> Path:
    """Return where the files lie that a program needs beside itself, once it is built."""
    return binary(name).with_suffix(".data")


def stale() -> list[Program]:
    """Return the programs that are not there, miss their data, or were built by another recipe."""
    return [program for program in PROGRAMS if not _is_there(program)]


def _is_there(program: Program) -> bool:
    with_data = program.data is None or data_folder(program.name).is_dir()
    built = binary(program.name).is_file() and with_data
    return built and stamp(program) == program.digest()


def stamp(program: Program) -> str:
    """Return the digest of the recipe that a program was built by, "" if it is not known."""
    path = stamp_path(program)
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def stamp_path(program: Program) -> Path:
    """Return the file that remembers by which recipe a program was built."""
    return binary(program.name).with_suffix(".recipe")
