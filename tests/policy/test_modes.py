"""Which mode a rule has, for which namespace and origin."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.policy.configuration import (
    Configuration,
    HarvesterSettings,
    NamespaceMode,
    OriginModes,
    RuleSettings,
)
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, ReviewedKind, Rule

USER, EVACUATION, UPDATE = MigrationOrigin

modes = st.sampled_from(Mode)
maybe = st.none() | modes
settings = st.builds(
    RuleSettings,
    modes,
    st.builds(OriginModes, maybe, maybe, maybe),
    st.lists(
        st.builds(NamespaceMode, st.sampled_from(["*", "dev-*", "prod"]), modes), max_size=3
    ).map(tuple),
)
configurations = st.builds(
    Configuration,
    max_mode=modes,
    rules=st.dictionaries(st.sampled_from(Rule), settings, max_size=3),
    harvester=st.builds(HarvesterSettings, st.booleans()),
)


def of(rule=Rule.INCOMPATIBLE_TARGET, *, max_mode=Mode.ENFORCE, **given_settings):
    given_settings.setdefault("mode", rule.default)
    return Configuration(max_mode=max_mode, rules={rule: RuleSettings(**given_settings)})


def test_the_rules_and_their_default_modes():
    assert {rule.value: rule.default.value for rule in Rule} == {
        "cpu-model-default": "enforce",
        "target-selectors": "enforce",
        "completion-deadline": "enforce",
        "guard-annotations": "enforce",
        "incompatible-target": "enforce",
        "chosen-node": "enforce",
        "no-room-now": "warn",
        "passthrough-cpu": "warn",
        "unknown-cpu-model": "warn",
        "restart-required": "warn",
        "cluster-cpu-model": "enforce",
        "first-boot": "enforce",
    }


def test_four_rules_change_objects_and_the_others_refuse():
    changing = {"cpu-model-default", "target-selectors", "completion-deadline", "first-boot"}
    assert {rule.value for rule in Rule if rule.changes} == changing


def test_no_rule_that_refuses_reviews_pods():
    assert all(rule.changes for rule in Rule if ReviewedKind.POD in rule.kinds)


def test_modes_are_ordered_from_off_to_enforce():
    assert sorted(Mode) == [Mode.OFF, Mode.AUDIT, Mode.WARN, Mode.ENFORCE]
    assert Mode.ENFORCE > Mode.WARN >= Mode.WARN > Mode.AUDIT > Mode.OFF


def test_a_mode_compares_with_modes_only():
    with pytest.raises(TypeError):
        _ = Mode.OFF < "enforce"


@given(modes, modes)
def test_a_capped_mode_is_the_weaker_of_the_two(mode, limit):
    assert mode.capped(limit) == limit.capped(mode) == min(mode, limit)


def test_a_mode_reads_as_its_value():
    assert f"{Mode.WARN} {json.dumps(Mode.OFF.value)}" == 'warn "off"'


@pytest.mark.parametrize("rule", Rule)
def test_without_settings_a_user_meets_each_rule_in_its_default_mode(rule):
    assert Configuration().mode_for(rule, namespace="default", origin=USER) is rule.default


def test_without_an_origin_the_object_counts_as_a_users():
    configuration = of(Rule.RESTART_REQUIRED, origins=OriginModes(user=Mode.AUDIT))
    assert configuration.mode_for(Rule.RESTART_REQUIRED, namespace="a") is Mode.AUDIT


def test_an_evacuation_that_cannot_succeed_is_refused_by_default():
    mode = Configuration().mode_for(
        Rule.INCOMPATIBLE_TARGET, namespace="default", origin=EVACUATION
    )
    assert mode is Mode.ENFORCE


def test_an_evacuation_is_only_warned_about_while_a_harvester_upgrade_runs():
    for rule in (Rule.INCOMPATIBLE_TARGET, Rule.CHOSEN_NODE):
        mode = Configuration().mode_for(rule, namespace="a", origin=EVACUATION, upgrading=True)
        assert mode is Mode.WARN


def test_an_upgrade_changes_nothing_for_a_user():
    mode = Configuration().mode_for(
        Rule.INCOMPATIBLE_TARGET, namespace="a", origin=USER, upgrading=True
    )
    assert mode is Mode.ENFORCE


def test_an_upgrade_changes_nothing_where_warn_during_upgrade_is_false():
    configuration = Configuration(harvester=HarvesterSettings(warn_during_upgrade=False))
    mode = configuration.mode_for(
        Rule.INCOMPATIBLE_TARGET, namespace="a", origin=EVACUATION, upgrading=True
    )
    assert mode is Mode.ENFORCE


def test_a_rule_that_changes_still_does_so_for_evacuations_during_an_upgrade():
    mode = Configuration().mode_for(
        Rule.TARGET_SELECTORS, namespace="a", origin=EVACUATION, upgrading=True
    )
    assert mode is Mode.ENFORCE


def test_a_workload_update_is_warned_about_where_others_are_refused():
    mode = Configuration().mode_for(Rule.INCOMPATIBLE_TARGET, namespace="a", origin=UPDATE)
    assert mode is Mode.WARN


@pytest.mark.parametrize("rule", [rule for rule in Rule if rule.changes])
def test_a_workload_update_is_changed_like_any_other_migration(rule):
    assert Configuration().mode_for(rule, namespace="a", origin=UPDATE) is Mode.ENFORCE


@given(configurations, st.sampled_from(Rule), st.sampled_from(["dev-1", "prod"]), st.booleans())
def test_no_setting_whatever_makes_a_rule_refuse_a_workload_update(
    configuration, rule, namespace, upgrading
):
    mode = configuration.mode_for(rule, namespace=namespace, origin=UPDATE, upgrading=upgrading)
    assert rule.changes or mode <= Mode.WARN


@given(
    configurations,
    st.sampled_from(Rule),
    st.sampled_from(["dev-1", "prod"]),
    st.sampled_from(MigrationOrigin),
)
def test_no_rule_does_more_than_max_mode(configuration, rule, namespace, origin):
    mode = configuration.mode_for(rule, namespace=namespace, origin=origin)
    assert mode <= configuration.max_mode


def test_max_mode_weakens_but_never_strengthens():
    configuration = Configuration(
        max_mode=Mode.WARN, rules={Rule.CHOSEN_NODE: RuleSettings(Mode.AUDIT)}
    )
    assert configuration.mode_for(Rule.CHOSEN_NODE, namespace="a") is Mode.AUDIT
    assert configuration.mode_for(Rule.INCOMPATIBLE_TARGET, namespace="a") is Mode.WARN


def test_the_mode_of_the_origin_comes_before_the_rules_mode():
    configuration = of(origins=OriginModes(evacuation=Mode.AUDIT))
    rule = Rule.INCOMPATIBLE_TARGET
    assert configuration.mode_for(rule, namespace="a", origin=EVACUATION) is Mode.AUDIT
    assert configuration.mode_for(rule, namespace="a", origin=USER) is Mode.ENFORCE


def test_a_rules_own_mode_holds_for_all_origins_that_are_not_set():
    configuration = of(mode=Mode.AUDIT)
    for origin in MigrationOrigin:
        mode = configuration.mode_for(Rule.INCOMPATIBLE_TARGET, namespace="a", origin=origin)
        assert mode is Mode.AUDIT


def test_a_workload_update_can_be_written_down_only_or_not_looked_at():
    for wanted in (Mode.AUDIT, Mode.OFF):
        configuration = of(origins=OriginModes(workload_update=wanted))
        mode = configuration.mode_for(Rule.INCOMPATIBLE_TARGET, namespace="a", origin=UPDATE)
        assert mode is wanted


def test_the_first_namespace_entry_that_matches_decides_before_the_origin():
    configuration = of(
        origins=OriginModes(user=Mode.ENFORCE),
        namespaces=(
            NamespaceMode("dev-*", Mode.WARN),
            NamespaceMode("dev-1", Mode.OFF),
            NamespaceMode("*", Mode.AUDIT),
        ),
    )
    rule = Rule.INCOMPATIBLE_TARGET
    assert configuration.mode_for(rule, namespace="dev-1") is Mode.WARN
    assert configuration.mode_for(rule, namespace="prod") is Mode.AUDIT


def test_a_namespace_is_matched_whole():
    configuration = of(namespaces=(NamespaceMode("dev", Mode.OFF),))
    assert configuration.mode_for(Rule.INCOMPATIBLE_TARGET, namespace="dev-1") is Mode.ENFORCE


def test_settings_of_one_rule_leave_the_others_alone():
    assert of(mode=Mode.OFF).mode_for(Rule.CHOSEN_NODE, namespace="a") is Mode.ENFORCE


def test_a_rule_that_is_not_given_has_its_default_settings():
    configuration = Configuration()
    assert list(configuration.rules) == list(Rule)
    assert configuration == of(mode=Rule.INCOMPATIBLE_TARGET.default)
