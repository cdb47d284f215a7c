"""What KubeVirt puts on a target pod, by version, and where each demand comes from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.objects import facts
from tests.review.asking import kubevirt, launcher, migration, node, vmi
from webhook.model.kubevirt import NEWEST, KubeVirt, Version, parse_version
from webhook.model.migration import Migration
from webhook.model.requirements import Requirements

VENDOR = "cpu-vendor.node.kubevirt.io/Intel"
MODEL = "cpu-model-migration.node.kubevirt.io/XYZ"
MACHINE = "machine-type.node.kubevirt.io/q35"


def demanded(
    guest: dict[str, Any] | None = None,
    *,
    version: str = "v1.8.4",
    added: dict[str, str] | None = None,
    source: dict[str, Any] | None = None,
    pod: dict[str, Any] | None = None,
    configuration: dict[str, Any] | None = None,
    **status: Any,
) -> Requirements:
    cr = kubevirt(version=version, **status)
    cr["spec"]["configuration"] = configuration or {}
    known = facts(source or node("a"), node("b"), cr, guest or vmi(), pod or launcher())
    asked = migration()
    asked["spec"]["addedNodeSelector"] = added or {}
    return known.requirements(known.vmis["prod/web"], Migration.from_object(asked))


def by_kubevirt(found: Requirements) -> dict[str, str]:
    return {key: s.value for key, s in found.without_additions().selectors.items()}


def test_every_pod_wants_a_schedulable_node() -> None:
    assert demanded().selectors["kubevirt.io/schedulable"].origin == "kubevirt"


def test_a_first_host_model_migration_takes_the_sources_model_and_features() -> None:
    source = node("a", **{"host-model-required-features.node.kubevirt.io/f": "true"})
    found = demanded(source=source)
    assert found.selectors[MODEL].origin == "source-cpu"
    assert "cpu-feature.node.kubevirt.io/f" in by_kubevirt(found)
    assert found.additions == {}


def test_a_later_migration_takes_what_the_pod_remembers_and_no_label_of_the_node() -> None:
    old = launcher(selector={"cpu-model-migration.node.kubevirt.io/OLD": "true"}, migrated=True)
    found = demanded(pod=old)
    assert found.selectors["cpu-model-migration.node.kubevirt.io/OLD"].origin == "remembered"
    assert MODEL not in found.selectors


def test_a_named_model_wants_itself_and_nothing_of_the_source_but_the_vendor() -> None:
    found = demanded(vmi(model="123"))
    assert found.selectors["cpu-model.node.kubevirt.io/123"].origin == "cpu-model"
    assert MODEL not in found.selectors
    assert VENDOR in by_kubevirt(found)
    assert found.absent == ()


def test_a_passthrough_guest_wants_the_vendor_only() -> None:
    found = demanded(vmi(model="host-passthrough"))
    assert set(by_kubevirt(found)) == {"kubevirt.io/schedulable", VENDOR}
    assert "host-model-cpu.node.kubevirt.io/XYZ" in found.passthrough


@pytest.mark.parametrize(
    ("version", "guards"),
    [
        ("v1.6.3", False),
        ("v1.6.4", True),
        ("v1.7.0", False),
        ("1.7.0-150700.3.21.1", False),
        ("v1.7.1", True),
        ("v1.8.0", True),
        ("v1.9.0", True),
    ],
)
def test_the_vendor_is_kubevirts_or_the_guards_by_version(version: str, guards: bool) -> None:
    found = demanded(version=version)
    assert (VENDOR in by_kubevirt(found)) is guards
    assert VENDOR in found.selectors
    assert found.additions == ({} if guards else {VENDOR: "true"})


def test_an_old_kubevirt_lets_a_named_model_change_the_vendor() -> None:
    assert VENDOR not in demanded(vmi(model="123"), version="v1.6.3").selectors


@pytest.mark.parametrize(("version", "wants"), [("v1.5.0", False), ("v1.5.1", True)])
def test_the_machine_type_is_a_demand_since_1_5_1(version: str, wants: bool) -> None:
    guest = vmi(domain={"machine": {"type": "q35"}})
    assert (MACHINE in demanded(guest, version=version).selectors) is wants


def test_the_machine_type_of_the_status_wins() -> None:
    guest = vmi(domain={"machine": {"type": "q35"}})
    guest["status"]["machine"] = {"type": "pc-q35-rhel9.6.0"}
    found = demanded(guest).selectors
    assert "machine-type.node.kubevirt.io/pc-q35-rhel9.6.0" in found
    assert MACHINE not in found


@pytest.mark.parametrize(("version", "counts"), [("v1.5.2", False), ("v1.6.0", True)])
def test_the_added_node_selector_counts_since_1_6(version: str, counts: bool) -> None:
    found = demanded(version=version, added={"zone": "x"})
    assert ("zone" in found.selectors) is counts


def test_the_vms_selector_wins_over_the_crs_and_both_over_an_added_one() -> None:
    cr = {"developerConfiguration": {"nodeSelectors": {"zone": "cr", "rack": "cr"}}}
    found = demanded(
        vmi(nodeSelector={"zone": "vm"}), configuration=cr, added={"zone": "x", "rack": "y"}
    )
    assert found.selectors["zone"].value == "vm"
    assert found.selectors["rack"].value == "cr"
    lost = [(o.key, o.asked, o.wins) for o in found.overridden]
    assert lost == [("rack", "y", "cr"), ("zone", "x", "vm")]


def test_hyperv_features_are_demands_under_the_strict_check_only() -> None:
    guest = vmi(domain={"features": {"hyperv": {"synic": {"enabled": True}, "evmcs": {}}}})
    strict = {"developerConfiguration": {"featureGates": ["HypervStrictCheck"]}}
    assert "hyperv.node.kubevirt.io/synic" not in demanded(guest).selectors
    found = demanded(guest, configuration=strict)
    assert found.selectors["hyperv.node.kubevirt.io/synic"].code == "hyperv"
    assert found.selectors[VENDOR].origin == "vm"


def test_host_model_must_not_be_obsolete_where_it_goes() -> None:
    (absent,) = demanded().absent
    assert absent.key == "node-labeller.kubevirt.io/obsolete-host-model"


@pytest.mark.parametrize("policy", ["disable", "forbid", "force"])
def test_a_feature_that_the_vm_takes_in_hand_is_not_added_by_the_guard(policy: str) -> None:
    features = [{"name": "mine", "policy": "require"}, {"name": "f", "policy": policy}]
    source = node(
        "a",
        **{
            "host-model-required-features.node.kubevirt.io/f": "true",
            "host-model-required-features.node.kubevirt.io/g": "true",
        },
    )
    guest = vmi(domain={"cpu": {"model": "host-model", "features": features}})
    pod = launcher(selector={"cpu-feature.node.kubevirt.io/mine": "true"})
    added = demanded(guest, source=source, pod=pod).additions
    assert set(added) == {MODEL, "cpu-feature.node.kubevirt.io/g"}


def test_without_the_source_node_nothing_is_derived_and_a_note_says_so() -> None:
    found = demanded(vmi(at="gone"), pod=launcher(at="gone"))
    assert MODEL not in found.selectors
    assert any('"gone" is not among the facts' in note for note in found.notes)


def test_without_a_pod_the_vm_counts_as_never_migrated_and_a_note_says_so() -> None:
    found = demanded(pod=launcher("other"))
    assert MODEL in found.selectors
    assert any("never migrated" in note for note in found.notes)


def test_the_newest_pod_on_the_source_node_is_the_source() -> None:
    old = launcher(selector={"cpu-feature.node.kubevirt.io/old": "true"}, migrated=True)
    old["metadata"] |= {"name": "old", "creationTimestamp": "2026-01-01T00:00:00Z"}
    new = launcher()
    new["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    known = facts(node("a"), vmi(), old, new)
    pod = known.source_of(known.vmis["prod/web"]).pod
    assert pod is not None
    assert pod.name == "virt-launcher-web"


def test_a_demand_of_one_version_only_is_not_certain_during_a_rollout() -> None:
    guest = vmi(domain={"machine": {"type": "q35"}})
    found = demanded(guest, version="v1.5.0", targetKubeVirtVersion="v1.6.4")
    assert not found.selectors[MACHINE].certain
    assert found.selectors["kubevirt.io/schedulable"].certain


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v1.8.4", Version(1, 8, 4)),
        ("1.7.0-150700.3.21.1", Version(1, 7, 0)),
        ("sha256:abc", None),
        ("", None),
    ],
)
def test_a_version_is_read_off_an_image_tag(tag: str, version: Version | None) -> None:
    assert parse_version(tag) == version


def test_an_unknown_version_counts_as_the_newest() -> None:
    read = KubeVirt.from_object(kubevirt(version="devel"))
    assert (read.version, read.version_known) == (NEWEST, False)


def test_a_runtime_class_adds_its_selector_and_tolerations() -> None:
    runtime = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "kata"},
        "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"operator": "Exists"}]},
    }
    cr = kubevirt()
    cr["spec"]["configuration"] = {"defaultRuntimeClass": "kata"}
    known = facts(node("a"), cr, vmi(), launcher(), runtime)
    found = known.requirements(known.vmis["prod/web"])
    assert found.selectors["kata"].value == "yes"
    assert len(found.tolerations) == 1
