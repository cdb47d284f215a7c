"""Reads what the command line names: the configuration, and the inventory with progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.printing import say
from webhook.cli.progress import Progress
from webhook.cluster.documents import STANDARD_INPUT, Document, DocumentError, read
from webhook.cluster.errors import ClusterError
from webhook.cluster.inventory import Inventory, snapshot_of
from webhook.policy import loading
from webhook.policy.configuration import Configuration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable, Iterator

    from webhook.cluster.connection import Connection


@dataclass(frozen=True, slots=True)
class FactsPlace:
    """Where facts come from.

    Attributes:
        paths: Files and folders; without any, a live cluster.
        kubeconfig: That cluster's; None for the usual places.
        context: Which of its contexts; None for the current one.
    """

    paths: tuple[Path, ...] = ()
    kubeconfig: Path | None = None
    context: str | None = None

    def connect(self) -> Connection:
        """Return the way to the live cluster; nothing is asked yet.

        Raises:
            CommandError: There is none, or its settings are broken.
        """
        # Only those who need a cluster pay for the client: 0.2 s and 21 MB.
        from webhook.cluster.connection import connect

        try:
            return connect(self.kubeconfig, self.context)
        except ClusterError as error:
            raise CommandError(str(error)) from error


def facts_place(args: argparse.Namespace) -> FactsPlace:
    """Return where facts come from, and make sure that it is there.

    Raises:
        CommandError: Neither files nor a cluster, both, or one that is not there.
    """
    place = FactsPlace(tuple(args.inventory), args.kubeconfig, args.context)
    if not place.paths:
        place.connect()
        return place
    for option in ("kubeconfig", "context"):
        if getattr(args, option) is not None:
            raise CommandError(f"--inventory and --{option}: facts come from one of them")
    for path in place.paths:
        try:
            missing = str(path) != STANDARD_INPUT and not path.exists()
        except (OSError, ValueError):
            missing = True
        if missing:
            raise CommandError(f"--inventory {path}: no such file or folder")
    return place


def read_text(path: Path, what: str) -> str:
    """Return the text of a file.

    Raises:
        CommandError: It cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: cannot read the {what}: not text in UTF-8") from error
    except OSError as error:
        raise CommandError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{str(path)!r}: not a path") from error


def load_configuration(path: Path | None) -> Configuration:
    """Return the configuration of a file; without a file the defaults.

    Raises:
        CommandError: The file cannot be read.
        ConfigurationError: It is no configuration.
    """
    if path is None:
        return Configuration()
    return loading.load(read_text(path, "configuration"), str(path))


def load_inventory(
    place: FactsPlace,
    *,
    only: Collection[str] = (),
    all_pods: bool = False,
    before: Iterable[Document] = (),
    after: Iterable[Document] = (),
) -> Inventory:
    """Read all facts once; say on stderr how far it is where that takes long.

    Args:
        place: Where they come from.
        only: The kinds of a live cluster that are wanted, by their plural names; empty for all.
        all_pods: Whether all pods of a live cluster are wanted, not only virtual machines.
        before: Objects that count where the facts do not have them.
        after: Objects that count in place of those of the facts.

    Raises:
        CommandError: A file, or the cluster, cannot be read at all.
    """
    if not place.paths:
        return _from_cluster(place.connect(), only, all_pods, before, after)
    names = ", ".join(str(path) for path in place.paths)
    with Progress(f"reading {names}") as progress:
        found = snapshot_of(_counted(before, read(place.paths), after, progress=progress))
    given = {str(path) for path in place.paths}
    for error in found.errors:
        if error.document in given:
            raise CommandError(f"--inventory {error}")
    return found


def _from_cluster(
    connection: Connection,
    only: Collection[str],
    all_pods: bool,
    before: Iterable[Document],
    after: Iterable[Document],
) -> Inventory:
    from webhook.cluster.listing import read_cluster

    documents = read_cluster(connection, only=only, all_pods=all_pods)
    try:
        with Progress(f"reading {connection.host}") as progress:
            return snapshot_of(_counted(before, documents, after, progress=progress))
    except ClusterError as error:
        raise CommandError(str(error)) from error


def _counted(
    *sources: Iterable[Document | DocumentError], progress: Progress
) -> Iterator[Document | DocumentError]:
    count = 0
    for source in sources:
        for document in source:
            count += 1
            progress.update(count)
            yield document


def say_errors(errors: Iterable[DocumentError]) -> None:
    """Print on stderr what could not be read."""
    for error in errors:
        say(str(error))


def errors_json(errors: Iterable[DocumentError]) -> list[dict[str, str]]:
    """Return what could not be read as every output lists it."""
    return [{"document": error.document, "message": error.message} for error in errors]
