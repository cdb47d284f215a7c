"""Named CPU models have an order, so that "the newest" can be said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.model.cpu_generations import generation, order, vendor

# Each line from old to new.
LINES = {
    "Intel": """
        486 pentium pentium2 pentium3 coreduo Conroe Penryn Nehalem Westmere SandyBridge IvyBridge
        Haswell Broadwell Skylake-Client Skylake-Server Cascadelake-Server Cooperlake Icelake-Server
        SapphireRapids GraniteRapids DiamondRapids
    """,
    "AMD": """
        athlon Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5
        EPYC EPYC-Rome EPYC-Milan EPYC-Genoa EPYC-Turin
    """,
    "IBM": "z900 z990 z9EC z10EC z196 zEC12 z13 z14 gen15a gen16a gen17a",
}
VARIANTS = {
    "Nehalem": "Nehalem-v1 Nehalem Nehalem-v2 Nehalem-IBRS",
    "Haswell": """
        Haswell-v1 Haswell Haswell-v2 Haswell-noTSX Haswell-v3 Haswell-IBRS
        Haswell-v4 Haswell-noTSX-IBRS
    """,
    "Skylake-Server": """
        Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS
        Skylake-Server-v4 Skylake-Server-v5
    """,
    "Cascadelake-Server": """
        Cascadelake-Server Cascadelake-Server-v2 Cascadelake-Server-noTSX Cascadelake-Server-v4
    """,
    "Icelake-Server": "Icelake-Server Icelake-Server-noTSX Icelake-Server-v3 Icelake-Server-v10",
    "EPYC": "EPYC-v1 EPYC EPYC-v2 EPYC-IBPB EPYC-v3 EPYC-v4",
    "z14": "z14-base z14",
}
KNOWN = sorted({name for line in (*LINES.values(), *VARIANTS.values()) for name in line.split()})


@pytest.mark.parametrize("owner", LINES)
def test_each_generation_of_a_vendor_is_newer_than_the_one_before(owner: str) -> None:
    line = LINES[owner].split()
    ranks = [generation(model) for model in line]
    assert ranks == sorted(set(ranks), key=lambda rank: rank or 0)
    assert ranks[0] == 1
    assert sorted(line, key=order) == line
    assert {vendor(model) for model in line} == {owner}


@pytest.mark.parametrize("base", VARIANTS)
def test_variants_are_of_the_generation_of_their_base_and_ordered_as_qemu_defined_them(
    base: str,
) -> None:
    line = VARIANTS[base].split()
    assert {generation(model) for model in line} == {generation(base)}
    assert {vendor(model) for model in line} == {vendor(base)}
    assert sorted(line, key=order) == line
    assert len({order(model) for model in line}) == len(line)


def test_every_variant_is_older_than_the_next_generation() -> None:
    assert order("Haswell-noTSX-IBRS") < order("Broadwell-v1")
    assert order("EPYC-Rome-v5") < order("EPYC-Milan")


def test_cores_with_fewer_instructions_stand_where_those_put_them() -> None:
    assert order("Denverton") < order("Snowridge-v4") < order("SandyBridge")
    assert order("Broadwell") < order("SierraForest") < order("ClearwaterForest")
    assert order("ClearwaterForest-v3") < order("Skylake-Server")


def test_hygon_has_a_line_of_its_own() -> None:
    assert (vendor("Dhyana-v2"), generation("Dhyana")) == ("Hygon", 1)


def test_models_of_two_vendors_are_ordered_by_the_age_of_their_instructions() -> None:
    assert order("Opteron_G3") < order("Haswell-noTSX") < order("EPYC") < order("EPYC-Milan")


@pytest.mark.parametrize(
    "model", ["", "kvm64", "qemu64-v1", "host-model", "haswell", "EPYC-Next", "Haswell-v", "-v1"]
)
def test_a_model_that_is_not_known_has_no_generation_and_is_older_than_any_other(
    model: str,
) -> None:
    assert generation(model) is None
    assert vendor(model) is None
    assert order(model) < min(order(known) for known in KNOWN)


@given(st.text())
def test_any_text_has_an_order(model: str) -> None:
    assert (generation(model) is None) is (vendor(model) is None)
    assert order(model) >= order("")
