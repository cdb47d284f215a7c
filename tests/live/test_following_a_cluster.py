"""Facts of a live cluster are those of a list made anew, whatever happens in between."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from tests.cluster.objects import launcher, migration, node, other, vmi
from tests.live.following import SETTLE_AFTER, Followed, listed, told
from tests.server.certificates import issued
from webhook.cluster import reflector
from webhook.cluster.connection import connect
from webhook.cluster.errors import RequestFailed
from webhook.cluster.listing import pages
from webhook.cluster.resources import RESOURCES


def some_objects(server):
    """Create some of everything that a VM rests on."""
    for name in ("a", "b"):
        size = {"cpu": "8", "memory": "16Gi", "pods": "110"}
        server.add(node(name, {"zone": name}, capacity=size, allocatable=size))
    made = server.add(vmi("vm", node_name="a", cpu={"model": "host-model"}))
    pod = launcher("virt-launcher-vm", made["metadata"]["uid"], node_name="a")
    server.add(runnable(pod))
    server.add(other("kubevirt.io/v1", "VirtualMachine", "vm", "default", spec={"template": {}}))
    server.add(migration("m", phase="Running"))
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    if server.api.find("/api/v1/namespaces/default/persistentvolumeclaims/data") is None:
        server.add(other("v1", "PersistentVolumeClaim", "data", "default", spec=claim))


def runnable(pod):
    """Return a pod that the API server takes without a controller for service accounts."""
    pod["spec"]["automountServiceAccountToken"] = False
    pod["spec"]["tolerations"] = [{"operator": "Exists"}]
    for container in pod["spec"]["containers"]:
        container["image"] = "registry.test/virt-launcher:1"
    return pod


def test_what_was_read_is_what_a_list_gives(server, follow):
    some_objects(server)
    followed = follow(server.kubeconfig)
    found = followed.synced()
    assert found.stale == ()
    assert set(found.nodes.by_name) == {"a", "b"}
    assert found.source_of(found.vmis["default/vm"]).pod is not None
    assert len(found.migrations) == 2
    assert "data" in {key.rpartition("/")[2] for key in found.claims}
    assert told(found) == told(listed(server.kubeconfig))


def test_changes_are_followed(server, follow):
    some_objects(server)
    followed = follow(server.kubeconfig)
    followed.synced()
    server.change(node("b"), {"spec": {"unschedulable": True}})
    followed.wait(lambda facts: facts.nodes.by_name["b"].cordoned)
    server.change(node("b"), {"metadata": {"labels": {"zone": None}}})
    followed.wait(lambda facts: "zone" not in facts.nodes.by_name["b"].labels)
    server.add(vmi("later", node_name="b"))
    followed.wait(lambda facts: "default/later" in facts.vmis)
    server.change(vmi("later"), {"status": {"nodeName": "a"}})
    followed.wait(lambda facts: facts.vmis["default/later"].node_name == "a")
    server.remove(vmi("vm"))
    followed.wait(lambda facts: "default/vm" not in facts.vmis)
    server.change(migration("m"), {"status": {"phase": "Succeeded"}})
    followed.wait(lambda facts: not facts.migrations)
    server.remove(node("a"))
    found = followed.wait(lambda facts: "a" not in facts.nodes.by_name)
    assert told(found) == told(listed(server.kubeconfig))


def test_only_pods_of_virtual_machines_are_kept_unless_all_are_wanted(server, follow):
    server.add(runnable(launcher("virt-launcher-vm", "u", node_name="a")))
    db = runnable(launcher("db", "", node_name="a"))
    db["metadata"]["labels"] = {"app": "db"}
    server.add(db)
    followed = follow(server.kubeconfig)
    assert set(followed.synced().pods) == {"u"}
    every = follow(server.kubeconfig, all_pods=True).synced()
    assert len(every.pods) == 2
    assert every.all_pods


def test_a_kind_that_is_installed_later_is_followed_from_then_on(server, follow, monkeypatch):
    monkeypatch.setattr(reflector, "LOOK_AGAIN", 0.2)
    followed = follow(server.kubeconfig)
    found = followed.synced()
    assert followed.state("upgrades") == "not installed"
    assert not found.upgrading
    server.api.create("/api/v1/namespaces", {"metadata": {"name": "harvester-system"}})
    server.define("upgrades", "Upgrade", group="harvesterhci.io", version="v1beta1")
    upgrade = other(
        "harvesterhci.io/v1beta1",
        "Upgrade",
        "u",
        "harvester-system",
        metadata={"labels": {"harvesterhci.io/latestUpgrade": "true"}},
        status={"conditions": [{"type": "Completed", "status": "Unknown"}]},
    )
    server.add(upgrade)
    followed.wait(lambda facts: facts.upgrading)
    server.api.delete(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/upgrades.harvesterhci.io"
    )
    followed.wait(lambda facts: not facts.upgrading)
    followed.wait_for(lambda: followed.state("upgrades") == "not installed")


def test_an_object_that_cannot_be_read_is_left_out_and_told(server, follow):
    server.add(vmi("sound", node_name="a"))
    server.add(vmi("broken", node_name="a", cpu="two"))
    server.add(vmi("sparse") | {"spec": {}, "status": {}, "unknown": {"field": [1, None]}})
    followed = follow(server.kubeconfig)
    found = followed.synced()
    assert set(found.vmis) == {"default/sound", "default/sparse"}
    assert "1 left out; the first: default/broken: spec.domain.cpu" in followed.state(
        "virtualmachineinstances"
    )
    server.change(vmi("broken"), {"spec": {"domain": {"cpu": {"cores": 2}}}})
    followed.wait(lambda facts: "default/broken" in facts.vmis)
    followed.wait_for(lambda: "left out" not in followed.state("virtualmachineinstances"))
    server.change(vmi("sound"), {"spec": {"domain": {"cpu": "two"}}})
    followed.wait(lambda facts: "default/sound" not in facts.vmis)


def test_whoever_may_not_read_a_kind_is_told_which_and_stays_blind(server, follow):
    nobody = server.plane.credentials("nobody")
    followed = follow(nobody)
    followed.wait_for(lambda: "forbidden" in followed.state("nodes"))
    assert 'cannot list resource "nodes"' in followed.state("nodes") or (
        'cannot watch resource "nodes"' in followed.state("nodes")
    )
    assert not followed.live.synced
    assert "nodes" in followed.live.snapshot().stale
    assert followed.live.snapshot().blind().startswith("facts are missing or too old: ")
    assert followed.live.age == math.inf
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    roles = "/apis/rbac.authorization.k8s.io/v1"
    server.api.create(f"{roles}/clusterroles", {"metadata": {"name": "reader"}, "rules": rules})
    server.api.create(
        f"{roles}/clusterrolebindings",
        {
            "metadata": {"name": "reader"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "reader",
            },
            "subjects": [
                {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "nobody"}
            ],
        },
    )
    followed.synced()


def test_an_api_server_without_streaming_lists_is_read_page_by_page(server, follow, monkeypatch):
    monkeypatch.setattr(reflector, "FIRST_PAGE", 2)
    for number in range(7):
        server.add(node(f"n-{number}"))
    plain = list(server.plane.apiserver.command)
    server.plane.apiserver.command.append("--feature-gates=WatchList=false")
    try:
        server.plane.restart_apiserver()
        followed = follow(server.kubeconfig)
        assert len(followed.synced().nodes) == 7
        server.add(node("later"))
        found = followed.wait(lambda facts: "later" in facts.nodes.by_name)
        assert told(found) == told(listed(server.kubeconfig))
    finally:
        server.plane.apiserver.command[:] = plain
        server.plane.restart_apiserver()


def test_a_list_of_several_pages_is_whole(server):
    for number in range(7):
        server.add(node(f"n-{number}"))
    connection = connect(server.kubeconfig)
    resource = next(r for r in RESOURCES if r.name == "nodes")
    found = list(pages(connection, resource, "v1", {}, limit=3))
    assert [len(page.objects) for page in found] == [3, 3, 1]
    assert {obj["kind"] for page in found for obj in page.objects} == {"Node"}
    assert len({page.revision for page in found}) == 1


def service_account_token(server, name):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    where = "/api/v1/namespaces/default/serviceaccounts"
    server.api.create(where, account)
    asked = {"spec": {"expirationSeconds": 3600}}
    return server.api.create(f"{where}/{name}/token", asked)["status"]["token"]


def ask_until_refused(connection):
    # The API server remembers for some seconds that a token is good.
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        connection.get("/api")
        time.sleep(0.05)


def test_a_token_that_was_replaced_is_taken_up_when_the_old_one_is_refused(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr("webhook.cluster.connection._RENEW_SECONDS", 0.0)
    file = tmp_path / "token"
    file.write_text(service_account_token(server, "first"))
    config = json.loads(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"tokenFile": str(file)}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    connection = connect(kubeconfig)
    assert connection.get("/version")["major"] == "1"
    assert connection.get("/api")
    server.api.delete("/api/v1/namespaces/default/serviceaccounts/first")
    with pytest.raises(RequestFailed, match="does not accept the credentials of"):
        ask_until_refused(connection)
    file.write_text(service_account_token(server, "second") + "\n")
    assert connection.get("/api")
    server.api.delete("/api/v1/namespaces/default/serviceaccounts/second")


def test_an_authority_that_was_replaced_is_taken_up_when_the_server_is_refused(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr("webhook.cluster.connection._RENEW_SECONDS", 0.0)
    config = json.loads(server.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    trusted = Path(cluster["certificate-authority"]).read_bytes()
    file = tmp_path / "ca.crt"
    cluster["certificate-authority"] = str(file)
    file.write_bytes(issued(tmp_path / "former", "former").authority.read_bytes())
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    connection = connect(kubeconfig)
    with pytest.raises(RequestFailed, match="TLS failed"):
        connection.get("/version")
    file.write_bytes(trusted)
    assert connection.get("/version")["major"] == "1"


def test_a_setting_changed_while_running_asks_for_other_pods(server, follow):
    db = runnable(launcher("db", "", node_name="a"))
    db["metadata"]["labels"] = {"app": "db"}
    server.add(db)
    followed: Followed = follow(server.kubeconfig, stale_after=6.0)
    assert not followed.synced().pods
    followed.settings = reflector.Following(6.0, all_pods=True, settle_after=SETTLE_AFTER)
    followed.wait(lambda facts: facts.pods)
