"""Facts from files: what a cluster was when somebody wrote it down with kubectl.

Facts from files never age, and a kind that is absent is known to be empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.cluster.documents import Document, DocumentError, read
from webhook.cluster.facts import Facts
from webhook.cluster.kinds import add
from webhook.cluster.sharing import Sharing
from webhook.model import fields
from webhook.model.fields import InvalidObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from webhook.model.snapshot import Snapshot

_PROGRESS_EVERY = 100


@dataclass(frozen=True, slots=True)
class Inventory:
    """Facts and what could not be read.

    Attributes:
        snapshot: The facts; what is broken is left out of them.
        errors: One for each document or path that could not be read, in the order of reading.
        counts: How many objects of each kind were read; kinds that tell no facts are left out.
    """

    snapshot: Snapshot
    errors: tuple[DocumentError, ...]
    counts: Mapping[str, int]


def load(paths: Sequence[Path], progress: Callable[[int], None] | None = None) -> Inventory:
    """Read facts from files and folders; "-" is standard input.

    Args:
        paths: See :func:`webhook.cluster.documents.read`.
        progress: Told now and then, and at the end, how many objects have been read.
    """
    documents = read(paths)
    return snapshot_of(_counted(documents, progress) if progress else documents)


def snapshot_of(documents: Iterable[Document | DocumentError]) -> Inventory:
    """Make facts of documents; of an object that is given twice, the last one counts."""
    facts = Facts()
    sharing = Sharing()
    errors: list[DocumentError] = []
    seen: set[tuple[str, str]] = set()
    for document in documents:
        if isinstance(document, DocumentError):
            errors.append(document)
            continue
        try:
            added = add(facts, sharing, document.obj)
        except InvalidObject as error:
            errors.append(DocumentError(document.label, f"{_subject(document)}{error}"))
        else:
            if added is not None:
                seen.add(added)
    counts: dict[str, int] = {}
    for kind, _ in sorted(seen):
        counts[kind] = counts.get(kind, 0) + 1
    return Inventory(facts.snapshot(), tuple(errors), counts)


def _subject(document: Document) -> str:
    """Name the object as a person would look for it, as far as it says who it is."""
    try:
        kind = fields.text(document.obj, "kind")
        namespace = fields.text(document.obj, "metadata", "namespace")
        name = fields.text(document.obj, "metadata", "name")
    except InvalidObject:
        return ""
    whole = f"{namespace}/{name}" if namespace and name else name
    return f"{kind} {whole}: " if kind and whole else f"{kind}: " if kind else ""


def _counted(
    documents: Iterator[Document | DocumentError], progress: Callable[[int], None]
) -> Iterator[Document | DocumentError]:
    count = 0
    for count, document in enumerate(documents, 1):
        if count % _PROGRESS_EVERY == 0:
            progress(count)
        yield document
    progress(count)
