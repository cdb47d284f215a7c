"""Reads the configuration file."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from webhook.policy.configuration import (
    ClusterSettings,
    Configuration,
    CpuModelSettings,
    DeadlineMode,
    DeadlineSettings,
    FactsSettings,
    FirstBoot,
    HarvesterSettings,
    MessageSettings,
    NamespaceMode,
    OriginModes,
    People,
    RuleSettings,
    WhenBlind,
)
from webhook.policy.explaining import shown, unknown_key, wrong_value
from webhook.policy.findings import ConfigurationError, Finding, Level
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule
from webhook.policy.schema import configuration_schema
from webhook.policy.yaml_document import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jsonschema.exceptions import ValidationError

    from webhook.policy.schema import Schema

_SECONDS = {"h": 3600, "m": 60, "s": 1}


def load(text: str, where: str) -> Configuration:
    """Read a configuration from YAML; an empty text is the defaults.

    Args:
        text: The YAML.
        where: The name of the file, for messages.

    Raises:
        ConfigurationError: The text is no configuration; it says everything that is wrong.
    """
    document, findings = read(text)
    if document is not None:
        schema = configuration_schema()
        document = _normalised(document, schema)
        findings += _schema_findings(document, schema)
    if findings:
        raise ConfigurationError(where, findings)
    return _configuration(document or {})


def duration(text: str) -> int:
    """Return the seconds of a duration that the schema allows: ``180s``, ``3m``, ``1h30m``."""
    return sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"(\d+)([hms])", text))


def _normalised(value: Any, schema: Schema) -> Any:
    """Return a document with ``off`` as text, and empty sections for those without a value.

    YAML 1.1 reads a bare ``off`` as false. A section whose keys are all commented out reads as
    null.
    """
    if value is False and "off" in schema.get("enum", ()):
        return "off"
    if schema["type"] == "object" and value is None:
        return {}
    if schema["type"] == "object" and isinstance(value, dict):
        below = schema["properties"]
        return {k: _normalised(v, below[k]) if k in below else v for k, v in value.items()}
    if schema["type"] == "array" and isinstance(value, list):
        return [_normalised(item, schema["items"]) for item in value]
    return value


def _schema_findings(document: Any, schema: Schema) -> list[Finding]:
    # Imported here, because a server without a configuration file starts sooner without it.
    from jsonschema import Draft202012Validator

    found: dict[tuple[str, str], Finding] = {}
    for error in Draft202012Validator(schema).iter_errors(document):
        for path, message in _explained(error, schema):
            found.setdefault((path, message), Finding(Level.ERROR, path, message))
    return sorted(found.values(), key=lambda finding: finding.path)


def _explained(error: ValidationError, whole: Schema) -> Iterator[tuple[str, str]]:
    path = _path(error.absolute_path)
    here: Any = error.schema
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        for key in instance:
            if key not in here["properties"]:
                yield f"{path}.{key}" if path else key, unknown_key(key, here, whole)
    elif error.validator == "required":
        missing = ", ".join(f"`{key}`" for key in here["required"] if key not in instance)
        yield path, f"{missing} is missing"
    elif path:
        yield path, wrong_value(instance, here)
    else:
        yield path, f"a mapping of settings is wanted, not {shown(instance)}"


def _path(steps: Iterable[str | int]) -> str:
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path


def _configuration(document: dict[str, Any]) -> Configuration:
    """Make the values of a document that the schema allows; what is absent is the default."""
    default = Configuration()
    rules = document.get("rules", {})
    deadline = document.get("deadline", {})
    facts = document.get("facts", {})
    stale_after, settle_after = facts.get("staleAfter"), facts.get("settleAfter")
    per_gib = deadline.get("secondsPerGiB")
    return Configuration(
        max_mode=Mode(document.get("maxMode", default.max_mode)),
        rules={Rule(name): _rule(Rule(name), settings) for name, settings in rules.items()},
        cpu_model=CpuModelSettings(
            document.get("cpuModel", {}).get("default", default.cpu_model.default)
        ),
        first_boot=FirstBoot(document.get("firstBoot", default.first_boot)),
        deadline=DeadlineSettings(
            DeadlineMode(deadline.get("mode", default.deadline.mode)),
            # By way of text, so that 0.1 is a tenth.
            default.deadline.seconds_per_gib if per_gib is None else Fraction(str(per_gib)),
        ),
        exempt=_people(document.get("exempt", {}), default.exempt),
        override=_people(document.get("override", {}), default.override),
        facts=FactsSettings(
            facts.get("allPods", default.facts.all_pods),
            default.facts.stale_after if stale_after is None else duration(stale_after),
            default.facts.settle_after if settle_after is None else duration(settle_after),
        ),
        when_blind=WhenBlind(document.get("whenBlind", default.when_blind)),
        cluster=ClusterSettings(
            document.get("cluster", {}).get("autoscaled", default.cluster.autoscaled)
        ),
        harvester=HarvesterSettings(
            document.get("harvester", {}).get(
                "warnDuringUpgrade", default.harvester.warn_during_upgrade
            )
        ),
        passing_taints=tuple(document.get("passingTaints", default.passing_taints)),
        messages=MessageSettings(
            document.get("messages", {}).get("nodeNames", default.messages.node_names)
        ),
    )


def _rule(rule: Rule, settings: dict[str, Any]) -> RuleSettings:
    origins = settings.get("origins", {})

    def of(origin: MigrationOrigin) -> Mode | None:
        return Mode(origins[origin.value]) if origin.value in origins else None

    return RuleSettings(
        Mode(settings.get("mode", rule.default)),
        OriginModes(
            of(MigrationOrigin.USER),
            of(MigrationOrigin.EVACUATION),
            of(MigrationOrigin.WORKLOAD_UPDATE),
        ),
        tuple(
            NamespaceMode(entry["match"], Mode(entry["mode"]))
            for entry in settings.get("namespaces", ())
        ),
    )


def _people(section: dict[str, Any], default: People) -> People:
    return People(
        tuple(section.get("users", default.users)), tuple(section.get("groups", default.groups))
    )
