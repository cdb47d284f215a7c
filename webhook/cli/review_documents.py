"""What ``review`` is given: AdmissionReviews and plain manifests, paired with what is old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.cluster.documents import Document, DocumentError, read
from webhook.model import fields
from webhook.model.fields import InvalidObject
from webhook.review.admission import review_of_document, review_of_object
from webhook.review.errors import NotAReview

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from webhook.model.fields import Object
    from webhook.review.admission import Review

ADMISSION_REVIEW = "AdmissionReview"
VMI = "VirtualMachineInstance"
JOINING = ("VirtualMachine", VMI, "VirtualMachineInstanceMigration")
Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Submission:
    """One document and the review that it makes; ``label`` is ``<file>#<index>``."""

    label: str
    review: Review


@dataclass(frozen=True, slots=True)
class Submissions:
    """All that a call asks.

    Attributes:
        reviews: In the order of the files.
        documents: The plain manifests.
        errors: What could not be read, of the documents and of the old objects.
    """

    reviews: tuple[Submission, ...]
    documents: tuple[Document, ...]
    errors: tuple[DocumentError, ...]


def submissions(
    paths: Sequence[Path],
    old_paths: Sequence[Path],
    *,
    operation: str | None = None,
    username: str = "",
    groups: tuple[str, ...] = (),
) -> Submissions:
    """Read what is to be reviewed.

    Args:
        paths: Files and folders with AdmissionReviews and plain manifests.
        old_paths: Files and folders with the objects as they are now.
        operation: What the plain manifests ask for; None: UPDATE for those that have an old
            object, CREATE for the rest.
        username: Who asks, for plain manifests; AdmissionReviews say it themselves.
        groups: The groups of who asks.
    """
    errors: list[DocumentError] = []
    old = _by_key(old_paths, errors)
    reviews: list[Submission] = []
    documents: list[Document] = []
    for document in read(paths):
        if isinstance(document, DocumentError):
            errors.append(document)
            continue
        try:
            if _kind(document) == ADMISSION_REVIEW:
                review = review_of_document(document.obj)
            else:
                before = old.get(_key(document.obj))
                asked = operation or ("CREATE" if before is None else "UPDATE")
                review = review_of_object(
                    document.obj,
                    operation=asked,
                    old=None if asked == "CREATE" else before,
                    username=username,
                    groups=groups,
                )
                documents.append(document)
        except (InvalidObject, NotAReview) as error:
            errors.append(DocumentError(document.label, str(error)))
        else:
            reviews.append(Submission(document.label, review))
    return Submissions(tuple(reviews), tuple(documents), tuple(errors))


def joined(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Return the manifests that join the inventory, in two lists.

    The first counts where the inventory does not have the object: a VMI without a status must
    not stand for one that runs. The second counts in any case.
    """
    before: list[Document] = []
    after: list[Document] = []
    for document in documents:
        if _kind(document) not in JOINING or not _key(document.obj)[3]:
            continue
        stated = bool(document.obj.get("status"))
        waits = _kind(document) == VMI and not stated
        (before if waits else after).append(document)
    return before, after


def in_order(
    of_inventory: Sequence[DocumentError], of_call: Sequence[DocumentError]
) -> list[DocumentError]:
    """Return all errors in the order of the documents, one for each document.

    A manifest that joins the inventory is read twice; what the inventory says of it is kept,
    because it names the object.
    """
    first: dict[str, DocumentError] = {}
    for error in (*of_inventory, *of_call):
        first.setdefault(error.document, error)
    files: dict[str, int] = {}
    for document in first:
        files.setdefault(document.rpartition("#")[0] or document, len(files))

    def place(error: DocumentError) -> tuple[int, int]:
        file, _, index = error.document.rpartition("#")
        return files[file or error.document], int(index) if file and index.isdecimal() else -1

    return sorted(first.values(), key=place)


def _kind(document: Document) -> object:
    return document.obj.get("kind")


def _by_key(paths: Sequence[Path], errors: list[DocumentError]) -> dict[Key, Object]:
    found: dict[Key, Object] = {}
    for document in read(paths):
        if isinstance(document, DocumentError):
            errors.append(document)
            continue
        try:
            found[_key(document.obj)] = document.obj
        except InvalidObject as error:
            errors.append(DocumentError(document.label, str(error)))
    return found


def _key(obj: Object) -> Key:
    group = fields.text(obj, "apiVersion").rpartition("/")[0]
    namespace = fields.text(obj, "metadata", "namespace") or "default"
    return group, fields.text(obj, "kind"), namespace, fields.text(obj, "metadata", "name")
