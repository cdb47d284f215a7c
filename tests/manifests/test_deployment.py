"""The Deployment, and what must fit it: program, image, Service, network policy, Secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.manifests.rendering import (
    MANIFESTS,
    OVERLAYS,
    container,
    of_kind,
    overlay,
    the,
    webhooks,
    workload,
)
from webhook.cli.main import build_parser
from webhook.review.requester import GUARD
from webhook.serving.certificates import AUTHORITY_NAME, CERTIFICATE_NAME, KEY_NAME
from webhook.serving.server import LOG_SECONDS, PARTS_SECONDS
from webhook.serving.worker import ANSWER_SECONDS, LINGER_SECONDS, NEWCOMER_SECONDS

DOCKERFILE = (MANIFESTS.parent / "Dockerfile").read_text(encoding="utf-8")

pytestmark = pytest.mark.parametrize("name", OVERLAYS)


def pod(name: str):
    return workload(overlay(name))["spec"]["template"]["spec"]


def arguments(name: str):
    return build_parser().parse_args(["serve", *container(overlay(name))["args"]])


def test_the_program_knows_every_option(name: str) -> None:
    assert 'ENTRYPOINT ["migration-guard", "serve"]' in DOCKERFILE
    assert "command" not in container(overlay(name))
    assert arguments(name).command == "serve"


def test_the_files_that_are_named_are_mounted(name: str) -> None:
    named = arguments(name)
    claimed = workload(overlay(name))["spec"].get("volumeClaimTemplates", ())
    volumes = {claim["metadata"]["name"]: claim for claim in claimed}
    volumes |= {volume["name"]: volume for volume in pod(name)["volumes"]}
    mounts = {
        Path(mount["mountPath"]): volumes[mount["name"]]
        for mount in container(overlay(name))["volumeMounts"]
    }
    config = the(overlay(name), "ConfigMap")
    assert mounts[named.config.parent]["configMap"]["name"] == config["metadata"]["name"]
    assert named.config.name in config["data"]
    assert "secret" in mounts[named.tls_cert.parent]
    assert (named.tls_cert.name, named.tls_key.name) == (CERTIFICATE_NAME, KEY_NAME)
    assert named.tls_ca.name == AUTHORITY_NAME
    assert named.tls_key.parent == named.tls_cert.parent == named.tls_ca.parent
    assert mounts[named.audit_dir].keys() & {"persistentVolumeClaim", "spec"}
    if (database := named.audit_database_file) is not None:
        (item,) = mounts[database.parent]["secret"]["items"]
        assert item["path"] == database.name


def test_one_port_leads_from_the_webhook_to_the_program(name: str) -> None:
    objects = overlay(name)
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    assert ports == {"https": arguments(name).port, "ops": arguments(name).ops_port}
    service = the(objects, "Service")
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == "https"
    assert port["port"] == ports["https"] == 8443
    for entry in webhooks(objects):
        where = entry["clientConfig"]["service"]
        assert where["port"] == port["port"]
        assert where["name"] == service["metadata"]["name"]
        assert where["namespace"] == service["metadata"]["namespace"]
    exposed = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert [int(port) for port in exposed[0].split()] == list(ports.values())


def test_the_network_policy_opens_these_ports_and_no_others(name: str) -> None:
    policies = {o["metadata"]["name"]: o["spec"] for o in of_kind(overlay(name), "NetworkPolicy")}
    policy = policies.pop("migration-guard")
    assert policy["podSelector"] == {}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": 8443, "protocol": "TCP"}]}]
    (out,) = policy["egress"]
    assert [port["port"] for port in out["ports"]] == [443, 6443]
    if (database := policies.pop("migration-guard-database", None)) is not None:
        assert database["policyTypes"] == ["Egress"]
        (out,) = database["egress"]
        assert [port["port"] for port in out["ports"]] == [5432, 53, 53]
        assert arguments(name).audit_database_file is not None
    for metrics in policies.values():
        (rule,) = metrics["ingress"]
        assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
        assert rule["from"]


def test_the_service_and_every_selector_find_the_pods(name: str) -> None:
    objects = overlay(name)
    spec = workload(objects)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert the(objects, "Service")["spec"]["selector"].items() <= labels.items()


def test_the_pod_is_restricted(name: str) -> None:
    inside = container(overlay(name))["securityContext"]
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    around = pod(name)["securityContext"]
    assert around["runAsNonRoot"] is True
    assert around["seccompProfile"] == {"type": "RuntimeDefault"}
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, flags=re.MULTILINE)
    assert user == [(str(around["runAsUser"]), str(around["runAsGroup"]))]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(name).keys()
    assert not any("hostPath" in volume for volume in pod(name)["volumes"])
    labels = the(overlay(name), "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_secrets_are_readable_by_the_pods_group_alone(name: str) -> None:
    secrets = [volume["secret"] for volume in pod(name)["volumes"] if "secret" in volume]
    assert {secret["defaultMode"] for secret in secrets} == {0o440}
    assert pod(name)["securityContext"]["fsGroup"] == pod(name)["securityContext"]["runAsGroup"]


def test_probes_ask_for_paths_that_are_served(name: str) -> None:
    probes = {
        kind: container(overlay(name))[kind]["httpGet"]
        for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"ops"}


def test_a_pod_that_goes_has_time_to_be_forgotten_and_to_answer(name: str) -> None:
    before = container(overlay(name))["lifecycle"]["preStop"]["sleep"]["seconds"]
    graceful = NEWCOMER_SECONDS + LINGER_SECONDS + ANSWER_SECONDS + LOG_SECONDS + PARTS_SECONDS
    assert before >= 2
    assert pod(name)["terminationGracePeriodSeconds"] > before + graceful


def test_the_service_account_is_the_one_the_guard_knows_itself_by(name: str) -> None:
    account = the(overlay(name), "ServiceAccount")["metadata"]
    assert f"system:serviceaccount:{account['namespace']}:{account['name']}" == GUARD
    assert pod(name)["serviceAccountName"] == account["name"]


def test_the_priority_lies_below_that_of_the_systems_own_and_ends_no_virtual_machine(
    name: str,
) -> None:
    priority = the(overlay(name), "PriorityClass")
    assert priority["preemptionPolicy"] == "Never"
    assert pod(name)["priorityClassName"] == priority["metadata"]["name"]
    kubevirt_cluster_critical = 1_000_000_000
    assert 0 < priority["value"] < kubevirt_cluster_critical
    assert "globalDefault" not in priority


def test_memory_is_bounded_and_processor_time_is_not(name: str) -> None:
    resources = container(overlay(name))["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}
