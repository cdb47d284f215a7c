"""The guard's own annotations on VMIs, migrations and migration pods."""

from __future__ import annotations

PREFIX = "migration-guard.io/"
CPU_MODEL = PREFIX + "cpu-model"
CPU_MODEL_SOURCE = PREFIX + "cpu-model-source"
COMPLETION_TIMEOUT = PREFIX + "completion-timeout"
COMPLETION_DEADLINE = PREFIX + "completion-deadline"
COMPLETION_BASIS = PREFIX + "completion-basis"
DECISION = PREFIX + "decision"
OVERRIDE = PREFIX + "override"
OVERRIDE_BY = PREFIX + "override-by"
ORIGIN = PREFIX + "origin"

COMPLETION = (COMPLETION_TIMEOUT, COMPLETION_DEADLINE, COMPLETION_BASIS)
# What only the guard may write; an override is for people to write.
PROTECTED = (CPU_MODEL, CPU_MODEL_SOURCE, *COMPLETION, DECISION, OVERRIDE_BY, ORIGIN)
