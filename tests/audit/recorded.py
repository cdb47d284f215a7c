"""Records to keep, and decisions to make them of."""

from __future__ import annotations

import itertools
from dataclasses import replace

from webhook.audit.record import VALIDATING, Record
from webhook.review.decision import Outcome

NOON = 1_764_158_400_000_000
"""2025-11-26T12:00:00Z in microseconds."""
_numbers = itertools.count(1)


def an_id(number: int | None = None) -> str:
    return f"019ac000-0000-7000-8000-{next(_numbers) if number is None else number:012x}"


def abort(**changes) -> Record:
    """Return the end of a migration that has overrun its deadline."""
    decision = changes.pop("decision", "") or an_id()
    rule = {"rule": "completion-deadline", "mode": "enforce", "outcome": "aborted", "detail": ""}
    return refusal(
        **{
            "decision": decision,
            "outcome": Outcome.ABORTED,
            "rule": "completion-deadline",
            "rules": (rule,),
            "operation": "DELETE",
            "name": "web-1",
            "generate_name": "",
            "request_uid": "",
            "user": "system:serviceaccount:migration-guard:migration-guard",
            "groups": (),
            "origin": "user",
            "evacuated_node": "",
            "chosen_node": "node-b",
            "obstacles": (),
            "message": f"migration web-1 of VM shop/web aborted. Decision {decision}.",
            **changes,
        }
    )


def taken_back(aborted: Record, **changes) -> Record:
    """Return what takes back the end of a migration, under its id."""
    return replace(
        aborted,
        outcome=Outcome.NOT_ABORTED,
        allowed=True,
        operation="",
        user="",
        message=f"it was not aborted after all. Decision {aborted.decision}.",
        **changes,
    )


def refusal(**changes) -> Record:
    """Return the refusal of an evacuation that has nowhere to go."""
    decision = changes.pop("decision", "") or an_id()
    obstacle = {
        "code": "cpu-feature",
        "kind": "lasting",
        "origin": "source-cpu",
        "missing": ["cpu-feature.node.kubevirt.io/avx512f"],
        "present": [],
        "detail": "",
    }
    known = Record(
        decision=decision,
        time=NOON,
        phase=VALIDATING,
        outcome=Outcome.REFUSED,
        allowed=False,
        rule="incompatible-target",
        mode="enforce",
        rules=(
            {
                "rule": "incompatible-target",
                "mode": "enforce",
                "outcome": "refused",
                "detail": f"refused. Decision {decision}.",
            },
        ),
        operation="CREATE",
        group="kubevirt.io",
        version="v1",
        kind="VirtualMachineInstanceMigration",
        namespace="shop",
        generate_name="kubevirt-evacuation-",
        request_uid="11111111-1111-1111-1111-111111111111",
        vm="shop/web",
        vm_uid="22222222-2222-2222-2222-222222222222",
        user="system:serviceaccount:kubevirt:kubevirt-controller",
        groups=("system:serviceaccounts", "system:authenticated"),
        origin="evacuation",
        evacuated_node="node-a",
        source="node-a",
        cpu_model="host-model",
        cpu_model_source="default",
        obstacles=({"nodes": ["node-b"], "count": 1, "obstacles": [obstacle]},),
        message=f"migration of VM shop/web refused. Decision {decision}.",
        latency=0.000512,
    )
    return replace(known, **changes)


def change(**changes) -> Record:
    return refusal(
        **{
            "outcome": Outcome.CHANGED,
            "allowed": True,
            "rule": "target-selectors",
            "message": "",
            "obstacles": (),
            **changes,
        }
    )
