"""Nodes and what stands in their way, as outputs show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.cli.printing import Cell, Styled
from webhook.model.obstacle import Code, Kind, fits, lasting
from webhook.model.wording import phrase, phrases

if TYPE_CHECKING:
    from webhook.model.node import Node
    from webhook.model.obstacle import Obstacle
    from webhook.model.placement import Assessment

NODE_HEADERS = ("NODE", "FITS", "WHY")


def nodes_json(assessment: Assessment) -> list[dict[str, Any]]:
    """Return every node by name, with its obstacles."""
    return [_node_json(node, found) for node, found in assessment.by_node()]


def _node_json(node: Node, found: tuple[Obstacle, ...]) -> dict[str, Any]:
    return {
        "name": node.name,
        "fits": fits(found),
        "obstacles": [
            {
                "code": obstacle.code.value,
                "kind": obstacle.kind.value,
                "origin": obstacle.origin.value,
                "missing": list(obstacle.missing),
                "present": list(obstacle.present),
                "detail": obstacle.detail,
            }
            for obstacle in found
        ],
    }


def node_rows(assessment: Assessment) -> list[tuple[Cell, ...]]:
    """Return a row for every node: its name, whether it fits, and why not."""
    return [(node.name, _answer(found), _why(found)) for node, found in assessment.by_node()]


def _answer(found: tuple[Obstacle, ...]) -> Cell:
    if fits(found):
        return Styled("yes", "green")
    if any(obstacle.code is Code.SAME_NODE for obstacle in found):
        return Styled("source", "dim")
    return Styled("no", "red") if lasting(found) else Styled("waiting", "yellow")


def _why(found: tuple[Obstacle, ...]) -> str:
    """Return what decides in words: what lasts where anything does, else all."""
    firm = [obstacle for obstacle in found if obstacle.kind is Kind.LASTING]
    alone = [o for o in firm if o.code in (Code.SAME_NODE, Code.NO_KUBEVIRT)]
    told = alone or firm or [o for o in found if o.kind is Kind.PASSING]
    risks = [f"risk: {phrase(o)}" for o in found if o.kind is Kind.RISK and not firm]
    return "; ".join((*phrases(told), *risks))
