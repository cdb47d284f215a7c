"""The schema, the defaults of the dataclasses and the documentation say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from webhook.model.obstacles import PASSING_TAINTS
from webhook.policy.checking import check
from webhook.policy.configuration import Configuration
from webhook.policy.findings import Level
from webhook.policy.loading import load
from webhook.policy.rules import Rule
from webhook.policy.schema import Schema, configuration_schema

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
SETTINGS = {row[0].strip("`"): row for row in ROWS if len(row) == 5}
RULES = {row[0].strip("`"): row for row in ROWS if len(row) == 4 and not row[0].startswith("`--")}


def sections(schema, path=""):
    yield path, schema
    for key, below in schema.get("properties", {}).items():
        yield from sections(below, f"{path}.{key}" if path else key)
    if schema.get("items", {}).get("type") == "object":
        yield from sections(schema["items"], f"{path}[]")


def leaves():
    """Return every setting's path and schema, the rules' with <rule> for the name."""
    names = "|".join(rule.value for rule in Rule)
    found: dict[str, Schema] = {}
    for path, schema in sections(configuration_schema()):
        if schema["type"] != "object":
            found.setdefault(re.sub(rf"^rules\.({names})\.", "rules.<rule>.", path), schema)
    return found


def defaults(schema):
    if schema["type"] != "object":
        return schema.get("default")
    below = {key: defaults(value) for key, value in schema["properties"].items()}
    return {key: value for key, value in below.items() if value is not None}


def test_the_schema_is_a_valid_one():
    Draft202012Validator.check_schema(configuration_schema())


def test_the_schema_can_be_printed_as_json():
    assert json.loads(json.dumps(configuration_schema())) == configuration_schema()


def test_a_caller_may_change_the_schema_it_got():
    configuration_schema()["properties"].clear()
    assert configuration_schema()["properties"]


def test_every_key_has_a_description_and_every_section_is_closed():
    for path, schema in sections(configuration_schema()):
        assert schema["description"], path
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False, path


def test_every_setting_outside_the_rules_has_a_default():
    assert [p for p, s in leaves().items() if "default" not in s] == [
        "rules.<rule>.origins.user",
        "rules.<rule>.origins.evacuation",
        "rules.<rule>.origins.workload-update",
        "rules.<rule>.namespaces[].match",
        "rules.<rule>.namespaces[].mode",
    ]


def test_the_defaults_of_the_schema_are_those_of_the_dataclasses():
    document = defaults(configuration_schema())
    assert len(document["rules"]) == len(Rule)
    assert load(yaml.safe_dump(document), "defaults") == Configuration()


def test_the_default_list_of_passing_taints_is_the_models():
    assert (
        Configuration().passing_taints
        == PASSING_TAINTS
        == (
            "node.kubernetes.io/*",
            "node.cloudprovider.kubernetes.io/*",
            "kubevirt.io/drain",
            "*/agent-not-ready",
            "*.startup-taint.cluster-autoscaler.kubernetes.io/*",
        )
    )


def test_the_documentation_names_every_setting_and_no_other():
    assert set(SETTINGS) == set(leaves())


@pytest.mark.parametrize("path", [p for p, s in leaves().items() if p != "rules.<rule>.mode"])
def test_the_documentation_says_the_default(path):
    schema = leaves()[path]
    written = SETTINGS[path][2]
    if "default" not in schema:
        assert written == ("required" if "[]" in path else "`mode`")
    elif isinstance(schema["default"], str):
        assert written == f"`{schema['default']}`"
    else:
        assert json.loads(written.strip("`")) == schema["default"]


def test_the_documentation_lists_the_choices_of_each_setting():
    for path, schema in leaves().items():
        if "enum" in schema and SETTINGS[path][1] != "mode":
            assert re.findall(r"`([^`]+)`", SETTINGS[path][1]) == schema["enum"], path
    assert all(f"`{mode}`" in PAGE for mode in ("enforce", "warn", "audit", "off"))


def test_the_documentation_names_every_rule_with_its_default_and_what_it_reviews():
    assert list(RULES) == [rule.value for rule in Rule]
    for rule in Rule:
        _, default, does, kinds = RULES[rule.value]
        assert default == f"`{rule.default}`"
        assert does.startswith("changes" if rule.changes else "refuses")
        assert kinds == ", ".join(rule.kinds)


def test_every_example_in_the_documentation_can_be_used_as_it_stands():
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert examples
    for example in examples:
        findings = check(load(example, "docs/configuration.md"))
        assert all(finding.level is Level.INFO for finding in findings)
