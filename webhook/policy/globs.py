"""Names matched by globs: ``*`` any text, ``?`` one character, ``[ab]`` one of these."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def matches(name: str, pattern: str) -> bool:
    """Tell whether a name is the pattern itself or fits it as a glob; case counts."""
    return name == pattern or fnmatchcase(name, pattern)


def any_matches(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    """Tell whether one of the names fits one of the patterns."""
    return bool(patterns) and any(matches(n, p) for n in names for p in patterns)


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every name that fits ``narrow`` surely fits ``wide`` too.

    A yes is always right. A no may be wrong for odd pairs, such as globs with ``[``, which are
    compared with plain names and with themselves only.
    """
    if wide == narrow:
        return True
    if not _is_glob(narrow):
        return matches(narrow, wide)
    if "[" in wide or "[" in narrow:
        return False

    @cache
    def from_here(i: int, j: int) -> bool:
        if i == len(wide):
            return j == len(narrow)
        if wide[i] == "*":
            return from_here(i + 1, j) or (j < len(narrow) and from_here(i, j + 1))
        if j == len(narrow) or narrow[j] == "*":
            return False
        return wide[i] in ("?", narrow[j]) and from_here(i + 1, j + 1)

    return from_here(0, 0)


def _is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")
