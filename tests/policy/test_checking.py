"""Legal settings that may not do what was meant are pointed out."""

from __future__ import annotations

import pytest

from webhook.policy.checking import check
from webhook.policy.configuration import Configuration
from webhook.policy.findings import Level
from webhook.policy.loading import load


def found(text):
    return [(f.level.value, f.path, f.message) for f in check(load(text, "guard.yaml"))]


def only(text):
    (finding,) = found(text)
    return finding


def namespaces(*entries):
    listed = ", ".join(f'{{match: "{match}", mode: {mode}}}' for match, mode in entries)
    return f"rules: {{chosen-node: {{namespaces: [{listed}]}}}}"


def test_the_defaults_are_beyond_question():
    assert check(Configuration()) == []


def test_a_namespace_entry_behind_a_wider_glob_never_matches():
    assert only(namespaces(("dev-*", "warn"), ("dev-1", "off"))) == (
        "warning",
        "rules.chosen-node.namespaces[1]",
        "never matches: `dev-*` above it already covers `dev-1`",
    )


def test_a_glob_behind_a_wider_glob_never_matches():
    assert only(namespaces(("*", "warn"), ("dev-*", "off")))[1] == "rules.chosen-node.namespaces[1]"


def test_a_namespace_named_twice_never_matches_the_second_time():
    assert only(namespaces(("a", "warn"), ("b", "warn"), ("a", "off")))[1].endswith("[2]")


def test_a_narrow_glob_before_a_wider_one_is_as_it_should_be():
    assert found(namespaces(("dev-1", "off"), ("dev-*", "warn"), ("*", "audit"))) == []


def test_max_mode_says_once_what_becomes_of_all_rules():
    assert only("maxMode: audit") == (
        "info",
        "maxMode",
        "all rules are capped to `audit`: nothing is refused, changed or warned about; "
        "findings are written down",
    )


def test_max_mode_off_is_a_warning():
    assert only("maxMode: off")[0] == "warning"


def test_a_mode_stronger_than_max_mode_says_what_it_is_capped_to():
    text = """
    maxMode: warn
    rules:
      passthrough-cpu:
        mode: enforce
        origins: {user: enforce, evacuation: audit}
        namespaces: [{match: a, mode: enforce}, {match: b, mode: warn}]
    """
    capped = [(level, path) for level, path, said in found(text) if "acts as `warn`" in said]
    assert capped == [
        ("info", "rules.passthrough-cpu.mode"),
        ("info", "rules.passthrough-cpu.origins.user"),
        ("info", "rules.passthrough-cpu.namespaces[0].mode"),
    ]


def test_an_origin_of_migrations_has_no_effect_on_a_rule_that_reviews_none():
    assert only("rules: {restart-required: {origins: {user: audit, evacuation: audit}}}") == (
        "warning",
        "rules.restart-required.origins.evacuation",
        "has no effect: this rule reviews no migrations",
    )


@pytest.mark.parametrize("mode", ["guard", "kubevirt"])
def test_a_deadline_mode_alone_is_beyond_question(mode):
    assert found(f"deadline: {{mode: {mode}}}") == []


@pytest.mark.parametrize("seconds", [9, 100])
def test_seconds_per_gib_in_mode_guard_are_beyond_question(seconds):
    assert found(f"deadline: {{mode: guard, secondsPerGiB: {seconds}}}") == []


@pytest.mark.parametrize("seconds", [1, 8.5])
def test_less_time_for_a_gib_than_a_network_needs_to_copy_it_is_a_warning(seconds):
    level, path, message = only(f"deadline: {{secondsPerGiB: {seconds}}}")
    assert (level, path) == ("warning", "deadline.secondsPerGiB")
    assert "1 Gbit/s" in message


def test_seconds_per_gib_in_mode_kubevirt_have_no_effect():
    level, path, message = only("deadline: {mode: kubevirt, secondsPerGiB: 100}")
    assert (level, path) == ("warning", "deadline.secondsPerGiB")
    assert message.startswith("has no effect")


def test_an_override_without_users_and_groups_lets_nobody_pass():
    level, path, message = only("override: {groups: []}")
    assert (level, path) == ("warning", "override")
    assert message.startswith("nobody may override")


def test_an_override_for_users_only_says_that_administrators_have_none():
    level, path, message = only("override: {users: [alice], groups: []}")
    assert (level, path) == ("warning", "override.groups")
    assert "not cluster administrators" in message


def test_an_override_for_everybody_is_a_warning():
    level, path, _ = only('override: {groups: ["system:authenticated"]}')
    assert (level, path) == ("warning", "override.groups[0]")


def test_when_blind_deny_says_what_happens():
    assert only("whenBlind: deny\nfacts: {staleAfter: 5m}") == (
        "warning",
        "whenBlind",
        "while facts are missing or older than 300 s, every migration that a user starts is "
        "refused; evacuations and workload updates are not",
    )


@pytest.mark.parametrize("group", ["system:authenticated", "system:masters", "system:*", "*"])
def test_exempting_a_group_that_holds_very_many_or_the_mightiest_is_a_warning(group):
    level, path, _ = only(f'exempt: {{groups: [ops, "{group}"]}}')
    assert (level, path) == ("warning", "exempt.groups[1]")


@pytest.mark.parametrize(
    "user", ["*", "system:serviceaccount:*", "system:serviceaccount:harvester-system:*"]
)
def test_exempting_kubevirts_controller_is_a_warning(user):
    level, path, _ = only(f'exempt: {{users: ["{user}"]}}')
    assert (level, path) == ("warning", "exempt.users[0]")


def test_exempting_a_single_service_account_is_beyond_question():
    assert found('exempt: {users: ["system:serviceaccount:backup:velero"]}') == []


def test_facts_that_are_stale_in_less_than_half_a_minute_are_a_warning():
    assert only("facts: {staleAfter: 29s}")[:2] == ("warning", "facts.staleAfter")
    assert found("facts: {staleAfter: 30s}") == []


def test_node_labels_that_settle_sooner_than_virt_handler_writes_them_are_pointed_out():
    assert only("facts: {settleAfter: 1m}")[:2] == ("warning", "facts.settleAfter")
    assert found("facts: {settleAfter: 7m}") == []


@pytest.mark.parametrize(("model", "meant"), [("Kubevirt", "kubevirt"), ("comon", "common")])
def test_a_model_that_looks_like_a_keyword_is_a_warning(model, meant):
    level, path, message = only(f"cpuModel: {{default: {model}}}")
    assert (level, path) == ("warning", "cpuModel.default")
    assert message.endswith(f"did you mean `{meant}`?")


def test_a_default_model_that_no_rule_sets_is_a_warning():
    text = "cpuModel: {default: common}\nrules: {cpu-model-default: {mode: warn}}"
    assert only(text) == (
        "warning",
        "cpuModel.default",
        "is never set: the rule cpu-model-default is at most `warn`",
    )


@pytest.mark.parametrize("model", ["kubevirt", "common", "Skylake-Server", "EPYC-Rome", "123"])
def test_ordinary_models_are_beyond_question(model):
    assert found(f'cpuModel: {{default: "{model}"}}') == []


def test_a_glob_that_lets_every_taint_pass_is_a_warning():
    assert only('passingTaints: ["example.com/*", "*"]')[1] == "passingTaints[1]"


def test_findings_stand_in_the_order_of_the_file():
    text = "maxMode: warn\nexempt: {groups: ['*']}\noverride: {groups: []}\nwhenBlind: deny"
    assert [path for _, path, _ in found(text)] == [
        "maxMode",
        "exempt.groups[0]",
        "override",
        "whenBlind",
    ]
    assert Level.ERROR not in {f.level for f in check(load(text, "guard.yaml"))}


@pytest.mark.parametrize("capped", ["maxMode: audit", "rules: {first-boot: {mode: warn}}"])
def test_a_first_boot_preference_that_its_rule_never_adds_is_told(capped):
    assert ("warning", "firstBoot") in [
        line[:2] for line in found(f"firstBoot: prefer-migratable\n{capped}")
    ]
    assert found("firstBoot: prefer-migratable") == []
