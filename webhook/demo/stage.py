"""Prints what is asked and what comes of it, and holds it against what the demo says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.cli.printing import Screen, Styled
from webhook.demo.asking import Outcome, Request, ask
from webhook.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from webhook.demo.program import Server

_COLOURS = {
    "refused": "bold red",
    "warned": "bold yellow",
    "changed": "bold cyan",
    "allowed": "bold green",
}
_DECISION = "migration-guard.io/decision"
_TIMEOUT = "migration-guard.io/completion-timeout"
_BASIS = "migration-guard.io/completion-basis"
_DEADLINE = "migration-guard.io/completion-deadline"
_SELECTORS = (("spec", "nodeSelector"), ("spec", "addedNodeSelector"))
_CPU_KEYS = ("cpu-model", "cpu-feature", "cpu-vendor")
_SHOWN = 3


class Stage:
    """Where the demo plays."""

    def __init__(self, screen: Screen) -> None:
        """Play on a screen."""
        self._screen = screen
        self.asked = 0

    def heading(self, text: str) -> None:
        """Begin a story."""
        self._screen.line()
        self._screen.line(text, "bold underline")

    def say(self, text: str) -> None:
        """Tell what is going on."""
        self._screen.line()
        self._screen.line(text)

    def command(self, words: Sequence[str]) -> None:
        """Print a command line."""
        self._screen.line()
        self._screen.line("$ " + " ".join(words), "bold")

    def ask(
        self,
        server: Server,
        request: Request,
        expected: str,
        *,
        says: Sequence[str] = (),
        sets: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Send a request, print it in one line and its outcome below.

        Args:
            server: Who is asked.
            request: What is asked.
            expected: The outcome that the story tells: refused, warned, changed or allowed.
            says: What the refusal or a warning must hold.
            sets: Annotations and selectors that must have been added, by key.

        Raises:
            DemoError: It came out otherwise.
        """
        outcome = ask(server, request)
        self.asked += 1
        self._screen.parts((Styled("> ", "dim"), Styled(str(request), "bold")), indent=2)
        self._show(outcome)
        _check(request, outcome, expected, says, sets or {})
        return outcome

    def _show(self, outcome: Outcome) -> None:
        for text in outcome.warnings:
            self._outcome("warned", text)
        if not outcome.allowed:
            # What the mutating pass wrote is not stored.
            self._outcome("refused", outcome.message)
            return
        for text in _changes(outcome):
            self._outcome("changed", text)
        self._outcome("allowed", "")

    def _outcome(self, word: str, text: str) -> None:
        self._screen.parts((Styled(f"{word:<9}", _COLOURS[word]), text), indent=4)

    def selectors(self, outcome: Outcome) -> None:
        """Print the CPU selectors of a pod as it would be stored."""
        found = outcome.obj["spec"]["nodeSelector"]
        keys = sorted(key for key in found if key.startswith(_CPU_KEYS))
        self._screen.parts(
            (Styled("the pod demands of its node: ", "dim"), _listed(keys)), indent=4
        )


def _changes(outcome: Outcome) -> list[str]:
    """Return what was changed: selectors together, the deadline in one line, no ids."""
    told = []
    for at in _SELECTORS:
        keys = [path[-1] for path in outcome.changes if path[:-1] == at]
        if keys:
            told.append(f"{'.'.join(at)}: added {_listed(sorted(keys, key=_rank))}")
    for path, value in outcome.changes.items():
        if path[:-1] in _SELECTORS or path[-1] in (_DECISION, _BASIS, _DEADLINE):
            continue
        name = path[-1] if "annotations" in path else ".".join(path)
        text = f"{name}: {value}"
        if name == _TIMEOUT:
            at_last = outcome.changes.get((*path[:-1], _DEADLINE))
            text += f", until {at_last} ({outcome.changes.get((*path[:-1], _BASIS))})"
        told.append(text)
    return told


def _rank(key: str) -> tuple[bool, str]:
    return key.startswith("cpu-feature"), key


def _listed(keys: Sequence[str]) -> str:
    rest = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _check(
    request: Request,
    outcome: Outcome,
    expected: str,
    says: Sequence[str],
    sets: Mapping[str, str],
) -> None:
    if outcome.word != expected:
        raise DemoError(f"{request}: expected {expected}, and it was {outcome.word}")
    said = " ".join((outcome.message, *outcome.warnings))
    for text in says:
        if text not in said:
            raise DemoError(f'{request}: the answer does not say "{text}"')
    added: dict[str, Any] = {path[-1]: value for path, value in outcome.changes.items()}
    for key, value in sets.items():
        if added.get(key) != value:
            raise DemoError(f"{request}: expected {key}: {value}, and it is {added.get(key)}")
