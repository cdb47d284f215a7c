"""YAML text as the values that JSON has, the way kubectl and the API server understand it.

The values are built straight from the events of libyaml: PyYAML's own way, by nodes, takes three
times as long, and an inventory of a large cluster has millions of lines.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset(_PREFIX + name for name in ("str", "timestamp", "binary"))
_PLAIN_TAGS = frozenset(_PREFIX + name for name in ("int", "float", "bool", "null"))
_CONTAINER_TAGS = frozenset((None, "!", _PREFIX + "map", _PREFIX + "seq"))
_NOT_TEXT = frozenset("-+.0123456789tTfFnN~")
_WORDS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("~", "null", "Null", "NULL", ""), None),
}
# Longer numbers are text: no field of a Kubernetes object holds one, and Python refuses huge ones.
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})")
_DECIMAL = re.compile(
    r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?",
)
_START = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
# Deeper than any Kubernetes object, and far from what Python's own recursion allows.
_DEEPEST = 200
# A longer part is given to the parser whether or not there is anything in it.
_LONGEST_COMMENT = 4096
_NO_KEY = object()
_MERGE = object()
_MERGEABLE = "only mappings can be merged by <<"


class BrokenYaml(ValueError):
    """The text of one document cannot be read; the message names line and column."""


def documents(text: str) -> Iterator[Any]:
    """Yield the values of all documents, and a :class:`BrokenYaml` for each that is broken.

    A document ends at a line that begins with ``---``: what is broken before it does not spoil
    what comes after it. Empty documents yield None. Only true and false are booleans; dates,
    yes, no, on, off and times such as 12:30 are the text they are. Of a key that is given twice
    the last one counts. ``<<`` merges.
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
    if len(part) > _LONGEST_COMMENT:
        return False
    lines = part.removeprefix("---").splitlines()
    return all(not line.strip() or line.lstrip()[0] in "#%" for line in lines)


def _read(part: str, before: int) -> Iterator[Any]:
    try:
        yield from _Builder().documents(part)
    except yaml.MarkedYAMLError as error:
        yield BrokenYaml(_said(error, before))
    except yaml.YAMLError as error:
        yield BrokenYaml(f"after line {before + 1}: not YAML: {str(error).splitlines()[0]}")


def _said(error: yaml.MarkedYAMLError, before: int) -> str:
    mark = error.problem_mark or error.context_mark
    words = ": ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return f"after line {before + 1}: not YAML: {words}"
    return f"line {before + mark.line + 1}, column {mark.column + 1}: not YAML: {words}"


class _Builder:
    """Puts together the values of documents from the parser's events."""

    def __init__(self) -> None:
        self._anchors: dict[str, Any] = {}
        # The containers that are not closed yet, and of each mapping the key that waits for its
        # value.
        self._open: list[Any] = []
        self._keys: list[Any] = []
        self._merges: dict[int, list[Any]] = {}
        self._root: Any = None
        # Most words of an inventory come again and again.
        self._known: dict[str, Any] = {}
        self._names: dict[str, str] = {}

    def documents(self, text: str) -> Iterator[Any]:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent):
                self._container({}, event)
            elif isinstance(event, yaml.SequenceStartEvent):
                self._container([], event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                self._root = None
            elif isinstance(event, yaml.DocumentEndEvent):
                yield self._root

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        written: str = event.value
        plain, quoted = event.implicit
        if self._open and self._keys[-1] is _NO_KEY:
            key = self._names.setdefault(written, written)
            self._keys[-1] = _MERGE if plain and written == "<<" else key
            if event.anchor:
                self._anchors[event.anchor] = written
            return
        if plain or event.tag in _PLAIN_TAGS:
            value = self._plain(written)
        elif quoted or event.tag in _TEXT_TAGS:
            value = written
        else:
            raise _wrong(_tag(event.tag), event)
        if event.anchor:
            self._anchors[event.anchor] = value
        self._put(value, event)

    def _plain(self, written: str) -> Any:
        try:
            return self._known[written]
        except KeyError:
            value = self._known[written] = _value(written)
            return value

    def _container(self, new: Any, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        if event.tag not in _CONTAINER_TAGS:
            raise _wrong(_tag(event.tag), event)
        if len(self._open) >= _DEEPEST:
            raise _wrong("nested too deeply for a Kubernetes object", event)
        self._put(new, event)
        if event.anchor:
            self._anchors[event.anchor] = new
        self._open.append(new)
        self._keys.append(_NO_KEY if isinstance(new, dict) else None)

    def _close(self, event: yaml.Event) -> None:
        closed = self._open.pop()
        self._keys.pop()
        for merged in self._merges.pop(id(closed), ()):
            for base in merged if isinstance(merged, list) else (merged,):
                if not isinstance(base, dict):
                    raise _wrong(_MERGEABLE, event)
                for key, value in base.items():
                    closed.setdefault(key, value)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            raise _wrong(f"nothing is named &{event.anchor} before this", event)
        value = self._anchors[event.anchor]
        if any(value is around for around in self._open):
            raise _wrong(f"*{event.anchor} stands inside of what it names", event)
        if self._open and self._keys[-1] is _NO_KEY and isinstance(value, str):
            self._keys[-1] = value
        else:
            self._put(value, event)

    def _put(self, value: Any, event: yaml.Event) -> None:
        if not self._open:
            self._root = value
            return
        parent = self._open[-1]
        key = self._keys[-1]
        if isinstance(parent, list):
            parent.append(value)
            return
        if key is _NO_KEY:
            raise _wrong("a key must be plain text", event)
        self._keys[-1] = _NO_KEY
        if key is not _MERGE:
            parent[key] = value
        elif isinstance(value, dict | list):
            self._merges.setdefault(id(parent), []).append(value)
        else:
            raise _wrong(_MERGEABLE, event)


def _value(written: str) -> Any:
    """Return what a word without quotes and tag stands for."""
    if written and written[0] not in _NOT_TEXT:
        return written
    if written in _WORDS:
        return _WORDS[written]
    if _WHOLE.fullmatch(written):
        return int(written)
    if _DECIMAL.fullmatch(written):
        number = float(written)
        return number if math.isfinite(number) else written
    return written


def _tag(tag: str | None) -> str:
    return f"the tag {(tag or '!').replace(_PREFIX, '!!')} has no place here"


def _wrong(problem: str, event: yaml.Event) -> ConstructorError:
    mark = event.start_mark
    return ConstructorError(None, None, problem, mark)  # type: ignore[arg-type] # C marks do too
