"""The audit over HTTP: the command's own answers, read only, and for this host alone."""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote

import jsonschema
import pytest

from tests.audit.conftest import eventually
from tests.audit.recorded import an_id
from tests.cli.guard import SECONDS, Guard
from tests.server.running import outward_address
from webhook.cli.commands.schema import output_schema

TURNED = "=1+1\u202e\x9b\x7f"


class Told(Guard):
    """A guard that has refused three users, and the decision ids that it gave them."""

    told: dict[str, str]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """One guard for all tests."""
    folder = tmp_path_factory.mktemp("guard")
    running = Told(folder, "--audit-dir", folder / "audit")
    try:
        running.told = {user: running.refused(user) for user in ("anna", "bert", TURNED)}
        eventually(lambda: _listed(running) == 3)
        yield running
    finally:
        running.stop()


def _listed(guard: Guard) -> int:
    status, body = ask(guard, "/audit/records")
    # Until the server has made its tables, there is no audit yet.
    return len(json.loads(body)["items"]) if status == 200 else 0


def ask(guard: Guard, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", guard.ops_port, timeout=SECONDS)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_list_is_the_one_that_the_command_prints(guard) -> None:
    status, body = ask(guard, "/audit/records?outcome=refused&limit=2")
    page = json.loads(body)
    assert status == 200
    jsonschema.validate(page, output_schema("audit-list"))
    assert [item["user"] for item in page["items"]] == [TURNED, "bert"]
    rest = json.loads(ask(guard, f"/audit/records?limit=2&after={page['next']}")[1])
    assert [item["user"] for item in rest["items"]] == ["anna"]
    assert rest["next"] is None


def test_json_is_harmless_on_a_terminal(guard) -> None:
    for path in ("/audit/records", "/audit/stats", f"/audit/decisions/{guard.told[TURNED]}"):
        status, body = ask(guard, path)
        assert status == 200
        assert body.isascii()
        assert body.isprintable()


def test_filters_are_those_of_the_command(guard) -> None:
    def users(query: str) -> list[str]:
        items = json.loads(ask(guard, f"/audit/records?{query}")[1])["items"]
        return [item["user"] for item in items]

    assert users("user=" + quote(TURNED)) == [TURNED]
    assert users("vm=plant/historian&text=ANNA") == ["anna"]
    assert users("since=2000-01-01T00:00:00Z&until=2000-01-02T00:00:00Z") == []
    assert users("rule=chosen-node") == []


def test_a_decision_and_the_sums_are_those_that_the_command_prints(guard) -> None:
    shown = json.loads(ask(guard, f"/audit/decisions/{guard.told['anna']}")[1])
    jsonschema.validate(shown, output_schema("audit-show"))
    assert [item["user"] for item in shown["items"]] == ["anna"]
    assert json.loads(ask(guard, f"/audit/decisions/{an_id()}")[1])["items"] == []
    sums = json.loads(ask(guard, "/audit/stats?top=5")[1])
    jsonschema.validate(sums, output_schema("audit-stats"))
    assert sums["vms"][0] == {
        "vm": "plant/historian",
        "decisions": 3,
        "records": 3,
        "outcomes": {"refused": 3},
    }


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("records?limit=0", "limit: a number from 1 to 1000"),
        ("records?limit=x", "limit: a number"),
        ("records?after=x", "after: this is no place"),
        ("records?since=today", "since: a time in RFC 3339"),
        (f"records?text={'x' * 1001}", "text: at most 1000 characters"),
        ("stats?since=0001-01-01T00:00:00%2B14:00", "since: a time in RFC 3339"),
        ("records?outcome=gone", "outcome: there is none of that name"),
        ("records?rule=gone", "rule: there is none of that name"),
        ("records?vn=a%0d%0ab", "unknown parameter 'vn'; known: after, limit"),
        ("stats?top=100000", "top: a number"),
        ("decisions/x?y=1", "unknown parameter 'y'; known: none"),
    ],
)
def test_what_cannot_be_asked_is_told(guard, query, says) -> None:
    status, body = ask(guard, f"/audit/{query}")
    assert status == 400
    assert says in body


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "guard.example.com:8080"},
        {"Host": "127.0.0.1.example.com"},
        {"X-Forwarded-For": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1"},
    ],
)
def test_a_proxy_and_a_browser_led_astray_get_nothing(guard, headers) -> None:
    status, body = ask(guard, "/audit/records", **headers)
    assert status == 403
    assert "on this host only" in body


def test_a_client_of_another_host_gets_nothing(guard, tmp_path) -> None:
    address = outward_address()
    abroad = Guard(tmp_path, "--audit-dir", tmp_path / "audit", "--bind", address)
    try:
        connection = http.client.HTTPConnection(address, abroad.ops_port, timeout=SECONDS)
        connection.request("GET", "/audit/records", headers={"Host": "localhost"})
        assert connection.getresponse().status == 403
        connection.close()
    finally:
        abroad.stop()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(guard, method) -> None:
    assert ask(guard, "/audit/records", method)[0] == 405


def test_a_database_that_is_away_is_told_and_probes_are_answered(tmp_path) -> None:
    nowhere = f"postgresql://guard@/audit?host={tmp_path}"
    guard = Guard(tmp_path, "--audit-dir", tmp_path / "audit", "--audit-database", nowhere)
    try:
        status, body = ask(guard, "/audit/records")
        assert (status, "cannot be read" in body) == (503, True)
        shown = json.loads(ask(guard, f"/audit/decisions/{guard.refused('anna')}")[1])
        assert (shown["waiting"], shown["items"][0]["user"]) == (True, "anna")
        assert ask(guard, f"/audit/decisions/{an_id()}")[0] == 503
        assert ask(guard, "/livez") == (200, "ok\n")
    finally:
        guard.stop()


def test_without_an_audit_there_are_no_pages(tmp_path) -> None:
    guard = Guard(tmp_path)
    try:
        assert ask(guard, "/audit/records")[0] == 404
    finally:
        guard.stop()
