"""What one review can cost at most: VMs that demand all that is judged, at 5,000 nodes, 10,000 VMs.

Each row is one demand at its limit (``webhook/model/limits.py``), of a running VM that is to be
migrated: the time of the mutating pass and of the validating pass, from bytes to bytes, with
nothing remembered. Before them an ordinary VM; after them a body of the most values.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sample.clusters import cluster

from webhook.model import limits
from webhook.model.virtual_machine import VirtualMachineInstance
from webhook.policy.configuration import Configuration
from webhook.review.admission import MOST_VALUES
from webhook.review.answer import MUTATE, VALIDATE, Answerer

if TYPE_CHECKING:
    from webhook.model.snapshot import Snapshot

NODES, VMS = 5_000, 10_000
ROUNDS = 3
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
# As many terms that name a host each as may be: expressions times values are limited.
SQUARE = int(limits.MOST_COMPARISONS**0.5)

Spec = dict[str, Any]


def _keys(count: int) -> dict[str, str]:
    return {f"key-{number}": "true" for number in range(count)}


def _near(terms: list[dict[str, Any]]) -> Spec:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}}


def _expression(key: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": "In" if values else "Exists", "values": list(values)}


def _hosts(count: int, to_each: int) -> Spec:
    names = [f"node-{number:04}" for number in range(count)]
    parts = [names[at : at + to_each] for at in range(0, count, to_each)]
    # The second demand is never met, so every term is held against the nodes that it names.
    return _near(
        [{"matchExpressions": [_expression(HOST, *part), _expression("none")]} for part in parts]
    )


def _pods(kind: str, count: int, where: dict[str, Any]) -> Spec:
    terms = [
        {"labelSelector": {"matchLabels": {"app": f"app-{n}"}}, "topologyKey": HOST, **where}
        for n in range(count)
    ]
    return {"affinity": {kind: {REQUIRED: terms}}}


def _features(count: int) -> Spec:
    return {"domain": {"cpu": {"features": [{"name": f"feature-{n}"} for n in range(count)]}}}


def _resources(count: int) -> Spec:
    asked = {f"example.org/{n}": "1" for n in range(count - 2)}
    return {"domain": {"resources": {"requests": asked}}}


def _tolerations(count: int) -> Spec:
    return {"tolerations": [{"key": f"key-{n}", "operator": "Exists"} for n in range(count)]}


def _specs() -> dict[str, Spec]:
    entries, terms = limits.MOST_ENTRIES, limits.MOST_POD_TERMS
    named = [f"team-{number}" for number in range(limits.MOST_NAMES // terms - 2)]
    return {
        "an ordinary VM": {},
        "a node selector": {"nodeSelector": _keys(entries)},
        "CPU features": _features(entries),
        "tolerations": _tolerations(entries),
        "resources": _resources(limits.MOST_RESOURCES),
        "node affinity: terms": _near(
            [{"matchExpressions": [_expression(k)]} for k in _keys(limits.MOST_EXPRESSIONS)]
        ),
        "node affinity: hosts in one term": _hosts(limits.MOST_VALUES, limits.MOST_VALUES),
        "node affinity: hosts in many terms": _hosts(SQUARE // 2, 1),
        "anti-affinity to pods": _pods("podAntiAffinity", terms, {"namespaces": named}),
        "the same in all namespaces": _pods("podAntiAffinity", terms, {"namespaceSelector": {}}),
        "affinity to pods": _pods("podAffinity", terms, {"namespaceSelector": {}}),
    }


def _merged(base: Any, more: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(more, dict):
        return more
    return {**base, **{key: _merged(base.get(key), value) for key, value in more.items()}}


def _with(snapshot: Snapshot, plain: VirtualMachineInstance, spec: Spec) -> Snapshot:
    vmi = VirtualMachineInstance.from_object(
        {
            "metadata": {
                "name": plain.name,
                "namespace": plain.namespace,
                "uid": plain.uid,
                "labels": dict(plain.labels),
            },
            "spec": _merged(copy.deepcopy(dict(plain.spec)), spec),
            "status": plain.status,
        }
    )
    # Without a pod, what it asks for is derived from the VMI.
    pods = {uid: several for uid, several in snapshot.pods.items() if uid != plain.uid}
    return replace(snapshot, vmis={**snapshot.vmis, vmi.key: vmi}, pods=pods)


def _review(vmi: VirtualMachineInstance, more: dict[str, str]) -> bytes:
    kind = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstanceMigration"}
    request = {
        "uid": "u",
        "kind": kind,
        "namespace": vmi.namespace,
        "operation": "CREATE",
        "userInfo": {"username": "bench", "groups": []},
        "object": {
            "metadata": {"name": "bench", "namespace": vmi.namespace, "annotations": more},
            "spec": {"vmiName": vmi.name},
        },
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(review).encode()


def _milliseconds(facts: Snapshot, path: str, body: bytes) -> tuple[float, str]:
    fastest, said = float("inf"), ""
    for _ in range(ROUNDS):
        unasked = replace(facts, nodes=facts.nodes.with_nodes(()))
        configuration = Configuration()
        answerer = Answerer(lambda f=unasked: f, lambda c=configuration: c, lambda: NOW, str)
        began = time.process_time()
        answer = answerer.answer(path, body)
        fastest = min(fastest, time.process_time() - began)
        response = json.loads(answer.body)["response"]
        said = "allowed" if response["allowed"] else "refused"
        assert "not judged" not in str(response.get("warnings", "")), response
    return fastest * 1000, said


def main() -> None:
    snapshot = cluster(NODES, VMS)
    plain = next(
        vmi
        for vmi in snapshot.vmis.values()
        if vmi.cpu_model == "host-model"
        and not (vmi.affinity or vmi.node_selector or vmi.conditions or vmi.cpu_features)
    )
    print(f"  {'':36}mutating   validating, ms")
    asked = [(what, _with(snapshot, plain, spec), {}) for what, spec in _specs().items()]
    most = _keys((MOST_VALUES - 100) // 2)
    for what, facts, more in (*asked, ("a body of the most values", snapshot, most)):
        body = _review(plain, more)
        mutating, _ = _milliseconds(facts, MUTATE, body)
        validating, said = _milliseconds(facts, VALIDATE, body)
        print(f"  {what:36}{mutating:8.1f}   {validating:8.1f}   {said}")


if __name__ == "__main__":
    main()
