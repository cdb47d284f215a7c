"""Fixtures: one test bed for the whole run, and a pool of its own for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.audit import postgres
from tests.testbed.bed import recipe
from tests.testbed.bed.api import JSON_PATCH
from tests.testbed.bed.guard import Guard
from tests.testbed.bed.kubevirt import CR
from tests.testbed.bed.load import Question, movable_and_stuck
from tests.testbed.bed.pool import Pool, pool_name
from tests.testbed.bed.testbed import TestBed
from tests.testbed.knowing import Probe

KEPT_LOGS = recipe.CHECKOUT / ".cache" / "testbed-logs"
_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.testbed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Remember whether a test failed, for the fixtures that end after it."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(scope="session")
def _one_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestBed]:
    if missing := recipe.stale():
        names = ", ".join(program.name for program in missing)
        pytest.fail(f"not built, or by another recipe: {names}; run: make testbed", pytrace=False)
    shutil.rmtree(KEPT_LOGS, ignore_errors=True)
    bed = TestBed(tmp_path_factory.mktemp("testbed") / "bed")
    try:
        bed.start()
        yield bed
    except BaseException:
        bed.keep_logs(KEPT_LOGS / "start", {})
        raise
    finally:
        bed.stop()


@pytest.fixture
def testbed(_one_bed: TestBed, request: pytest.FixtureRequest) -> Iterator[TestBed]:
    """The bed of this run. If the test fails, what its programs printed meanwhile is kept."""
    before = _one_bed.log_sizes()
    yield _one_bed
    dead = [component.name for component in _one_bed.components if not component.running]
    if request.node.stash.get(_FAILED, False) or dead:
        folder = KEPT_LOGS / request.node.name
        _one_bed.keep_logs(folder, before)
        print(f"the logs of this test are in {folder}")
    for component in _one_bed.components:
        if component.name in dead:
            component.start()
            component.wait_until_ready()
    assert not dead, f"ended during this test: {dead}"


@pytest.fixture
def pool(testbed: TestBed, request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A namespace and nodes of the test's own."""
    mine = Pool(testbed, pool_name(request.node.name.removeprefix("test_")))
    mine.open()
    yield mine
    mine.close()


@pytest.fixture(scope="module")
def module_pool(_one_bed: TestBed, request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A namespace and nodes that the tests of one module share."""
    shared = Pool(_one_bed, pool_name(request.node.path.stem.removeprefix("test_")))
    shared.open()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def questions(module_pool: Pool) -> tuple[Question, Question]:
    """Migrations of a VM that can move and of one that cannot, for a load of reviews."""
    return movable_and_stuck(module_pool)


@pytest.fixture(scope="module")
def probe(module_pool: Pool) -> Probe:
    """A VM that shows what the guard knows."""
    return Probe(module_pool)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a PostgreSQL database for the audit."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="module")
def guard(
    _one_bed: TestBed, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """The guard, installed for the tests of one module.

    The module can name an ``OVERLAY``, say that it wants a ``DATABASE``, ``prepare`` the cluster
    before and ``clean`` it after.
    """
    overlay = getattr(request.module, "OVERLAY", "overlays/kubevirt")
    if prepare := getattr(request.module, "prepare", None):
        prepare(_one_bed)
    wanted = getattr(request.module, "DATABASE", False)
    database = request.getfixturevalue("database") if wanted else ""
    installed = Guard(_one_bed, tmp_path_factory.mktemp("guard"), overlay, database)
    try:
        installed.install()
        yield installed
    finally:
        installed.uninstall()
        if clean := getattr(request.module, "clean", None):
            clean(_one_bed)


@pytest.fixture
def kubevirt_cr(testbed: TestBed) -> Iterator[str]:
    """The path of the KubeVirt CR, for tests that change it; its spec is put back afterwards.

    Tests run one after another, so no other test sees the change.
    """
    before = testbed.api.get(CR)["spec"]
    yield CR
    testbed.api.patch(CR, [{"op": "replace", "path": "/spec", "value": before}], JSON_PATCH)
