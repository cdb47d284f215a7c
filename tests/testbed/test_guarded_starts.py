"""``firstBoot: prefer-migratable``: the scheduler leads a start to nodes it can leave again."""

from __future__ import annotations

from tests.testbed.bed.guard import SETTLED, Guard
from tests.testbed.bed.pool import Pool

OVERLAY = "../tests/testbed/overlays/first-boot"


def test_a_host_model_vm_starts_where_its_guest_can_leave_again(pool: Pool, guard: Guard) -> None:
    pool.node("milan", size={"cpu": "64", "memory": "256Gi"})
    exchange = {pool.node("icelake"), pool.node("icelake")}
    guard.configure(f"{SETTLED}firstBoot: prefer-migratable\n")
    guard.wait_for_fact()
    for name in ("one", "two", "three"):
        pool.vm(name, "host-model")
        assert pool.vmi(name)["status"]["nodeName"] in exchange
        (pod,) = pool.launcher_pods(name)
        (wish,) = pod["spec"]["affinity"]["nodeAffinity"][
            "preferredDuringSchedulingIgnoredDuringExecution"
        ]
        assert wish["preference"]["matchExpressions"][0]["key"] == (
            "host-model-cpu.node.kubevirt.io/Icelake-Server"
        )
    pool.wait_migration(pool.migrate("one"))
