"""Whatever a review looks like, it gets an AdmissionReview or a 400: fuzzed.

``make fuzz`` tries 100,000 reviews on both paths, new ones every time; the tests try a few, always
the same.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
from contextlib import redirect_stderr
from typing import Any

import jsonpatch
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests import captured_cluster
from tests.server.mutations import CAPTURED, at, bodies, grown
from webhook.cli.commands.serve import build
from webhook.cli.loading import FactsPlace
from webhook.review.answer import MUTATE, VALIDATE
from webhook.serving.key_pair import KeyPair
from webhook.serving.reviewing import Reviews

INPUTS = int(os.environ.get("FUZZ_INPUTS", "0"))
"""How many reviews ``make fuzz`` tries; 0 in the tests."""
API_SERVER_WAITS = 2.0
"""Seconds: ``timeoutSeconds`` of the manifests."""
LONGEST_LINE = 16_384
KEYS = {"uid", "allowed", "status", "patchType", "patch", "warnings", "auditAnnotations"}

fuzzed = settings(
    max_examples=INPUTS or 400,
    derandomize=not INPUTS,
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=True,
)


def no_certificate() -> KeyPair:
    raise AssertionError("facts from files need none")


class Guard:
    """The whole guard but for HTTP: decision, metrics and log."""

    def __init__(self, folder: Any) -> None:
        inventory = folder / "inventory.json"
        objects = [
            *captured_cluster.nodes(),
            captured_cluster.kubevirt(),
            captured_cluster.running_vmi(),
            captured_cluster.source_pod(),
            captured_cluster.migration(),
        ]
        inventory.write_text(
            json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}), encoding="utf-8"
        )
        self.log = io.StringIO()
        with redirect_stderr(self.log):
            self.parts = build(None, FactsPlace((inventory,)), no_certificate)
        self.reviews = Reviews(self.parts.answer, self.parts.metrics, 1)

    def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        began = time.thread_time()
        reply, _, _ = self.reviews.review(path, body, time.perf_counter() + 10)
        # Whatever else this machine does, one review must not take so long that others are late.
        assert time.thread_time() - began < API_SERVER_WAITS / 2
        return reply.status, reply.body

    def said(self) -> str:
        text = self.log.getvalue()
        self.log.seek(0)
        self.log.truncate()
        return text


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    return Guard(tmp_path_factory.mktemp("fuzz"))


def is_an_answer(path: str, body: bytes, status: int, answered: bytes) -> None:
    """Hold a response against what the API server takes."""
    if status == 400:
        text = answered.decode()
        assert text.endswith("\n")
        assert text.count("\n") == 1
        assert len(text) < 1000
        return
    assert status == 200, answered
    review = orjson.loads(answered)
    assert set(review) == {"apiVersion", "kind", "response"}
    assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = review["response"]
    request = orjson.loads(body)["request"]
    uid = request["uid"]
    assert response["uid"] == (uid if isinstance(uid, str) else json.dumps(uid))
    assert response.keys() <= KEYS
    assert all(isinstance(v, str) for v in response.get("auditAnnotations", {}).values())
    kind = request.get("kind")
    evicts = isinstance(kind, dict) and kind.get("kind") == "Eviction"
    if path == MUTATE and not evicts:
        assert response["allowed"] is True
        assert "warnings" not in response
        if "patch" in response:
            assert response["patchType"] == "JSONPatch"
            patch = orjson.loads(base64.b64decode(response["patch"], validate=True))
            assert patch
            # Guards of what stands there hold, so each operation finds its place.
            jsonpatch.apply_patch(request["object"], patch)
        return
    assert "patch" not in response
    warnings = response.get("warnings", [])
    assert all(len(text) <= 256 and text.isprintable() for text in warnings)
    if not response["allowed"]:
        message = response["status"]["message"]
        assert response["status"]["code"] == (429 if evicts else 403)
        assert len(message) <= 1000
        assert message.isprintable()
        assert request["kind"]["kind"] != "Pod"


@fuzzed
@given(bodies())
def test_a_damaged_review_gets_an_answer_or_a_400(guard, body):
    for path in (MUTATE, VALIDATE):
        is_an_answer(path, body, *guard.ask(path, body))
    for line in guard.said().splitlines():
        assert len(line) <= LONGEST_LINE
        assert json.loads(line)["message"] == "decision"


@pytest.mark.parametrize("captured", CAPTURED, ids=lambda captured: captured.name)
def test_an_undamaged_review_is_answered(guard, captured):
    for path in (MUTATE, VALIDATE):
        status, answered = guard.ask(path, captured.body)
        assert status == 200
        is_an_answer(path, captured.body, status, answered)


def containers() -> list[Any]:
    """Return where lists and mappings stand in what is reviewed: each field of a kind once."""
    found: dict[Any, Any] = {}
    for captured in CAPTURED:
        review = orjson.loads(captured.body)
        for path in captured.paths:
            fields = tuple(key for key in path if isinstance(key, str))
            if fields[:2] == ("request", "object") and isinstance(at(review, path), dict | list):
                found.setdefault((review["request"]["kind"]["kind"], fields), (captured, path))
    return [
        pytest.param(captured, path, id=f"{kind} {'.'.join(fields[2:])}")
        for (kind, fields), (captured, path) in found.items()
        if "managedFields" not in fields
    ]


@pytest.mark.parametrize(("captured", "path"), containers())
def test_a_field_that_has_grown_beyond_all_measure_is_answered_in_time(guard, captured, path):
    review = orjson.loads(captured.body)
    at(review, path[:-1])[path[-1]] = grown(at(review, path), 20_000)
    body = orjson.dumps(review)
    for where in (MUTATE, VALIDATE):
        is_an_answer(where, body, *guard.ask(where, body))
    guard.said()


@pytest.mark.parametrize("levels", [300, 1_000, 1_024, 90_000])
@pytest.mark.parametrize("path", [MUTATE, VALIDATE])
def test_a_deeply_nested_object_is_a_400(guard, path, levels):
    captured = next(one for one in CAPTURED if b'"object":{' in one.body.replace(b" ", b""))
    review = orjson.loads(captured.body)
    review["request"]["object"]["spec"] = "here"
    nested = b'{"a":' * levels + b"1" + b"}" * levels
    status, answered = guard.ask(path, orjson.dumps(review).replace(b'"here"', nested))

    assert status == 400
    assert answered.startswith(b"the body is n")
