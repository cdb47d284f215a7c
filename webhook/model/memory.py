"""What was found out about facts that do not change, so that it need not be found out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

MOST = 1024
"""Answers that are kept; each is some ten kilobytes."""

LONGEST = 16_384
"""Characters of labels that a person asks for; what is longer is not kept."""


class Memory:
    """A bounded memory; when it is full, it begins anew."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Begin with nothing."""
        self._known: dict[Hashable, object] = {}

    def get(self, key: Hashable) -> object | None:
        """Return what was found out, None where nothing was."""
        return self._known.get(key)

    def keep(self, key: Hashable, found: object) -> None:
        """Keep what was found out."""
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[key] = found


def storable(asked: Mapping[str, str]) -> bool:
    """Tell whether labels that a person asks for are few and short enough to be kept."""
    if not asked:
        return True
    return sum(len(key) + len(value) for key, value in asked.items()) <= LONGEST
