"""How results are printed: as a table for people, as JSON or YAML for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import orjson
import yaml

if TYPE_CHECKING:
    from rich.console import Console


class Form(StrEnum):
    """The forms of output (``-o``)."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Styled(NamedTuple):
    """A text with a style that a terminal shows: a colour, "bold", "dim"."""

    text: str
    style: str


Cell = str | Styled
GAP = 2


class Screen:
    """Prints for people: fitted to the terminal; plain lines where there is none.

    Colour stands only on a terminal, and not where NO_COLOR is set (https://no-color.org).
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Print to a stream; without one to stdout."""
        self._stream = stream if stream is not None else sys.stdout
        self._console = _console(self._stream) if self._stream.isatty() else None

    def line(self, text: str = "", style: str = "", *, indent: int = 0) -> None:
        """Print a line; on a terminal it is wrapped, further lines as far indented."""
        self.parts((Styled(text, style),), indent=indent)

    def parts(self, parts: Sequence[Cell], *, indent: int = 0) -> None:
        """Print a line of several parts, each in its own style."""
        if self._console is None:
            words = "".join(_shown(_text(part)) for part in parts)
            self._stream.write(f"{' ' * indent}{words}".rstrip() + "\n")
            return
        from rich.padding import Padding
        from rich.text import Text

        joined = Text.assemble(*((_shown(_text(part)), _style(part)) for part in parts))
        self._console.print(Padding(joined, (0, 0, 0, indent)))

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Print rows below headers; the last column takes what room is left."""
        listed = list(rows)
        if self._console is None:
            self._plain_table(headers, listed)
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for header in headers:
            table.add_column(header, overflow="fold")
        for row in listed:
            table.add_row(*(Text(_shown(_text(cell)), style=_style(cell)) for cell in row))
        self._console.print(table)

    def _plain_table(self, headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        lines = [list(headers), *([_shown(_text(cell)) for cell in row] for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
        for line in lines:
            padded = (cell.ljust(width + GAP) for cell, width in zip(line, widths, strict=True))
            self._stream.write("".join(padded).rstrip() + "\n")


def emit(form: Form, value: Mapping[str, Any], table: Callable[[Screen], None]) -> None:
    """Print a result on stdout.

    Args:
        form: As JSON, as YAML, or as what ``table`` prints.
        value: The result as its JSON Schema describes it.
        table: Prints the result for people.
    """
    if form is Form.TABLE:
        table(Screen())
    elif form is Form.JSON:
        print_json(value)
    else:
        # By way of JSON, so that only plain lists and mappings are left.
        plain = json.loads(json.dumps(value, default=_plain))
        text = yaml.dump(plain, Dumper=_dumper(), sort_keys=False, allow_unicode=True)
        if not _is_harmless(text):
            text = yaml.dump(plain, Dumper=_dumper(), sort_keys=False)
        sys.stdout.write(text)


def print_json(value: Mapping[str, Any]) -> None:
    """Print a value as JSON on stdout."""
    text = ""
    if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8":
        # A lone surrogate, as a file of JSON can hold it, has no bytes in UTF-8.
        with contextlib.suppress(orjson.JSONEncodeError):
            text = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2).decode()
    if not text or not _is_harmless(text):
        # JSON's own escapes stand for what the encoding lacks, and for what steers a terminal.
        text = json.dumps(value, indent=2, default=_plain).replace("\x7f", "\\u007f")
    sys.stdout.write(text + "\n")


def _is_harmless(text: str) -> bool:
    """Tell whether lines hold nothing that steers a terminal or turns the direction of writing."""
    return text.replace("\n", "").isprintable()


def say(text: str) -> None:
    """Print one line of news on stderr."""
    line = " ".join(_shown(text).split(" "))
    sys.stderr.write(f"migration-guard: {line}\n")
    sys.stderr.flush()


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(
        file=stream,
        force_terminal=True,
        no_color=bool(os.environ.get("NO_COLOR")),
        highlight=False,
        markup=False,
        emoji=False,
    )


def _dumper() -> Any:
    return getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def _style(cell: Cell) -> str:
    return "" if isinstance(cell, str) else cell.style


def _shown(text: str) -> str:
    """Return a text without what could steer a terminal; line breaks become blanks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "?" for c in text)
