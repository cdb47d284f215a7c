"""What was found out about facts that do not change, so that it need not be found out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

_Found = TypeVar("_Found")
_NOTHING = object()

MOST = 1024
"""Answers that are kept; each is some ten kilobytes."""

LONGEST = 16_384
"""Characters of what a request asks for; what is longer is not kept."""


class Memory:
    """A bounded memory; when it is full, it begins anew."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Begin with nothing."""
        self._known: dict[Hashable, object] = {}

    def recall(self, key: Hashable | None, find_out: Callable[[], _Found]) -> _Found:
        """Return what was found out, or find it out now.

        Args:
            key: Under what it is kept; what was kept under it is of the type that is found out.
                None where it is not to be kept.
            find_out: Finds it out.
        """
        if key is None:
            return find_out()
        known = self._known.get(key, _NOTHING)
        if known is _NOTHING:
            known = find_out()
            self.keep(key, known)
        return cast("_Found", known)

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._known)

    def clear(self) -> None:
        """Begin anew."""
        self._known.clear()

    def get(self, key: Hashable) -> object | None:
        """Return what was found out, None where nothing was."""
        return self._known.get(key)

    def keep(self, key: Hashable, found: object) -> None:
        """Keep what was found out."""
        if len(self._known) >= MOST:
            self.clear()
        self._known[key] = found


def storable(asked: Mapping[str, str]) -> bool:
    """Tell whether labels that a request asks for are few and short enough to be kept."""
    if not asked:
        return True
    return sum(map(len, asked)) + sum(map(len, asked.values())) <= LONGEST
