"""certs issue, show and verify."""

from __future__ import annotations

import base64
import io
import os
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from tests.cli.conftest import Ran, Run
from tests.server.certificates import Certificate, issued
from webhook.cli.certificate_report import CHECKS
from webhook.cli.commands.schema import output_schema

SERVICE = "migration-guard.migration-guard.svc"


@pytest.fixture
def certs(run: Run) -> Run:
    """Run a command of ``certs`` with ``-o json``, held against its published schema."""

    def command(name: str, *argv: object) -> Ran:
        ran = run("certs", name, *argv, "-o", "json")
        if ran.out:
            jsonschema.validate(ran.json, output_schema(f"certs-{name}"))
        return ran

    return command


@pytest.fixture
def folder(certs: Run, tmp_path: Path) -> Path:
    assert certs("issue", tmp_path / "certs").status == 0
    return tmp_path / "certs"


def wrong(ran: Ran) -> dict[str, str]:
    return {check["check"]: check["message"] for check in ran.json["checks"] if not check["ok"]}


def test_what_is_issued_is_good_for_the_service_and_verifies(certs: Run, folder: Path) -> None:
    ran = certs("verify", folder)
    assert (ran.status, ran.json["ok"]) == (0, True)
    assert {check["check"] for check in ran.json["checks"]} == set(CHECKS)
    (shown,) = certs("show", folder / "tls.crt").json["files"]
    (certificate,) = shown["certificates"]
    assert certificate["names"][0] == SERVICE
    assert f"{SERVICE}.cluster.local" in certificate["names"]
    assert certificate["daysLeft"] in (364, 365)
    assert (certificate["ca"], certificate["key"]) == (False, "ECDSA secp256r1")


def test_only_the_owner_can_read_the_key_and_nothing_else_is_left(folder: Path) -> None:
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert sorted(os.listdir(folder)) == ["ca.crt", "tls.crt", "tls.key"]


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_the_ca_bundle_is_printed_and_no_key_ever_is(run: Run, tmp_path: Path, form: str) -> None:
    out = run("certs", "issue", tmp_path / "new", "-o", form).out
    bundle = base64.b64encode((tmp_path / "new" / "ca.crt").read_bytes()).decode()
    secret = (tmp_path / "new" / "tls.key").read_text(encoding="utf-8").splitlines()[1]
    shown = run("certs", "show", *sorted((tmp_path / "new").iterdir()), "-o", form).out
    assert bundle in "".join(out.split())
    assert secret not in out + shown
    assert "PRIVATE KEY" not in out + shown


def test_names_and_days_can_be_given(certs: Run, tmp_path: Path) -> None:
    names = ("--name", "Guard.example.com", "--name", "2001:db8::7")
    certificate = certs("issue", tmp_path / "a", *names, "--days", "30").json["certificate"]
    assert certificate["names"] == ["guard.example.com", "2001:db8::7"]
    assert certificate["daysLeft"] == 30
    assert certs("verify", tmp_path / "a", *names).status == 0
    assert certs("issue", tmp_path / "b", "-n", "guard").json["certificate"]["names"][0] == (
        "migration-guard.guard.svc"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--days", "0"), "--days 0: a number from 1 to 3650"),
        (("--name", "a b"), "'a b' is neither a DNS name nor an IP address"),
        (("--name", "x" * 300), "is neither a DNS name nor an IP address"),
        (("--name", "a", "-n", "b"), "exclude each other"),
    ],
)
def test_what_cannot_be_issued_is_named_and_nothing_is_written(
    run: Run, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    ran = run("certs", "issue", tmp_path / "new", *words)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert not (tmp_path / "new").exists()


def test_files_that_are_there_are_kept_unless_replace_is_given(run: Run, folder: Path) -> None:
    before = (folder / "tls.key").read_bytes()
    ran = run("certs", "issue", folder)
    assert ran.status == 2
    assert "is there already; name another folder, or give --replace" in ran.err
    assert (folder / "tls.key").read_bytes() == before


def test_replace_keeps_the_ca_before_so_that_both_certificates_are_trusted(
    certs: Run, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "before")
    assert certs("issue", folder, "--replace").status == 0
    for where in (folder, tmp_path / "before"):
        files = ("--tls-cert", where / "tls.crt", "--tls-key", where / "tls.key")
        assert certs("verify", *files, "--tls-ca", folder / "ca.crt").status == 0
    assert certs("issue", folder, "--replace").status == 0
    (shown,) = certs("show", folder / "ca.crt").json["files"]
    assert len(shown["certificates"]) == 2


def test_a_ca_before_that_has_ended_is_left_out(certs: Run, tmp_path: Path) -> None:
    old = issued(tmp_path / "old", "localhost", now=datetime(2020, 1, 1, tzinfo=UTC))
    assert certs("issue", old.key.parent, "--replace").status == 0
    (shown,) = certs("show", old.authority).json["files"]
    assert len(shown["certificates"]) == 1


def test_a_folder_that_cannot_be_written_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = run("certs", "issue", tmp_path / "file" / "certs")
    assert ran.status == 2
    assert f"{tmp_path}/file/certs: cannot write the files" in ran.err


def another_key(folder: Path, other: Certificate) -> None:
    shutil.copy(other.key, folder / "tls.key")


def another_ca(folder: Path, other: Certificate) -> None:
    shutil.copy(other.authority, folder / "ca.crt")


def in_place_of(year: int) -> Callable[[Path, Certificate], None]:
    def put(folder: Path, other: Certificate) -> None:
        shutil.rmtree(folder)
        issued(folder, SERVICE, now=datetime(year, 1, 1, tzinfo=UTC))

    return put


@pytest.mark.parametrize(
    ("damage", "check", "says"),
    [
        (another_key, "pair", "not the key of the certificate"),
        (another_ca, "chain", "clients that trust"),
        (in_place_of(2020), "time", "ended 2020-"),
        (in_place_of(2200), "time", "begins 2199-"),
    ],
    ids=["key", "CA", "ended", "to come"],
)
def test_what_is_wrong_is_told_alone_and_the_status_is_1(
    certs: Run, folder: Path, tmp_path: Path, damage: object, check: str, says: str
) -> None:
    assert callable(damage)
    damage(folder, issued(tmp_path / "other", SERVICE))
    ran = certs("verify", folder)
    assert (ran.status, ran.json["ok"]) == (1, False)
    assert set(wrong(ran)) == {check}
    assert says in wrong(ran)[check]
    assert "; " in wrong(ran)[check]


def test_a_name_that_is_missing_is_told_with_those_that_are_there(certs: Run, folder: Path) -> None:
    ran = certs("verify", folder, "--name", SERVICE, "--name", "other.svc", "--name", "192.0.2.1")
    assert ran.status == 1
    assert "not good for other.svc, 192.0.2.1, only for migration-guard" in wrong(ran)["names"]


def test_the_common_name_is_no_name(certs: Run, tmp_path: Path) -> None:
    issued(tmp_path / "a", common_name=SERVICE)
    assert set(wrong(certs("verify", tmp_path / "a"))) == {"names"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "name a FOLDER, or the files"),
        (("{}", "--tls-cert", "x"), "exclude each other"),
        (("{}/nowhere",), "tls.crt: cannot read the certificate: No such file"),
        (("--tls-cert", "{}/tls.key", "--tls-key", "{}/tls.key"), "holds no certificate in PEM"),
        (("{}", "--name", "a b"), "neither a DNS name"),
    ],
)
def test_what_cannot_be_verified_is_bad_input(
    run: Run, folder: Path, words: tuple[str, ...], says: str
) -> None:
    ran = run("certs", "verify", *(word.format(folder) for word in words))
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err


def test_a_certificate_from_stdin_is_shown(
    certs: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = io.BytesIO((folder / "ca.crt").read_bytes())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=given))
    (shown,) = certs("show", "-").json["files"]
    assert (shown["file"], shown["certificates"][0]["ca"]) == ("standard input", True)


def test_a_key_alone_is_counted(certs: Run, folder: Path) -> None:
    (shown,) = certs("show", folder / "tls.key").json["files"]
    assert (shown["certificates"], shown["privateKeys"]) == ([], 1)


@pytest.mark.parametrize("form", ["table", "yaml"])
@pytest.mark.parametrize("command", ["show", "verify"])
def test_the_other_forms_are_printed_too(run: Run, folder: Path, command: str, form: str) -> None:
    given = folder if command == "verify" else folder / "tls.crt"
    ran = run("certs", command, given, "-o", form)
    assert ran.status == 0
    assert SERVICE in ran.out


def test_the_server_takes_what_was_issued(folder: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")


def test_the_schema_has_every_check() -> None:
    check = output_schema("certs-verify")["properties"]["checks"]["items"]["properties"]["check"]
    assert tuple(check["enum"]) == CHECKS


@pytest.mark.parametrize("command", ["issue", "show", "verify"])
def test_help_shows_examples_and_the_exit_status(command: str) -> None:
    words = [sys.executable, "-m", "webhook.cli", "certs", command, "--help"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert "examples:" in ran.stdout
    assert "Exit status" in ran.stdout


def test_the_shell_completes_the_commands() -> None:
    line = "migration-guard certs "
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
    }
    program = Path(sys.executable).with_name("migration-guard")
    ran = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert {"issue", "show", "verify"} <= {word.strip() for word in ran.stdout.split("\013")}
