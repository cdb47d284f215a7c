"""The state of a certificate as time passes."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.server.certificates import issued
from webhook.serving.certificate_source import FileCertificates
from webhook.serving.certificates import CertificateFiles
from webhook.serving.errors import StartError
from webhook.serving.metrics import Metrics
from webhook.serving.readiness import Readiness
from webhook.serving.served_certificate import ServedCertificate
from webhook.serving.tls import TLS_VERSIONS

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def files(tmp_path):
    """A certificate for ninety days."""
    made = issued(tmp_path / "served", "localhost", now=NOW)
    return CertificateFiles(made.certificate, made.key, made.authority)


def state(source):
    return source.health().ready, source.health().detail


def replace(files, made, *which):
    for name in which or ("certificate", "key", "authority"):
        shutil.copy(getattr(made, name), getattr(files, name))


def test_it_is_ready_until_it_ends_and_warns_for_seven_days_before(files, clock):
    source = FileCertificates(files, clock)
    assert state(source) == (True, "valid until 2030-04-01T12:00:00Z")
    clock.now = NOW + timedelta(days=83)
    assert source.health().ready
    assert "warning: it ends soon and has not been renewed" in source.health().detail
    clock.now = NOW + timedelta(days=90)

    assert state(source) == (False, "ended 2030-04-01T12:00:00Z")


def test_one_of_a_day_warns_for_the_last_quarter_of_it(tmp_path, clock):
    made = issued(tmp_path / "short", now=NOW, days=1)
    source = FileCertificates(CertificateFiles(made.certificate, made.key), clock)
    clock.now = NOW + timedelta(hours=17)
    assert "warning" not in source.health().detail
    clock.now = NOW + timedelta(hours=18)

    assert "warning" in source.health().detail


def test_the_next_change_is_the_warning_then_the_end_then_none(files, clock):
    source = FileCertificates(files, clock)
    seen = []
    while (coming := source.next_change()) is not None:
        before = source.health()
        clock.now = coming - timedelta(seconds=1)
        assert source.health() == before
        clock.now = coming
        assert source.health() != before
        seen.append(coming - NOW)

    assert seen == [timedelta(days=83), timedelta(days=90)]


def test_one_that_has_not_begun_is_not_ready_until_it_begins(files, clock):
    clock.now = NOW - timedelta(days=1)
    source = FileCertificates(files, clock)
    begins = NOW - timedelta(minutes=5)
    assert state(source) == (False, "begins 2030-01-01T11:55:00Z")
    assert source.next_change() == begins
    clock.now = begins

    assert source.health().ready


def test_a_newer_one_that_has_not_begun_is_taken_up_when_it_begins(files, tmp_path, clock):
    source = FileCertificates(files, clock)
    before = source.certificate()
    replace(files, issued(tmp_path / "new", now=NOW + timedelta(days=2)))
    assert source.refresh()
    assert source.certificate() is before
    assert source.health().ready
    assert "begins 2030-01-03T11:55:00Z" in source.health().detail
    assert not source.refresh()
    clock.now = NOW + timedelta(days=2)

    assert source.refresh()
    assert source.certificate() is not before
    assert source.trouble() is None


def test_a_ca_that_ends_first_ends_the_certificate(files, tmp_path, clock):
    short = issued(tmp_path / "short", now=NOW, days=10)
    long = issued(tmp_path / "long", now=NOW, days=20)
    # A chain of one: a certificate that is trusted itself.
    files.authority.write_bytes(short.authority.read_bytes() + long.authority.read_bytes())
    replace(files, long, "certificate", "key")
    source = FileCertificates(files, clock)

    assert source.health().detail == "valid until 2030-01-21T12:00:00Z"
    assert [ca.not_valid_after_utc for ca in source.ca_bundle()] == [
        NOW + timedelta(days=10),
        NOW + timedelta(days=20),
    ]


def test_a_certificate_that_no_ca_of_the_bundle_issued_is_warned_of(files, tmp_path, clock):
    replace(files, issued(tmp_path / "other", now=NOW), "authority")
    source = FileCertificates(files, clock)

    assert source.health().ready
    assert f"warning: no CA of {files.authority} issued it" in source.health().detail


def test_a_torn_bundle_keeps_the_old_one(files, clock):
    source = FileCertificates(files, clock)
    before = source.ca_bundle()
    whole = files.authority.read_bytes()
    files.authority.write_bytes(whole + whole[:200])
    assert source.refresh()
    assert "a certificate in it is torn" in source.health().detail
    assert source.ca_bundle() == before
    files.authority.write_bytes(whole)

    assert source.refresh()
    assert "warning" not in source.health().detail


def test_a_bundle_that_is_broken_at_the_start_is_named(files, clock):
    files.authority.write_text("nothing", encoding="utf-8")

    with pytest.raises(StartError, match=r"ca\.crt: holds no certificate in PEM"):
        FileCertificates(files, clock)


@pytest.fixture
def served(files, clock):
    """A certificate that is served, with what is said and reported of it."""
    source = FileCertificates(files, clock)
    said: list[str] = []
    served = ServedCertificate(source, TLS_VERSIONS["1.3"], None, clock, said.append)
    readiness = Readiness(clock)
    served.report_to(readiness, Metrics())
    return served, readiness, said


def test_readiness_ends_with_the_certificate_without_a_change_of_files(served, clock):
    certificate, readiness, said = served
    assert readiness.ready
    clock.now = NOW + timedelta(days=83)
    certificate.look()
    assert readiness.ready
    assert "it ends soon" in said[-1]
    clock.now = NOW + timedelta(days=90, seconds=1)
    certificate.look()

    assert not readiness.ready
    assert readiness.lines()[0].startswith("certificate: not ready since 2030-04-01T12:00:01Z")
    assert said[-1] == "certificate: ended 2030-04-01T12:00:00Z"


def test_what_does_not_change_is_not_said_again(served, clock):
    certificate, _, said = served
    clock.now = NOW + timedelta(days=91)
    for _ in range(3):
        certificate.look()

    assert len(said) == 1
