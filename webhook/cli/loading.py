"""Reads what the command line names: the configuration, and the inventory with progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.printing import say
from webhook.cli.progress import Progress
from webhook.cluster.documents import STANDARD_INPUT, Document, DocumentError, read
from webhook.cluster.inventory import Inventory, snapshot_of
from webhook.policy import loading
from webhook.policy.configuration import Configuration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

NO_INVENTORY = (
    "no --inventory given, and a live cluster cannot be read yet; give a file of "
    "`kubectl get nodes,vms,vmis,vmims,pods,kubevirt -A -o yaml`"
)


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


def require_inventory(paths: Sequence[Path]) -> None:
    """Make sure that there is an inventory, and that each path can be opened.

    Raises:
        CommandError: There is none, or a path is missing.
    """
    if not paths:
        raise CommandError(NO_INVENTORY)
    for path in paths:
        try:
            missing = str(path) != STANDARD_INPUT and not path.exists()
        except (OSError, ValueError):
            missing = True
        if missing:
            raise CommandError(f"--inventory {path}: no such file or folder")


def load_inventory(
    paths: Sequence[Path],
    *,
    before: Iterable[Document] = (),
    after: Iterable[Document] = (),
) -> Inventory:
    """Read the inventory; say on stderr how far it is where that takes long.

    Args:
        paths: Files and folders.
        before: Objects that count where the inventory does not have them.
        after: Objects that count in place of those of the inventory.

    Raises:
        CommandError: No inventory is given, or one of the paths cannot be read at all.
    """
    require_inventory(paths)
    names = ", ".join(str(path) for path in paths)
    with Progress(f"reading {names}") as progress:
        found = snapshot_of(_counted(before, read(paths), after, progress=progress))
    given = {str(path) for path in paths}
    for error in found.errors:
        if error.document in given:
            raise CommandError(f"--inventory {error}")
    return found


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
