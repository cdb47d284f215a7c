"""The forecast of a whole cluster: where every VM could go, and what a change would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model.fleet import Advise, Fleet
from webhook.model.fleet_changes import added_changes, model_changes
from webhook.model.forecast import Forecast, by_node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from webhook.model.node import Node
    from webhook.model.snapshot import Snapshot


def forecast(
    snapshot: Snapshot,
    *,
    passing_taints: Sequence[str],
    now: float | None = None,
    draining: frozenset[str] = frozenset(),
    cpu_model: str | None = None,
    added_nodes: tuple[Node, ...] = (),
    advise: Advise | None = None,
) -> Forecast:
    """Say of every VM that has not ended where it could go, and of every node whether it empties.

    Args:
        snapshot: The facts.
        passing_taints: Globs of the taint keys that go by themselves.
        now: Unix seconds.
        draining: Names of nodes that are no targets.
        cpu_model: Also say what this cluster-wide CPU model would change.
        added_nodes: Also say what these nodes would change.
        advise: Says what would help a VM; None: :func:`webhook.model.advice.advice_for`.
    """
    fleet = Fleet(snapshot, passing_taints, now, draining)
    vms = fleet.every_vm(fleet.advice if advise is None else advise)
    changes: list[Mapping[str, object]] = []
    if cpu_model is not None:
        changes.extend(model_changes(fleet, vms, cpu_model))
    if added_nodes:
        changes.extend(added_changes(fleet, vms, added_nodes))
    return Forecast(vms, by_node(vms, snapshot.nodes.by_name), tuple(changes))
