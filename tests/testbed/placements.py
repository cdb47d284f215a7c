"""Random nodes and demands, for the comparison with the real scheduler."""

from __future__ import annotations

from random import Random

from tests.testbed.bed.api import Object
from tests.testbed.bed.pool import POOL, node_manifest

KEYS = ("disk", "zone", "level", "example.com/rack")
VALUES = ("a", "b", "1", "7", "40", "007", "true", "", "9223372036854775807")
# The last ones are no numbers of 64 bits; the API server takes them.
LIMITS = ("08", "0", "5", "7", "50", "9223372036854775806", "9223372036854775808", "five", "")
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
TAINT_KEYS = ("dedicated", "example.com/gpu", "storage")
TAINT_VALUES = ("", "a", "b")
EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule")
CORDON = "node.kubernetes.io/unschedulable"


def pin(number: int) -> str:
    """Return the name of a resource that only one node has.

    A pod that asks for it is decided for that node alone, with nothing changed in its labels,
    affinity or tolerations.
    """
    return f"testbed/only-{number}"


def random_node(random: Random, pool: str, number: int) -> Object:
    """Describe a node with some labels and taints, now and then cordoned."""
    node = node_manifest(f"{pool}-n{number}")
    node["metadata"]["labels"] |= {POOL: pool, **_labels(random)}
    amounts = {**node["status"]["capacity"], pin(number): "1k", "pods": "1k", "cpu": "1k"}
    amounts["memory"] = "1Ti"
    node["status"] = {"capacity": amounts, "allocatable": amounts}
    taints = {}
    for _ in range(random.choice((0, 0, 1, 2))):
        key, effect = random.choice(TAINT_KEYS), random.choice(EFFECTS)
        taints[key, effect] = {"key": key, "effect": effect, "value": random.choice(TAINT_VALUES)}
    node["spec"] = {"taints": list(taints.values()), "unschedulable": random.random() < 0.15}
    return node


def random_demands(random: Random, nodes: list[str]) -> Object:
    """Describe what a pod or a VMI asks of its node: selector, affinity, tolerations."""
    demands: Object = {}
    if random.random() < 0.3:
        demands["nodeSelector"] = _labels(random, at_most=1)
    if random.random() < 0.8:
        terms = [_term(random, nodes) for _ in range(random.randint(1, 3))]
        demands["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
            }
        }
    tolerations = [_toleration(random) for _ in range(random.choice((0, 1, 2, 4)))]
    if tolerations:
        demands["tolerations"] = tolerations
    return demands


def _labels(random: Random, at_most: int = len(KEYS)) -> dict[str, str]:
    keys = random.sample(KEYS, random.randint(0, at_most))
    return {key: random.choice(VALUES) for key in keys}


def _term(random: Random, nodes: list[str]) -> Object:
    term: Object = {}
    # A term without anything is legal, and matches no node.
    expressions = [_expression(random) for _ in range(random.choice((0, 1, 1, 2, 3)))]
    if expressions:
        term["matchExpressions"] = expressions
    if random.random() < 0.25:
        operator = random.choice(("In", "NotIn"))
        values = [random.choice(nodes)]
        term["matchFields"] = [{"key": "metadata.name", "operator": operator, "values": values}]
    return term


def _expression(random: Random) -> Object:
    expression: Object = {"key": random.choice(KEYS), "operator": random.choice(OPERATORS)}
    match expression["operator"]:
        case "In" | "NotIn":
            expression["values"] = random.sample(VALUES, random.randint(1, 4))
        case "Gt" | "Lt":
            expression["values"] = [random.choice(LIMITS)]
    return expression


def _toleration(random: Random) -> Object:
    key = random.choice((*TAINT_KEYS, CORDON, ""))
    exists = not key or random.random() < 0.4
    toleration: Object = {"operator": "Exists"} if exists else {}
    if key:
        toleration["key"] = key
    if not exists:
        toleration["value"] = random.choice(TAINT_VALUES)
    if random.random() < 0.6:
        toleration["effect"] = random.choice(EFFECTS)
    return toleration
