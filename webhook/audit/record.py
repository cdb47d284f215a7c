"""What is kept of one decision: who asked for what, what came of it, and why."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from webhook.review.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

MUTATING = "mutating"
VALIDATING = "validating"

LONGEST_TEXT = 65_536
"""Characters of a single value; a longer one is cut, and named under ``cut``."""
LARGEST_RECORD = 512 * 1024
"""Bytes of a record in JSON; of a larger one the lists are left out, and named under ``cut``."""
MOST_GROUPS = 256
MOST_PARTS = 64
MOST_NODES = 16
MOST_LABELS = 64
MOST_OPERATIONS = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LISTS = ("obstacles", "patch", "groups", "warnings")


@dataclass(frozen=True, slots=True)
class Record:
    """One decision as it is kept; never the object itself, cloud-init data or tokens.

    All values are exact, but for those named in ``cut``. Texts come from requests: whoever shows
    them makes them harmless.

    Attributes:
        decision: The decision id (UUIDv7); an identical refusal repeated has the same one.
        time: Microseconds since 1970 in UTC.
        phase: ``mutating`` or ``validating``.
        rule: The rule that led to the outcome, "" where none did.
        mode: That rule's mode.
        rules: Every rule that spoke: ``rule``, ``mode``, ``outcome``, ``detail``.
        name: "" where the API server makes one up after this review, from ``generate_name``.
        vm: The VM or VMI it is about, as namespace/name.
        via: ``virtctl`` or ``harvester`` where a user asked through one of them.
        evacuated_node: The node that is being evacuated, where that started the migration.
        source: The node the VM runs on.
        chosen_node: The node that the migration asks for, by its host name; of one that runs, the
            node it goes to.
        obstacles: Per group of nodes with the same ones: ``nodes`` (the first names), ``count``,
            ``obstacles``.
        facts_age: Seconds since the last sign of life of the facts; None for files.
        latency: Seconds that the decision took.
        cut: Fields that are shorter here than they were.
    """

    decision: str
    time: int
    phase: str
    outcome: Outcome
    allowed: bool
    rule: str = ""
    mode: str = ""
    rules: tuple[Mapping[str, str], ...] = ()
    operation: str = ""
    group: str = ""
    version: str = ""
    kind: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    generate_name: str = ""
    object_uid: str = ""
    request_uid: str = ""
    vm: str = ""
    vm_uid: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    origin: str = ""
    via: str = ""
    evacuated_node: str = ""
    source: str = ""
    chosen_node: str = ""
    cpu_model: str = ""
    cpu_model_source: str = ""
    obstacles: tuple[Mapping[str, Any], ...] = ()
    message: str = ""
    warnings: tuple[str, ...] = ()
    patch: tuple[Mapping[str, Any], ...] = ()
    overridden_by: str = ""
    override_reason: str = ""
    dry_run: bool = False
    facts_age: float | None = None
    latency: float = 0.0
    cut: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as it is written everywhere: names in camel case, time in RFC 3339."""
        value = {written: getattr(self, name) for name, written in _WRITTEN.items()}
        value["time"] = rfc3339(self.time)
        value["outcome"] = self.outcome.value
        return value

    def encode(self) -> bytes:
        """Return the record in JSON, in one line of at most ``LARGEST_RECORD`` bytes."""
        value = self.to_json()
        encoded = orjson.dumps(value)
        for name in _LISTS:
            if len(encoded) <= LARGEST_RECORD:
                break
            value[name] = []
            value["cut"] = sorted({*value["cut"], name})
            encoded = orjson.dumps(value)
        return encoded

    @property
    def subject(self) -> str:
        """What the decision is about: the VM where there is one, else namespace/name."""
        named = self.name or self.generate_name
        return self.vm or (f"{self.namespace}/{named}" if self.namespace else named)

    @property
    def missing(self) -> tuple[str, ...]:
        """The labels that some node lacks, each once."""
        return tuple(
            dict.fromkeys(
                label
                for part in self.obstacles
                for obstacle in part["obstacles"]
                for label in obstacle["missing"]
            )
        )

    def fold(self) -> str:
        """Return what identical decisions have in common, as 32 hexadecimal digits.

        Two decisions are identical when the same user had the same refused, warned about or
        changed for the same VM for the same reasons. Ids, times, latency and the names that a
        controller makes up anew for each try do not count.
        """
        what = (
            self.phase,
            self.outcome.value,
            self.operation,
            self.group,
            self.kind,
            self.subject,
            self.vm_uid or self.object_uid,
            self.user,
            self.origin,
            self.evacuated_node,
            self.chosen_node,
            self.overridden_by,
            self.override_reason,
            [(r["rule"], r["mode"], r["outcome"], self._plain(r["detail"])) for r in self.rules],
            self._plain(self.message),
            [self._plain(text) for text in self.warnings],
            [operation.get("path", "") for operation in self.patch],
        )
        return hashlib.sha256(orjson.dumps(what)).hexdigest()[:32]

    def _plain(self, text: str) -> str:
        """Return a text without the decision id in it."""
        return text.replace(self.decision, "") if self.decision else text


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_WRITTEN = {field.name: _camel(field.name) for field in fields(Record)}
"""The fields of a record, and what they are called in JSON."""


def decode(encoded: bytes | str) -> Record:
    """Read a record that :meth:`Record.encode` wrote; fields it does not know are left out.

    Raises:
        ValueError: It is none.
    """
    found = orjson.loads(encoded)
    value = found if isinstance(found, dict) else {}
    # A record of an older version lacks the newest fields; they have their defaults.
    known: dict[str, Any] = {
        name: tuple(value[written]) if isinstance(value[written], list) else value[written]
        for name, written in _WRITTEN.items()
        if written in value
    }
    try:
        known["time"] = microseconds(datetime.fromisoformat(known["time"]))
        known["outcome"] = Outcome(known["outcome"])
        return Record(**known)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no record of a decision: {error}") from error


def read_moment(text: str) -> datetime:
    """Read a time in RFC 3339; return it in UTC.

    Raises:
        ValueError: It is none, has no time zone, or lies outside of the years 1 to 9999 in UTC.
    """
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time zone is missing")
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("only the years 1 to 9999 exist") from error


def microseconds(moment: datetime) -> int:
    """Return a moment, with its time zone, as microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def rfc3339(time: int) -> str:
    """Return microseconds since 1970 as RFC 3339 in UTC, with all six digits."""
    moment = _EPOCH + timedelta(microseconds=time)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
