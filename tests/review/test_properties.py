"""What holds for every cluster, not only for the examples."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import captured_cluster
from tests.review.asking import (
    CONTROLLER,
    Cluster,
    kubevirt,
    launcher,
    migration,
    node,
    target_pod,
    vmi,
)
from webhook.model.placement import assess
from webhook.review.decision import Decision
from webhook.review.patch import Patch

FEATURE = "cpu-feature.node.kubevirt.io/"
REQUIRED = "host-model-required-features.node.kubevirt.io/"
MODELS = ("XYZ", "ABC")
NAMES = ("f", "g", "h")


@st.composite
def nodes(draw: st.DrawFn, name: str) -> dict[str, Any]:
    own = draw(st.lists(st.sampled_from(NAMES), unique=True))
    required = draw(st.lists(st.sampled_from(own), unique=True)) if own else []
    labels = {FEATURE + f: "true" for f in own} | {REQUIRED + f: "true" for f in required}
    for model in draw(st.lists(st.sampled_from(MODELS), unique=True)):
        labels["cpu-model-migration.node.kubevirt.io/" + model] = "true"
    host = draw(st.sampled_from((*MODELS, "")))
    made = node(name, host, draw(st.sampled_from(("Intel", "AMD"))), **labels)
    if draw(st.booleans()):
        made["spec"] = {"unschedulable": True}
    return made


@st.composite
def worlds(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw a cluster with the VM prod/web on node a, and its migration uid-m."""
    names = ["a", *draw(st.lists(st.sampled_from("bcde"), unique=True, min_size=1))]
    features = [
        {"name": f, "policy": draw(st.sampled_from(("require", "forbid", "disable")))}
        for f in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
    ]
    model = draw(st.sampled_from(("host-model", "host-passthrough", "123")))
    guest = vmi(domain={"cpu": {"model": model, "features": features}})
    kept = {FEATURE + f["name"]: "true" for f in features if f["policy"] == "require"}
    pod = launcher(selector=kept, migrated=draw(st.booleans()))
    version = draw(st.sampled_from(("v1.5.0", "v1.6.3", "v1.7.0", "v1.8.4")))
    return [
        *(draw(nodes(name)) for name in names),
        guest,
        pod,
        kubevirt(version=version),
        migration(uid="uid-m"),
    ]


def verdict(decision: Decision) -> Any:
    """Return a decision without its id, which is never the same."""
    said = (decision.message, decision.warnings, decision.patch, decision.outcome)
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", repr(said))


@given(worlds(), st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order_of_nodes_or_keys(world: Any, random: Any) -> None:
    shuffled = copy.deepcopy(world)
    random.shuffle(shuffled)
    for obj in shuffled:
        labels = list(obj["metadata"].get("labels", {}).items())
        random.shuffle(labels)
        if labels:
            obj["metadata"]["labels"] = dict(labels)
    first = Cluster(*world).ask(migration())
    assert verdict(Cluster(*shuffled).ask(migration())) == verdict(first)


@given(worlds())
def test_selectors_are_only_ever_added(world: Any) -> None:
    cluster = Cluster(*world)
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"cpu-vendor.node.kubevirt.io/AMD": "true", "x": "y"}
    for obj, at in ((asked, "addedNodeSelector"), (target_pod(x="y"), "nodeSelector")):
        cluster.ask(obj, user=CONTROLLER)
        assert obj["spec"][at].items() <= cluster.after["spec"][at].items()


@given(worlds())
def test_a_refused_migration_had_no_node_and_an_allowed_one_keeps_one(world: Any) -> None:
    cluster = Cluster(*world)
    decision = cluster.ask(migration())
    assert decision.assessment is not None
    if not decision.allowed:
        assert not decision.assessment.possible
        return
    assert decision.assessment.possible
    cluster.ask(target_pod(), user=CONTROLLER)
    selector = cluster.after["spec"]["nodeSelector"]
    demanded = cluster.facts.requirements(cluster.facts.vmis["prod/web"])
    judged = assess(demanded, cluster.facts.nodes)
    able = [n for part in judged.parts if not part.lasting for n in part.nodes]
    assert any(selector.items() <= n.labels.items() for n in able)


@given(worlds(), st.sampled_from("bcde"))
def test_a_label_that_is_asked_for_never_removes_a_node(world: Any, name: str) -> None:
    cluster = Cluster(*world)
    demanded = cluster.facts.requirements(cluster.facts.vmis["prod/web"])
    before = {
        n.name
        for p in assess(demanded, cluster.facts.nodes).parts
        if not p.lasting
        for n in p.nodes
    }
    richer = copy.deepcopy(world)
    for obj in richer:
        if obj["kind"] == "Node" and obj["metadata"]["name"] == name:
            for key, value in demanded.wanted:
                obj["metadata"]["labels"].setdefault(key, value)
    more = Cluster(*richer).facts
    judged = assess(demanded, more.nodes)
    after = {n.name for part in judged.parts if not part.lasting for n in part.nodes}
    assert before <= after


@given(worlds())
def test_a_second_run_changes_nothing_but_id_and_times(world: Any) -> None:
    cluster = Cluster(*world)
    for obj in (migration(), target_pod()):
        cluster.ask(obj, user=CONTROLLER)
        again = cluster.ask(cluster.after, user=CONTROLLER)
        added = {op["path"] for op in again.patch if op["op"] != "test"}
        assert all(path.endswith(("decision", "completion-deadline")) for path in added)


@given(worlds())
def test_a_model_that_is_advised_lets_the_vm_move(world: Any) -> None:
    message = Cluster(*world).ask(migration()).message
    advised = re.search(r'Assign a CPU model .*?here "([^"]+)"', message)
    if advised is None:
        return
    changed = copy.deepcopy(world)
    guest = next(o for o in changed if o["kind"] == "VirtualMachineInstance")
    guest["spec"]["domain"]["cpu"]["model"] = advised.group(1)
    rest = [o for o in changed if o["kind"] != "Pod"]
    moved = []
    for start in (o["metadata"]["name"] for o in rest if o["kind"] == "Node"):
        guest["status"]["nodeName"] = start
        facts = Cluster(*rest).facts
        demanded = facts.requirements(facts.vmis["prod/web"])
        moved.append(assess(demanded, facts.nodes).possible)
    assert any(moved)


@pytest.mark.parametrize(
    "path",
    sorted((captured_cluster.FIXTURES / "reviews-1.8.4").glob("*-create-mutating-*.json")),
    ids=lambda path: path.stem,
)
def test_every_captured_object_is_left_as_the_guard_made_it(path: Any) -> None:
    request = json.loads(path.read_bytes())["request"]
    kind = request["kind"]
    obj = request["object"] | {
        "kind": kind["kind"],
        "apiVersion": "/".join(filter(None, (kind["group"], kind["version"]))),
    }
    obj["metadata"]["namespace"] = request["namespace"]
    cluster = Cluster(
        *captured_cluster.nodes(),
        captured_cluster.kubevirt(),
        captured_cluster.running_vmi(),
        captured_cluster.source_pod(),
        captured_cluster.migration(),
    )
    user = request["userInfo"]["username"]
    cluster.ask(obj, user=user)
    again = cluster.ask(cluster.after, user=user)
    added = {op["path"] for op in again.patch if op["op"] != "test"}
    assert all(path.endswith(("decision", "completion-deadline")) for path in added)


KEYS = ("a", "b/", "c~")
STANDING = st.recursive(
    st.sampled_from(("s", None, ["l"])),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=8,
)
STEPS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map(tuple),
        st.sampled_from(("x", "y", {"i": 1})),
    )
)


@given(st.dictionaries(st.sampled_from(KEYS), STANDING), STEPS)
def test_a_patch_leads_to_what_it_says_stands_there(obj: Any, steps: Any) -> None:
    # As they come and go, in JSON, in which nothing stands in two places.
    obj = json.loads(json.dumps(obj))
    before = copy.deepcopy(obj)
    patch = Patch(obj)
    for path, value in steps:
        if isinstance(value, str):
            patch.set(path, value)
            assert patch.get(*path) == value
        else:
            patch.append(path, value)
            assert patch.get(*path)[-1] == value
    assert obj == before
    after = jsonpatch.apply_patch(obj, json.loads(json.dumps(patch.operations)))
    for key in KEYS:
        assert after.get(key) == patch.get(key)
