"""Servers to test against; each is ended by its own process id."""

from __future__ import annotations

import pytest

from tests.server.running import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests of a module."""
    running = RunningServer(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture
def start_server(tmp_path):
    """Start servers of the test's own."""
    running: list[RunningServer] = []

    def start(**settings):
        running.append(RunningServer(tmp_path, **settings))
        return running[-1]

    yield start
    for one in running:
        one.close()
