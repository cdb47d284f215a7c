"""What was read from files the last time it could be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from webhook.serving.errors import StartError
from webhook.serving.failures import log_failure
from webhook.serving.watching import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Value = TypeVar("Value")


class LastGood(Generic[Value]):
    """A value read from files; what is broken never replaces what works.

    Attributes:
        value: What was read last without an error.
        trouble: Why the present state of the files is not in use; None where it is.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], Value],
        accept: Callable[[Value], None] = lambda value: None,
    ) -> None:
        """Read for the first time.

        Args:
            paths: The files that are read.
            read: Reads them; raises a ``StartError`` where they are broken.
            accept: Raises a ``StartError`` for a value that must not replace another; at first,
                where there is no other, it is not asked.

        Raises:
            StartError: The files are broken.
        """
        self._paths = paths
        self._read = read
        self._accept = accept
        # Taken before reading: a change while it is read is seen the next time.
        self._known = signature(paths)
        self.value = read()
        self.trouble: str | None = None

    def refresh(self) -> bool:
        """Read again if the files have changed, or are broken.

        Returns:
            Whether the value or the trouble is another than before.
        """
        now = signature(self._paths)
        # What is broken may be whole a moment later with nothing to be seen from outside, and a
        # certificate may have begun.
        if now == self._known and self.trouble is None:
            return False
        self._known = now
        before = self.trouble
        try:
            value = self._read()
            self._accept(value)
        except StartError as error:
            self.trouble = str(error)
        except Exception as error:
            self.trouble = f"{self._paths[0]}: cannot be read; the log says more"
            if self.trouble != before:
                log_failure("a file could not be read", error, file=str(self._paths[0]))
        else:
            self.value = value
            self.trouble = None
            return True
        return self.trouble != before
