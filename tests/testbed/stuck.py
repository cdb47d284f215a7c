"""A VM that can move nowhere."""

from __future__ import annotations

from tests.testbed.bed.guard import SETTLED_AFTER
from tests.testbed.bed.pool import Pool, vm_manifest


def stuck(pool: Pool, **annotations: str) -> str:
    """Start the VM ``web`` on a node whose CPU no other node has; return the node.

    Args:
        pool: Where; it gets two nodes.
        annotations: Of the VM's template.
    """
    source = pool.node("icelake")
    pool.node("milan")
    vm = vm_manifest("web")
    vm["spec"]["template"]["metadata"]["annotations"] = annotations
    pool.start(vm, on=source)
    pool.wait_until_older(SETTLED_AFTER)
    return source
