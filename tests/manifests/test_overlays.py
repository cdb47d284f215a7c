"""What every overlay has in common, and what each of them changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manifests.rendering import (
    MANIFESTS,
    OVERLAYS,
    combined,
    container,
    objects_of,
    of_kind,
    overlay,
    the,
    webhooks,
    workload,
)
from webhook.policy.checking import check
from webhook.policy.findings import Level
from webhook.policy.loading import load
from webhook.policy.rules import Mode


def test_the_overlays_are_those_that_are_documented() -> None:
    assert OVERLAYS == [
        "cert-manager",
        "drain",
        "harvester",
        "high-availability",
        "kubevirt",
        "observe",
        "strict",
    ]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_says_whose_it_is_and_lies_in_the_guards_namespace(name: str) -> None:
    for obj in overlay(name):
        where = f"{obj['kind']} {obj['metadata']['name']}"
        assert obj["metadata"]["labels"]["app.kubernetes.io/name"] == "migration-guard", where
        assert obj["metadata"].get("namespace") in (None, "migration-guard")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_comes_first_and_the_webhooks_last(name: str) -> None:
    kinds = [obj["kind"] for obj in overlay(name)]
    assert kinds[0] == "Namespace"
    assert set(kinds[-2:]) == {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_configuration_passes_the_guards_own_check(name: str) -> None:
    ((file, text),) = the(overlay(name), "ConfigMap")["data"].items()
    configuration = load(text, file)
    assert not [finding for finding in check(configuration) if finding.level is not Level.INFO]
    assert configuration.max_mode is (Mode.AUDIT if name == "observe" else Mode.ENFORCE)


def test_observe_changes_the_configuration_and_the_right_to_end_migrations_alone() -> None:
    changed = [
        (before["kind"], before["metadata"]["name"])
        for before, after in zip(objects_of(MANIFESTS / "base"), overlay("observe"), strict=True)
        if before != after
    ]
    assert changed == [
        ("ClusterRole", "migration-guard-deadlines"),
        ("ConfigMap", "migration-guard"),
    ]


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "strict"])
def test_nothing_fails_while_the_guard_is_down(name: str) -> None:
    assert {entry["failurePolicy"] for entry in webhooks(overlay(name))} == {"Ignore"}


def test_strict_fails_for_new_migrations_alone_and_never_for_workload_updates() -> None:
    entries = {entry["name"]: entry for entry in webhooks(overlay("strict"))}
    failing = [name for name, entry in entries.items() if entry["failurePolicy"] == "Fail"]
    assert failing == ["migration-create.validate.migration-guard.io"]
    judged, updates = (
        entries[failing[0]],
        entries["workload-update-create.validate.migration-guard.io"],
    )
    (not_updates,), (are_updates,) = judged["matchConditions"], updates["matchConditions"]
    assert not_updates["expression"] == f"!({are_updates['expression']})"
    differ = ("name", "failurePolicy", "matchConditions")
    assert {k: v for k, v in judged.items() if k not in differ} == {
        k: v for k, v in updates.items() if k not in differ
    }


def test_two_replicas_stand_on_two_nodes_and_one_stays_during_a_drain() -> None:
    for name in ("high-availability", "strict"):
        objects = overlay(name)
        spec = the(objects, "StatefulSet")["spec"]
        assert spec["replicas"] == 2
        labels = spec["template"]["metadata"]["labels"]
        by_host, by_zone = spec["template"]["spec"]["topologySpreadConstraints"]
        assert by_host["topologyKey"] == "kubernetes.io/hostname"
        assert by_host["whenUnsatisfiable"] == "DoNotSchedule"
        assert by_zone["whenUnsatisfiable"] == "ScheduleAnyway"
        budget = the(objects, "PodDisruptionBudget")["spec"]
        assert budget["minAvailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        for selector in (by_host["labelSelector"], by_zone["labelSelector"], budget["selector"]):
            assert selector["matchLabels"].items() <= labels.items()


def test_one_replica_does_not_hold_a_drain_up() -> None:
    objects = objects_of(MANIFESTS / "base")
    assert the(objects, "Deployment")["spec"]["replicas"] == 1
    assert not of_kind(objects, "PodDisruptionBudget")


def test_cert_manager_makes_the_secret_that_is_mounted_and_the_ca_that_is_trusted() -> None:
    objects = overlay("cert-manager")
    (leaf,) = (o for o in of_kind(objects, "Certificate") if not o["spec"].get("isCA"))
    volumes = workload(objects)["spec"]["template"]["spec"]["volumes"]
    (mounted,) = (volume["secret"]["secretName"] for volume in volumes if "secret" in volume)
    assert leaf["spec"]["secretName"] == mounted
    named = f"{leaf['metadata']['namespace']}/{leaf['metadata']['name']}"
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        configuration = the(objects, kind)
        assert configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == named
    service = the(objects, "Service")["metadata"]
    assert leaf["spec"]["dnsNames"] == [f"{service['name']}.{service['namespace']}.svc"]


def test_one_replica_keeps_its_audit_on_a_claim_that_no_update_waits_for() -> None:
    objects = objects_of(MANIFESTS / "base")
    deployment = the(objects, "Deployment")["spec"]
    # A new pod beside the old one, on another node, would wait for the volume for ever.
    assert deployment["strategy"] == {"type": "Recreate"}
    assert deployment["replicas"] == 1
    claim = the(objects, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    (volume,) = (v for v in deployment["template"]["spec"]["volumes"] if v["name"] == "audit")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_two_replicas_keep_a_spool_each_and_share_a_database() -> None:
    objects = overlay("high-availability")
    spec = the(objects, "StatefulSet")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    (mount,) = (m for m in container(objects)["volumeMounts"] if m["name"] == "audit")
    assert claim["metadata"]["name"] == mount["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    # One that does not come up must keep the other from nothing.
    assert spec["podManagementPolicy"] == "Parallel"
    assert not of_kind(objects, "PersistentVolumeClaim")
    (secret,) = (
        v["secret"] for v in spec["template"]["spec"]["volumes"] if v["name"] == "audit-database"
    )
    assert [item["key"] for item in secret["items"]] == ["url"]
    # The URL has a password in it, and everybody sees a command line.
    assert not any("postgresql:" in word for word in container(objects)["args"])
    assert "env" not in container(objects)


def test_a_cluster_without_volumes_keeps_decisions_in_the_pod(tmp_path: Path) -> None:
    objects = objects_of(combined(tmp_path, "ephemeral-audit"))
    deployment = the(objects, "Deployment")["spec"]
    assert not of_kind(objects, "PersistentVolumeClaim")
    (volume,) = (v for v in deployment["template"]["spec"]["volumes"] if v["name"] == "audit")
    assert volume == {"name": "audit", "emptyDir": {"sizeLimit": "1Gi"}}
    # Whoever outgrows the volume is evicted.
    assert "--audit-rows=200000" in container(objects)["args"]
    # Nothing keeps the new pod from standing beside the old one.
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}


@pytest.mark.parametrize(
    "parts",
    [
        ("harvester", "cert-manager", "high-availability", "strict", "first-boot", "drain"),
        ("high-availability", "drain", "first-boot", "strict", "cert-manager", "kubevirt"),
    ],
    ids=lambda parts: parts[0],
)
def test_the_parts_can_be_combined_in_any_order(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """As docs/installation.md shows it, and every part that does not exclude another."""
    (tmp_path / "guard.yaml").write_text("rules:\n  no-room-now: {mode: audit}\n", encoding="utf-8")
    images = [{"name": "migration-guard", "newName": "registry.test/guard", "newTag": "0.2.0"}]
    generated = {
        "name": "migration-guard",
        "namespace": "migration-guard",
        "behavior": "merge",
        "files": ["guard.yaml"],
    }
    folder = combined(tmp_path, *parts, images=images, configMapGenerator=[generated])
    objects = objects_of(folder)
    assert container(objects)["image"] == "registry.test/guard:0.2.0"
    assert workload(objects)["spec"]["replicas"] == 2
    assert of_kind(objects, "Certificate")
    policies = {policy["metadata"]["name"] for policy in of_kind(objects, "NetworkPolicy")}
    assert "migration-guard-metrics" in policies
    affinity = workload(objects)["spec"]["template"]["spec"].get("affinity")
    assert (affinity is not None) == ("kubevirt" in parts)
    names = {entry["name"] for entry in webhooks(objects)}
    assert "first-pod-create.mutate.migration-guard.io" in names
    assert "eviction.mutate.migration-guard.io" in names
    assert "Fail" in {entry["failurePolicy"] for entry in webhooks(objects)}
    configuration = the(objects, "ConfigMap")
    assert configuration["metadata"]["name"] == "migration-guard"
    assert "no-room-now" in configuration["data"]["guard.yaml"]
