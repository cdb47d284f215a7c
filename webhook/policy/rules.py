"""The closed list of rules, and the modes a rule can have."""

from __future__ import annotations

from enum import Enum, StrEnum
from functools import total_ordering
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


@total_ordering
class Mode(Enum):
    """What a rule does with what it finds; ordered from the weakest to the strongest."""

    OFF = "off"
    """Nothing: the rule is not asked."""
    AUDIT = "audit"
    """Allow, and write it down."""
    WARN = "warn"
    """Allow, and warn whoever asked."""
    ENFORCE = "enforce"
    """Refuse, or change the object."""

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Mode):
            return NotImplemented
        return _STRENGTH[self] < _STRENGTH[other]

    def __str__(self) -> str:
        return self.value

    # There is one of each; Enum's own looks the name up.
    __hash__ = object.__hash__

    def capped(self, limit: Mode) -> Mode:
        """Return the weaker of this mode and the limit."""
        return self if _STRENGTH[self] <= _STRENGTH[limit] else limit


_STRENGTH: Mapping[Mode, int] = {mode: strength for strength, mode in enumerate(Mode)}


class ReviewedKind(StrEnum):
    """The kinds of object that some rule reviews."""

    VM = "VirtualMachine"
    VMI = "VirtualMachineInstance"
    MIGRATION = "VirtualMachineInstanceMigration"
    POD = "Pod"
    EVICTION = "Eviction"
    KUBEVIRT = "KubeVirt"


class Rule(StrEnum):
    """The rules, in the order of docs/rules.md; the value is the rule's name."""

    CPU_MODEL_DEFAULT = "cpu-model-default"
    TARGET_SELECTORS = "target-selectors"
    COMPLETION_DEADLINE = "completion-deadline"
    GUARD_ANNOTATIONS = "guard-annotations"
    INCOMPATIBLE_TARGET = "incompatible-target"
    CHOSEN_NODE = "chosen-node"
    NO_ROOM_NOW = "no-room-now"
    PASSTHROUGH_CPU = "passthrough-cpu"
    UNKNOWN_CPU_MODEL = "unknown-cpu-model"
    RESTART_REQUIRED = "restart-required"
    CLUSTER_CPU_MODEL = "cluster-cpu-model"
    FIRST_BOOT = "first-boot"

    @property
    def default(self) -> Mode:
        """The mode where nothing else is set."""
        return _ABOUT[self].default

    @property
    def kinds(self) -> tuple[ReviewedKind, ...]:
        """The kinds of object that the rule reviews."""
        return _ABOUT[self].kinds

    @property
    def changes(self) -> bool:
        """Whether the rule, enforced, changes an object; the others refuse."""
        return _ABOUT[self].changes

    @property
    def reviews_migrations(self) -> bool:
        """Whether it can matter to the rule who started a migration."""
        return ReviewedKind.MIGRATION in self.kinds


class _About(NamedTuple):
    default: Mode
    kinds: tuple[ReviewedKind, ...]
    changes: bool = False


_ABOUT: Mapping[Rule, _About] = {
    Rule.CPU_MODEL_DEFAULT: _About(Mode.ENFORCE, (ReviewedKind.VMI,), changes=True),
    Rule.TARGET_SELECTORS: _About(
        Mode.ENFORCE, (ReviewedKind.MIGRATION, ReviewedKind.POD), changes=True
    ),
    Rule.COMPLETION_DEADLINE: _About(
        Mode.ENFORCE, (ReviewedKind.MIGRATION, ReviewedKind.POD), changes=True
    ),
    Rule.GUARD_ANNOTATIONS: _About(Mode.ENFORCE, (ReviewedKind.MIGRATION,)),
    Rule.INCOMPATIBLE_TARGET: _About(Mode.ENFORCE, (ReviewedKind.MIGRATION, ReviewedKind.EVICTION)),
    Rule.CHOSEN_NODE: _About(Mode.ENFORCE, (ReviewedKind.MIGRATION, ReviewedKind.EVICTION)),
    Rule.NO_ROOM_NOW: _About(Mode.WARN, (ReviewedKind.MIGRATION,)),
    Rule.PASSTHROUGH_CPU: _About(Mode.WARN, (ReviewedKind.MIGRATION,)),
    Rule.UNKNOWN_CPU_MODEL: _About(Mode.WARN, (ReviewedKind.VM, ReviewedKind.VMI)),
    Rule.RESTART_REQUIRED: _About(Mode.WARN, (ReviewedKind.VM,)),
    Rule.CLUSTER_CPU_MODEL: _About(Mode.ENFORCE, (ReviewedKind.KUBEVIRT,)),
    Rule.FIRST_BOOT: _About(Mode.ENFORCE, (ReviewedKind.POD,), changes=True),
}
