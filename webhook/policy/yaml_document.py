"""YAML text as plain values, with everything wrong in it named by line.

Only what JSON has too: text, numbers, booleans, null, lists and mappings. Dates and other odd
scalars stay text; keys are always text. As in YAML 1.1, the words on, off, yes and no, without
quotes, are booleans.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import yaml

from webhook.policy.findings import Finding, Level

if TYPE_CHECKING:
    from yaml.error import Mark

_PREFIX = "tag:yaml.org,2002:"
_AS_TEXT = {f"{_PREFIX}{name}" for name in ("timestamp", "value", "merge")}
# Aliases make small files large and deep: more than this is no configuration.
MOST_VALUES = 10_000
DEEPEST = 32
_LONGEST_NUMBER = 64


class _Loader(yaml.SafeLoader):
    """Reads dates, `=` and `<<` as the text they are."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute, written once
        sign: [(tag, form) for tag, form in resolvers if tag not in _AS_TEXT]
        for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Unusable(Exception):
    """The text cannot be read to its end; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def read(text: str) -> tuple[Any, list[Finding]]:
    """Return the one document of a YAML text, and the errors in it.

    An empty text is None. Where the YAML itself is broken, the document is None.
    """
    try:
        loader = _Loader(text)
        try:
            return _read(loader)
        finally:
            loader.dispose()
    except _Unusable as error:
        return None, [error.finding]
    except yaml.MarkedYAMLError as error:
        return None, [_error("", _said(error))]
    except yaml.YAMLError as error:
        return None, [_error("", f"not YAML: {str(error).splitlines()[0]}")]
    except RecursionError:
        return None, [_error("", "nested too deeply for a configuration")]


def _read(loader: _Loader) -> tuple[Any, list[Finding]]:
    root = loader.get_single_node()
    if root is None:
        return None, []
    reader = _Reader(loader)
    value = reader.value(root, "", 0)
    # An alias shows the same mistake once for each place it is used in.
    return value, list(dict.fromkeys(reader.findings))


class _Reader:
    """Turns YAML nodes into values and collects what is wrong on the way."""

    def __init__(self, loader: _Loader) -> None:
        self.findings: list[Finding] = []
        self._loader = loader
        self._count = 0

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._count += 1
        if depth > DEEPEST or self._count > MOST_VALUES:
            raise _Unusable(
                _error(
                    "",
                    f"{_place(node.start_mark)}: too deep or too large for a configuration; "
                    "does an alias contain itself?",
                )
            )
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_PREFIX}map":
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_PREFIX}seq":
            return [
                self.value(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._odd_tag(node, path)
        return {} if isinstance(node, yaml.MappingNode) else []

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.findings.append(
                    _error(path, f"{_place(key_node.start_mark)}: a key must be plain text")
                )
                continue
            key = str(key_node.value)
            here = f"{path}.{key}" if path else key
            line = key_node.start_mark.line + 1
            if key in lines:
                self.findings.append(
                    _error(here, f"line {line}: set twice, first on line {lines[key]}")
                )
            lines.setdefault(key, line)
            values[key] = self.value(value_node, here, depth + 1)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        kind = node.tag.removeprefix(_PREFIX)
        if kind == "null":
            return None
        if kind in ("bool", "int", "float"):
            return self._number(node)
        if kind != "str":
            self._odd_tag(node, path)
        return node.value

    def _number(self, node: yaml.ScalarNode) -> Any:
        """Return a number or a boolean; one that JSON could not hold stays text."""
        if len(node.value) > _LONGEST_NUMBER:
            return node.value
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError):
            return node.value
        return value if math.isfinite(value) else node.value

    def _odd_tag(self, node: yaml.Node, path: str) -> None:
        tag = node.tag.replace(_PREFIX, "!!")
        self.findings.append(
            _error(path, f"{_place(node.start_mark)}: the tag `{tag}` has no place here")
        )


def _said(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    words = ": ".join(part for part in (error.context, error.problem) if part)
    if error.context == "expected a single document in the stream":
        words = "a second document begins here; one is wanted"
    return f"{_place(mark)}: not YAML: {words}" if mark else f"not YAML: {words}"


def _place(mark: Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _error(path: str, message: str) -> Finding:
    return Finding(Level.ERROR, path, message)
