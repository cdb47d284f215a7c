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
        self._put(path, value)

    def append(self, path: tuple[str, ...], item: Mapping[str, Any]) -> None:
        """Put an item at the end of the list at a path; the list is made where there is none."""
        standing = self.get(*path)
        parent = self._parent(path)
        if parent is None or not isinstance(standing, list):
            self._put(path, [item])
            return
        parent[path[-1]] = [*standing, item]
        if not self._is_made(path):
            self._operations.append({"op": "add", "path": f"{pointer(path)}/-", "value": item})

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        parent = self._parent(path)
        if parent is None:
            self._make(path, value)
            return
        standing = parent.get(path[-1])
        if standing == value:
            return
        if not self._is_made(path):
            if standing is not None:
                self._operations.append({"op": "test", "path": pointer(path), "value": standing})
            self._operations.append({"op": "add", "path": pointer(path), "value": value})
        parent[path[-1]] = value
        if isinstance(standing, dict):
            # What stood there is no longer to be changed.
            ours = len(path)
            self._made = [at for at in self._made if at[:ours] != path]
            self._copies = {at: copy for at, copy in self._copies.items() if at[:ours] != path}

    def _make(self, path: tuple[str, ...], value: Any) -> None:
        """Make the parents of a path that are missing, or no mappings, and the value there."""
        parent, at = self._obj, path[:1]
        while (below := self._parent(path[: len(at) + 1])) is not None:
            parent, at = below, path[: len(at) + 1]
        for level in range(len(path) - 1, len(at) - 1, -1):
            value = self._copies[path[:level]] = {path[level]: value}
        if not self._is_made(at):
            self._made.append(at)
            self._operations.append({"op": "add", "path": pointer(at), "value": value})
        parent[at[-1]] = value

    def _is_made(self, path: tuple[str, ...]) -> bool:
        """Tell whether a path leads through something that this patch makes anew.

        That is made whole, by one operation, whose value is the very mapping that stands here.
        """
        return bool(self._made) and any(path[: len(at)] == at != path for at in self._made)

    def _parent(self, path: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the mapping that a path ends in, to be changed; None where there is none.

        What was given is copied before.
        """
        known = self._copies.get(path[:-1])
        if known is not None:
            return known
        here = self._obj
        for depth, key in enumerate(path[:-1], 1):
            there = here.get(key)
            if not isinstance(there, dict):
                return None
            at = path[:depth]
            copy = self._copies.get(at)
            if copy is None:
                copy = self._copies[at] = here[key] = dict(there)
            here = copy
        return here
