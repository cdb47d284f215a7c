"""``serve``: the admission webhook."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from webhook.cli.audit_options import add_audit_limits, add_audit_place, audit_settings
from webhook.cli.decision_log import DecisionLog, LogForm
from webhook.cli.errors import CommandError
from webhook.cli.ids import new_id
from webhook.cli.loading import facts_place, load_configuration
from webhook.cli.options import Commands, add_command, add_config, add_inventory, count, seconds
from webhook.cli.served_audit import ServedAudit
from webhook.cluster.documents import STANDARD_INPUT
from webhook.policy.findings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.audit.keeper import AuditSettings
    from webhook.cli.loading import FactsPlace
    from webhook.cluster.connection import Connection
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review
    from webhook.review.answer import Keeping
    from webhook.review.decision import Circumstances, Decision
    from webhook.serving.key_pair import KeyPair
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness
    from webhook.serving.server import Parts

_KEPT_WITHIN = 5.0
"""Seconds that the end of a migration waits for its record; a disk that hangs longer stops none."""


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "serve",
        run,
        about="run the admission webhook",
        description="Answer AdmissionReviews over HTTPS on /mutate and /validate, with /livez, "
        "/readyz (?verbose) and /metrics over plain HTTP on a second port. Without a\n"
        "certificate one is made for development. Decisions that refuse, warn or change are "
        "logged on stderr, one line each. The cluster is followed as it changes;\n"
        "facts from files are read again when the files change.\n\n"
        "Exit status: 0 after SIGTERM or SIGINT, 2 if it cannot start.",
        examples="%(prog)s --config guard.yaml\n"
        "%(prog)s --inventory cluster.yaml --config guard.yaml --tls-cert tls.crt "
        "--tls-key tls.key",
    )
    parser.add_argument("--port", metavar="PORT", type=int, default=8443, help="HTTPS (8443)")
    parser.add_argument(
        "--ops-port", metavar="PORT", type=int, default=8080, help="health and metrics (8080)"
    )
    parser.add_argument(
        "--most-reviews",
        metavar="NUMBER",
        type=count,
        default=256,
        help="reviews in flight at a time; one more is answered 503 (256)",
    )
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        default="0.0.0.0",  # noqa: S104 - the API server comes from another machine
        help="address of both ports (0.0.0.0)",
    )
    parser.add_argument("--tls-cert", metavar="FILE", type=Path, help="certificate, in PEM")
    parser.add_argument("--tls-key", metavar="FILE", type=Path, help="its key, in PEM")
    parser.add_argument(
        "--tls-ca",
        metavar="FILE",
        type=Path,
        help="CAs that the webhook configurations hold as caBundle, in PEM: /readyz then says "
        "whether one of them issued the certificate, and until when",
    )
    parser.add_argument(
        "--tls-min-version",
        metavar="VERSION",
        choices=("1.2", "1.3"),
        default="1.3",
        help="oldest TLS version that is spoken: 1.2 or 1.3 (1.3)",
    )
    parser.add_argument(
        "--client-ca",
        metavar="FILE",
        type=Path,
        help="answer only clients with a certificate of these CAs, in PEM",
    )
    parser.add_argument(
        "--client-name",
        metavar="NAME",
        action="append",
        default=[],
        help="and with this name in it: common name, DNS name or URI; can be given several times",
    )
    parser.add_argument(
        "--certs-dir",
        metavar="FOLDER",
        type=Path,
        default=Path("certs"),
        help="where the development certificate is kept (certs)",
    )
    parser.add_argument(
        "--ports-file",
        metavar="FILE",
        type=Path,
        help="write both port numbers there, as JSON, once they are open",
    )
    parser.add_argument(
        "--most-connections",
        metavar="NUMBER",
        type=count,
        default=1000,
        help="HTTPS connections at once, those in the TLS handshake too; one more ends one of "
        "the address that has most (1000)",
    )
    parser.add_argument(
        "--most-connections-per-peer",
        metavar="NUMBER",
        type=count,
        default=500,
        help="of them from one address, behind which several API servers may stand; one more "
        "ends one of its own (500)",
    )
    parser.add_argument(
        "--stall-seconds",
        metavar="SECONDS",
        type=seconds,
        default=9.0,
        help="how long an HTTPS client may take for the TLS handshake, for a whole request, and "
        "to read an answer (9)",
    )
    parser.add_argument(
        "--events",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tell of refusals, warnings and exceptions in Events on the VMI (where a cluster is "
        "followed)",
    )
    parser.add_argument(
        "--deadlines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end migrations that overrun their deadline (where a cluster is followed; one replica "
        "does, the one that holds the lease)",
    )
    parser.add_argument(
        "--log-format",
        choices=[form.value for form in LogForm],
        default=LogForm.AUTO.value,
        help="of the decisions on stderr; auto: text on a terminal, JSON elsewhere (auto)",
    )
    add_inventory(parser)
    add_config(parser)
    add_audit_place(parser)
    add_audit_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal says stop."""
    # What is wrong is told before a port is opened; the worker then reads all for itself.
    load_configuration(args.config)
    place = facts_place(args)
    if any(str(path) == STANDARD_INPUT for path in args.inventory):
        raise CommandError("--inventory -: the server reads its inventory from files only")
    audit = audit_settings(args)
    from webhook.serving.server import ServerSettings, serve

    settings = ServerSettings(
        bind=args.bind,
        port=args.port,
        ops_port=args.ops_port,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        certs_dir=args.certs_dir,
        tls_ca=args.tls_ca,
        tls_min_version=args.tls_min_version,
        client_ca=args.client_ca,
        client_names=frozenset(args.client_name),
        ports_file=args.ports_file,
        stall_seconds=args.stall_seconds,
        most_connections=args.most_connections,
        most_connections_per_peer=args.most_connections_per_peer,
        most_reviews=args.most_reviews,
    )
    return serve(
        settings,
        lambda certificate: build(
            args.config,
            place,
            certificate,
            audit,
            events=args.events,
            deadlines=args.deadlines,
            log_form=LogForm(args.log_format),
        ),
    )


def build(
    config: Path | None,
    place: FactsPlace,
    certificate: Callable[[], KeyPair],
    audit: AuditSettings | None = None,
    *,
    events: bool = True,
    deadlines: bool = True,
    log_form: LogForm = LogForm.AUTO,
) -> Parts:
    """Make all that the server serves from a configuration file, and facts.

    Args:
        config: The configuration file; None for the defaults.
        place: Where the facts come from.
        certificate: The one that is served at the moment.
        audit: Where decisions are kept; None to keep none.
        events: Whether Events are written, if the facts come from a cluster.
        deadlines: Whether the deadlines of migrations are enforced, likewise.
        log_form: In which form decisions are logged.

    Raises:
        StartError: A file cannot be read, or the audit's folder cannot be used.
    """
    from webhook.cli.cluster_report import ClusterReport
    from webhook.cli.served_configuration import ServedConfiguration
    from webhook.review.answer import Answerer
    from webhook.review.decision import Circumstances
    from webhook.serving.errors import StartError
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness
    from webhook.serving.server import Parts

    readiness, metrics, log = Readiness(_clock), Metrics(), DecisionLog(_clock, form=log_form)
    report = ClusterReport(readiness)

    def tell() -> None:
        report.tell(configuration.current(), source.snapshot())

    try:
        configuration = ServedConfiguration(config, readiness, metrics, tell)
        cluster = None if place.paths else place.connect()
        source = _source(
            place, cluster, configuration.current, certificate, readiness, metrics, tell
        )
    except (CommandError, ConfigurationError) as error:
        raise StartError(str(error)) from error
    tell()

    kept = ServedAudit(audit, readiness, metrics, log, cluster, source.age, events=events)

    def note(review: Review, decision: Decision) -> None:
        for result in decision.rules:
            metrics.count_decision(result.rule, result.mode.value, result.outcome)
        if decision.blind is not None:
            metrics.count_blind(decision.blind)
        log.write(review, decision)

    def keep(review: Review, decision: Decision, circumstances: Circumstances) -> Keeping | None:
        note(review, decision)
        return kept.keep(review, decision, circumstances)

    def keep_overrun(review: Review, decision: Decision, facts: Snapshot) -> None:
        note(review, decision)
        circumstances = Circumstances(mutating=False, facts=facts, now=_clock())
        kept.keep_waiting(review, decision, circumstances, _KEPT_WITHIN)

    def stop() -> None:
        if control is not None:
            control.stop()
        kept.stop()

    control = None
    if cluster is not None and deadlines:
        from webhook.cli.served_control import ServedControl

        control = ServedControl(
            cluster, source.snapshot, configuration.current, keep_overrun, readiness, metrics
        )
    answerer = Answerer(source.snapshot, configuration.current, _clock, new_id, on_decision=keep)
    configuration.watch()
    source.watch()
    kept.start()
    if control is not None:
        control.start()
    return Parts(answerer.answer, readiness, metrics, stop, kept.pages())


class _Source(Protocol):
    """Where facts come from while the server runs."""

    def snapshot(self) -> Snapshot:
        """Return the facts of this moment."""

    def age(self) -> float | None:
        """Return the seconds since the last sign of life; None for files."""

    def watch(self) -> None:
        """Begin to follow changes."""


def _source(
    place: FactsPlace,
    cluster: Connection | None,
    configuration: Callable[[], Configuration],
    certificate: Callable[[], KeyPair],
    readiness: Readiness,
    metrics: Metrics,
    changed: Callable[[], None],
) -> _Source:
    if cluster is None:
        from webhook.cli.served_files import ServedInventory

        return ServedInventory(place.paths, readiness, metrics, changed)
    from webhook.cli.served_cluster import ServedCluster

    return ServedCluster(cluster, configuration, certificate, readiness, metrics, changed)


def _clock() -> datetime:
    return datetime.now(UTC)
