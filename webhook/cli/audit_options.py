"""Options that say where the audit is and how much of it stays; ``serve`` and ``audit`` share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.loading import read_text
from webhook.cli.options import count

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from webhook.audit.keeper import AuditSettings

DATABASE_VARIABLE = "MIGRATION_GUARD_AUDIT_DATABASE"
# What libpq takes behind the question mark, too.
_SECRETS = {"password", "sslpassword"}
MIB = 1024 * 1024
DAY_SECONDS = 86_400.0


def add_audit_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the audit's folder and database."""
    parser.add_argument(
        "--audit-dir",
        metavar="FOLDER",
        type=Path,
        help="where the audit is kept: the spool, and audit.sqlite where no database is named",
    )
    parser.add_argument(
        "--audit-database",
        metavar="URL",
        help="PostgreSQL, as postgresql://USER@HOST/DATABASE. With a password, put the URL into "
        f"{DATABASE_VARIABLE} or a file: everybody can see a command line",
    )
    parser.add_argument(
        "--audit-database-file",
        metavar="FILE",
        type=Path,
        help="a file that holds that URL, such as a mounted Secret",
    )


def add_audit_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much of the audit stays."""
    for name, what, default in (
        ("--audit-days", "days that records stay in the database", 365),
        ("--audit-rows", "records that stay in the database", 1_000_000),
        ("--audit-spool-mib", "MiB that may wait for the database", 256),
        ("--audit-spool-days", "days that records may wait for the database", 30),
    ):
        parser.add_argument(
            name, metavar="NUMBER", type=count, default=default, help=f"{what} ({default})"
        )


def audit_settings(args: argparse.Namespace) -> AuditSettings | None:
    """Return where ``serve`` keeps the audit; None where it keeps none.

    Raises:
        CommandError: The options contradict each other, or a file cannot be read.
        AuditError: The database's URL is none.
    """
    database = audit_database(args)
    if args.audit_dir is None:
        if database is not None:
            raise CommandError(
                "a database for the audit is named, but no --audit-dir: records wait there until "
                "the database has them"
            )
        return None
    # Only who keeps an audit pays for importing SQLAlchemy.
    from webhook.audit.keeper import AuditSettings
    from webhook.audit.retention import Retention
    from webhook.audit.spool import SpoolLimits

    return AuditSettings(
        args.audit_dir,
        database,
        SpoolLimits(args.audit_spool_mib * MIB, args.audit_spool_days * DAY_SECONDS),
        Retention(args.audit_days * DAY_SECONDS, args.audit_rows),
    )


def audit_database(args: argparse.Namespace) -> URL | None:
    """Return the database that is named by an option or by the environment, None without one.

    Raises:
        CommandError: Two are named, a password stands on the command line, or the file cannot be
            read.
        AuditError: The URL is none.
    """
    named: list[str] = []
    if args.audit_database:
        named.append(args.audit_database)
    if args.audit_database_file is not None:
        named.append(read_text(args.audit_database_file, "URL of the audit's database"))
    if not named and os.environ.get(DATABASE_VARIABLE):
        named.append(os.environ[DATABASE_VARIABLE])
    if not named:
        return None
    if len(named) > 1:
        raise CommandError("--audit-database and --audit-database-file both name a database")
    from webhook.audit.database import database_url

    url = database_url(named[0])
    if args.audit_database and (url.password is not None or _SECRETS & url.query.keys()):
        raise CommandError(
            "--audit-database: everybody can see a password on the command line; put the URL "
            f"into {DATABASE_VARIABLE}, or into a file and name it with --audit-database-file"
        )
    return url
