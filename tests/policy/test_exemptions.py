"""Who is never refused, and who may override a refusal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from webhook.policy.configuration import Configuration, People
from webhook.policy.globs import covers, matches

globs = st.text("ab*?-", max_size=6)
names = st.text("ab-", max_size=6)


def exempt(*users, groups=()):
    return Configuration(exempt=People(users, groups))


def test_by_default_nobody_is_exempt():
    assert not Configuration().is_exempt("admin", ["system:masters", "system:authenticated"])


def test_by_default_only_cluster_administrators_may_override():
    assert Configuration().may_override("admin", ["system:masters"])
    assert not Configuration().may_override("alice", ["system:authenticated"])


def test_a_user_is_exempt_by_exact_name():
    assert exempt("alice").is_exempt("alice", [])
    assert not exempt("alice").is_exempt("alice2", [])
    assert not exempt("alice").is_exempt("Alice", [])


def test_a_service_account_is_exempt_by_glob():
    configuration = exempt("system:serviceaccount:backup:*")
    assert configuration.is_exempt("system:serviceaccount:backup:velero", [])
    assert not configuration.is_exempt("system:serviceaccount:backup2:velero", [])


def test_a_user_is_exempt_by_any_group():
    configuration = exempt(groups=("ops-*",))
    assert configuration.is_exempt("alice", iter(["staff", "ops-night"]))
    assert not configuration.is_exempt("ops-night", ["staff"])


def test_a_name_with_the_signs_of_a_glob_fits_itself():
    assert exempt("robot[1]").is_exempt("robot[1]", [])


def test_whoever_may_override_is_not_thereby_exempt():
    configuration = Configuration(override=People(("alice",)))
    assert configuration.may_override("alice", [])
    assert not configuration.is_exempt("alice", [])


def test_an_emptied_override_lets_nobody_override():
    assert not Configuration(override=People()).may_override("admin", ["system:masters"])


@given(globs, globs, names)
def test_a_glob_that_covers_another_matches_all_that_the_other_does(wide, narrow, name):
    if covers(wide, narrow) and matches(name, narrow):
        assert matches(name, wide)


def test_a_wider_glob_is_known_to_cover_a_narrower_one():
    for wide, narrow in [
        ("*", "dev-*"),
        ("dev-*", "dev-1"),
        ("dev-*", "dev-team-*"),
        ("*-*", "dev-?"),
        ("dev-?", "dev-?"),
        ("dev[12]", "dev1"),
    ]:
        assert covers(wide, narrow), (wide, narrow)
        assert wide == narrow or not covers(narrow, wide), (narrow, wide)
