"""How long a migration may take."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.review.asking import vmi
from webhook.model.deadline import (
    data_of,
    guard_deadline,
    kubevirt_deadline,
    kubevirt_limit,
)
from webhook.model.fields import InvalidObject
from webhook.model.kubevirt import KubeVirt, Version
from webhook.model.migration import MigrationPolicy, matching_policy
from webhook.model.storage import Claim
from webhook.model.virtual_machine import VirtualMachineInstance

GUARD = Fraction(800)
V184 = KubeVirt(version=Version(1, 8, 4))


def guest(memory: Any = "8Gi", **status: Any) -> VirtualMachineInstance:
    made = vmi()
    made["spec"]["domain"]["memory"] = {"guest": memory} if memory else {}
    made["status"] |= status
    return VirtualMachineInstance.from_object(made)


def guard_seconds(vm: VirtualMachineInstance, per_gib: Fraction = GUARD) -> int:
    data = data_of(vm, {})
    return guard_deadline(data, per_gib, kubevirt_limit(vm, data, V184, None)).seconds


@pytest.mark.parametrize(
    ("memory", "seconds"),
    [
        ("8Gi", 6400),
        ("1500Mi", 1172),
        ("0.5Gi", 400),
        ("8589934592", 6400),
        (8589934592, 6400),
        ("8G", 5961),
        ("8e9", 5961),
        ("1", 1),
    ],
)
def test_the_guards_limit_counts_exact_bytes_and_rounds_up(memory: Any, seconds: int) -> None:
    assert guard_seconds(guest(memory)) == seconds


def test_the_seconds_per_gib_can_be_set() -> None:
    assert guard_seconds(guest(), Fraction(150)) == 1200


@pytest.mark.parametrize(("memory", "seconds"), [("8Gi", 1350), ("64Gi", 10350)])
def test_kubevirts_own_limit_counts_decimal_gigabytes_rounded_up(memory: str, seconds: int) -> None:
    vm = guest(memory)
    assert kubevirt_limit(vm, data_of(vm, {}), V184, None).seconds == seconds


def test_before_1_4_kubevirt_allowed_800_seconds() -> None:
    old = KubeVirt(version=Version(1, 3, 1))
    assert kubevirt_limit(guest(), data_of(guest(), {}), old, None).seconds == 7200


def test_the_cr_stands_against_the_default_and_a_policy_against_the_cr() -> None:
    cr = KubeVirt(version=V184.version, migrations={"completionTimeoutPerGiB": 300})
    data = data_of(guest(), {})
    assert kubevirt_limit(guest(), data, cr, None).seconds == 2700
    policy = MigrationPolicy("p", {}, {}, {"completionTimeoutPerGiB": 10})
    assert kubevirt_limit(guest(), data, cr, policy).seconds == 90


def test_a_timeout_of_zero_is_no_limit() -> None:
    cr = KubeVirt(version=V184.version, migrations={"completionTimeoutPerGiB": 0})
    limit = kubevirt_limit(guest(), data_of(guest(), {}), cr, None)
    deadline = kubevirt_deadline(data_of(guest(), {}), limit)
    assert deadline.seconds == 0
    assert "no limit" in deadline.basis


def test_the_most_keys_win_then_the_most_vmi_keys_then_the_first_name() -> None:
    def policy(name: str, vm: dict[str, str], ns: dict[str, str]) -> MigrationPolicy:
        return MigrationPolicy(name, vm, ns, {})

    every = policy("z", {}, {})
    nothing = MigrationPolicy("none", None, None, {})
    by_namespace = policy("ns", {}, {"team": "x"})
    by_vm = policy("vm", {"app": "web"}, {})
    same = policy("a-vm", {"app": "web"}, {})
    other = policy("other", {"app": "db"}, {"team": "x"})
    marks, namespace = {"app": "web"}, {"team": "x"}
    assert matching_policy((nothing,), marks, namespace) is None
    assert matching_policy((every, by_namespace, other), marks, namespace) == by_namespace
    assert matching_policy((every, by_namespace, by_vm, same), marks, namespace) == same


def test_block_migrated_disks_count_and_make_it_an_estimate() -> None:
    made = vmi(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "disk"}}])
    made["status"]["migrationMethod"] = "BlockMigration"
    vm = VirtualMachineInstance.from_object(made)
    claim = Claim("prod", "disk", "", ("ReadWriteOnce",), Fraction(2**30))
    data = data_of(vm, {"prod/disk": claim})
    deadline = guard_deadline(data, GUARD, kubevirt_limit(vm, data, V184, None))
    assert deadline.seconds == 7200
    assert "an estimate" in deadline.basis


def test_migrated_volumes_count() -> None:
    moved = [{"volumeName": "d", "sourcePVCInfo": {"capacity": {"storage": "2Gi"}}}]
    assert guard_seconds(guest(migratedVolumes=moved)) == 8000


@pytest.mark.parametrize("kind", ["requests", "limits"])
def test_without_guest_memory_the_request_counts_else_the_limit(kind: str) -> None:
    made = vmi()
    made["spec"]["domain"] = {"resources": {kind: {"memory": "1Gi"}}}
    assert guard_seconds(VirtualMachineInstance.from_object(made)) == 800


def test_without_any_memory_nothing_is_known() -> None:
    assert data_of(guest(""), {}).memory is None


def test_a_memory_that_is_no_quantity_is_named() -> None:
    with pytest.raises(InvalidObject, match=r"spec\.domain\.memory\.guest.*8GB"):
        data_of(guest("8GB"), {})


def test_post_copy_makes_kubevirts_limit_an_estimate() -> None:
    cr = KubeVirt(version=V184.version, migrations={"allowPostCopy": True})
    limit = kubevirt_limit(guest(), data_of(guest(), {}), cr, None)
    assert limit.estimated
    assert "post-copy" in kubevirt_deadline(data_of(guest(), {}), limit).basis
