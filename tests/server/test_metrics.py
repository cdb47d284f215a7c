"""The metrics, without a server."""

from __future__ import annotations

import pytest

from webhook.policy.rules import Rule
from webhook.review.decision import Blind
from webhook.serving.metrics import Metrics


@pytest.fixture
def metrics():
    return Metrics()


def decisions(metrics):
    return [
        line
        for line in metrics.render().decode().splitlines()
        if line.startswith("migration_guard_decisions_total{")
    ]


def test_two_servers_in_one_process_count_apart(metrics):
    metrics.count_decision("no-room-now", "warn", "warned")

    assert len(decisions(metrics)) == 1
    assert decisions(Metrics()) == []


@pytest.mark.parametrize("rule", Rule)
def test_each_rule_is_counted_by_its_name(metrics, rule):
    metrics.count_decision(rule.value, str(rule.default), "allowed")

    assert f'rule="{rule.value}"' in decisions(metrics)[0]


def test_values_that_are_on_no_list_add_one_series_at_most(metrics):
    for number in range(100):
        metrics.count_decision(f"rule-{number}", f"mode-{number}", f"outcome-{number}")
        metrics.observe_review(f"/path-{number}", 404, 0.001)

    assert decisions(metrics) == [
        'migration_guard_decisions_total{mode="other",outcome="other",rule="other"} 100.0'
    ]
    assert b'migration_guard_reviews_total{code="404",path="other"} 100.0' in metrics.render()


def test_the_buckets_reach_from_five_milliseconds_to_twenty_five_seconds(metrics):
    metrics.observe_review("/mutate", 200, 0.01)
    text = metrics.render().decode()
    bounds = [
        line.split('le="')[1].split('"')[0]
        for line in text.splitlines()
        if line.startswith("migration_guard_review_duration_seconds_bucket")
        and 'path="/mutate"' in line
    ]

    assert bounds == ["0.005", "0.025", "0.1", "0.5", "1.0", "2.5", "10.0", "25.0", "+Inf"]


@pytest.mark.parametrize("reason", Blind)
def test_each_reason_of_a_blind_answer_has_its_series_from_the_start(metrics, reason):
    series = f'migration_guard_blind_answers_total{{reason="{reason}"}} '.encode()
    assert series + b"0.0" in metrics.render()

    metrics.count_blind(reason)
    assert series + b"1.0" in metrics.render()
