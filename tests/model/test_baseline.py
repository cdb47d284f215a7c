"""What the nodes of a cluster have in common: named models, and who can follow whom."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from webhook.model import cpu_generations, labels
from webhook.model.baseline import Baseline, ModelChoice, baseline, newest_common, to_json
from webhook.model.node import Node

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping


def node(
    name: str,
    *models: str,
    vendor: str = "Intel",
    host_model: str = "",
    requires: str = "",
    features: str = "",
    takes: str = "",
    cores: int = 8,
    memory: int = 64,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> Node:
    """Make a node that KubeVirt runs on; lists are words in one string."""
    marks = {labels.SCHEDULABLE: "true", labels.HOSTNAME: name}
    marks |= {labels.CPU_MODEL + m: "true" for m in models}
    marks |= {labels.CPU_VENDOR + v: "true" for v in vendor.split()}
    marks |= {labels.HOST_MODEL_CPU + m: "true" for m in host_model.split()}
    marks |= {labels.HOST_MODEL_REQUIRED_FEATURES + f: "true" for f in requires.split()}
    marks |= {labels.CPU_FEATURE + f: "true" for f in features.split()}
    marks |= {labels.CPU_MODEL_MIGRATION + m: "true" for m in takes.split()}
    size = {"cpu": cores * 1000, "memory": memory * 1000}
    return Node(name, {**marks, **extra}, capacity=size, allocatable=size)


def without(some: Node, *keys: str) -> Node:
    kept = {key: value for key, value in some.labels.items() if key not in keys}
    return Node(some.name, kept, capacity=some.capacity, allocatable=some.allocatable)


def offered(found: Baseline) -> list[str]:
    return [choice.model for choice in found.models]


HASWELL = node("haswell", "Nehalem", "Haswell-noTSX", "Haswell-noTSX-IBRS")
SKYLAKE = node(
    "skylake", "Nehalem", "Haswell-noTSX", "Haswell-noTSX-IBRS", "Skylake-Client-IBRS", cores=24
)
MILAN = node("milan", "Nehalem", "Haswell-noTSX", "EPYC-Rome", "EPYC-Milan", vendor="AMD")


def test_the_newest_model_that_all_nodes_can_run_is_common() -> None:
    assert baseline([HASWELL, SKYLAKE]).common == ("Haswell-noTSX-IBRS",)
    assert newest_common([HASWELL, SKYLAKE]) == "Haswell-noTSX-IBRS"


def test_a_model_that_both_vendors_can_run_is_common_to_both() -> None:
    assert baseline([HASWELL, SKYLAKE, MILAN]).common == ("Haswell-noTSX",)


def test_on_nodes_of_one_vendor_its_own_newer_model_is_common() -> None:
    assert baseline([MILAN]).common == ("EPYC-Milan",)


def test_where_none_spans_all_nodes_each_vendor_gets_its_own() -> None:
    rome = node("rome", "EPYC-Rome", vendor="AMD")
    found = baseline([HASWELL, SKYLAKE, MILAN, rome])
    assert found.common == ("EPYC-Rome", "Haswell-noTSX-IBRS")
    assert newest_common([HASWELL, SKYLAKE, MILAN, rome]) is None


def test_nodes_without_a_vendor_are_a_group_of_their_own() -> None:
    plain = node("plain", "Penryn", vendor="")
    assert baseline([HASWELL, plain]).common == ("Penryn", "Haswell-noTSX-IBRS")


def test_a_vendor_whose_nodes_have_nothing_in_common_gets_no_model() -> None:
    odd = node("odd", "Penryn")
    assert baseline([HASWELL, odd, MILAN]).common == ("EPYC-Milan",)


def test_a_stale_vendor_label_yields_to_the_vendor_of_the_host_model() -> None:
    moved = node("moved", "EPYC-Rome", vendor="AMD Intel", host_model="EPYC-Rome")
    rebuilt = node("rebuilt", "Haswell-noTSX", vendor="AMD Intel", host_model="Haswell-noTSX")
    found = baseline([moved, rebuilt])
    assert {choice.model: choice.vendor for choice in found.models} == {
        "EPYC-Rome": "AMD",
        "Haswell-noTSX": "Intel",
    }


def test_no_nodes_have_nothing_in_common() -> None:
    assert baseline([]) == Baseline(models=(), common=(), host_model_groups=())
    assert newest_common([]) is None


def test_a_node_without_the_schedulable_label_does_not_count() -> None:
    foreign = without(node("foreign", "Penryn"), labels.SCHEDULABLE)
    assert baseline([HASWELL, foreign]) == baseline([HASWELL])


def test_nodes_that_will_come_back_count() -> None:
    silent = node("silent", "Penryn", extra={labels.SCHEDULABLE: "false"})
    cordoned = Node("cordoned", node("cordoned", "Penryn").labels, cordoned=True, ready=False)
    for away in (silent, cordoned):
        found = baseline([HASWELL, away])
        assert found.common == ()
        assert found.models[0].node_share == 0.5


def test_a_label_that_is_not_true_offers_nothing() -> None:
    assert offered(baseline([node("n", extra={labels.CPU_MODEL + "Penryn": "false"})])) == []


def test_only_nodes_of_the_asked_architecture_count() -> None:
    amd64 = node("x", "Haswell", extra={labels.ARCH: "amd64"})
    arm64 = node("a", vendor="", extra={labels.ARCH: "arm64"})
    assert newest_common([amd64, arm64]) is None
    assert newest_common([amd64, arm64], architecture="amd64") == "Haswell"


def test_shares_are_of_all_nodes_their_cores_and_their_memory() -> None:
    big = node("big", "EPYC-Milan", vendor="AMD", cores=24, memory=448)
    found = baseline([node("small", "Haswell", cores=8, memory=64), big])
    assert found.models == (
        ModelChoice(
            "EPYC-Milan", "AMD", cpu_generations.generation("EPYC-Milan"), 1, 0.5, 0.75, 0.875
        ),
        ModelChoice("Haswell", "Intel", cpu_generations.generation("Haswell"), 1, 0.5, 0.25, 0.125),
    )


def test_shares_are_zero_where_no_node_reports_its_size() -> None:
    (only,) = baseline([Node("n", node("n", "Haswell").labels)]).models
    assert (only.nodes, only.node_share, only.core_share, only.memory_share) == (1, 1.0, 0.0, 0.0)


def test_allocatable_stands_for_a_capacity_that_is_not_reported() -> None:
    size = {"cpu": 8000, "memory": 64000}
    some = Node("n", node("n", "Haswell").labels, allocatable=size)
    (only,) = baseline([some]).models
    assert (only.core_share, only.memory_share) == (1.0, 1.0)


def test_models_with_a_better_one_of_the_same_vendor_are_left_out() -> None:
    assert offered(baseline([HASWELL, SKYLAKE])) == ["Skylake-Client-IBRS", "Haswell-noTSX-IBRS"]


def test_an_older_model_on_more_nodes_is_a_choice() -> None:
    found = baseline([HASWELL, SKYLAKE, MILAN])
    assert [(c.vendor, c.model, c.nodes) for c in found.models] == [
        ("AMD", "EPYC-Milan", 1),
        ("Intel", "Skylake-Client-IBRS", 1),
        ("Intel", "Haswell-noTSX-IBRS", 2),
        ("Intel", "Haswell-noTSX", 3),
    ]


def test_a_model_that_only_one_vendors_nodes_run_counts_as_that_vendors() -> None:
    found = baseline([node("m", "Penryn", vendor="AMD"), node("h", "Haswell")])
    assert [(c.model, c.vendor) for c in found.models] == [("Penryn", "AMD"), ("Haswell", "Intel")]


def test_a_model_that_is_not_known_ranks_oldest_and_is_still_offered() -> None:
    found = baseline([node("a", "Future-Server", "kvm64", "Haswell"), node("b", "Haswell")])
    unknown = [c for c in found.models if c.model != "Haswell"]
    assert [(c.model, c.generation, c.nodes) for c in unknown] == [
        ("kvm64", None, 1),
        ("Future-Server", None, 1),
    ]
    assert found.common == ("Haswell",)
    assert baseline([node("a", "Future-Server")]).common == ("Future-Server",)


def test_host_models_are_grouped_with_the_features_they_require() -> None:
    found = baseline(
        [
            node("a2", host_model="Haswell", requires="vmx"),
            node("b1", host_model="Haswell", requires="vmx pdcm"),
            node("a1", host_model="Haswell", requires="vmx", features="avx"),
            node("n1"),
        ]
    )
    assert [(g.host_model, g.nodes) for g in found.host_model_groups] == [
        ("", ("n1",)),
        ("Haswell", ("a1", "a2")),
        ("Haswell", ("b1",)),
    ]


def receives(*nodes: Node) -> dict[tuple[str, ...], tuple[str, ...]]:
    return {g.nodes: g.can_receive_from for g in baseline(nodes).host_model_groups}


NEW = node(
    "new",
    host_model="Skylake-Client-IBRS",
    requires="vmx",
    features="vmx pdcm",
    takes="Haswell Skylake-Client-IBRS",
)
OLD = node("old", host_model="Haswell", requires="pdcm", features="vmx pdcm", takes="Haswell")


def test_a_newer_host_can_receive_from_an_older_one_and_not_the_other_way_round() -> None:
    assert receives(NEW, OLD) == {
        ("new",): ("Haswell", "Skylake-Client-IBRS"),
        ("old",): ("Haswell",),
    }


def test_a_feature_that_the_source_requires_and_a_node_lacks_stands_in_the_way() -> None:
    lacking = without(NEW, labels.CPU_FEATURE + "pdcm")
    assert receives(lacking, OLD)[("new",)] == ("Skylake-Client-IBRS",)


def test_every_node_of_a_group_must_be_able_to_receive() -> None:
    second = node("second", host_model="Skylake-Client-IBRS", requires="vmx", features="vmx pdcm")
    assert receives(NEW, second, OLD)[("new", "second")] == ()


def test_where_a_host_model_has_several_groups_all_of_them_must_be_able_to_come() -> None:
    strange = node("strange", host_model="Haswell", requires="hle", takes="Haswell")
    assert "Haswell" not in receives(NEW, OLD, strange)[("new",)]


def test_guests_do_not_cross_vendors() -> None:
    hybrid = node("amd", vendor="AMD", features="vmx pdcm", takes="Haswell Skylake-Client-IBRS")
    assert receives(hybrid, OLD, NEW)[("amd",)] == ()
    both = node("both", vendor="AMD Intel", features="vmx pdcm", takes="Haswell")
    assert receives(both, OLD)[("both",)] == ("Haswell",)


def test_a_source_without_a_vendor_asks_for_none() -> None:
    source = node("source", vendor="", host_model="z14")
    target = node("target", vendor="IBM", host_model="gen15a", takes="z14")
    assert receives(source, target)[("target",)] == ("z14",)


def test_nodes_without_a_host_model_can_receive_and_not_send() -> None:
    nameless = node("nameless", features="vmx pdcm", takes="Haswell")
    found = receives(nameless, OLD)
    assert found == {("nameless",): ("Haswell",), ("old",): ("Haswell",)}


def test_a_node_whose_host_model_is_obsolete_receives_nothing() -> None:
    obsolete = node("old", takes="Haswell", extra={labels.OBSOLETE_HOST_MODEL: "true"})
    assert receives(obsolete, node("h", host_model="Haswell"))[("old",)] == ()


def test_the_json_has_the_published_keys_and_can_be_written() -> None:
    found = json.loads(json.dumps(to_json(baseline([node("n1", "Haswell", host_model="Haswell")]))))
    assert found == {
        "models": [
            {
                "model": "Haswell",
                "vendor": "Intel",
                "generation": cpu_generations.generation("Haswell"),
                "nodes": 1,
                "nodeShare": 1.0,
                "coreShare": 1.0,
                "memoryShare": 1.0,
            }
        ],
        "common": ["Haswell"],
        "hostModelGroups": [{"hostModel": "Haswell", "nodes": ["n1"], "canReceiveFrom": []}],
    }


MODELS = [
    "Penryn",
    "Nehalem",
    "Haswell",
    "Haswell-noTSX",
    "Haswell-v2",
    "EPYC",
    "EPYC-IBPB",
    "EPYC-IBRS",
    "EPYC-Rome",
    "kvm64",
    "Future-Server",
]
WORDS = st.lists(st.sampled_from(["a", "b", "c"]), unique=True).map(" ".join)
FLEETS = st.lists(
    st.builds(
        lambda models, **sides: ([*models], sides),
        st.lists(st.sampled_from(MODELS), unique=True),
        vendor=st.sampled_from(["", "Intel", "AMD", "AMD Intel"]),
        host_model=st.sampled_from(["", "Haswell", "EPYC-Rome"]),
        requires=WORDS,
        features=WORDS,
        takes=st.lists(st.sampled_from(["Haswell", "EPYC-Rome"]), unique=True).map(" ".join),
        cores=st.integers(0, 64),
    ),
    max_size=6,
).map(lambda made: [node(f"n{i}", *models, **sides) for i, (models, sides) in enumerate(made)])


@given(FLEETS, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(nodes: list[Node], chance: random.Random) -> None:
    mixed = chance.sample(nodes, len(nodes))
    assert baseline(mixed) == baseline(nodes)
    assert newest_common(mixed) == newest_common(nodes)


@given(FLEETS)
def test_a_model_is_offered_unless_a_better_one_of_its_vendor_is(nodes: list[Node]) -> None:
    found = baseline(nodes)
    known = [c for c in found.models if c.generation is not None]
    for one in known:
        mine = (cpu_generations.order(one.model), one.nodes)
        for other in known:
            its = (cpu_generations.order(other.model), other.nodes)
            if other.vendor == one.vendor and its != mine:
                assert not (its[0] >= mine[0] and its[1] >= mine[1])
    labelled = {name for n in nodes for name in labels.names(n.labels, labels.CPU_MODEL)}
    for left_out in labelled - {c.model for c in found.models}:
        able = sum(n.labels.get(labels.CPU_MODEL + left_out) == "true" for n in nodes)
        age = cpu_generations.order(left_out)
        assert cpu_generations.generation(left_out) is not None
        assert any(c.nodes >= able and cpu_generations.order(c.model) >= age for c in known)


@given(FLEETS)
def test_what_is_common_to_all_runs_everywhere_and_nothing_newer_does(nodes: list[Node]) -> None:
    everywhere = [
        m for m in MODELS if nodes and all(labels.CPU_MODEL + m in n.labels for n in nodes)
    ]
    common = newest_common(nodes)
    assert (common is None) is (not everywhere)
    if common is not None:
        assert common in everywhere
        assert all(cpu_generations.order(m) <= cpu_generations.order(common) for m in everywhere)
        assert baseline(nodes).common == (common,)


@given(FLEETS)
def test_every_node_is_in_exactly_one_host_model_group(nodes: list[Node]) -> None:
    grouped = [name for group in baseline(nodes).host_model_groups for name in group.nodes]
    assert sorted(grouped) == sorted(n.name for n in nodes)


@given(FLEETS)
def test_a_group_receives_just_what_each_of_its_nodes_can_take(nodes: list[Node]) -> None:
    by_name = {n.name: n.labels for n in nodes}
    groups = baseline(nodes).host_model_groups
    for group in groups:
        for host_model in {g.host_model for g in groups} - {""}:
            sources = [s for g in groups if g.host_model == host_model for s in g.nodes]
            able = all(takes(by_name[t], by_name[s]) for t in group.nodes for s in sources)
            assert (host_model in group.can_receive_from) is able


def takes(target: Mapping[str, str], source: Mapping[str, str]) -> bool:
    """Judge one pair of nodes as KubeVirt's selectors do."""
    (host_model,) = labels.names(source, labels.HOST_MODEL_CPU)
    wanted = [labels.CPU_MODEL_MIGRATION + host_model]
    required = labels.names(source, labels.HOST_MODEL_REQUIRED_FEATURES)
    wanted += [labels.CPU_FEATURE + feature for feature in required]
    vendors = labels.names(source, labels.CPU_VENDOR)
    same = not vendors or any(labels.CPU_VENDOR + v in target for v in vendors)
    return same and all(key in target for key in wanted)
