"""What ``audit`` prints: tables, sentences, CSV; whatever a record holds does no harm there."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from webhook.cli.printing import Styled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhook.audit.results import Found, Stats
    from webhook.cli.printing import Screen

HEADERS = ("LAST", "COUNT", "OUTCOME", "RULE", "WHAT", "USER", "WHY", "DECISION")
COLUMNS = (
    "firstTime",
    "lastTime",
    "count",
    "outcome",
    "rule",
    "mode",
    "operation",
    "kind",
    "namespace",
    "name",
    "generateName",
    "vm",
    "user",
    "origin",
    "via",
    "evacuatedNode",
    "source",
    "chosenNode",
    "cpuModel",
    "message",
    "overriddenBy",
    "overrideReason",
    "decision",
    "replica",
)
"""The columns of CSV."""
LONGEST_WHY = 100
# What a spreadsheet takes for a formula: full-width signs too, and what follows a semicolon, which
# ends a cell, quoted or not, where the comma is for decimals.
_FORMULA = re.compile(
    "(^|;)(?=[\\s'\"]*[=+\\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}])"
)
_STYLES = {
    "refused": "red",
    "aborted": "red",
    **dict.fromkeys(("not-aborted", "overridden", "exempt", "blind", "warned"), "yellow"),
}


def visible(text: str) -> str:
    """Return a text with what would steer a terminal, or turn writing round, as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def rows(found: Iterable[Found]) -> list[tuple[str | Styled, ...]]:
    """Return a row for each record, as ``HEADERS`` names it."""
    return [_row(one.to_json()) for one in found]


def _row(item: Mapping[str, Any]) -> tuple[str | Styled, ...]:
    outcome = str(item["outcome"])
    return (
        _minute(item["lastTime"]),
        str(item["count"]),
        Styled(outcome, _STYLES.get(outcome, "")),
        item["rule"],
        visible(_subject(item)),
        visible(_short(item["user"], 60)),
        visible(_short(_why(item), LONGEST_WHY)),
        item["decision"],
    )


def line(found: Found) -> str:
    """Return a record in one line, for a list that is followed."""
    cells = _row(found.to_json())
    return "  ".join(cell if isinstance(cell, str) else cell.text for cell in cells)


def _minute(time: str) -> str:
    """Return a time in RFC 3339 without its fraction, for people."""
    return time[:19].replace("T", " ") + "Z"


def _subject(item: Mapping[str, Any]) -> str:
    named = item["name"] or item["generateName"]
    return _short(item["vm"] or "/".join(filter(None, (item["namespace"], named))), 130)


def _why(item: Mapping[str, Any]) -> str:
    told = [item["message"], *item["warnings"], *(rule["detail"] for rule in item["rules"])]
    return next((text for text in told if text), "")


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def csv_lines(found: Iterable[Found], *, header: bool = True) -> Iterable[str]:
    """Yield CSV (RFC 4180) that no spreadsheet takes for formulas."""
    if header:
        yield _csv_line(COLUMNS)
    for one in found:
        item = one.to_json()
        yield _csv_line([_cell(str(item[name])) for name in COLUMNS])


def _csv_line(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _cell(text: str) -> str:
    """Return a cell without control characters; apostrophes keep formulas from being ones."""
    return _FORMULA.sub(r"\1'", visible(text))


def print_decision(screen: Screen, items: Sequence[Mapping[str, Any]], *, waiting: bool) -> None:
    """Print all that is known of one decision, in words."""
    for number, item in enumerate(items):
        if number:
            screen.line()
        _print_one(screen, item)
    if waiting:
        screen.line("It still waits for the database.", "yellow")


def _print_one(screen: Screen, item: Mapping[str, Any]) -> None:
    what = " ".join(filter(None, (item["operation"], item["kind"], _full_name(item))))
    outcome = item["outcome"]
    screen.parts((Styled(f"{outcome}: ", _STYLES.get(outcome, "green")), Styled(what, "bold")))
    for label, text in _lines(item):
        if text:
            screen.parts((Styled(f"{label}: ", "dim"), visible(text)), indent=2)
    if item["obstacles"]:
        screen.line("nodes:", "dim", indent=2)
    for part in item["obstacles"]:
        _print_part(screen, part)
    for operation in item["patch"]:
        value = json.dumps(operation.get("value"), ensure_ascii=False)
        screen.line(visible(f"{operation['op']} {operation['path']}: {value}"), indent=4)


def _full_name(item: Mapping[str, Any]) -> str:
    name = item["name"] or (f"{item['generateName']}…" if item["generateName"] else "")
    return visible("/".join(filter(None, (item["namespace"], name))))


def _lines(item: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "decision", item["decision"]
    yield "when", _when(item)
    yield "pass", f"{item['phase']}{' (dry run)' if item['dryRun'] else ''}"
    yield "asked by", item["user"]
    yield "in groups", ", ".join(item["groups"])
    yield "started by", _origin(item)
    yield "VM", " ".join(filter(None, (item["vm"], _bracketed(item["vmUid"]))))
    yield "runs on", item["source"]
    yield "asked to go to", item["chosenNode"]
    yield (
        "CPU model",
        " ".join(filter(None, (item["cpuModel"], _bracketed(item["cpuModelSource"])))),
    )
    for rule in item["rules"]:
        detail = (
            f": {rule['detail']}" if rule["detail"] and rule["detail"] != item["message"] else ""
        )
        yield "rule", f"{rule['rule']} ({rule['mode']}) {rule['outcome']}{detail}"
    yield "message", item["message"]
    for text in item["warnings"]:
        yield "warning", text
    yield "overridden by", item["overriddenBy"]
    yield "because", item["overrideReason"]
    age = item["factsAge"]
    yield "facts", f"{age:.1f} s old" if age is not None else "from files"
    yield "took", f"{item['latency'] * 1000:.1f} ms"
    yield "object uid", item["objectUid"]
    yield "request uid", item["requestUid"]
    yield "kept by", f"{item['replica']}, number {item['sequence']}"
    yield "shortened", ", ".join(item["cut"])


def _bracketed(text: str) -> str:
    return f"({text})" if text else ""


def _when(item: Mapping[str, Any]) -> str:
    if item["count"] == 1:
        return str(item["firstTime"])
    return f"{item['count']} times from {item['firstTime']} to {item['lastTime']}"


def _origin(item: Mapping[str, Any]) -> str:
    origin, node, via = item["origin"], item["evacuatedNode"], item["via"]
    told = f"evacuation of node {node}" if origin == "evacuation" and node else str(origin)
    return f"{told} through {via}" if via else told


def _print_part(screen: Screen, part: Mapping[str, Any]) -> None:
    names = ", ".join(part["nodes"])
    more = part["count"] - len(part["nodes"])
    screen.line(visible(f"{names}{f' and {more} more' if more else ''}"), indent=4)
    for obstacle in part["obstacles"]:
        told = [f"{obstacle['code']} ({obstacle['kind']}, from {obstacle['origin']})"]
        if obstacle["missing"]:
            told.append(f"lacks {', '.join(obstacle['missing'])}")
        if obstacle["present"]:
            told.append(f"has {', '.join(obstacle['present'])}")
        if obstacle["detail"]:
            told.append(obstacle["detail"])
        screen.line(visible("; ".join(told)), indent=6)


def print_stats(screen: Screen, stats: Stats) -> None:
    """Print what was decided most."""
    span = " to ".join(filter(None, (stats.since, stats.until))) or "all days"
    screen.line(f"decisions by whole days in UTC: {span}")
    for title, sums in (
        ("RULE", stats.rules),
        ("VM OR OBJECT", stats.vms),
        ("MISSING NODE LABEL", stats.labels),
    ):
        screen.line()
        screen.table(
            (title, "DECISIONS", "RECORDS", "OUTCOMES"),
            [
                (
                    visible(one.value),
                    str(one.decisions),
                    str(one.records),
                    ", ".join(f"{count} {outcome}" for outcome, count in one.outcomes.items()),
                )
                for one in sums
            ],
        )
