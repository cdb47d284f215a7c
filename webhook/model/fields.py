"""Typed readers over raw Kubernetes objects (parsed JSON or YAML).

A field that is absent or null reads as empty, as the API server treats it. A field of the wrong
type raises :class:`InvalidObject`, which names the path: objects from an API server never have
one, objects from a person's file may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

Object = Mapping[str, Any]
EMPTY: Object = {}
_TEXTS = frozenset({str})


class InvalidObject(ValueError):
    """A field of an object has a type that its kind does not allow.

    Attributes:
        path: Where, in dots: ``spec.domain.cpu``.
        message: What is wanted there.
    """

    def __init__(self, path: str, message: str) -> None:
        """Keep the path and the message apart."""
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


def _at(obj: object, path: tuple[str, ...]) -> Any:
    here: Any = obj
    for key in path:
        # A plain dict is told at once; asking for a Mapping takes several times as long.
        if not isinstance(here, dict):
            return _beyond_dicts(obj, path)
        here = here.get(key)
    return here


def _beyond_dicts(obj: object, path: tuple[str, ...]) -> Any:
    """Return what is at a path that does not lead through plain dicts only."""
    here: Any = obj
    for depth, key in enumerate(path):
        if here is None:
            return None
        if not isinstance(here, Mapping):
            at = ".".join(path[:depth]) or "document"
            raise InvalidObject(at, "a mapping is wanted here")
        here = here.get(key)
    return here


def mapping(obj: object, *path: str) -> Object:
    """Return the mapping at a path, empty where there is none."""
    found = _at(obj, path)
    if found is None:
        return EMPTY
    if not isinstance(found, dict) and not isinstance(found, Mapping):
        raise InvalidObject(".".join(path) or "document", "a mapping is wanted here")
    return found


def items(obj: object, *path: str) -> Sequence[Object]:
    """Return the list of mappings at a path, empty where there is none."""
    found = _at(obj, path)
    if found is None:
        return ()
    if not isinstance(found, list | tuple):
        raise InvalidObject(".".join(path), "a list is wanted here")
    for index, item in enumerate(found):
        if not isinstance(item, dict) and not isinstance(item, Mapping):
            raise InvalidObject(f"{'.'.join(path)}[{index}]", "a mapping is wanted here")
    return cast("Sequence[Object]", found)


def strings(obj: object, *path: str) -> tuple[str, ...]:
    """Return the list of strings at a path, empty where there is none."""
    found = _at(obj, path)
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise InvalidObject(".".join(path), "a list of strings is wanted here")
    return tuple(found)


def text(obj: object, *path: str, at: tuple[str, ...] = ()) -> str:
    """Return the string at a path, "" where there is none; numbers and booleans read as text.

    Args:
        obj: Where the path starts.
        path: The keys, from the outside in.
        at: Where ``obj`` itself stands, for the error.
    """
    found = _at(obj, path)
    if found is None:
        return ""
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int | float):
        return str(found)
    raise InvalidObject(".".join((*at, *path)), "a string is wanted here")


def moment(text: str, at: str) -> datetime | None:
    """Read a time as Kubernetes writes it, in RFC 3339; return it in UTC, None for "".

    Raises:
        InvalidObject: It is no time, or none of the years 1 to 9999.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidObject(at, "a time in RFC 3339 is wanted here") from error


def flag(obj: object, *path: str) -> bool | None:
    """Return the boolean at a path, None where there is none."""
    found = _at(obj, path)
    if found is None or isinstance(found, bool):
        return found
    if found in ("true", "false"):
        return bool(found == "true")
    raise InvalidObject(".".join(path), "true or false is wanted here")


def integer(obj: object, *path: str) -> int | None:
    """Return the whole number at a path, None where there is none."""
    found = _at(obj, path)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise InvalidObject(".".join(path), "a whole number is wanted here")
    try:
        number = int(found)
    except (ValueError, OverflowError):
        number = None
    if number is None or (isinstance(found, float) and number != found):
        raise InvalidObject(".".join(path), "a whole number is wanted here")
    return number


def labels(obj: object, *path: str) -> Mapping[str, str]:
    """Return a mapping of strings to strings (labels, annotations, selectors).

    Values that YAML reads as a number or a boolean are taken as text.
    """
    # YAML may give keys that are no strings, whatever the type says.
    found: Mapping[Any, Any] = mapping(obj, *path)
    # Two walks in C take a third of the time of one in Python.
    if _TEXTS.issuperset(map(type, found)) and _TEXTS.issuperset(map(type, found.values())):
        return found
    return {str(key): text({str(key): value}, str(key), at=path) for key, value in found.items()}
