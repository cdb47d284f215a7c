"""What is demanded beyond all measure is not judged, and said so; up to there it is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.objects import facts
from tests.review.asking import CONTROLLER, launcher, migration, node, target_pod, vmi
from tests.review.test_objects_that_cannot_be_read import answered
from webhook.model import limits
from webhook.model.forecasting import forecast
from webhook.model.limits import TooLarge
from webhook.model.placement import assess
from webhook.review.answer import MUTATE, VALIDATE

NODES = (node("a"), node("b"))
NODE_AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"
TERMS = f"spec.affinity.nodeAffinity.{NODE_AFFINITY}.nodeSelectorTerms"


def keys(count: int) -> dict[str, str]:
    return {f"key-{number}": "true" for number in range(count)}


def node_terms(terms: int, expressions: int = 1, values: int = 0) -> dict[str, Any]:
    wanted: dict[str, Any] = {"key": "kubernetes.io/hostname", "operator": "Exists"}
    if values:
        named = [f"node-{number}" for number in range(values)]
        wanted |= {"operator": "In", "values": named}
    every = [{"matchExpressions": [wanted] * expressions}] * terms
    return {"nodeAffinity": {NODE_AFFINITY: {"nodeSelectorTerms": every}}}


def pod_terms(terms: int, namespaces: int = 0) -> dict[str, Any]:
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "db"}},
        "namespaces": [f"team-{number}" for number in range(namespaces)],
    }
    return {"podAntiAffinity": {NODE_AFFINITY: [term] * terms}}


def features(count: int) -> dict[str, Any]:
    return {"cpu": {"model": "123", "features": [{"name": f"f{n}"} for n in range(count)]}}


def tolerations(count: int) -> list[dict[str, str]]:
    return [{"key": f"key-{number}", "operator": "Exists"} for number in range(count)]


def resources(count: int) -> dict[str, Any]:
    # Memory and CPU are always asked for.
    return {"resources": {"requests": {f"example.org/{n}": "1" for n in range(count - 2)}}}


LIMITS: list[tuple[str, Any, int, str]] = [
    ("spec.nodeSelector", lambda n: {"nodeSelector": keys(n)}, 1_000, "entries"),
    ("spec.domain.cpu.features", lambda n: {"domain": features(n)}, 1_000, "entries"),
    ("spec.tolerations", lambda n: {"tolerations": tolerations(n)}, 1_000, "entries"),
    ("spec.domain.resources", lambda n: {"domain": resources(n)}, 50, "entries"),
    (TERMS, lambda n: {"affinity": node_terms(n)}, 250, "expressions"),
    (TERMS, lambda n: {"affinity": node_terms(1, n)}, 250, "expressions"),
    (TERMS, lambda n: {"affinity": node_terms(n, 0)}, 250, "expressions"),
    (TERMS, lambda n: {"affinity": node_terms(1, 1, n)}, 1_000, "values"),
    ("spec.affinity", lambda n: {"affinity": pod_terms(n)}, 16, "terms on other pods"),
]


@pytest.mark.parametrize(
    ("path", "spec", "most", "what"), LIMITS, ids=[f"{path} {what}" for path, _, _, what in LIMITS]
)
def test_a_vm_is_judged_up_to_the_limit_and_not_beyond(
    path: str, spec: Any, most: int, what: str
) -> None:
    known = facts(*NODES, vmi(**spec(most)))
    demanded = known.requirements(known.vmis["prod/web"])
    assert assess(demanded, known.nodes, known.conditions(demanded, (), None)).parts

    beyond = facts(*NODES, vmi(**spec(most + 1)))
    with pytest.raises(TooLarge) as error:
        beyond.requirements(beyond.vmis["prod/web"])
    said = f"{path}: has {most + 1:,} {what}; at most {most:,} are judged"
    assert str(error.value) == said


def test_terms_that_each_name_many_nodes_are_limited_in_all() -> None:
    known = facts(*NODES, vmi(affinity=node_terms(160, values=1)))
    assert limits.MOST_COMPARISONS < 160 * 160

    with pytest.raises(TooLarge, match=r"25,600 expressions times values; at most 25,000"):
        known.requirements(known.vmis["prod/web"])


def test_terms_on_pods_of_very_many_namespaces_are_not_judged() -> None:
    known = facts(*NODES, vmi(affinity=pod_terms(1, 999)))

    with pytest.raises(TooLarge, match=r"1,001 namespaces and labels; at most 1,000"):
        known.requirements(known.vmis["prod/web"])


def test_pods_with_very_many_terms_of_their_own_hold_up_nobody() -> None:
    other = launcher("db", "b")
    other["metadata"]["labels"]["app"] = "db"
    for terms, kept_away in ((1, True), (17, False)):
        other["spec"]["affinity"] = pod_terms(terms)
        guest = vmi()
        guest["metadata"]["labels"] = {"app": "db"}
        guest["metadata"]["namespace"] = "prod"
        known = facts(*NODES, guest, other)
        demanded = known.requirements(known.vmis["prod/web"])
        assert bool(known.conditions(demanded, (), None).domains) is kept_away


@pytest.mark.parametrize("where", ["the migration", "the VMI", "the source pod"])
def test_a_migration_that_demands_too_much_is_allowed_with_the_reason(where: str) -> None:
    asked, guest, pod = migration(), vmi(), launcher()
    holder = {"the migration": asked, "the VMI": guest, "the source pod": pod}[where]
    key = "addedNodeSelector" if holder is asked else "nodeSelector"
    holder["spec"][key] = keys(1_001)

    response = answered(VALIDATE, asked, *NODES, guest, pod)

    assert response["allowed"]
    told = f"spec.{key}{' of its virt-launcher pod' if holder is pod else ''}"
    assert response["warnings"] == [
        f"not judged: {told}: has 1,001 entries; at most 1,000 are judged (decision ID)"
    ]


def test_a_target_pod_that_demands_too_much_is_left_alone() -> None:
    # Its source's vendor is missing: otherwise nothing would have to be judged.
    pod = target_pod(**keys(1_001))
    worked = (*NODES, vmi(), launcher(), migration(uid="uid-m"))

    response = answered(MUTATE, pod, *worked, user=CONTROLLER)

    assert response["allowed"]
    assert "patch" not in response


def test_a_forecast_says_which_vm_demands_too_much() -> None:
    known = facts(*NODES, vmi(nodeSelector=keys(1_001)), launcher(), vmi("mail"))

    found = {each.vm: each for each in forecast(known, passing_taints=()).vms}

    assert found["prod/web"].verdict == "blocked"
    assert found["prod/web"].advice == (
        "It is not judged: spec.nodeSelector: has 1,001 entries; at most 1,000 are judged."
    )
    assert found["prod/mail"].verdict == "one-node"
