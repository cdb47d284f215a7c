"""``certs issue|show|verify``: certificates for the server."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.cli.errors import CommandError
from webhook.cli.exit_status import ALL_WELL, SAYS_NO
from webhook.cli.options import Commands, add_command, add_group, add_output
from webhook.cli.printing import Screen, Styled, emit
from webhook.cluster.documents import STANDARD_INPUT

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cryptography import x509

    from webhook.cli.certificate_report import Check
    from webhook.serving.certificates import CertificateFiles
    from webhook.serving.issuing import Issued

SERVICE = "migration-guard"
NAMESPACE = "migration-guard"
DAYS = 365
MOST_DAYS = 3650


def add(commands: Commands) -> None:
    """Describe the command and its own commands to the parser."""
    group = add_group(
        commands,
        "certs",
        about="issue, show and verify the server's certificates",
        description="Certificates for the admission port, as files in PEM.",
    )
    _add_issue(group)
    _add_show(group)
    _add_verify(group)


def _add_issue(group: Commands) -> None:
    parser = add_command(
        group,
        "issue",
        issue,
        about="make a certificate, its key and a CA",
        description="Make a server certificate with its key and the CA that issued it, and print "
        "the CA as caBundle of a webhook configuration. The CA's key is thrown\naway: to renew, "
        "issue again, with a CA of its own.\n\n"
        "With --install they go into the Secret of the installed guard instead, and the CA into "
        "both webhook configurations. What is good\nalready is kept; a certificate in the last "
        "third of its life is renewed.\n\n"
        "Exit status: 0 issued, 2 bad input.",
        examples="%(prog)s ./certs\n"
        "%(prog)s --install\n"
        "%(prog)s ./certs --name guard.example.com --name 192.0.2.7 --days 90\n"
        "%(prog)s ./certs --replace -o json | jq -r .caBundle",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, help="takes tls.crt, tls.key and ca.crt"
    )
    parser.add_argument(
        "--install", action="store_true", help="put it into the cluster, not into a FOLDER"
    )
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="of --install")
    parser.add_argument("--context", metavar="NAME", help="of --install")
    parser.add_argument(
        "--name",
        metavar="NAME",
        action="append",
        default=[],
        help="DNS name or IP address of the server; can be given several times (default: the "
        f"names of the Service {SERVICE})",
    )
    parser.add_argument(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        help=f"of the Service, without --name ({NAMESPACE})",
    )
    parser.add_argument(
        "--days", metavar="N", type=int, default=DAYS, help=f"how long it is valid ({DAYS})"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace what is there; the CA before is kept beside the new one, while it is valid",
    )
    add_output(parser)


def _add_show(group: Commands) -> None:
    parser = add_command(
        group,
        "show",
        show,
        about="print what a certificate file holds",
        description="Print what a file of certificates holds. Keys in it are counted, never "
        "printed.\n\n"
        "Exit status: 0 shown, 2 bad input.",
        examples="%(prog)s ./certs/tls.crt ./certs/ca.crt\n"
        "kubectl get validatingwebhookconfiguration migration-guard "
        "-o jsonpath='{.webhooks[0].clientConfig.caBundle}' | base64 -d | %(prog)s -",
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", type=Path, help="certificates in PEM, - for stdin"
    )
    add_output(parser)


def _add_verify(group: Commands) -> None:
    parser = add_command(
        group,
        "verify",
        verify,
        about="check a certificate as the server and its clients will",
        description="Check that key and certificate belong together, that the CA issued the "
        "certificate, that it is good for the names and valid now.\n\n"
        "Exit status: 0 all is well, 1 something is wrong, 2 a file cannot be read.",
        examples="%(prog)s ./certs\n"
        "%(prog)s --tls-cert tls.crt --tls-key tls.key --tls-ca ca.crt --name guard.example.com",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        help="holds tls.crt, tls.key and ca.crt",
    )
    parser.add_argument("--tls-cert", metavar="FILE", type=Path, help="certificate, in PEM")
    parser.add_argument("--tls-key", metavar="FILE", type=Path, help="its key, in PEM")
    parser.add_argument(
        "--tls-ca", metavar="FILE", type=Path, help="CAs that clients trust, in PEM"
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        action="append",
        default=[],
        help="what clients call the server; can be given several times (default: "
        f"{SERVICE}.{NAMESPACE}.svc, as the API server does)",
    )
    add_output(parser)


def issue(args: argparse.Namespace) -> int:
    """Make the files, and print the CA for a webhook configuration."""
    from webhook.cli.certificate_report import describe
    from webhook.serving.issuing import issue as issue_for
    from webhook.serving.key_pair import parse_certificates

    if not 1 <= args.days <= MOST_DAYS:
        raise CommandError(f"--days {args.days}: a number from 1 to {MOST_DAYS} is wanted")
    if args.name and args.namespace:
        raise CommandError("--name and --namespace exclude each other; leave out --namespace")
    names = args.name or service_names(args.namespace or NAMESPACE)
    _general_names(names)
    now = _now()
    if args.install:
        return _install(args, names, now)
    if args.kubeconfig or args.context:
        raise CommandError("--kubeconfig and --context belong to --install")
    if args.folder is None:
        raise CommandError("name a FOLDER, or give --install to put it into the cluster")
    issued = issue_for(_general_names(names), now, timedelta(days=args.days))
    stored, bundle = _store(args.folder, issued, now, replacing=args.replace)
    files = {"certificate": stored.certificate, "key": stored.key, "ca": stored.authority}
    (leaf,) = parse_certificates(issued.certificate, str(stored.certificate))
    value = {
        "files": {what: str(path) for what, path in files.items()},
        "certificate": describe(leaf, now),
        "caBundle": base64.b64encode(bundle).decode(),
    }
    emit(args.output, value, lambda screen: _issued_table(screen, value))
    return ALL_WELL


def _install(args: argparse.Namespace, names: Sequence[str], now: datetime) -> int:
    from webhook.cli.certificate_installation import SECRET, install
    from webhook.cli.certificate_report import describe
    from webhook.cli.loading import FactsPlace

    if args.folder is not None:
        raise CommandError("FOLDER and --install exclude each other; the key stays in the cluster")
    connection = FactsPlace(kubeconfig=args.kubeconfig, context=args.context).connect()
    done = install(
        connection,
        args.namespace or NAMESPACE,
        names,
        now,
        timedelta(days=args.days),
        replacing=args.replace,
    )
    value = {
        "cluster": {
            "host": connection.host,
            "secret": f"{args.namespace or NAMESPACE}/{SECRET}",
            "outcome": done.secret,
            "webhooks": done.webhooks,
        },
        "certificate": describe(done.certificate, now),
        "caBundle": base64.b64encode(done.bundle).decode(),
    }
    emit(args.output, value, lambda screen: _installed_table(screen, value))
    return ALL_WELL


def show(args: argparse.Namespace) -> int:
    """Print what the files hold."""
    now = _now()
    value = {"files": [_shown(path, now) for path in args.files]}
    emit(args.output, value, lambda screen: _shown_table(screen, value["files"]))
    return ALL_WELL


def verify(args: argparse.Namespace) -> int:
    """Check the files, and print what is wrong with them."""
    from webhook.cli.certificate_report import verify as checks_of
    from webhook.serving.errors import StartError

    files = _files_to_verify(args)
    names = args.name or service_names(NAMESPACE)[:1]
    _general_names(names)
    try:
        checks = checks_of(files, names, _now())
    except StartError as error:
        raise CommandError(str(error)) from error
    well = all(check.ok for check in checks)
    value = {
        "ok": well,
        "checks": [
            {"check": check.name, "ok": check.ok, "message": check.message} for check in checks
        ],
    }
    emit(args.output, value, lambda screen: _checks_table(screen, checks))
    return ALL_WELL if well else SAYS_NO


def service_names(namespace: str) -> list[str]:
    """Return the names of the Service in a namespace; the API server uses the first."""
    first = f"{SERVICE}.{namespace}.svc"
    return [first, f"{first}.cluster.local", f"{SERVICE}.{namespace}", SERVICE]


def _now() -> datetime:
    # Certificates know whole seconds.
    return datetime.now(UTC).replace(microsecond=0)


def _general_names(names: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    from webhook.serving.issuing import general_name

    try:
        return tuple(map(general_name, names))
    except ValueError as error:
        raise CommandError(str(error)) from error


def _store(
    folder: Path, issued: Issued, now: datetime, *, replacing: bool
) -> tuple[CertificateFiles, bytes]:
    """Write the files; return them and the CA file's content.

    Next to the new CA stands the one before, as long as it is valid: a webhook configuration that
    trusts both fits the old certificate and the new one.
    """
    from webhook.serving.certificates import CertificateFiles, locked, write

    files = CertificateFiles.in_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            there = [path for path in (files.certificate, files.key) if path.exists()]
            if there and not replacing:
                raise CommandError(
                    f"{there[0]} is there already; name another folder, or give --replace"
                )
            authority = issued.authority + _authority_before(files, now)
            write(folder, replace(issued, authority=authority))
    except OSError as error:
        raise CommandError(f"{folder}: cannot write the files: {error.strerror}") from error
    return files, authority


def _authority_before(files: CertificateFiles, now: datetime) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    from webhook.serving.errors import StartError
    from webhook.serving.key_pair import read_authorities

    if files.authority is None or not files.authority.exists():
        return b""
    try:
        before = read_authorities(files.authority)[0]
    except StartError as error:
        raise CommandError(f"{error}; remove it to issue without the CA before") from error
    return before.public_bytes(Encoding.PEM) if now < before.not_valid_after_utc else b""


def _shown(path: Path, now: datetime) -> dict[str, Any]:
    from webhook.cli.certificate_report import describe
    from webhook.serving.errors import StartError
    from webhook.serving.key_pair import LARGEST_FILE, count_keys, parse_certificates, read_file

    try:
        if str(path) == STANDARD_INPUT:
            where, content = "standard input", sys.stdin.buffer.read(LARGEST_FILE)
        else:
            where, content = str(path), read_file(path, "certificate")
        keys = count_keys(content)
        # A file of a key alone is no error: it says that there is one.
        without = keys and b"-----BEGIN CERTIFICATE-----" not in content
        found = () if without else parse_certificates(content, where)
    except StartError as error:
        raise CommandError(str(error)) from error
    return {
        "file": where,
        "certificates": [describe(certificate, now) for certificate in found],
        "privateKeys": keys,
    }


def _files_to_verify(args: argparse.Namespace) -> CertificateFiles:
    from webhook.serving.certificates import CertificateFiles

    given = (args.tls_cert, args.tls_key, args.tls_ca)
    if args.folder is not None:
        if any(given):
            raise CommandError("FOLDER and --tls-cert, --tls-key, --tls-ca exclude each other")
        return CertificateFiles.in_folder(args.folder)
    if args.tls_cert is None or args.tls_key is None:
        raise CommandError("name a FOLDER, or the files with --tls-cert and --tls-key")
    return CertificateFiles(*given)


def _issued_table(screen: Screen, value: dict[str, Any]) -> None:
    certificate = value["certificate"]
    screen.line(f"Issued, valid until {certificate['notAfter']} ({certificate['daysLeft']} days)")
    screen.line(f"for {', '.join(certificate['names'])}:")
    screen.line()
    what = {"certificate": "certificate", "key": "its key", "ca": "CA"}
    screen.table(("FILE", "HOLDS"), [(path, what[name]) for name, path in value["files"].items()])
    screen.line()
    screen.line("caBundle, for clientConfig of each webhook:")
    # On a terminal too it is one line of its own, for copying.
    sys.stdout.write(value["caBundle"] + "\n")


def _installed_table(screen: Screen, value: dict[str, Any]) -> None:
    cluster, certificate = value["cluster"], value["certificate"]
    screen.line(f"{cluster['host']}: Secret {cluster['secret']} {cluster['outcome']}")
    screen.line(f"valid until {certificate['notAfter']} ({certificate['daysLeft']} days)")
    screen.line(f"for {', '.join(certificate['names'])}")
    screen.line(f"caBundle written to {cluster['webhooks']} webhooks")


def _shown_table(screen: Screen, files: list[dict[str, Any]]) -> None:
    for number, file in enumerate(files):
        if number:
            screen.line()
        screen.line(file["file"], "bold")
        for certificate in file["certificates"]:
            screen.line()
            screen.table(("FIELD", "VALUE"), _fields(certificate))
        if keys := file["privateKeys"]:
            screen.line()
            screen.line(f"{keys} private key{'s' if keys > 1 else ''}, not shown")


def _fields(certificate: dict[str, Any]) -> list[tuple[str, str | Styled]]:
    days = certificate["daysLeft"]
    left = Styled(f"{days}", "") if days >= 0 else Styled(f"{days} (ended)", "red")
    return [
        ("subject", certificate["subject"] or "-"),
        ("issuer", certificate["issuer"] or "-"),
        ("names", ", ".join(certificate["names"]) or "-"),
        ("not before", certificate["notBefore"]),
        ("not after", certificate["notAfter"]),
        ("days left", left),
        ("CA", "yes" if certificate["ca"] else "no"),
        ("key", certificate["key"]),
        ("SHA-256", certificate["sha256"]),
    ]


def _checks_table(screen: Screen, checks: list[Check]) -> None:
    screen.table(
        ("CHECK", "RESULT", "MESSAGE"),
        [
            (c.name, Styled("ok", "green") if c.ok else Styled("wrong", "red"), c.message)
            for c in checks
        ],
    )
