"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

import math
import platform
from enum import StrEnum
from importlib import metadata
from typing import TYPE_CHECKING, Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from webhook.audit.event_recorder import Dropped
from webhook.policy.rules import Mode, Rule
from webhook.review.decision import Blind, Outcome
from webhook.serving.clients import Reason
from webhook.serving.connection import Ending
from webhook.serving.in_flight import Shed
from webhook.serving.log_writer import LineKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from prometheus_client.registry import Collector

PATHS = ("/mutate", "/validate")
"""The paths that take reviews; any other is counted as ``other``."""

OUTCOMES = tuple(outcome.value for outcome in Outcome)
"""What can come of a rule, or of a review."""

BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0)
"""Seconds; the upper end lies beyond any timeout the API server allows a webhook by default."""


class Miss(StrEnum):
    """What had not ended when the time for a reply was over."""

    BODY = "body"
    DECISION = "decision"
    RECORD = "record"


OTHER = "other"
"""Stands for a label value that is not on its list, so that no caller can add time series."""

_RULES = frozenset(rule.value for rule in Rule)
_MODES = frozenset(mode.value for mode in Mode)
_OUTCOMES = frozenset(OUTCOMES)


class FollowedKind(Protocol):
    """A kind of object in a live cluster, as :mod:`webhook.cluster.following` keeps it."""

    @property
    def age(self) -> float:
        """Seconds since the last sign of life; infinite before the first."""

    @property
    def count(self) -> int:
        """How many objects are kept."""


class Metrics:
    """The server's metrics, in a registry of their own; safe to use from any thread."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._reviews = Counter(
            "migration_guard_reviews",
            "Requests answered on the admission port, by path and HTTP status code.",
            ("path", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "migration_guard_review_duration_seconds",
            "Time from the first byte of a request until its answer was handed to the network.",
            ("path",),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._decisions = Counter(
            "migration_guard_decisions",
            "What the rules decided, by rule, mode and outcome.",
            ("rule", "mode", "outcome"),
            registry=self._registry,
        )
        self._misses = Counter(
            "migration_guard_deadline_misses",
            "Replies that did not leave within their budget, or could not wait any longer, by what "
            "had not ended by then: body (answered 408), decision (answered as blind where it had "
            "not begun), record (the decision was being kept).",
            ("awaited",),
            registry=self._registry,
        )
        self._blind = Counter(
            "migration_guard_blind_answers",
            "Reviews that were answered without a decision, by reason.",
            ("reason",),
            registry=self._registry,
        )
        self._shed = Counter(
            "migration_guard_reviews_shed",
            "Requests answered 503 because there was no room for them, by reason.",
            ("reason",),
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "migration_guard_reviews_in_flight",
            "Requests being received or answered on the admission port.",
            registry=self._registry,
        )
        self._files = Gauge(
            "migration_guard_file_taken_up",
            "Whether the newest state of a file is in use: 0 where it is broken and the old holds.",
            ("file",),
            registry=self._registry,
        )
        self._ages = Gauge(
            "migration_guard_facts_age_seconds",
            "Time since the API server last showed that what is known of a kind still holds; "
            "+Inf before it was read.",
            ("kind",),
            registry=self._registry,
        )
        self._objects = Gauge(
            "migration_guard_facts_objects",
            "Objects of a kind that are kept.",
            ("kind",),
            registry=self._registry,
        )
        self._certificate = Gauge(
            "migration_guard_certificate_not_after_seconds",
            "When the certificate that is served ends, or its CA if sooner, as Unix time.",
            registry=self._registry,
        )
        self._clients = Counter(
            "migration_guard_clients_refused",
            "Connections whose requests are answered with 403 for the client's certificate.",
            ("reason",),
            registry=self._registry,
        )
        self._connections = Gauge(
            "migration_guard_connections",
            "Connections to the admission port: in the TLS handshake, and open after it.",
            ("state",),
            registry=self._registry,
        )
        self._closed_connections = Counter(
            "migration_guard_connections_closed",
            "Connections to the admission port that were closed, by how.",
            ("how",),
            registry=self._registry,
        )
        for ending in Ending:
            self._closed_connections.labels(ending.value)
        self._drift = Gauge(
            "migration_guard_installation_drift",
            "Differences between the installation and what the guard needs of it; "
            "NaN where that is not known.",
            registry=self._registry,
        )
        self._drift.set(math.nan)
        self._leads = Gauge(
            "migration_guard_leader",
            "Whether this replica is the one that enforces deadlines.",
            registry=self._registry,
        )
        self._running = Gauge(
            "migration_guard_migrations_running",
            "Migrations that copy now and have a deadline; 0 on a replica that does not lead.",
            registry=self._registry,
        )
        self._overdue = Gauge(
            "migration_guard_migrations_overdue",
            "Those of them whose deadline has passed, and that have not ended yet.",
            registry=self._registry,
        )
        self._dropped_events = Counter(
            "migration_guard_events_dropped",
            "Events that were not written: full (too many different ones at once), refused (no "
            "right to, or no such namespace), failed (for ten minutes).",
            ("reason",),
            registry=self._registry,
        )
        for why in Dropped:
            self._dropped_events.labels(why.value)
        self._lost_lines = Counter(
            "migration_guard_log_lines_lost",
            "Lines of the log that nobody read in time, or that could not be written: record (that "
            "the audit could not keep either), other.",
            ("kind",),
            registry=self._registry,
        )
        for kind in LineKind:
            self._lost_lines.labels(kind.value)
        build = Gauge(
            "migration_guard_build_info",
            "Always 1; the labels say what is running.",
            ("version", "python"),
            registry=self._registry,
        )
        build.labels(_version(), platform.python_version()).set(1)
        ProcessCollector(registry=self._registry)
        # Looking a series up by its labels takes longer than counting in it.
        self._of_review: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._of_decision: dict[tuple[str, str, str], Counter] = {}
        for path in PATHS:
            # A series that appears with its first event hides that event from rate().
            self._reviews.labels(path, "200")
            self._seconds.labels(path)
        for miss in Miss:
            self._misses.labels(miss.value)
        for shed in Shed:
            self._shed.labels(shed.value)
        for blind in Blind:
            self._blind.labels(blind.value)
        for reason in Reason:
            self._clients.labels(reason.value)

    def add(self, collector: Collector) -> None:
        """Render what a collector yields too."""
        self._registry.register(collector)

    def observe_review(self, path: str, code: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            path: The request's path.
            code: The HTTP status code it was answered with.
            seconds: How long that took.
        """
        label = path if path in PATHS else OTHER
        series = self._of_review.get((label, code))
        if series is None:
            series = self._reviews.labels(label, str(code)), self._seconds.labels(label)
            self._of_review[label, code] = series
        count, durations = series
        count.inc()
        durations.observe(seconds)

    def count_decision(self, rule: str, mode: str, outcome: str) -> None:
        """Count what one rule decided; values that are on no list count as ``other``."""
        known = (
            rule if rule in _RULES else OTHER,
            mode if mode in _MODES else OTHER,
            outcome if outcome in _OUTCOMES else OTHER,
        )
        series = self._of_decision.get(known)
        if series is None:
            series = self._of_decision[known] = self._decisions.labels(*known)
        series.inc()

    def count_deadline_miss(self, miss: Miss) -> None:
        """Count a reply whose time was over before something had ended."""
        self._misses.labels(miss.value).inc()

    def count_blind(self, reason: Blind) -> None:
        """Count a review that was answered without a decision."""
        self._blind.labels(reason.value).inc()

    def count_shed(self, reason: Shed) -> None:
        """Count a request that there was no room for."""
        self._shed.labels(reason.value).inc()

    def watch_in_flight(self, count: Callable[[], int]) -> None:
        """Ask at each scrape how many requests are in flight; from the scraping thread."""
        self._in_flight.set_function(count)

    def note_file(self, file: str, *, taken_up: bool) -> None:
        """Note whether the newest state of a file is in use; ``file`` is one of a few names."""
        self._files.labels(file).set(1 if taken_up else 0)

    def follow_kind(self, name: str, kind: FollowedKind) -> None:
        """Show from now on how fresh the facts of a kind are; ``name`` is one of a few."""
        self._ages.labels(name).set_function(lambda: kind.age)
        self._objects.labels(name).set_function(lambda: kind.count)

    def note_certificate(self, not_after: datetime) -> None:
        """Note when the certificate that is served ends; the time has its time zone."""
        self._certificate.set(not_after.timestamp())

    def note_drift(self, differences: int | None) -> None:
        """Note in how many ways the installation differs; None where that is not known."""
        self._drift.set(math.nan if differences is None else differences)

    def note_deadlines(self, *, leads: bool, running: int, overdue: int) -> None:
        """Note whether this replica leads, and how the migrations that run stand with it."""
        self._leads.set(leads)
        self._running.set(running)
        self._overdue.set(overdue)

    def count_refused_client(self, reason: Reason) -> None:
        """Count one connection of a client that is not allowed."""
        self._clients.labels(reason.value).inc()

    def count_dropped_event(self, reason: Dropped) -> None:
        """Count a Kubernetes Event that was not written."""
        self._dropped_events.labels(reason.value).inc()

    def count_lost_line(self, kind: LineKind) -> None:
        """Count a line of the log that is lost."""
        self._lost_lines.labels(kind.value).inc()

    def watch_connections(self, handshakes: Callable[[], int], opened: Callable[[], int]) -> None:
        """Have the connections counted whenever the metrics are asked for, in any thread."""
        self._connections.labels("handshake").set_function(handshakes)
        self._connections.labels("open").set_function(opened)

    def count_closed_connection(self, how: Ending) -> None:
        """Count a connection that was closed."""
        self._closed_connections.labels(how.value).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format (see ``content_type``)."""
        return generate_latest(self._registry)


def _version() -> str:
    try:
        return metadata.version("migration-guard")
    except metadata.PackageNotFoundError:
        return "unknown"
