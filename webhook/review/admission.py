"""AdmissionReview in, AdmissionReview out (``admission.k8s.io/v1``)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from webhook.model import fields
from webhook.review.decision import REFUSED_CODE, TRY_AGAIN_CODE, Outcome
from webhook.review.errors import NotAReview

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.fields import Object
    from webhook.review.decision import Decision

API_VERSION = "admission.k8s.io/v1"
EVICTION_KIND = ("policy", "Eviction")
"""Group and kind of what evicts a pod."""
EVICTION = "eviction"
"""The subresource of the pod to which it is posted."""
MOST_WARNINGS = 16

MOST_LEVELS = 254
"""How deeply the JSON of a review may be nested; objects of Kubernetes have some fifteen levels.
Comparing two objects of a thousand would exceed Python's recursion limit. It is the limit of
``orjson.dumps``, which tells in less time than a walk would take."""

MOST_VALUES = 100_000
"""How many values the JSON of a review may have, about, where an object that fits into etcd has
some thousands: small values take ten times their size in memory, and walking them takes time that
other reviews wait for."""


# As Go's metav1.StatusReason names them.
_REASONS = {REFUSED_CODE: "Forbidden", TRY_AGAIN_CODE: "TooManyRequests"}


@dataclass(frozen=True, slots=True)
class Review:
    """One request of an AdmissionReview, or what a plain manifest would make of one.

    Attributes:
        subresource: "" for the object itself.
        obj: The object as it is to be; None at DELETE.
        old: The object as it is; None at CREATE.
    """

    uid: str
    group: str
    version: str
    kind: str
    operation: str
    namespace: str
    name: str
    subresource: str
    username: str
    groups: tuple[str, ...]
    dry_run: bool
    obj: Object | None
    old: Object | None

    @property
    def created(self) -> bool:
        """Whether an object itself is being created."""
        return self.operation == "CREATE" and not self.subresource

    @property
    def evicts(self) -> bool:
        """Whether the eviction of a pod is asked for."""
        asked = (self.group, self.kind, self.subresource, self.operation)
        return asked == (*EVICTION_KIND, EVICTION, "CREATE")

    @property
    def updated(self) -> bool:
        """Whether an object itself is being changed, and is not on its way out."""
        if self.operation != "UPDATE" or self.subresource or self.obj is None:
            return False
        return not fields.text(self.obj, "metadata", "deletionTimestamp")


def parse(body: bytes) -> Review:
    """Read an AdmissionReview.

    Raises:
        NotAReview: The body is no JSON, or no AdmissionReview that could be answered; the message
            names the field.
    """
    # What is shorter needs no count: each value takes a byte at least, and a comma or a colon.
    if len(body) > MOST_VALUES and body.count(b",") + body.count(b":") > MOST_VALUES:
        raise NotAReview(f"the body has more than {MOST_VALUES:,} values")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotAReview(f"the body is not JSON: {error.msg} at byte {error.pos}") from None
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise NotAReview(f"the body is nested deeper than {MOST_LEVELS} levels") from None
    return review_of_document(document)


def review_of_document(document: object) -> Review:
    """Read a parsed AdmissionReview.

    Raises:
        NotAReview: As :func:`parse`.
    """
    if not isinstance(document, dict):
        raise NotAReview("the body is not an object; an AdmissionReview is wanted")
    if document.get("kind") != "AdmissionReview":
        raise NotAReview('kind: "AdmissionReview" is wanted')
    if document.get("apiVersion") != API_VERSION:
        raise NotAReview(f'apiVersion: "{API_VERSION}" is wanted')
    try:
        return _read(document)
    except fields.InvalidObject as error:
        raise NotAReview(str(error)) from None


def _read(document: Object) -> Review:
    request = fields.mapping(document, "request")
    if not request:
        raise NotAReview("request: is missing or empty")
    uid = fields.text(request, "uid")
    if not uid:
        raise NotAReview("request.uid: is missing")
    group, kind = fields.text(request, "kind", "group"), fields.text(request, "kind", "kind")
    dry_run = bool(fields.flag(request, "dryRun"))
    if (group, kind) == EVICTION_KIND:
        # kubectl drain says so in the object alone (k8s.io/kubectl/pkg/drain/drain.go, EvictPod).
        dry_run |= "All" in fields.strings(request, "object", "deleteOptions", "dryRun")
    return Review(
        uid=uid,
        group=group,
        version=fields.text(request, "kind", "version"),
        kind=kind,
        operation=fields.text(request, "operation"),
        namespace=fields.text(request, "namespace"),
        name=fields.text(request, "name"),
        subresource=fields.text(request, "subResource"),
        username=fields.text(request, "userInfo", "username"),
        groups=fields.strings(request, "userInfo", "groups"),
        dry_run=dry_run,
        obj=fields.mapping(request, "object") or None,
        old=fields.mapping(request, "oldObject") or None,
    )


def review_of_object(
    obj: Object,
    *,
    operation: str = "CREATE",
    old: Object | None = None,
    username: str = "",
    groups: tuple[str, ...] = (),
    dry_run: bool = False,
) -> Review:
    """Return the review that a plain manifest would make at the API server.

    Raises:
        InvalidObject: The manifest has no kind, or metadata of a type it cannot have.
    """
    kind = fields.text(obj, "kind")
    if not kind:
        raise fields.InvalidObject("kind", "is missing")
    group, _, version = fields.text(obj, "apiVersion").rpartition("/")
    return Review(
        uid=fields.text(obj, "metadata", "uid") or "offline",
        group=group,
        version=version,
        kind=kind,
        operation=operation,
        namespace=fields.text(obj, "metadata", "namespace") or "default",
        name=fields.text(obj, "metadata", "name"),
        subresource=EVICTION if (group, kind) == EVICTION_KIND else "",
        username=username,
        groups=groups,
        dry_run=dry_run,
        obj=None if operation == "DELETE" else obj,
        old=obj if operation == "DELETE" else old,
    )


def in_namespace(review: Review) -> Object:
    """Return the object with the request's namespace, which a POST body may leave out."""
    obj = review.obj or fields.EMPTY
    metadata = fields.mapping(obj, "metadata")
    if not review.namespace or metadata.get("namespace") == review.namespace:
        return obj
    return {**obj, "metadata": {**metadata, "namespace": review.namespace}}


def render(review: Review, decision: Decision) -> bytes:
    """Write the answer to a review: HTTP 200 whatever was decided, a no included."""
    response: dict[str, Any] = {"uid": review.uid, "allowed": decision.allowed}
    if not decision.allowed:
        response["status"] = {
            "status": "Failure",
            "code": decision.code,
            "reason": _REASONS[decision.code],
            "message": decision.message,
        }
    elif decision.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(orjson.dumps(list(decision.patch))).decode()
    if decision.warnings:
        response["warnings"] = list(decision.warnings[:MOST_WARNINGS])
    notes = audit_annotations(decision)
    if notes:
        response["auditAnnotations"] = notes
    return orjson.dumps(
        {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    )


def audit_annotations(decision: Decision) -> Mapping[str, str]:
    """Return what the API server's own audit log keeps of a decision."""
    if decision.outcome is Outcome.NOT_REVIEWED and not decision.rules:
        return {}
    found = {"decision": decision.decision_id, "outcome": decision.outcome.value}
    if decision.rules:
        telling = dict.fromkeys(r.rule for r in decision.rules if r.outcome is decision.outcome)
        found["rule"] = ",".join(telling) or decision.rules[0].rule
    return found
