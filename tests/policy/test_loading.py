"""A configuration file is read, or everything wrong in it is said."""

from __future__ import annotations

import pickle
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.policy.configuration import (
    Configuration,
    DeadlineMode,
    FirstBoot,
    NamespaceMode,
    OriginModes,
    RuleSettings,
    WhenBlind,
)
from webhook.policy.findings import ConfigurationError, Finding, Level, report
from webhook.policy.loading import duration, load
from webhook.policy.rules import Mode, Rule

WHOLE = """
maxMode: warn
rules:
  incompatible-target:
    mode: enforce
    origins: {user: warn, evacuation: audit, workload-update: off}
    namespaces: [{match: "dev-*", mode: off}]
cpuModel: {default: Skylake-Server}
firstBoot: prefer-migratable
deadline: {mode: kubevirt, secondsPerGiB: 0.1}
exempt: {users: [alice], groups: [ops]}
override: {users: [bob], groups: []}
facts: {allPods: true, staleAfter: 1m30s, settleAfter: 10m}
whenBlind: deny
cluster: {autoscaled: true}
harvester: {warnDuringUpgrade: false}
passingTaints: ["example.com/*"]
messages: {nodeNames: false}
"""


def findings_of(text):
    with pytest.raises(ConfigurationError) as raised:
        load(text, "guard.yaml")
    assert all(finding.level is Level.ERROR for finding in raised.value.findings)
    return [(finding.path, finding.message) for finding in raised.value.findings]


def only_finding(text):
    (finding,) = findings_of(text)
    return finding


@pytest.mark.parametrize("text", ["", "\n", "# maxMode: audit\n", "---\n", "{}", "null", "\ufeff"])
def test_an_empty_file_is_the_defaults(text):
    assert load(text, "guard.yaml") == Configuration()


def test_every_setting_is_read():
    configuration = load(WHOLE, "guard.yaml")
    assert configuration.max_mode is Mode.WARN
    assert configuration.rules[Rule.INCOMPATIBLE_TARGET] == RuleSettings(
        Mode.ENFORCE,
        OriginModes(Mode.WARN, Mode.AUDIT, Mode.OFF),
        (NamespaceMode("dev-*", Mode.OFF),),
    )
    assert configuration.cpu_model.default == "Skylake-Server"
    assert configuration.first_boot is FirstBoot.PREFER_MIGRATABLE
    assert configuration.deadline.mode is DeadlineMode.KUBEVIRT
    assert configuration.deadline.seconds_per_gib == Fraction(1, 10)
    assert (configuration.exempt.users, configuration.exempt.groups) == (("alice",), ("ops",))
    assert (configuration.override.users, configuration.override.groups) == (("bob",), ())
    assert configuration.facts.all_pods
    assert configuration.facts.stale_after == 90
    assert configuration.facts.settle_after == 600
    assert configuration.when_blind is WhenBlind.DENY
    assert configuration.cluster.autoscaled
    assert not configuration.harvester.warn_during_upgrade
    assert configuration.passing_taints == ("example.com/*",)
    assert not configuration.messages.node_names


def test_a_key_left_out_of_a_section_keeps_its_default():
    configuration = load("override: {users: [bob]}\nfacts: {allPods: true}", "guard.yaml")
    assert configuration.override.groups == ("system:masters",)
    assert configuration.facts.stale_after == 180


def test_a_section_whose_keys_are_all_commented_out_is_the_defaults():
    assert load("deadline:\n  # mode: kubevirt\nrules:\n", "guard.yaml") == Configuration()


def test_a_key_without_a_value_is_an_error_that_says_how_to_have_the_default():
    path, message = only_finding("override: {groups: }")
    assert path == "override.groups"
    assert message.endswith("not nothing; leave the key out to have the default")


@pytest.mark.parametrize("off", ["off", "OFF", '"off"', "false"])
def test_off_needs_no_quotes(off):
    text = f"maxMode: {off}\nfirstBoot: {off}\nrules: {{no-room-now: {{mode: {off}}}}}"
    configuration = load(text, "guard.yaml")
    assert configuration.max_mode is Mode.OFF
    assert configuration.first_boot is FirstBoot.OFF
    assert configuration.rules[Rule.NO_ROOM_NOW].mode is Mode.OFF


def test_on_is_no_mode():
    assert only_finding("maxMode: on") == (
        "maxMode",
        "one of `enforce`, `warn`, `audit`, `off` is wanted here, not `true`",
    )


def test_an_alias_repeats_what_it_names():
    text = """
    rules:
      incompatible-target: {namespaces: &dev [{match: "dev-*", mode: warn}]}
      chosen-node: {namespaces: *dev}
    """
    rules = load(text, "guard.yaml").rules
    assert rules[Rule.CHOSEN_NODE].namespaces == rules[Rule.INCOMPATIBLE_TARGET].namespaces


def test_an_unknown_key_names_the_nearest_key():
    assert only_finding("maxmode: audit") == (
        "maxmode",
        "unknown key `maxmode`; did you mean `maxMode`?",
    )


def test_an_unknown_rule_names_the_nearest_rule():
    assert only_finding("rules: {incompatible-targets: {mode: warn}}") == (
        "rules.incompatible-targets",
        "unknown key `incompatible-targets`; did you mean `incompatible-target`?",
    )


def test_a_key_in_the_wrong_section_names_the_right_one():
    assert only_finding("secondsPerGiB: 800") == (
        "secondsPerGiB",
        "unknown key `secondsPerGiB`; it belongs to `deadline`",
    )
    assert only_finding("users: []")[1].endswith("it belongs to `exempt` or `override`")


def test_an_unknown_key_that_is_like_none_lists_what_is_allowed():
    assert only_finding("deadline: {xyz: 1}") == (
        "deadline.xyz",
        "unknown key `xyz`; allowed here: `mode`, `secondsPerGiB`",
    )


def test_a_key_that_yaml_reads_as_a_boolean_is_shown_as_it_was_written():
    assert only_finding("deadline: {off: 1}")[0] == "deadline.off"


def test_a_wrong_value_lists_what_is_allowed_and_the_nearest():
    assert only_finding("rules: {chosen-node: {mode: enforced}}") == (
        "rules.chosen-node.mode",
        "one of `enforce`, `warn`, `audit`, `off` is wanted here, not `enforced`; "
        "did you mean `enforce`?",
    )


def test_refusing_workload_updates_cannot_be_set():
    path, message = only_finding("rules: {chosen-node: {origins: {workload-update: enforce}}}")
    assert path == "rules.chosen-node.origins.workload-update"
    assert message == (
        "one of `warn`, `audit`, `off` is wanted here, not `enforce` "
        "(migrations by KubeVirt's workload updater are never refused)"
    )


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            "facts: {allPods: maybe}",
            "facts.allPods",
            "`true` or `false` is wanted here, not `maybe`",
        ),
        (
            "exempt: {users: bob}",
            "exempt.users",
            "a list of text is wanted here, not `bob`",
        ),
        (
            "exempt: {users: [7]}",
            "exempt.users[0]",
            'text that is not empty is wanted here, not the number `7`; put it in quotes: "7"',
        ),
        (
            "exempt: {users: ['']}",
            "exempt.users[0]",
            "text that is not empty is wanted here, not empty text",
        ),
        (
            "deadline: 800",
            "deadline",
            "a mapping with `mode`, `secondsPerGiB` is wanted here, not the number `800`",
        ),
        (
            "facts: {staleAfter: 180}",
            "facts.staleAfter",
            "text such as `180s`, `3m` is wanted here, not the number `180`",
        ),
        (
            "facts: {staleAfter: 2026-01-02}",
            "facts.staleAfter",
            "text such as `180s`, `3m` is wanted here, not `2026-01-02`",
        ),
        (
            'facts: {staleAfter: "180s\\n"}',
            "facts.staleAfter",
            "text such as `180s`, `3m` is wanted here, not `180s\\n`",
        ),
        (
            "rules: {chosen-node: {namespaces: [{match: dev}]}}",
            "rules.chosen-node.namespaces[0]",
            "`mode` is missing",
        ),
        (
            "rules: {chosen-node: {namespaces: [{match: Dev, mode: off}]}}",
            "rules.chosen-node.namespaces[0].match",
            "text such as `dev-*` is wanted here, not `Dev`",
        ),
        (
            "rules: {chosen-node: {namespaces: {dev: off}}}",
            "rules.chosen-node.namespaces",
            "a list of mappings with `match`, `mode` is wanted here, not a mapping",
        ),
        (
            "cpuModel: {default: 123}",
            "cpuModel.default",
            "text such as `kubevirt`, `common`, `Skylake-Server` is wanted here, "
            'not the number `123`; put it in quotes: "123"',
        ),
    ],
)
def test_a_wrong_type_says_what_is_wanted(text, path, message):
    assert only_finding(text) == (path, message)


@pytest.mark.parametrize("value", ["0", "-1", "86401", ".inf", ".nan", "true", "1" * 90, "0b_"])
def test_seconds_per_gib_that_make_no_deadline_are_errors(value):
    path, message = only_finding(f"deadline: {{secondsPerGiB: {value}}}")
    assert path == "deadline.secondsPerGiB"
    assert message.startswith("a number above 0, at most 86400, is wanted here, not ")


@pytest.mark.parametrize("value", ["0s", "", "s", "5", "1s1m", "-5s", "5 s", "1.5m", "1d"])
def test_a_duration_that_is_none_is_an_error(value):
    assert only_finding(f'facts: {{staleAfter: "{value}"}}')[0] == "facts.staleAfter"


def test_durations_are_hours_minutes_and_seconds():
    assert [duration(d) for d in ("180s", "3m", "1m30s", "1h", "1h0m5s")] == [
        180,
        180,
        90,
        3600,
        3605,
    ]


def test_all_mistakes_are_said_at_once_in_the_order_of_their_paths():
    text = "maxmode: audit\nwhenBlind: refuse\nfacts: {allPods: 1, stale: 1s}\n"
    assert [path for path, _ in findings_of(text)] == [
        "facts.allPods",
        "facts.stale",
        "maxmode",
        "whenBlind",
    ]


def test_the_error_names_the_file_and_lists_the_findings():
    with pytest.raises(ConfigurationError) as raised:
        load("maxMode: x\nfirstboot: off", "/etc/guard.yaml")
    assert str(raised.value).splitlines() == [
        "/etc/guard.yaml: 2 errors",
        "  firstboot: unknown key `firstboot`; did you mean `firstBoot`?",
        "  maxMode: one of `enforce`, `warn`, `audit`, `off` is wanted here, not `x`",
    ]


def test_the_error_passes_between_processes():
    error = ConfigurationError("a.yaml", [Finding(Level.ERROR, "maxMode", "no")])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - the bytes are the test's own
    assert (copy.where, copy.findings, str(copy)) == (error.where, error.findings, str(error))


def test_broken_yaml_names_line_and_column():
    path, message = only_finding("maxMode: audit\nrules: [")
    assert path == ""
    assert message.startswith("line 2, column 9: not YAML: ")


def test_a_tab_names_line_and_column():
    assert only_finding("deadline:\n\tmode: guard")[1].startswith("line 2, column 1: not YAML: ")


def test_a_second_document_is_an_error():
    assert only_finding("maxMode: audit\n---\nmaxMode: warn\n") == (
        "",
        "line 2, column 1: not YAML: a second document begins here; one is wanted",
    )


def test_a_key_set_twice_is_an_error_with_both_lines():
    text = "rules:\n  chosen-node:\n    mode: off\n    mode: warn\n"
    assert only_finding(text) == (
        "rules.chosen-node.mode",
        "line 4: set twice, first on line 3",
    )


def test_a_key_set_twice_does_not_hide_other_mistakes():
    assert [path for path, _ in findings_of("maxMode: x\nmaxMode: y\nfoo: 1")] == [
        "maxMode",
        "foo",
        "maxMode",
    ]


@pytest.mark.parametrize(("text", "what"), [("- 1", "a list"), ("audit", "`audit`")])
def test_a_file_that_is_no_mapping_says_so(text, what):
    assert only_finding(text) == ("", f"a mapping of settings is wanted, not {what}")


@pytest.mark.parametrize("text", ["rules: &a {no-room-now: *a}", "exempt: &a [*a]", "[" * 3000])
def test_endless_and_very_deep_files_are_errors(text):
    assert "too" in only_finding(text)[1]


def test_aliases_that_multiply_are_an_error():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "too deep or too large" in only_finding("\n".join(lines))[1]


def test_a_tag_that_would_make_an_object_is_an_error():
    messages = dict(findings_of("maxMode: !!python/object/apply:os.getcwd []"))
    assert "maxMode" in messages
    assert "has no place here" in findings_of("maxMode: !!python/name:os.getcwd x")[0][1]


@pytest.mark.parametrize("text", ["\x00", "? [a]\n: b", "a: *nowhere", "<<: {maxMode: off}", "%X"])
def test_other_odd_files_are_errors_and_no_tracebacks(text):
    assert findings_of(text)


@given(st.text(alphabet="maxMode:rules {}[]&*!?|>-'\"\n\t #%@,offn0123.~=<", max_size=60))
def test_no_text_whatever_makes_anything_but_a_configuration_or_its_error(text):
    try:
        load(text, "guard.yaml")
    except ConfigurationError as error:
        said = str(error)
    else:
        return
    assert said.startswith("guard.yaml: ")
    assert len(said.splitlines()) > 1


def test_a_report_without_errors_is_valid():
    assert report([]) == {"valid": True, "findings": []}
    assert report([Finding(Level.WARNING, "whenBlind", "hm")]) == {
        "valid": True,
        "findings": [{"level": "warning", "path": "whenBlind", "message": "hm"}],
    }


def test_a_report_with_an_error_is_not_valid():
    assert not report([Finding(Level.INFO, "", ""), Finding(Level.ERROR, "", "")])["valid"]


def test_the_schema_library_is_imported_only_when_a_file_is_read():
    script = (
        "import sys\n"
        "from webhook.policy.loading import load\n"
        "before = 'jsonschema' in sys.modules\n"
        "load('maxMode: audit', 'guard.yaml')\n"
        "print(before, 'jsonschema' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
