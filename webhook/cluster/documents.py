"""Files of Kubernetes objects, as ``kubectl get … -o yaml`` or ``-o json`` prints them."""

from __future__ import annotations

import json
import os
import re
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from webhook.cluster import yaml_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from webhook.model.fields import Object

SUFFIXES = (".yaml", ".yml", ".json")
STANDARD_INPUT = "-"
_MOST_LISTS = 8


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file.

    Attributes:
        file: The path as it was given or found; "-" is standard input.
        index: The object's place in the file, from 0; each item of a List counts.
        obj: The object itself.
    """

    file: str
    index: int
    obj: Object

    @property
    def label(self) -> str:
        """``<file>#<index>``."""
        return f"{self.file}#{self.index}"


@dataclass(frozen=True, slots=True)
class DocumentError:
    """What is wrong with a document, or with a path.

    Attributes:
        document: ``<file>#<index>``, or the path alone where no document could be read.
        message: What is wrong, where, and what is wanted.
    """

    document: str
    message: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.document}: {self.message}"


def read(paths: Iterable[Path]) -> Iterator[Document | DocumentError]:
    """Yield every object in files and folders, and an error for each that cannot be read.

    A folder is read with all folders in it, its ``*.yaml``, ``*.yml`` and ``*.json`` files by
    name; hidden folders are left out. The path "-" is standard input. Documents and Lists with
    nothing in them yield nothing.
    """
    for path in paths:
        try:
            is_folder = path.is_dir()
        except OSError as error:
            yield _unreadable(str(path), error)
            continue
        yield from _read_folder(path) if is_folder else _read_file(path)


def read_text(file: str, text: str) -> Iterator[Document | DocumentError]:
    """Yield every object in a text; ``file`` names it, and its end says whether it is JSON."""
    index = 0
    for value in _values(text, is_json=file.lower().endswith(".json")):
        for obj in _flat(value, set(), 0):
            label = f"{file}#{index}"
            index += 1
            if isinstance(obj, DocumentError):
                yield DocumentError(label, obj.message)
            elif isinstance(obj, dict):
                yield Document(file, index - 1, obj)
            else:
                yield DocumentError(label, f"a Kubernetes object is wanted here, not {_named(obj)}")


def _read_folder(folder: Path) -> Iterator[Document | DocumentError]:
    unreadable: list[OSError] = []
    found: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in names if name.lower().endswith(SUFFIXES)]
    for error in unreadable:
        yield _unreadable(str(error.filename), error)
    if not found and not unreadable:
        yield DocumentError(str(folder), "no *.yaml, *.yml or *.json file is in this folder")
    for path in sorted(found):
        yield from _read_file(path)


def _read_file(path: Path) -> Iterator[Document | DocumentError]:
    name = str(path)
    try:
        data = sys.stdin.buffer.read() if name == STANDARD_INPUT else path.read_bytes()
    except OSError as error:
        yield _unreadable(name, error)
        return
    # PowerShell writes UTF-16 where a command's output is redirected to a file.
    wide = data.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield DocumentError(name, f"line {line}: not text in UTF-8")
        return
    del data
    yield from read_text(name, text)


def _unreadable(name: str, error: OSError) -> DocumentError:
    if isinstance(error, FileNotFoundError):
        return DocumentError(name, "no such file or folder")
    return DocumentError(name, f"cannot be read: {error.strerror or error}")


def _values(text: str, *, is_json: bool) -> Iterator[Any]:
    """Yield what stands in a text, broken documents as :class:`DocumentError`."""
    if is_json or text.lstrip()[:1] in ("{", "["):
        if not text.strip():
            return
        try:
            yield orjson.loads(text)
            return
        except orjson.JSONDecodeError as error:
            several = list(_several(text, error))
        # Flow YAML begins like JSON; in a file that does not claim to be JSON it may be meant.
        if is_json or not isinstance(several[0], DocumentError):
            yield from several
            return
    for value in yaml_values.documents(text):
        if isinstance(value, yaml_values.BrokenYaml):
            yield DocumentError("", str(value))
        else:
            yield value


def _several(text: str, whole: orjson.JSONDecodeError) -> Iterator[Any]:
    """Yield the objects of a text of several, one after the other, as ``jq`` prints them."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    place = _content(text, 0)
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            first = place == _content(text, 0)
            line, column, said = (
                (whole.lineno, whole.colno, whole.msg)
                if first
                else (error.lineno, error.colno, error.msg)
            )
            yield DocumentError("", f"line {line}, column {column}: not JSON: {said}")
            return
        except (ValueError, RecursionError):
            yield DocumentError(
                "", f"line {whole.lineno}, column {whole.colno}: not JSON: {whole.msg}"
            )
            return
        yield value
        place = _content(text, place)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_BLANK = re.compile(r"\s*")


def _content(text: str, place: int) -> int:
    blank = _BLANK.match(text, place)
    return blank.end() if blank else place


def _flat(value: Any, seen: set[int], depth: int) -> Iterator[Any]:
    """Yield the objects in a value: itself, or the items of a List, or of a bare list."""
    if value is None:
        return
    if isinstance(value, list):
        yield from _each(value, "", "", seen, depth)
        return
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List"):
        yield value
        return
    items = value.get("items")
    if "items" not in value and kind != "List":
        yield value
    elif items is not None and not isinstance(items, list):
        yield DocumentError("", "items: a list is wanted here")
    else:
        version = value.get("apiVersion")
        yield from _each(
            items or (),
            kind.removesuffix("List"),
            version if isinstance(version, str) else "",
            seen,
            depth,
        )


def _each(
    items: Sequence[Any], kind: str, version: str, seen: set[int], depth: int
) -> Iterator[Any]:
    # YAML aliases can make a few lines into millions of objects.
    if id(items) in seen:
        yield DocumentError("", "items: this list stands in the document twice")
        return
    if depth > _MOST_LISTS:
        yield DocumentError("", "items: Lists are nested too deeply")
        return
    if items:
        seen.add(id(items))
    for item in items:
        # The API server itself leaves kind and version out of a NodeList's items.
        if kind and isinstance(item, dict) and "kind" not in item:
            yield {"apiVersion": version, "kind": kind, **item}
        else:
            yield from _flat(item, seen, depth + 1)


def _named(value: object) -> str:
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    return "a number" if not isinstance(value, bool) else "true or false"
