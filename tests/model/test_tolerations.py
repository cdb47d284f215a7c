"""Tolerations match taints as Kubernetes matches them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.model.fields import InvalidObject
from webhook.model.node import Taint
from webhook.model.tolerations import Toleration, read_tolerations, untolerated

GPU = Taint("gpu", "a100", "NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "wanted"),
    [
        (Toleration("gpu", "Equal", "a100", "NoSchedule"), True),
        (Toleration("gpu", "", "a100", "NoSchedule"), True),
        (Toleration("gpu", "Equal", "a100", ""), True),
        (Toleration("gpu", "Equal", "a100", "NoExecute"), False),
        (Toleration("gpu", "Equal", "h100", "NoSchedule"), False),
        (Toleration("gpu", "Equal", "", "NoSchedule"), False),
        (Toleration("fpga", "Equal", "a100", "NoSchedule"), False),
        (Toleration("gpu", "Exists", "", "NoSchedule"), True),
        (Toleration("gpu", "Exists", "", ""), True),
        (Toleration("fpga", "Exists", "", ""), False),
        (Toleration("", "Exists", "", ""), True),
        (Toleration("", "Exists", "", "NoExecute"), False),
        (Toleration("gpu", "exists", "", ""), False),
        (Toleration("gpu", "In", "a100", ""), False),
    ],
)
def test_a_toleration_matches_as_in_kubernetes(toleration: Toleration, wanted: bool) -> None:
    assert toleration.tolerates(GPU) is wanted


@pytest.mark.parametrize(
    ("operator", "limit", "at", "wanted"),
    [
        ("Gt", "950", "999", True),
        ("Gt", "950", "950", False),
        ("Gt", "950", "1000", True),
        ("Gt", "-2", "-1", True),
        ("Lt", "950", "949", True),
        ("Lt", "950", "950", False),
        ("Lt", "1", "0", True),
        ("Gt", "950", "0999", False),
        ("Gt", "950", "+999", False),
        ("Gt", "950", "high", False),
        ("Gt", "low", "999", False),
        ("Gt", "950", "", False),
        ("Gt", "950", "9223372036854775808", False),
    ],
)
def test_gt_and_lt_compare_the_taints_number_with_the_tolerations(
    operator: str, limit: str, at: str, wanted: bool
) -> None:
    taint = Taint("sla", at, "NoSchedule")
    assert Toleration("sla", operator, limit).tolerates(taint) is wanted


def test_only_taints_that_keep_pods_away_are_reported_in_their_order() -> None:
    taints = (
        Taint("z", "", "NoExecute"),
        Taint("soft", "", "PreferNoSchedule"),
        GPU,
        Taint("a", "", "NoSchedule"),
    )
    left = untolerated(taints, (Toleration("a", "Exists"),))
    assert left == (Taint("z", "", "NoExecute"), GPU)


def test_tolerations_are_read_with_their_defaults() -> None:
    raw = [
        {"key": "gpu", "value": "a100"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
    ]
    assert read_tolerations(raw, "spec", "tolerations") == (
        Toleration("gpu", "", "a100", ""),
        Toleration("", "Exists", "", "NoExecute"),
    )
    assert read_tolerations(None, "spec", "tolerations") == ()


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({}, "spec.tolerations"),
        (["x"], "spec.tolerations[0]"),
        ([{"key": "a"}, {"key": []}], "spec.tolerations[1].key"),
    ],
)
def test_wrong_tolerations_are_an_error_that_names_the_place(raw: object, path: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        read_tolerations(raw, "spec", "tolerations")
    assert caught.value.path == path


TAINTS = st.builds(
    Taint,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "1", "2"]),
    st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
)
TOLERATIONS = st.builds(
    Toleration,
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "Equal", "Exists", "Gt", "Lt", "Other"]),
    st.sampled_from(["", "1", "2"]),
    st.sampled_from(["", "NoSchedule", "NoExecute"]),
)


@given(st.lists(TAINTS), st.lists(TOLERATIONS), st.lists(TOLERATIONS))
def test_more_tolerations_never_leave_more_taints(
    taints: list[Taint], some: list[Toleration], more: list[Toleration]
) -> None:
    assert set(untolerated(taints, some + more)) <= set(untolerated(taints, some))


@given(st.lists(TAINTS))
def test_a_toleration_of_everything_leaves_no_taint(taints: list[Taint]) -> None:
    assert untolerated(taints, [Toleration("", "Exists")]) == ()
