"""Objects that no API server would give, as a person's file may: each has a clear outcome."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.review.asking import Cluster, launcher, migration, node, notes_of, vmi
from webhook.model import quantity
from webhook.model.fields import InvalidObject, integer
from webhook.model.migration import LauncherPod, Migration
from webhook.model.node import Node
from webhook.model.virtual_machine import VirtualMachine, VirtualMachineInstance


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("8Gi", 2**33),
        ("8G", 8 * 10**9),
        ("8589934592", 2**33),
        (8589934592, 2**33),
        ("8e9", 8 * 10**9),
        ("8E9", 8 * 10**9),
        ("0.5Gi", 2**29),
        (".5", Fraction(1, 2)),
        ("100m", Fraction(1, 10)),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("3n", Fraction(3, 10**9)),
        ("-1", -1),
        ("1e999", 2**63 - 1),
    ],
)
def test_a_quantity_is_read_exactly_in_every_form(written: Any, number: Any) -> None:
    assert quantity.parse(written) == number


@pytest.mark.parametrize(
    "written",
    ["", "8GB", "NaN", "Infinity", "1_000", "८Gi", " 8Gi", "1 Gi", "0x8", "8gi", "e9", "9" * 65],
)
def test_what_is_no_quantity_is_an_error_that_shows_the_way_out(written: str) -> None:
    with pytest.raises(quantity.InvalidQuantity, match="write for example 8Gi"):
        quantity.parse(written)


@given(st.integers(0, 2**40), st.sampled_from(["", "Ki", "Mi", "k", "M"]))
def test_thousandths_are_rounded_up(number: int, suffix: str) -> None:
    exact = quantity.parse(f"{number}{suffix}")
    assert quantity.milli(f"{number}{suffix}") == math.ceil(exact * 1000)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 1.5, "x", True, []])
def test_a_whole_number_is_one(number: Any) -> None:
    with pytest.raises(InvalidObject, match=r"a\.b: a whole number"):
        integer({"a": {"b": number}}, "a", "b")


@pytest.mark.parametrize(
    ("read", "obj", "path"),
    [
        (Node.from_object, {"metadata": {"labels": {"a": []}}}, "metadata.labels.a"),
        (Node.from_object, {"metadata": {"labels": {1: [1]}}}, "metadata.labels.1"),
        (Node.from_object, {"metadata": []}, "metadata"),
        (Node.from_object, {"spec": {"taints": {"x": 1}}}, "spec.taints"),
        (Node.from_object, {"spec": {"unschedulable": "maybe"}}, "spec.unschedulable"),
        (Node.from_object, {"status": {"capacity": {"cpu": "x"}}}, "status.capacity.cpu"),
        (VirtualMachineInstance.from_object, {"spec": {"domain": 3}}, "spec.domain|domain"),
        (VirtualMachineInstance.from_object, {"spec": {"volumes": [1]}}, r"volumes\[0\]"),
        (VirtualMachine.from_object, {"spec": {"template": "x"}}, "spec.template"),
        (Migration.from_object, {"spec": {"addedNodeSelector": []}}, "addedNodeSelector"),
        (LauncherPod.from_object, {"spec": {"nodeSelector": "x"}}, "nodeSelector"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(read: Any, obj: Any, path: str) -> None:
    with pytest.raises(InvalidObject, match=path):
        read(obj)


@pytest.mark.parametrize(
    "read",
    [
        Node.from_object,
        VirtualMachineInstance.from_object,
        VirtualMachine.from_object,
        Migration.from_object,
        LauncherPod.from_object,
    ],
)
@pytest.mark.parametrize("obj", [{}, {"metadata": None, "spec": None, "status": None}])
def test_an_empty_object_reads_as_defaults(read: Any, obj: Any) -> None:
    assert read(obj) is not None


def test_null_is_as_good_as_absent() -> None:
    read = VirtualMachineInstance.from_object(
        {"spec": {"domain": {"features": {"hyperv": {"evmcs": None}}, "launchSecurity": None}}}
    )
    assert not read.evmcs
    assert read.launch_security == ()


def test_secure_execution_on_s390x_is_a_demand() -> None:
    spec = {"architecture": "s390x", "domain": {"launchSecurity": {}}}
    assert VirtualMachineInstance.from_object({"spec": spec}).launch_security == ("s390-pv",)


def test_labels_that_yaml_reads_as_numbers_are_text() -> None:
    labels = Node.from_object({"metadata": {"labels": {"a": True, "b": 3}}}).labels
    assert labels == {"a": "true", "b": "3"}


def test_a_guest_of_absurd_size_gets_a_timeout_and_no_date() -> None:
    guest = vmi(model="123", domain={"memory": {"guest": "8Ei"}, "cpu": {"model": "123"}})
    cluster = Cluster(node("a"), node("b"), guest, launcher())
    cluster.ask(migration())
    written = notes_of(cluster.after)
    assert written["migration-guard.io/completion-timeout"].endswith("s")
    assert "migration-guard.io/completion-deadline" not in written
