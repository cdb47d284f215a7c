"""Kubernetes quantities, exactly.

Source: ``k8s.io/apimachinery/pkg/api/resource/quantity.go``: a decimal number with an optional
decimal exponent (``8e9``), a decimal SI suffix (``n u m k M G T P E``) or a binary one
(``Ki Mi Gi Ti Pi Ei``). The official Python client can parse them too, but importing it costs the
decision core tens of megabytes (docs/dependencies.md).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_FORM = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exp>[+-]?\d{1,3}))?",
    re.ASCII,
)
_SCALE = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_LONGEST = 64
# The same few sizes are written again and again.
_REMEMBERED = 1024
# "No quantity may represent a number greater than 2^63-1 in magnitude": larger ones are capped.
_LARGEST = Fraction(2**63 - 1)

GIB = 2**30


class InvalidQuantity(ValueError):
    """The text is no Kubernetes quantity."""


def parse(quantity: str | float) -> Fraction:
    """Return a quantity as an exact number, in its base unit (bytes, cores, pieces).

    Raises:
        InvalidQuantity: The text has none of the forms that Kubernetes accepts.
    """
    written = str(quantity)
    found = _read(written) if len(written) <= _LONGEST else None
    if found is None:
        raise InvalidQuantity(
            f'"{written[:_LONGEST]}" is no quantity; write for example 8Gi, 8G or 8589934592'
        )
    return found


@lru_cache(maxsize=_REMEMBERED)
def _read(written: str) -> Fraction | None:
    form = _FORM.fullmatch(written)
    if form is None:
        return None
    number = Fraction(form["number"])
    scale = _SCALE[form["suffix"]] if form["suffix"] else Fraction(10) ** int(form["exp"] or 0)
    return max(-_LARGEST, min(number * scale, _LARGEST))


def milli(quantity: str | float) -> int:
    """Return a quantity in thousandths of its base unit, rounded up as Kubernetes rounds.

    Raises:
        InvalidQuantity: The text has none of the forms that Kubernetes accepts.
    """
    written = str(quantity)
    return _milli(written) if len(written) <= _LONGEST else ceil(parse(written) * 1000)


@lru_cache(maxsize=_REMEMBERED)
def _milli(written: str) -> int:
    return ceil(parse(written) * 1000)


def ceil(number: Fraction) -> int:
    """Return the smallest whole number that is not below ``number``."""
    return -(-number.numerator // number.denominator)


def gib(size: Fraction | int) -> str:
    """Return a number of bytes in GiB as a person writes it: "8 GiB", "1.5 GiB"."""
    value = Fraction(size) / GIB
    return f"{float(value):.3f}".rstrip("0").rstrip(".") + " GiB"
