"""Words for what a schema wants, and for what stands there instead."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.policy.schema import Schema

_LONGEST = 60


def unknown_key(key: str, here: Schema, whole: Schema) -> str:
    """Say that a key is unknown: where it belongs, else which is near it, else what may be."""
    allowed = list(here["properties"])
    said = f"unknown key `{shorten(key)}`"
    homes = [section for section, name in _keys(whole) if name == key]
    if 0 < len(homes) <= 2:
        places = " or ".join(f"`{home}`" if home else "the top" for home in homes)
        return f"{said}; it belongs to {places}"
    near = nearest(key, allowed)
    if near:
        return f"{said}; did you mean `{near}`?"
    return f"{said}; allowed here: {_quoted(allowed)}"


def wrong_value(value: object, schema: Schema) -> str:
    """Say what is wanted in place of a value."""
    said = f"{wanted(schema)} is wanted here, not {shown(value)}"
    if isinstance(value, str) and (near := nearest(value, schema.get("enum", ()))):
        said += f"; did you mean `{near}`?"
    elif value is None and schema["type"] != "object":
        said += "; leave the key out to have the default"
    elif _is_number(value) and _would_do_as_text(str(value), schema):
        said += f'; put it in quotes: "{shorten(str(value))}"'
    if "$comment" in schema and value == "enforce":
        said += f" ({schema['$comment']})"
    return said


def wanted(schema: Schema) -> str:
    """Say what a schema asks for: "`true` or `false`", "a list of text"."""
    if "enum" in schema:
        return f"one of {_quoted(schema['enum'])}"
    match schema["type"]:
        case "boolean":
            return "`true` or `false`"
        case "number":
            return f"a number above {schema['exclusiveMinimum']}, at most {schema['maximum']},"
        case "object":
            return f"a mapping with {_quoted(schema['properties'])}"
        case "array":
            items = schema["items"]
            if items["type"] == "object":
                return f"a list of mappings with {_quoted(items['properties'])}"
            return "a list of text"
    if "examples" in schema:
        return f"text such as {_quoted(schema['examples'])}"
    return "text that is not empty"


def shown(value: object) -> str:
    """Return a value as a person may recognise it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value == "":
        return "empty text"
    kind = "the number " if _is_number(value) else ""
    return f"{kind}`{shorten(str(value))}`"


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return the allowed word most like a word, "" where none is near; case counts little."""
    plain = {_plain(name): name for name in allowed}
    found = get_close_matches(_plain(word)[:_LONGEST], plain, n=1)
    return plain[found[0]] if found else ""


def shorten(text: str) -> str:
    """Return a text in one line of bearable length."""
    line = text.replace("\n", "\\n")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _plain(word: str) -> str:
    return re.sub(r"[-_\s]", "", word).lower()


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _would_do_as_text(text: str, schema: Schema) -> bool:
    if schema["type"] != "string" or "enum" in schema:
        return False
    return re.search(schema.get("pattern", ""), text) is not None


def _keys(schema: Schema, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key below a schema, as the path of its section and its name."""
    properties: dict[str, Any] = schema.get("properties", {})
    for name, below in properties.items():
        yield path, name
        yield from _keys(below, f"{path}.{name}" if path else name)
