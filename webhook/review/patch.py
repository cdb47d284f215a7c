"""JSON Patch (RFC 6902) operations that touch only what a rule names."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED = 1024


@lru_cache(_REMEMBERED)
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
        self._made: list[tuple[str, ...]] = []
        self._copies: dict[tuple[str, ...], dict[str, Any]] = {}

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

    def append(self, path: tuple[str, ...], item: Mapping[str, Any]) -> None:
        """Put an item at the end of the list at a path; the list is made where there is none."""
        standing = self.get(*path)
        if not isinstance(standing, list):
            self._put(path, [item])
            return
        self._own(path[:-1])[path[-1]] = [*standing, item]
        if not self._is_made(path):
            self._operations.append({"op": "add", "path": f"{pointer(path)}/-", "value": item})

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        made = self._is_made(path)
        depth = self._existing_depth(path)
        at = path[: depth + 1]
        if len(at) < len(path):
            for level in range(len(path) - 1, depth, -1):
                value = self._copies[path[:level]] = {path[level]: value}
            if not made:
                self._made.append(at)
        elif not made and (standing := self.get(*path)) is not None:
            self._operations.append({"op": "test", "path": pointer(path), "value": standing})
        self._own(at[:-1])[at[-1]] = value
        if not made:
            self._operations.append({"op": "add", "path": pointer(at), "value": value})

    def _is_made(self, path: tuple[str, ...]) -> bool:
        """Tell whether a path leads through something that this patch makes anew.

        That is made whole, by one operation, whose value is the very mapping that stands here.
        """
        return any(path[: len(at)] == at for at in self._made)

    def _existing_depth(self, path: tuple[str, ...]) -> int:
        """Return how many of the parents of a path are there as mappings."""
        here: Any = self._obj
        for depth, key in enumerate(path[:-1]):
            here = here.get(key)
            if not isinstance(here, dict):
                return depth
        return len(path) - 1

    def _own(self, path: tuple[str, ...]) -> dict[str, Any]:
        """Return the mapping at a path, to be changed: what was given is copied before."""
        here = self._obj
        for depth, key in enumerate(path, 1):
            at = path[:depth]
            copy = self._copies.get(at)
            if copy is None or here[key] is not copy:
                copy = self._copies[at] = here[key] = dict(here[key])
            here = copy
        return here
