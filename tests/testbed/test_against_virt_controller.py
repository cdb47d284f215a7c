"""What the model predicts of a target pod is what the real virt-controller then posts."""

from __future__ import annotations

import pytest

from tests.cluster.objects import facts
from tests.testbed import virtual_machines
from tests.testbed.bed.api import Object, path
from tests.testbed.bed.pool import CPUS, HOLD, KUBEVIRT, Pool
from tests.testbed.virtual_machines import FORGETS_THE_SOURCE, KINDS
from webhook.model import labels
from webhook.model.migration import Migration
from webhook.model.node_affinity import Expression, Term, read_terms
from webhook.model.requirements import Requirements

AMD = "cpu-vendor.node.kubevirt.io/AMD"


@pytest.fixture
def many_migrations(pool: Pool, kubevirt_cr: str) -> None:
    """Let all migrations of a test begin at once; by default a node sends off two at a time."""
    at_once = {"parallelMigrationsPerCluster": 100, "parallelOutboundMigrationsPerNode": 100}
    change = {"spec": {"configuration": {"migrations": at_once}}}
    pool.api.patch(kubevirt_cr, change)


@pytest.mark.usefixtures("many_migrations")
@pytest.mark.parametrize("cpu", CPUS)
def test_a_target_pod_demands_what_is_predicted(pool: Pool, cpu: str) -> None:
    source = pool.node(cpu, labels={"zone": "a"})
    pool.node("icelake")
    # An AMD node has other models: what it cannot start at all is nothing to compare.
    names = {
        f"vm{n}": kind for n, kind in enumerate(KINDS) if cpu != "milan" or "named" not in kind
    }
    predicted, posted = _migrate_all(pool, source, {n: KINDS[kind] for n, kind in names.items()})
    for name, kind in names.items():
        _assert_equal(kind, predicted[name], posted[name])
        assert bool(predicted[name].additions) == (kind in FORGETS_THE_SOURCE), kind


@pytest.mark.usefixtures("many_migrations")
def test_a_source_without_host_model_label_leaves_no_cpu_in_the_target_pod(pool: Pool) -> None:
    label = f"{labels.HOST_MODEL_CPU}{CPUS['icelake'][1]}"
    source = pool.node("icelake", labels={"zone": "a", label: None})
    pool.node("icelake")
    kinds = {"vm": KINDS["host-model"], "selected": KINDS["host-model, node selector"]}
    predicted, posted = _migrate_all(pool, source, kinds)
    for name in kinds:
        _assert_equal(name, predicted[name], posted[name])
        assert [o.code for o in predicted[name].everywhere] == ["source-cpu-unknown"]
        assert not [key for key in posted[name]["spec"]["nodeSelector"] if "cpu-model" in key]


@pytest.mark.usefixtures("many_migrations")
@pytest.mark.parametrize("model", ["host-model", "host-passthrough"])
def test_an_added_vendor_switches_kubevirts_own_vendor_off(pool: Pool, model: str) -> None:
    source = pool.node("icelake")
    pool.node("milan")
    kinds = {"vm": virtual_machines.plain(model)}
    predicted, posted = _migrate_all(pool, source, kinds, added={AMD: "true"})
    _assert_equal(model, predicted["vm"], posted["vm"])
    assert predicted["vm"].additions == {"cpu-vendor.node.kubevirt.io/Intel": "true"}


def test_a_second_migration_demands_what_the_first_remembered(pool: Pool) -> None:
    first, second = pool.node("cascadelake"), pool.node("cascadelake")
    pool.vm("web", "host-model", on=first)
    pool.wait_migration(pool.migrate("web"))
    # What the node says of itself now no longer counts.
    gone = {"host-model-required-features.node.kubevirt.io/md-clear": None}
    pool.change_node(second, {"metadata": {"labels": gone}})
    known = _known(pool)
    migration = pool.migrate("web")
    demanded = known.requirements(
        known.vmis[f"{pool.namespace}/web"], Migration.from_object(pool.migration(migration))
    )
    _assert_equal("second migration", demanded, pool.target_pod(migration))
    origins = {s.origin for s in demanded.selectors.values() if "md-clear" in s.key}
    assert origins == {"remembered"}


def _migrate_all(
    pool: Pool,
    source: str,
    kinds: virtual_machines.Kinds,
    added: dict[str, str] | None = None,
) -> tuple[dict[str, Requirements], dict[str, Object]]:
    """Start a VM of each kind on a node and migrate all; return predictions and target pods."""
    others = [node for node in pool.nodes if node != source]
    for node in others:
        pool.cordon(node)
    for name, describe in kinds.items():
        vm = describe(name)
        inner = vm["spec"]["template"]
        inner["metadata"]["annotations"] = {HOLD: "until its target pod is seen"}
        selector = inner["spec"].get("nodeSelector", {})
        inner["spec"]["nodeSelector"] = {**selector, "testbed/pool": pool.name}
        pool.api.create(pool.at(KUBEVIRT, "virtualmachines"), vm)
    for name in kinds:
        pool.wait_running(name)
    for node in others:
        pool.cordon(node, on=False)
    known = _known(pool)
    predicted, migrations = {}, {}
    for name in kinds:
        vmi = known.vmis[f"{pool.namespace}/{name}"]
        asked = Migration.from_object(pool.migration_manifest(name, added))
        predicted[name] = known.requirements(vmi, asked)
        migrations[name] = pool.migrate(name, added)
    return predicted, {name: pool.target_pod(migrations[name]) for name in kinds}


def _known(pool: Pool):
    """Read the facts that a prediction rests on."""
    api = pool.api
    return facts(
        *_typed("v1", "Node", api.items(path("v1", "nodes"))),
        *_typed("v1", "Pod", api.items(pool.at("v1", "pods"))),
        *api.items(pool.at(KUBEVIRT, "virtualmachineinstances")),
        *api.items(path(KUBEVIRT, "kubevirts")),
    )


def _typed(version: str, kind: str, objects: list[Object]) -> list[Object]:
    """Write version and kind into the objects of a list, where built-in kinds lack them."""
    return [{**obj, "apiVersion": version, "kind": kind} for obj in objects]


def _assert_equal(kind: str, predicted: Requirements, posted: Object) -> None:
    of_kubevirt = predicted.without_additions()
    selectors = {key: s.value for key, s in of_kubevirt.selectors.items()}
    assert selectors == posted["spec"]["nodeSelector"], kind
    affinity = posted["spec"].get("affinity", {})
    required = affinity.get("nodeAffinity", {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution", {}
    )
    terms = read_terms(required.get("nodeSelectorTerms"), "nodeSelectorTerms")
    assert _without_moot(terms, predicted) == _expected_terms(predicted), kind
    own = [
        term["labelSelector"]["matchLabels"]
        for term in affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        if labels.CREATED_BY in term["labelSelector"]["matchLabels"]
    ]
    assert len(own) == 1, kind


def _without_moot(terms: tuple[Term, ...], predicted: Requirements) -> set[Term]:
    """Leave out what does not matter: a term of KubeVirt's own demands alone makes others moot."""
    alone = Term(_absent(predicted))
    return {alone} if alone.expressions and alone in terms else set(terms)


def _absent(predicted: Requirements) -> tuple[Expression, ...]:
    return tuple(Expression(a.key, "DoesNotExist") for a in predicted.absent)


def _expected_terms(predicted: Requirements) -> set[Term]:
    """Write the labels that must be absent into every term, as KubeVirt does."""
    absent = _absent(predicted)
    terms = predicted.affinity
    if terms is None:
        return {Term(absent)} if absent else set()
    return {Term((*term.expressions, *absent), term.fields) for term in terms}
