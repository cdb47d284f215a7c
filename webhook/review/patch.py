"""JSON Patch (RFC 6902) operations that touch only what a rule names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def pointer(path: tuple[str, ...]) -> str:
    """Return a JSON Pointer (RFC 6901): ``~`` and ``/`` in a key are escaped."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


class Patch:
    """Collects operations on one object.

    Missing parents are created; a value that is replaced is guarded by a ``test`` of what stood
    there, so that a patch meant for another object fails instead of doing harm.
    """

    def __init__(self, obj: Mapping[str, Any]) -> None:
        """Start from the object as it is; it is not changed."""
        self._obj: dict[str, Any] = dict(obj)
        self._operations: list[dict[str, Any]] = []
        self._made: dict[tuple[str, ...], dict[str, Any]] = {}

    @property
    def operations(self) -> tuple[dict[str, Any], ...]:
        """The operations so far, in order."""
        return tuple(self._operations)

    def get(self, *path: str) -> Any:
        """Return what stands at a path after the operations so far, None where nothing does."""
        here: Any = self._obj
        for key in path:
            if not isinstance(here, dict):
                return None
            here = here.get(key)
        return here

    def set(self, path: tuple[str, ...], value: str) -> None:
        """Make a string stand at a path; nothing is done where it stands there already."""
        if self.get(*path) != value:
            self._put(path, value)

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        for at, made in self._made.items():
            if path[: len(at)] == at:
                # What this patch makes anew is made whole, by one operation.
                made["value"] = _with(made["value"], path[len(at) :], value)
                self._obj = _with(self._obj, path, value)
                return
        depth = self._existing_depth(path)
        if depth < len(path) - 1:
            made_at = path[: depth + 1]
            self._add(made_at, _nested(path[depth + 1 :], value))
            self._made[made_at] = self._operations[-1]
            return
        standing = self.get(*path)
        if standing is not None:
            self._operations.append({"op": "test", "path": pointer(path), "value": standing})
        self._add(path, value)

    def append(self, path: tuple[str, ...], item: Mapping[str, Any]) -> None:
        """Put an item at the end of the list at a path; the list is made where there is none."""
        standing = self.get(*path)
        if not isinstance(standing, list):
            self._put(path, [item])
            return
        self._operations.append({"op": "add", "path": f"{pointer(path)}/-", "value": item})
        self._obj = _with(self._obj, path, [*standing, item])

    def _existing_depth(self, path: tuple[str, ...]) -> int:
        """Return how many of the parents of a path are there as mappings."""
        here: Any = self._obj
        for depth, key in enumerate(path[:-1]):
            here = here.get(key)
            if not isinstance(here, dict):
                return depth
        return len(path) - 1

    def _add(self, path: tuple[str, ...], value: Any) -> None:
        self._operations.append({"op": "add", "path": pointer(path), "value": value})
        self._obj = _with(self._obj, path, value)


def _nested(path: tuple[str, ...], value: Any) -> Any:
    nested: Any = value
    for key in reversed(path):
        nested = {key: nested}
    return nested


def _with(obj: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, rest = path[0], path[1:]
    if not rest:
        return {**obj, key: value}
    return {**obj, key: _with(obj.get(key) or {}, rest, value)}
