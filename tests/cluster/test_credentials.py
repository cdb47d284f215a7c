"""Which cluster is meant, and what is said of settings that are broken."""

from __future__ import annotations

import base64
import ssl
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.server.certificates import client
from webhook.cluster.connection import connect
from webhook.cluster.credentials import find
from webhook.cluster.errors import ClusterError

SECRET = "secret-of-this-test"


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def config(server="http://127.0.0.1:1", context="here", user=None, **cluster):
    return {
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"token": SECRET} if user is None else user}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "current-context": context,
    }


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="kubeconfig"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return to_file


def test_a_file_that_is_named_comes_first_then_the_environment_then_the_usual_place(
    write, monkeypatch
):
    named = write(config("http://named:1"), "named")
    other = write(config("http://environment:1"), "environment")
    write(config("http://usual:1"), ".kube/config")
    assert connect().host == "http://usual:1"
    monkeypatch.setenv("KUBECONFIG", f"/nonexistent:{other}")
    assert connect().host == "http://environment:1"
    assert connect(named).host == "http://named:1"
    assert connect(named).source == str(named)


def test_several_files_are_read_as_one(write, monkeypatch):
    first = write(config("http://first:1", "first"), "first")
    second = write(
        {
            "clusters": [{"name": "d", "cluster": {"server": "http://second:1"}}],
            "contexts": [{"name": "second", "context": {"cluster": "d", "user": "u"}}],
        },
        "second",
    )
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    assert connect().host == "http://first:1"
    assert connect(None, "second").host == "http://second:1"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda c: c.pop("current-context"), "current-context"),
        (lambda c: c.update({"current-context": "elsewhere"}), "elsewhere"),
        (lambda c: c["clusters"].clear(), "name c"),
        (lambda c: c["clusters"][0].pop("cluster"), "cluster"),
        (lambda c: c["contexts"][0].pop("context"), "context"),
        (lambda c: c["users"][0].update({"user": {"tokenFile": "/nonexistent"}}), "/nonexistent"),
        (lambda c: c["users"][0].pop("name"), "name"),
        (lambda c: c.update(clusters="none"), ""),
        (lambda c: c.update(users=[3]), ""),
    ],
)
def test_broken_settings_name_the_place_and_no_secret(write, make, named):
    broken = config()
    make(broken)
    path = write(broken)
    with pytest.raises(ClusterError) as caught:
        connect(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert named in message
    assert SECRET not in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n", "\x00", "just text", "a: b"])
def test_what_is_no_kubeconfig_is_told(write, text):
    path = write(text)
    with pytest.raises(ClusterError, match=str(path)):
        connect(path)


def test_a_context_that_is_not_there_is_named(write):
    path = write(config())
    with pytest.raises(ClusterError, match="production"):
        connect(path, "production")


def test_places_that_are_not_there(monkeypatch):
    with pytest.raises(ClusterError, match="--kubeconfig /nonexistent: no such file"):
        find(Path("/nonexistent"))
    with pytest.raises(ClusterError, match=r"--kubeconfig .*: no such file"):
        find(Path("a\0b"))
    with pytest.raises(ClusterError, match="--context x: there is no kubeconfig"):
        find(None, "x")
    with pytest.raises(ClusterError, match="--inventory PATH"):
        find()
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    with pytest.raises(ClusterError, match="KUBECONFIG=/nonexistent"):
        find()


def test_in_a_pod_the_service_account_is_taken_and_what_is_missing_is_told(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert find().source == "the pod's service account"
    with pytest.raises(ClusterError, match=r"the pod's service account: .*token"):
        connect()


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_keys_inside_a_kubeconfig_leave_no_file_behind(write, tmp_path, monkeypatch):
    pair = client(tmp_path / "pair", "me")
    user = {
        "client-certificate-data": encoded(pair.certificate),
        "client-key-data": encoded(pair.key),
    }
    authority = {"certificate-authority-data": encoded(pair.authority)}
    path = write(config("https://127.0.0.1:1", user=user, **authority))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for _ in range(2):
        connection = connect(path)
        assert list(scratch.iterdir()) == []
        context = connection._session.pool.connection_pool_kw["ssl_context"]
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname


def test_a_server_need_not_be_verified_where_the_kubeconfig_says_so(write):
    path = write(config("https://127.0.0.1:1", **{"insecure-skip-tls-verify": True}))
    context = connect(path)._session.pool.connection_pool_kw["ssl_context"]
    assert context.verify_mode is ssl.CERT_NONE
