"""``serve``: the admission webhook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.cli.deadlines import compare_with_kubevirt
from webhook.cli.decision_log import DecisionLog
from webhook.cli.errors import CommandError
from webhook.cli.ids import new_id
from webhook.cli.loading import load_configuration, require_inventory
from webhook.cli.options import Commands, add_command, add_config, add_inventory
from webhook.cli.served_files import ServedFiles
from webhook.cluster.documents import STANDARD_INPUT
from webhook.policy.checking import check
from webhook.policy.findings import ConfigurationError, Level

if TYPE_CHECKING:
    import argparse

    from webhook.cluster.inventory import Inventory
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review
    from webhook.review.decision import Circumstances, Decision
    from webhook.serving.readiness import Readiness
    from webhook.serving.server import Parts


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
        "logged on stderr, one line of JSON each.\n\n"
        "Exit status: 0 after SIGTERM or SIGINT, 2 if it cannot start.",
        examples="%(prog)s --inventory cluster.yaml\n"
        "%(prog)s --inventory cluster.yaml --config guard.yaml --tls-cert tls.crt "
        "--tls-key tls.key",
    )
    parser.add_argument("--port", metavar="PORT", type=int, default=8443, help="HTTPS (8443)")
    parser.add_argument(
        "--ops-port", metavar="PORT", type=int, default=8080, help="health and metrics (8080)"
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
    add_inventory(parser)
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal says stop."""
    # What is wrong is told before a port is opened; the worker then reads both for itself.
    load_configuration(args.config)
    require_inventory(args.inventory)
    if any(str(path) == STANDARD_INPUT for path in args.inventory):
        raise CommandError("--inventory -: the server reads its inventory from files only")
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
    )
    return serve(settings, lambda: build(args.config, args.inventory))


def build(config: Path | None, paths: Sequence[Path]) -> Parts:
    """Make all that the server serves from a configuration file and an inventory.

    Raises:
        StartError: One of them cannot be read.
    """
    from webhook.review.answer import Answerer
    from webhook.serving.errors import StartError
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness
    from webhook.serving.server import Parts

    readiness, metrics, log = Readiness(_clock), Metrics(), DecisionLog(_clock)

    def tell(configuration: Configuration, inventory: Inventory) -> None:
        report(readiness, configuration, config, inventory)

    try:
        files = ServedFiles(config, paths, readiness, metrics, tell)
    except (CommandError, ConfigurationError) as error:
        raise StartError(str(error)) from error

    def keep(review: Review, decision: Decision, circumstances: Circumstances) -> None:
        for result in decision.rules:
            metrics.count_decision(result.rule.value, result.mode.value, result.outcome.value)
        log.write(review, decision)

    answerer = Answerer(files.facts, files.configuration, _clock, new_id, on_decision=keep)
    files.watch()
    return Parts(answerer.answer, readiness, metrics)


def report(
    readiness: Readiness,
    configuration: Configuration,
    config: Path | None,
    inventory: Inventory,
) -> None:
    """Put on the readiness board what was read, and what to know about it."""
    findings = [f for f in check(configuration) if f.level is Level.WARNING]
    where = str(config) if config is not None else "defaults"
    readiness.report("configuration", True, "; ".join((where, *map(str, findings))))
    readiness.report("facts", True, _facts(inventory))
    kubevirt = inventory.snapshot.kubevirt
    if not kubevirt.known:
        readiness.report(
            "kubevirt", True, f"no KubeVirt CR among the facts; taken as {kubevirt.version}"
        )
    elif not kubevirt.version_known:
        readiness.report(
            "kubevirt",
            True,
            f"warning: its version cannot be read from the CR; taken as {kubevirt.version}",
        )
    else:
        readiness.report("kubevirt", True, str(kubevirt.version))
    deadlines = compare_with_kubevirt(configuration, inventory.snapshot)
    for finding in deadlines[:1]:
        more = f" (and {len(deadlines) - 1} more)" if len(deadlines) > 1 else ""
        readiness.report("deadline", True, f"warning: {finding.message}{more}")


def _facts(inventory: Inventory) -> str:
    words = [_counted(inventory.counts)]
    if blind := inventory.snapshot.blind():
        words.append(f"warning: {blind}")
    if inventory.errors:
        count = len(inventory.errors)
        what = "1 document" if count == 1 else f"{count} documents"
        words.append(f"warning: {what} left out; the first: {inventory.errors[0]}")
    return "; ".join(words)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"


def _clock() -> datetime:
    return datetime.now(UTC)
