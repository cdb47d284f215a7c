"""The overlay cert-manager, with cert-manager's own controllers: they issue, inject and renew."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from cryptography import x509

from tests.testbed.bed.api import JSON_PATCH, Api, path
from tests.testbed.bed.cert_manager import GROUP, CertManager
from tests.testbed.bed.conditions import has_condition
from tests.testbed.bed.guard import (
    MANIFESTS,
    NAME,
    NAMESPACE,
    PORT,
    SECRET,
    SETTLED,
    Guard,
    lead_service_to,
)
from tests.testbed.bed.load import Outcome, Question, SteadyLoad, failed_calls
from tests.testbed.bed.testbed import TestBed

OVERLAY = "overlays/cert-manager"
AUTHORITY = f"{NAME}-ca"
SERVER = f"{NAME}.{NAMESPACE}.svc"
CONFIGURATIONS = [
    path("admissionregistration.k8s.io/v1", f"{kind}webhookconfigurations", name=NAME)
    for kind in ("mutating", "validating")
]
WITHIN = 30.0
LOOKED_WITHIN = 90.0
"""Seconds; the guard looks at its installation about once a minute."""
Questions = tuple[Question, Question]


@pytest.fixture(scope="module")
def cert_manager(_one_bed: TestBed) -> Iterator[CertManager]:
    """cert-manager, there before the guard and still there after it."""
    installed = CertManager(_one_bed)
    installed.install()
    yield installed
    installed.uninstall()


@pytest.fixture(scope="module")
def guard(cert_manager: CertManager, guard: Guard) -> Guard:
    """The guard, with certificates by cert-manager."""
    return guard


def held(api: Api, name: str = SECRET) -> dict[str, bytes]:
    """Return what a Secret of the guard's namespace holds."""
    data = api.get(path("v1", "secrets", NAMESPACE, name))["data"]
    return {key: base64.b64decode(value) for key, value in data.items()}


def bundles(api: Api) -> set[bytes]:
    """Return every caBundle that stands in a webhook of the guard (b"" for none)."""
    return {
        base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
        for where in CONFIGURATIONS
        for webhook in api.get(where)["webhooks"]
    }


def served(guard: Guard, trusted: bytes) -> bytes:
    """Return the certificate that the guard shows, in PEM; accept it as the API server would."""
    context = ssl.create_default_context(cadata=trusted.decode())
    with (
        socket.create_connection((guard.bed.address, PORT), timeout=WITHIN) as connection,
        context.wrap_socket(connection, server_hostname=SERVER) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return ssl.DER_cert_to_PEM_cert(shown).encode()


def told_of_installation(guard: Guard) -> str:
    """Return the line of ``/readyz?verbose`` about the installation; "" before the first look."""
    (replica,) = guard.replicas
    status, said = replica.ask("/readyz?verbose")
    assert status == 200, said
    return next((line for line in said.splitlines() if "installation" in line), "")


def answers(api: Api, questions: Questions) -> list[Outcome]:
    """Ask for a migration that can succeed and one that cannot."""
    return [question.ask(api)[0] for question in questions]


def change(api: Api, secret: str, renew: Callable[[], None]) -> None:
    """Renew, and wait until a Secret of the guard's namespace holds another certificate."""
    before = held(api, secret)["tls.crt"]
    renew()
    api.wait_for(
        path("v1", "secrets", NAMESPACE),
        lambda found: base64.b64decode(found["data"]["tls.crt"]) != before,
        WITHIN,
        f"{secret} holds another certificate",
        fieldSelector=f"metadata.name={secret}",
    )


def test_a_ca_for_ten_years_issues_a_certificate_for_ninety_days_renewed_after_sixty(
    testbed: TestBed, guard: Guard
) -> None:
    listed = testbed.api.items(path(GROUP, "certificates", NAMESPACE))
    certificates = {obj["metadata"]["name"]: obj for obj in listed}
    assert certificates.keys() == {AUTHORITY, SECRET}
    assert all(has_condition(obj, "Ready") for obj in certificates.values())
    authority = x509.load_pem_x509_certificate(held(testbed.api, AUTHORITY)["tls.crt"])
    mounted = held(testbed.api)
    certificate = x509.load_pem_x509_certificate(mounted["tls.crt"])
    authority.verify_directly_issued_by(authority)
    certificate.verify_directly_issued_by(authority)
    assert x509.load_pem_x509_certificate(mounted["ca.crt"]) == authority
    assert validity(authority) == timedelta(days=3650)
    assert validity(certificate) == timedelta(days=90)
    renewal = datetime.fromisoformat(certificates[SECRET]["status"]["renewalTime"])
    assert certificate.not_valid_after_utc - renewal == timedelta(days=30)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [SERVER]


def validity(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def test_every_webhook_trusts_that_ca_and_the_guard_shows_a_certificate_of_it(
    testbed: TestBed, guard: Guard
) -> None:
    (trusted,) = bundles(testbed.api)
    assert trusted == held(testbed.api)["ca.crt"]
    assert served(guard, trusted) == held(testbed.api)["tls.crt"]


def test_migrations_are_judged(testbed: TestBed, guard: Guard, questions: Questions) -> None:
    assert answers(testbed.api, questions) == [Outcome.RIGHT, Outcome.RIGHT]


def test_a_guard_whose_ca_is_not_written_yet_says_so_until_the_cainjector_has_done_it(
    testbed: TestBed, guard: Guard, cert_manager: CertManager, questions: Questions
) -> None:
    cert_manager.cainjector.stop()
    for where in CONFIGURATIONS:
        webhooks = testbed.api.get(where)["webhooks"]
        emptied = [
            {"op": "remove", "path": f"/webhooks/{number}/clientConfig/caBundle"}
            for number in range(len(webhooks))
        ]
        testbed.api.patch(where, emptied, JSON_PATCH)
    guard.restart(SETTLED)
    untrusted = "has no caBundle: the API server trusts no certificate of the guard"
    testbed.api.wait_until(
        lambda: untrusted in told_of_installation(guard), WITHIN, "the drift is told"
    )
    unanswered = [Outcome.LET_THROUGH, Outcome.LET_THROUGH]
    testbed.api.wait_until(
        lambda: answers(testbed.api, questions) == unanswered, WITHIN, "nobody is asked"
    )

    cert_manager.cainjector.start()
    testbed.api.wait_until(
        lambda: bundles(testbed.api) == {held(testbed.api)["ca.crt"]}, WITHIN, "the CA is there"
    )
    judged = [Outcome.RIGHT, Outcome.RIGHT]
    testbed.api.wait_until(
        lambda: answers(testbed.api, questions) == judged, WITHIN, "migrations are judged"
    )
    testbed.api.wait_until(
        lambda: "as needed" in told_of_installation(guard), LOOKED_WITHIN, "no drift is told"
    )


@pytest.mark.parametrize("how", ["renewed", "lost"])
def test_another_certificate_is_taken_up_by_the_running_guard_and_costs_no_review(
    how: str, testbed: TestBed, guard: Guard, cert_manager: CertManager, questions: Questions
) -> None:
    def renew() -> None:
        if how == "renewed":
            cert_manager.renew(NAMESPACE, SECRET)
        else:
            testbed.api.delete(path("v1", "secrets", NAMESPACE, SECRET))

    before, trusted = held(testbed.api), bundles(testbed.api)
    failed = failed_calls(testbed.api)
    with SteadyLoad(testbed.api, questions) as load:
        change(testbed.api, SECRET, renew)
        guard.mount_certificate()
        after = held(testbed.api)
        testbed.api.wait_until(
            lambda: served(guard, before["ca.crt"]) == after["tls.crt"],
            WITHIN,
            "the guard shows the new certificate",
        )
        load.settle()
    assert load.not_right() == []
    assert failed_calls(testbed.api) == failed
    assert after["tls.key"] != before["tls.key"]
    assert after["ca.crt"] == before["ca.crt"]
    assert bundles(testbed.api) == trusted == {after["ca.crt"]}


def test_a_new_ca_costs_no_review_since_the_old_one_is_still_trusted(
    testbed: TestBed, guard: Guard, cert_manager: CertManager, questions: Questions
) -> None:
    api, before = testbed.api, held(testbed.api)
    failed = failed_calls(api)
    with SteadyLoad(api, questions) as load:
        change(api, AUTHORITY, lambda: cert_manager.renew(NAMESPACE, AUTHORITY))
        assert held(api) == before
        change(api, SECRET, lambda: cert_manager.renew(NAMESPACE, SECRET))
        after = held(api)
        both = before["ca.crt"] + after["ca.crt"]
        api.wait_until(lambda: bundles(api) == {both}, WITHIN, "both CAs are trusted")
        # Until the kubelet has looked, the guard still shows what the old one issued.
        load.settle()
        assert served(guard, both) == before["tls.crt"]
        guard.mount_certificate()
        api.wait_until(
            lambda: served(guard, both) == after["tls.crt"], WITHIN, "the new one is shown"
        )
        load.settle()
    assert load.not_right() == []
    assert failed_calls(api) == failed
    assert after["ca.crt"] != before["ca.crt"]


def test_webhooks_that_were_switched_off_get_their_ca_back_by_themselves(
    testbed: TestBed, guard: Guard, questions: Questions
) -> None:
    for where in CONFIGURATIONS:
        testbed.api.delete(where)
    applied = testbed.kubectl("apply", "-k", MANIFESTS / OVERLAY)
    assert applied.returncode == 0, applied.stderr
    lead_service_to(testbed.address, testbed.api)
    testbed.api.wait_until(
        lambda: bundles(testbed.api) == {held(testbed.api)["ca.crt"]}, WITHIN, "the CA is there"
    )
    testbed.api.wait_until(
        lambda: answers(testbed.api, questions) == [Outcome.RIGHT, Outcome.RIGHT],
        WITHIN,
        "migrations are judged",
    )
