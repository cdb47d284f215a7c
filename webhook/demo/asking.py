"""Asks the server as the API server asks: the mutating pass, the patch, the validating pass."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jsonpatch

from webhook.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.demo.program import Server
    from webhook.demo.sample import Object

MUTATE = "/mutate?timeout=2s"
VALIDATE = "/validate?timeout=2s"
_ONLY = {"Pod": (MUTATE,), "VirtualMachine": (VALIDATE,), "KubeVirt": (VALIDATE,)}
_PLURAL = {
    "Pod": "pods",
    "VirtualMachine": "virtualmachines",
    "VirtualMachineInstance": "virtualmachineinstances",
    "VirtualMachineInstanceMigration": "virtualmachineinstancemigrations",
    "KubeVirt": "kubevirts",
}
ANNA = "anna"
_SERVICE_ACCOUNT = "system:serviceaccount:harvester-system:"
CONTROLLER = _SERVICE_ACCOUNT + "kubevirt-controller"
VIRTCTL = _SERVICE_ACCOUNT + "kubevirt-apiserver"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that somebody sends to the API server.

    Attributes:
        old: The object as it was; it makes the request an update.
        namespace: Where the object itself does not say it: a pod's does not.
    """

    obj: Object
    user: str = ANNA
    old: Object | None = None
    namespace: str = ""

    @property
    def operation(self) -> str:
        """CREATE or UPDATE."""
        return "UPDATE" if self.old else "CREATE"

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.obj["kind"])

    @property
    def passes(self) -> tuple[str, ...]:
        """The webhooks that are called for this kind."""
        return _ONLY.get(self.kind, (MUTATE, VALIDATE))

    def __str__(self) -> str:
        """Return the request in one line."""
        metadata = self.obj["metadata"]
        name = metadata.get("name") or metadata["generateName"] + "*"
        who = self.user.rpartition(":")[2]
        return f"{self.operation} {self.kind} {self.where}/{name} by {who}"

    @property
    def where(self) -> str:
        """The namespace in the request's path."""
        return self.namespace or str(self.obj["metadata"]["namespace"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the server made of a request; ``obj`` is the object as it would be stored."""

    obj: Object
    allowed: bool
    message: str
    warnings: tuple[str, ...]
    changes: Mapping[tuple[str, ...], Any]

    @property
    def word(self) -> str:
        """Say it in one word."""
        if not self.allowed:
            return "refused"
        if self.warnings:
            return "warned"
        return "changed" if self.changes else "allowed"


def ask(server: Server, request: Request) -> Outcome:
    """Send a request through the webhooks.

    Raises:
        DemoError: The server does not answer as a webhook must.
    """
    obj = request.obj
    allowed, message = True, ""
    warnings: list[str] = []
    for path in request.passes:
        review = _review(request, obj)
        answer = server.post(path, json.dumps(review).encode())
        response: Any = answer.get("response") or {}
        if response.get("uid") != review["request"]["uid"]:
            raise DemoError(f"{request}: the answer has another uid than the request")
        warnings += response.get("warnings") or []
        if response.get("patch"):
            obj = jsonpatch.apply_patch(obj, json.loads(base64.b64decode(response["patch"])))
        if response.get("allowed") is not True:
            allowed, message = False, str(response["status"]["message"])
            break
    before = _leaves(request.obj)
    changes = {path: at for path, at in _leaves(obj).items() if before.get(path) != at}
    return Outcome(obj, allowed, message, tuple(warnings), changes)


def _review(request: Request, obj: Object) -> dict[str, Any]:
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    kind = {"group": group, "version": version, "kind": request.kind}
    resource = {"group": group, "version": version, "resource": _PLURAL[request.kind]}
    groups = ["system:authenticated"]
    if request.user.startswith("system:serviceaccount:"):
        groups = ["system:serviceaccounts", "system:serviceaccounts:harvester-system", *groups]
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": obj["metadata"].get("name", ""),
            "namespace": request.where,
            "operation": request.operation,
            "userInfo": {"username": request.user, "groups": groups},
            "object": obj,
            "oldObject": request.old,
            "dryRun": False,
            "options": {
                "apiVersion": "meta.k8s.io/v1",
                "kind": f"{request.operation.title()}Options",
            },
        },
    }


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, at in value.items() for k, v in _leaves(at, (*path, str(key))).items()}
