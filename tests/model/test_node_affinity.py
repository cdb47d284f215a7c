"""Node selector terms and label selectors match as Kubernetes matches them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.model.fields import InvalidObject
from webhook.model.node_affinity import (
    Expression,
    LabelSelector,
    Term,
    any_matches,
    keys,
    read_label_selector,
    read_terms,
)

AT = ("spec", "affinity", "nodeSelectorTerms")


def expression(key: str, operator: str, *values: str) -> dict[str, object]:
    return {"key": key, "operator": operator, "values": list(values)}


def term(*expressions: dict[str, object], **more: object) -> dict[str, object]:
    return {"matchExpressions": list(expressions), **more}


@pytest.mark.parametrize(
    ("operator", "values", "labels", "wanted"),
    [
        ("In", ("a", "b"), {"k": "b"}, True),
        ("In", ("a", "b"), {"k": "c"}, False),
        ("In", ("a", "b"), {}, False),
        ("In", ("",), {"k": ""}, True),
        ("In", ("",), {}, False),
        ("NotIn", ("a",), {"k": "a"}, False),
        ("NotIn", ("a",), {"k": "b"}, True),
        ("NotIn", ("a",), {}, True),
        ("Exists", (), {"k": ""}, True),
        ("Exists", (), {"other": "x"}, False),
        ("DoesNotExist", (), {}, True),
        ("DoesNotExist", (), {"k": ""}, False),
        ("Gt", ("5",), {"k": "6"}, True),
        ("Gt", ("5",), {"k": "5"}, False),
        ("Gt", ("5",), {"k": "10"}, True),
        ("Gt", ("5",), {}, False),
        ("Gt", ("5",), {"k": "six"}, False),
        ("Gt", ("5",), {"k": "6.5"}, False),
        ("Gt", ("5",), {"k": " 6"}, False),
        ("Gt", ("5",), {"k": "1_0"}, False),
        ("Gt", ("5",), {"k": "٦"}, False),
        ("Gt", ("5",), {"k": "9223372036854775807"}, True),
        ("Gt", ("5",), {"k": "9223372036854775808"}, False),
        ("Gt", ("5",), {"k": "9" * 5000}, False),
        ("Gt", ("-6",), {"k": "-5"}, True),
        ("Gt", ("+5",), {"k": "+6"}, True),
        # The API server takes these, and the scheduler finds no node for them.
        ("Gt", ("five",), {"k": "6"}, False),
        ("Lt", ("",), {"k": "6"}, False),
        ("Lt", ("9223372036854775808",), {"k": "6"}, False),
        ("Lt", ("5",), {"k": "4"}, True),
        ("Lt", ("5",), {"k": "-9223372036854775808"}, True),
        ("Lt", ("5",), {"k": "-9223372036854775809"}, False),
        ("Lt", ("5",), {"k": "5"}, False),
        ("Lt", ("5",), {}, False),
    ],
)
def test_an_expression_matches_as_in_kubernetes(
    operator: str, values: tuple[str, ...], labels: dict[str, str], wanted: bool
) -> None:
    assert Expression("k", operator, values).matches(labels) is wanted


@pytest.mark.parametrize(
    ("operator", "values", "said"),
    [
        ("In", ("eu-1",), "zone=eu-1"),
        ("In", ("true",), "zone"),
        ("In", ("",), "zone="),
        ("In", ("eu-1", "eu-2"), "zone"),
        ("NotIn", ("eu-1",), "zone"),
        ("Exists", (), "zone"),
        ("DoesNotExist", (), "zone"),
        ("Gt", ("3",), "zone"),
    ],
)
def test_what_is_missing_is_named_by_its_key_and_by_its_only_value(
    operator: str, values: tuple[str, ...], said: str
) -> None:
    assert Expression("zone", operator, values).missing() == said


def test_all_of_a_term_must_match() -> None:
    (only,) = read_terms([term(expression("a", "Exists"), expression("b", "In", "1"))], *AT)
    assert only.matches("n", {"a": "", "b": "1"})
    assert not only.matches("n", {"a": ""})


def test_one_term_of_several_is_enough() -> None:
    terms = read_terms([term(expression("a", "Exists")), term(expression("b", "Exists"))], *AT)
    assert any_matches(terms, "n", {"b": ""})
    assert not any_matches(terms, "n", {"c": ""})


def test_no_terms_match_no_node() -> None:
    assert not any_matches((), "n", {"a": "1"})


@pytest.mark.parametrize("empty", [{}, {"matchExpressions": [], "matchFields": None}])
def test_an_empty_term_matches_nothing_and_spoils_nothing(empty: dict[str, object]) -> None:
    terms = read_terms([empty, term(expression("a", "Exists"))], *AT)
    assert not terms[0].matches("n", {"a": "1"})
    assert terms[0].unsatisfied("n", {"a": "1"}) == ()
    assert any_matches(terms, "n", {"a": "1"})


def test_a_term_can_name_the_node_itself() -> None:
    by_name = {"matchFields": [expression("metadata.name", "In", "n1")]}
    but_that = {"matchFields": [expression("metadata.name", "NotIn", "n1")]}
    assert any_matches(read_terms([by_name], *AT), "n1", {})
    assert not any_matches(read_terms([by_name], *AT), "n2", {"metadata.name": "n1"})
    assert not any_matches(read_terms([but_that], *AT), "n1", {})
    assert any_matches(read_terms([but_that], *AT), "n2", {})


def test_the_name_and_the_labels_must_both_match() -> None:
    fields = [expression("metadata.name", "In", "n1")]
    (both,) = read_terms([term(expression("a", "Exists"), matchFields=fields)], *AT)
    assert both.matches("n1", {"a": ""})
    assert not both.matches("n1", {})
    assert not both.matches("n2", {"a": ""})


def test_every_demand_that_is_not_satisfied_is_named() -> None:
    fields = [expression("metadata.name", "In", "n1")]
    (mixed,) = read_terms(
        [term(expression("a", "In", "1"), expression("b", "Exists"), matchFields=fields)], *AT
    )
    found = mixed.unsatisfied("n2", {"b": ""})
    assert [e.missing() for e in found] == ["a=1", "metadata.name=n1"]
    assert mixed.unsatisfied("n1", {"a": "1", "b": ""}) == ()


def test_a_term_tells_which_keys_its_answer_depends_on() -> None:
    fields = [expression("metadata.name", "In", "n1")]
    terms = read_terms([term(expression("a", "Exists")), {"matchFields": fields}], *AT)
    assert [t.keys for t in terms] == [{"a"}, {"metadata.name"}]
    assert keys(terms) == {"a", "metadata.name"}
    assert keys(()) == frozenset()


def test_terms_are_values() -> None:
    raw = [term(expression("a", "In", "1"))]
    assert len({*read_terms(raw, *AT), *read_terms(raw, *AT)}) == 1


def test_no_list_reads_as_no_terms() -> None:
    assert read_terms(None, *AT) == ()


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({}, "spec.affinity.nodeSelectorTerms"),
        (["x"], "spec.affinity.nodeSelectorTerms[0]"),
        ([term(), {"matchExpressions": {}}], "spec.affinity.nodeSelectorTerms[1].matchExpressions"),
        ([{"matchExpressions": ["x"]}], "spec.affinity.nodeSelectorTerms[0].matchExpressions[0]"),
        (
            [term(expression("a", "in", "1"))],
            "spec.affinity.nodeSelectorTerms[0].matchExpressions[0].operator",
        ),
        (
            [term({"key": "a"})],
            "spec.affinity.nodeSelectorTerms[0].matchExpressions[0].operator",
        ),
        (
            [term(expression("a", "Exists"), {"key": "a", "operator": "In", "values": [1]})],
            "spec.affinity.nodeSelectorTerms[0].matchExpressions[1].values",
        ),
        (
            [term(expression("a", "In"))],
            "spec.affinity.nodeSelectorTerms[0].matchExpressions[0].values",
        ),
        (
            [term(expression("a", "Exists", "1"))],
            "spec.affinity.nodeSelectorTerms[0].matchExpressions[0].values",
        ),
        (
            [term(expression("a", "Gt", "1", "2"))],
            "spec.affinity.nodeSelectorTerms[0].matchExpressions[0].values",
        ),
        (
            [term(expression("a", "Lt"))],
            "spec.affinity.nodeSelectorTerms[0].matchExpressions[0].values",
        ),
        (
            [{"matchFields": [expression("metadata.uid", "In", "1")]}],
            "spec.affinity.nodeSelectorTerms[0].matchFields[0]",
        ),
        (
            [{"matchFields": [expression("metadata.name", "In", "a", "b")]}],
            "spec.affinity.nodeSelectorTerms[0].matchFields[0]",
        ),
        (
            [{"matchFields": [expression("metadata.name", "Exists")]}],
            "spec.affinity.nodeSelectorTerms[0].matchFields[0].operator",
        ),
    ],
)
def test_what_the_api_server_refuses_is_an_error_that_names_the_place(
    raw: object, path: str
) -> None:
    with pytest.raises(InvalidObject) as caught:
        read_terms(raw, *AT)
    assert caught.value.path == path


def test_no_label_selector_is_none_and_an_empty_one_matches_everything() -> None:
    assert read_label_selector(None, "labelSelector") is None
    everything = read_label_selector({}, "labelSelector")
    assert everything == LabelSelector()
    assert everything.matches({})
    assert everything.matches({"a": "1"})


def test_a_label_selector_wants_its_labels_and_its_expressions() -> None:
    raw = {"matchLabels": {"app": "db"}, "matchExpressions": [expression("tier", "NotIn", "test")]}
    selector = read_label_selector(raw, "labelSelector")
    assert selector is not None
    assert selector.keys == {"app", "tier"}
    assert selector.matches({"app": "db"})
    assert selector.matches({"app": "db", "tier": "live"})
    assert not selector.matches({"app": "db", "tier": "test"})
    assert not selector.matches({"tier": "live"})


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ([], "term.labelSelector"),
        ({"matchLabels": []}, "term.labelSelector.matchLabels"),
        (
            {"matchExpressions": [expression("a", "Gt", "1")]},
            "term.labelSelector.matchExpressions[0].operator",
        ),
        (
            {"matchExpressions": [expression("a", "NotIn")]},
            "term.labelSelector.matchExpressions[0].values",
        ),
    ],
)
def test_a_wrong_label_selector_is_an_error_that_names_the_place(raw: object, path: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        read_label_selector(raw, "term", "labelSelector")
    assert caught.value.path == path


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["", "1", "2", "true"])
LABELS = st.dictionaries(KEYS, VALUES)
EXPRESSIONS = st.one_of(
    st.builds(
        Expression,
        KEYS,
        st.sampled_from(["In", "NotIn"]),
        st.lists(VALUES, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(Expression, KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(Expression, KEYS, st.sampled_from(["Gt", "Lt"]), st.just(("1",))),
)
NAMES = st.sampled_from(["n1", "n2"])
TERMS = st.builds(
    Term,
    st.lists(EXPRESSIONS, max_size=3).map(tuple),
    st.lists(
        st.builds(
            Expression, st.just("metadata.name"), st.sampled_from(["In", "NotIn"]), st.tuples(NAMES)
        ),
        max_size=1,
    ).map(tuple),
)


@given(TERMS, NAMES, LABELS)
def test_a_term_that_has_something_in_it_matches_just_when_nothing_is_unsatisfied(
    some: Term, name: str, labels: dict[str, str]
) -> None:
    if some != Term():
        assert some.matches(name, labels) is (some.unsatisfied(name, labels) == ())


@given(st.lists(TERMS, max_size=3), NAMES, LABELS, LABELS)
def test_labels_with_other_keys_never_change_the_answer(
    terms: list[Term], name: str, labels: dict[str, str], more: dict[str, str]
) -> None:
    read = keys(terms)
    changed = {
        **{k: v for k, v in labels.items() if k in read},
        **{k: v for k, v in more.items() if k not in read},
    }
    assert any_matches(terms, name, labels) is any_matches(terms, name, changed)


@given(KEYS, st.lists(VALUES, min_size=1, max_size=3).map(tuple), LABELS)
def test_not_in_and_does_not_exist_are_the_opposites_of_in_and_exists(
    key: str, values: tuple[str, ...], labels: dict[str, str]
) -> None:
    for one, other in (("In", "NotIn"), ("Exists", "DoesNotExist")):
        matched = Expression(key, one, values).matches(labels)
        assert matched is not Expression(key, other, values).matches(labels)


@pytest.mark.parametrize("value", ["many", "", "9223372036854775808"])
def test_a_comparison_with_no_number_is_read_as_the_api_server_takes_it(value: str) -> None:
    (read,) = read_terms([term(expression("a", "Gt", value))], *AT)
    assert not read.matches("node-1", {"a": "6"})
