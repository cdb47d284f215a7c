"""What is wrong, or questionable, in a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Level(StrEnum):
    """How bad a finding is: only an error keeps a configuration from being used."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a configuration.

    Attributes:
        path: The setting, as ``rules.incompatible-target.mode``; "" is the whole file.
        message: One sentence for a person.
    """

    level: Level
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigurationError(ValueError):
    """A configuration that cannot be used; it carries everything that is wrong with it.

    Attributes:
        where: The file, as the user named it.
        findings: At least one.
    """

    def __init__(self, where: str, findings: Sequence[Finding]) -> None:
        """Keep the findings; the text of the error lists them, one a line."""
        self.where = where
        self.findings = tuple(findings)
        count = len(self.findings)
        head = f"{where}: {count} errors" if count > 1 else f"{where}: 1 error"
        super().__init__("\n".join((head, *(f"  {finding}" for finding in self.findings))))

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[str, tuple[Finding, ...]]]:
        """Let the error pass between processes."""
        return type(self), (self.where, self.findings)


def report(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return what ``check-config -o json`` prints: valid as long as nothing is an error."""
    listed = list(findings)
    return {
        "valid": not any(finding.level is Level.ERROR for finding in listed),
        "findings": [
            {"level": f.level.value, "path": f.path, "message": f.message} for f in listed
        ],
    }
