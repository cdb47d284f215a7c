"""The JSON Schema of the configuration file."""

from __future__ import annotations

from typing import Any

from webhook.model.obstacles import PASSING_TAINTS
from webhook.policy.rules import Mode, Rule

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Python's `$` also stands before a last newline, ECMAScript's does not; so both mean the end.
_END = "$(?!\\n)"
DURATION = "^(?=[0-9])(?=.*[1-9])([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?" + _END
# What a label's name may be, since KubeVirt makes a node label of each model.
CPU_MODEL = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?" + _END
NAMESPACE_GLOB = "^[-a-z0-9*?!\\[\\]]{1,253}" + _END
# A day for each GiB: beyond it, a deadline is a slip of the pen.
MOST_SECONDS_PER_GIB = 86400

_STRONGEST_FIRST = [mode.value for mode in sorted(Mode, reverse=True)]


def configuration_schema() -> Schema:
    """Return the schema (draft 2020-12), as a new object that the caller may change.

    ``default`` is what holds where a key is absent. ``examples`` and ``$comment`` also serve the
    messages of loading.py.
    """
    schema = _section(
        "The configuration of migration-guard. Every key may be left out.",
        {
            "maxMode": _choice(
                "No rule does more than this, whatever else is set.", _STRONGEST_FIRST, "enforce"
            ),
            "rules": _section(
                "The modes of each rule.", {rule.value: _rule(rule) for rule in Rule}
            ),
            "cpuModel": _section(
                "The CPU model of virtual machines that name none.", {"default": _cpu_model()}
            ),
            "firstBoot": _choice(
                "Whether a virtual machine's first node is chosen with later migrations in mind.",
                ["off", "prefer-migratable"],
                "off",
            ),
            "deadline": _deadline(),
            "exempt": _people("Who is never refused.", []),
            "override": _people(
                "Whose migration-guard.io/override annotation counts.", ["system:masters"]
            ),
            "facts": _facts(),
            "whenBlind": _choice(
                "What becomes of a user's migration while the facts do not bear a decision.",
                ["allow", "deny"],
                "allow",
            ),
            "cluster": _section(
                "What the guard cannot see of the cluster.",
                {
                    "autoscaled": _switch(
                        "New nodes may come: that no node fits now only warns.", default=False
                    )
                },
            ),
            "harvester": _section(
                "What concerns Harvester.",
                {
                    "warnDuringUpgrade": _switch(
                        "Only warn about evacuations while a Harvester upgrade runs.", default=True
                    )
                },
            ),
            "passingTaints": _names(
                "Globs of the keys of taints that go by themselves; KubeVirt's nodeDrainTaintKey "
                "always counts.",
                list(PASSING_TAINTS),
            ),
            "messages": _section(
                "The texts that users read.",
                {"nodeNames": _switch("Name the nodes; otherwise only count them.", default=True)},
            ),
        },
    )
    return {"$schema": DRAFT, "title": "migration-guard configuration", **schema}


def _rule(rule: Rule) -> Schema:
    weaker = [mode for mode in _STRONGEST_FIRST if mode != Mode.ENFORCE.value]
    updates = _choice("For migrations by KubeVirt's workload updater; else `mode`.", weaker)
    updates["$comment"] = "migrations by KubeVirt's workload updater are never refused"
    entry = _section(
        "The mode in some namespaces.",
        {
            "match": {
                "description": "A glob for the namespace's name.",
                "type": "string",
                "pattern": NAMESPACE_GLOB,
                "examples": ["dev-*"],
            },
            "mode": _choice("The mode there.", _STRONGEST_FIRST),
        },
    )
    return _section(
        f"The rule {rule.value}.",
        {
            "mode": _choice("Where no other entry matches.", _STRONGEST_FIRST, rule.default.value),
            "origins": _section(
                "By who started the migration.",
                {
                    "user": _choice("For users' migrations; else `mode`.", _STRONGEST_FIRST),
                    "evacuation": _choice("For evacuations; else `mode`.", _STRONGEST_FIRST),
                    "workload-update": updates,
                },
            ),
            "namespaces": {
                "description": "By namespace; the first entry that matches decides.",
                "type": "array",
                "items": {**entry, "required": ["match", "mode"]},
                "default": [],
            },
        },
    )


def _cpu_model() -> Schema:
    return {
        "description": "`kubevirt` (what the KubeVirt CR says, else host-model), `common` (the "
        "newest model every schedulable node can run) or the name of a model.",
        "type": "string",
        "pattern": CPU_MODEL,
        "examples": ["kubevirt", "common", "Skylake-Server"],
        "default": "kubevirt",
    }


def _deadline() -> Schema:
    return _section(
        "How long a migration may take.",
        {
            "mode": _choice(
                "`guard`: by secondsPerGiB; `kubevirt`: KubeVirt's own limit.",
                ["guard", "kubevirt"],
                "guard",
            ),
            "secondsPerGiB": {
                "description": "Seconds for each GiB of data, in mode `guard`.",
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": MOST_SECONDS_PER_GIB,
                "default": 800,
            },
        },
    )


def _facts() -> Schema:
    return _section(
        "What the guard knows of the cluster.",
        {
            "allPods": _switch(
                "Watch every pod, not only virtual machines, to count free room.", default=False
            ),
            "staleAfter": {
                "description": "Facts without a sign of life for so long bear no decision.",
                "type": "string",
                "pattern": DURATION,
                "examples": ["180s", "3m"],
                "default": "180s",
            },
            "settleAfter": {
                "description": "For so long labels that KubeVirt writes may still come to a node "
                "that is new, or lost one.",
                "type": "string",
                "pattern": DURATION,
                "examples": ["7m", "420s"],
                "default": "7m",
            },
        },
    )


def _people(description: str, groups: list[str]) -> Schema:
    return _section(
        description,
        {
            "users": _names("User and service account names, exact or globs.", []),
            "groups": _names("Group names, exact or globs.", groups),
        },
    )


def _names(description: str, default: list[str]) -> Schema:
    return {
        "description": description,
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "default": default,
    }


def _switch(description: str, *, default: bool) -> Schema:
    return {"description": description, "type": "boolean", "default": default}


def _choice(description: str, values: list[str], default: str | None = None) -> Schema:
    schema: Schema = {"description": description, "type": "string", "enum": list(values)}
    return schema if default is None else {**schema, "default": default}


def _section(description: str, properties: dict[str, Schema]) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
