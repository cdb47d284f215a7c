"""Objects that are there and cannot be read: what is not known because of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from webhook.model.wording import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_REASON = 120


class Unreadable(NamedTuple):
    """An object that is there and cannot be read.

    Attributes:
        key: ``namespace/name``, or the name alone; "" where not even that can be read.
        why: The field, and what is wrong with it.
        vmi_uid: Of a virt-launcher pod, the VMI it says it is of; "" where it does not say.
    """

    key: str
    why: str
    vmi_uid: str = ""

    @property
    def namespace(self) -> str:
        """Where it is; "" where that cannot be read, or it is in none."""
        return self.key.rpartition("/")[0]


def told(what: str, found: Sequence[Unreadable], *, by_name: bool = True) -> str:
    """Say that objects cannot be read, the first by its name and the reason; "" for none."""
    if not found:
        return ""
    if not by_name:
        return f"{len(found)} {what}{'' if len(found) == 1 else 's'} cannot be read"
    first = found[0]
    words = f"{what} {escaped(first.key) or 'without a name'} cannot be read"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{words}{more}: {escaped(first.why, _LONGEST_REASON)}"
