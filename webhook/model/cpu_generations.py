"""The order of named CPU models: which of two is the newer.

Sources: libvirt ``src/cpu_map/index.xml`` (the models of each vendor, by libvirt's vendor names),
QEMU ``target/i386/cpu.c`` (variants and versions) and ``target/s390x/cpu_models.c`` (IBM's in the
order of release); the vendors' launch dates.

Models are ranked by the instruction set that a guest gets, which is launch order within a line of
cores. Other lines stand where their instruction set puts them, whenever they were launched, so
that a newer model never gives a guest less than an older one: Denverton and Snowridge have no AVX;
SierraForest, ClearwaterForest and Icelake-Client have no AVX-512. The models that belong to no
vendor (kvm64, qemu64, cpu64-rhel6) are not listed, like those that are not known yet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Order(NamedTuple):
    """What models are sorted by, the oldest first; all zero where the model is not known.

    Attributes:
        year: When cores with about this instruction set were launched; it is what orders the
            models of two vendors.
        generation: As :func:`generation`.
        position: Within a generation.
        version: QEMU's version of the model, which named variants have too: Haswell-IBRS is
            version 3 of Haswell.
        named: 1, or 0 for a name with ``-v3`` at its end: of two names for one thing the one that
            older nodes know too counts as the newer.
    """

    year: int
    generation: int
    position: int
    version: int
    named: int


class _Place(NamedTuple):
    vendor: str
    year: int
    generation: int
    position: int


_OLDEST = Order(0, 0, 0, 0, 0)

_GENERATIONS: Mapping[str, tuple[tuple[int, tuple[str, ...]], ...]] = {
    "Intel": (
        (1989, ("486",)),
        (1993, ("pentium",)),
        (1995, ("pentiumpro", "pentium2")),
        (1999, ("pentium3",)),
        (2006, ("coreduo", "n270")),
        (2006, ("core2duo", "Conroe")),
        (2007, ("Penryn",)),
        (2008, ("Nehalem",)),
        (2010, ("Westmere",)),
        (2010, ("Denverton", "Snowridge")),
        (2011, ("SandyBridge",)),
        (2012, ("IvyBridge",)),
        (2013, ("Haswell",)),
        (2014, ("Broadwell",)),
        (2015, ("Skylake-Client",)),
        (2015, ("Icelake-Client",)),
        (2015, ("SierraForest", "ClearwaterForest")),
        (2016, ("KnightsMill",)),
        (2017, ("Skylake-Server",)),
        (2019, ("Cascadelake-Server",)),
        (2020, ("Cooperlake",)),
        (2021, ("Icelake-Server",)),
        (2023, ("SapphireRapids",)),
        (2024, ("GraniteRapids",)),
        (2026, ("DiamondRapids",)),
    ),
    "AMD": (
        (1999, ("athlon",)),
        (2003, ("Opteron_G1",)),
        (2006, ("Opteron_G2",)),
        (2007, ("phenom", "Opteron_G3")),
        (2011, ("Opteron_G4",)),
        (2012, ("Opteron_G5",)),
        (2017, ("EPYC",)),
        (2019, ("EPYC-Rome",)),
        (2021, ("EPYC-Milan",)),
        (2022, ("EPYC-Genoa",)),
        (2024, ("EPYC-Turin",)),
    ),
    "Hygon": ((2017, ("Dhyana",)),),
    "IBM": (
        (2000, ("z900", "z900.2", "z900.3", "z800")),
        (
            2003,
            ("z990", "z990.2", "z990.3", "z890", "z990.4", "z890.2", "z990.5", "z890.3"),
        ),
        (2005, ("z9EC", "z9EC.2", "z9BC", "z9EC.3", "z9BC.2")),
        (2008, ("z10EC", "z10EC.2", "z10BC", "z10EC.3", "z10BC.2")),
        (2010, ("z196", "z196.2", "z114")),
        (2012, ("zEC12", "zEC12.2", "zBC12")),
        (2015, ("z13", "z13.2", "z13s")),
        (2017, ("z14", "z14.2", "z14ZR1")),
        (2019, ("gen15a", "gen15b")),
        (2022, ("gen16a", "gen16b")),
        (2025, ("gen17a", "gen17b")),
    ),
}

_PLACES: Mapping[str, _Place] = {
    base: _Place(vendor, year, number, position)
    for vendor, generations in _GENERATIONS.items()
    for number, (year, bases) in enumerate(generations, start=1)
    for position, base in enumerate(bases)
}

_NAME = re.compile(
    r"(?P<base>.+?)(?:-(?P<variant>noTSX-IBRS|noTSX|IBRS|IBPB|base)|-v(?P<version>[0-9]{1,4}))?"
)
# The version that QEMU gives a variant, where it is another than with most models.
_VERSIONS: Mapping[str, int] = {"base": 0, "noTSX": 2, "IBRS": 2, "IBPB": 2, "noTSX-IBRS": 3}
_OTHER_VERSIONS: Mapping[tuple[str, str], int] = {
    ("Haswell", "IBRS"): 3,
    ("Haswell", "noTSX-IBRS"): 4,
    ("Broadwell", "IBRS"): 3,
    ("Broadwell", "noTSX-IBRS"): 4,
    ("Cascadelake-Server", "noTSX"): 3,
}


def _parse(model: str) -> tuple[_Place, int, int] | None:
    """Return the place of a model's base, its version, and whether it is named."""
    found = _NAME.fullmatch(model)
    place = _PLACES.get(found["base"]) if found else None
    if found is None or place is None:
        return None
    if found["version"]:
        return place, int(found["version"]), 0
    variant = found["variant"]
    if not variant:
        return place, 1, 1
    return place, _OTHER_VERSIONS.get((found["base"], variant), _VERSIONS[variant]), 1


def generation(model: str) -> int | None:
    """Return a model's rank among the generations of its vendor: 1 is the oldest.

    Variants (Haswell-noTSX, Haswell-IBRS, Haswell-v4) are of the generation of their base. None:
    not known.
    """
    parsed = _parse(model)
    return parsed[0].generation if parsed else None


def vendor(model: str) -> str | None:
    """Return whose model it is, written as in KubeVirt's vendor label; None: not known."""
    parsed = _parse(model)
    return parsed[0].vendor if parsed else None


def order(model: str) -> Order:
    """Return what to sort a model by: the oldest first, those not known before all others."""
    parsed = _parse(model)
    if parsed is None:
        return _OLDEST
    place, version, named = parsed
    return Order(place.year, place.generation, place.position, version, named)
