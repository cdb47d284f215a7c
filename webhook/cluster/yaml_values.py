"""YAML text as the values that JSON has, the way kubectl and the API server understand it."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "tag:yaml.org,2002:"
# Longer numbers are text: no field of a Kubernetes object holds one, and Python refuses huge ones.
_FORMS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,30})", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.CSafeLoader):
    """Takes dates, yes, no, on, off, ``=`` and times such as 12:30 as the text they are."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute, filled below and never again


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    written = str(loader.construct_scalar(node))
    value = float(written)
    return value if math.isfinite(value) else written


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


for _name, _form, _first in _FORMS:
    _Loader.add_implicit_resolver(f"{_PREFIX}{_name}", re.compile(rf"(?:{_form})\Z"), list(_first))
_Loader.add_constructor(f"{_PREFIX}int", _whole)
_Loader.add_constructor(f"{_PREFIX}float", _decimal)
_Loader.add_constructor(f"{_PREFIX}timestamp", _text)
_Loader.add_constructor(f"{_PREFIX}binary", _text)

_START = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)


class BrokenYaml(ValueError):
    """The text of one document cannot be read; the message names line and column."""


def documents(text: str) -> Iterator[Any]:
    """Yield the values of all documents, and a :class:`BrokenYaml` for each that is broken.

    A document ends at a line that begins with ``---``: what is broken before it does not spoil
    what comes after it. Empty documents yield None.
    """
    starts = [0, *(found.start() for found in _START.finditer(text)), len(text)]
    line = 0
    for start, end in pairwise(starts):
        part = text[start:end]
        if not _only_comments(part):
            yield from _read(part, line)
        line += part.count("\n")


def _only_comments(part: str) -> bool:
    """Tell whether there is nothing here but comments and directives (``%YAML 1.2``)."""
    if len(part) > 4096:
        return False
    lines = part.removeprefix("---").splitlines()
    return all(not line.strip() or line.lstrip()[0] in "#%" for line in lines)


def _read(part: str, before: int) -> Iterator[Any]:
    try:
        loader = _Loader(part)
        try:
            while loader.check_data():  # type: ignore[no-untyped-call] # types-PyYAML leaves it untyped
                yield loader.get_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        yield BrokenYaml(_said(error, before))
    except (yaml.YAMLError, ValueError) as error:
        yield BrokenYaml(f"after line {before + 1}: not YAML: {str(error).splitlines()[0]}")
    except RecursionError:
        yield BrokenYaml(f"after line {before + 1}: nested too deeply")


def _said(error: yaml.MarkedYAMLError, before: int) -> str:
    mark = error.problem_mark or error.context_mark
    words = ": ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return f"after line {before + 1}: not YAML: {words}"
    return f"line {before + mark.line + 1}, column {mark.column + 1}: not YAML: {words}"
