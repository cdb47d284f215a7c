"""Nodes whose labels may still come: new ones, and those that lost a label a moment ago."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.node_groups import of_kubevirt

if TYPE_CHECKING:
    from webhook.model.fields import Object
    from webhook.model.node import Node


def settling(node: Node, before: Node | None, created: float, now: float, after: float) -> Node:
    """Return a node with the moment until which its missing labels may still come.

    Args:
        node: As it is now.
        before: As it was; None where it was not known.
        created: When it joined the cluster, in Unix seconds.
        now: Likewise, the present time.
        after: For how many seconds labels may still come.
    """
    # A clock that runs ahead of this one must not keep a node settling for longer.
    until = min(created, now) + after
    if before is not None:
        until = max(until, before.settling_until or 0.0)
        if any(of_kubevirt(key) and key not in node.labels for key in before.labels):
            until = now + after
    return replace(node, settling_until=until) if until > now else node


def creation(obj: Object) -> float:
    """Return when an object was created, in Unix seconds; 0 where that is not told."""
    written = fields.text(obj, "metadata", "creationTimestamp")
    with suppress(fields.InvalidObject):
        if found := fields.moment(written, "metadata.creationTimestamp"):
            return found.timestamp()
    return 0.0
