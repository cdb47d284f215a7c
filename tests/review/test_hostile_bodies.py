"""Bodies made to cost more than a review is worth."""

from __future__ import annotations

import pytest

from webhook.review.admission import MOST_LEVELS, MOST_VALUES, parse
from webhook.review.errors import NotAReview


@pytest.mark.parametrize("levels", [MOST_LEVELS, 1_000, 1_100, 90_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_deeply_nested_review_is_no_review(levels: int, opening: bytes, closing: bytes) -> None:
    inner = opening * levels + b"1" + closing * levels
    body = (
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1",'
        b'"request":{"uid":"1","object":' + inner + b"}}"
    )
    with pytest.raises(NotAReview, match=r"nested deeper than 254|depth limit exceeded"):
        parse(body)


def test_a_hundred_levels_are_no_hindrance() -> None:
    inner = b'{"a":' * 100 + b"1" + b"}" * 100
    body = (
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1",'
        b'"request":{"uid":"1","object":' + inner + b"}}"
    )
    assert parse(body).uid == "1"


@pytest.mark.parametrize("part", [b'"a":1,', b"1,"])
def test_a_review_of_very_many_values_is_no_review(part: bytes) -> None:
    with pytest.raises(NotAReview, match="more than 100,000 values"):
        parse(part * (MOST_VALUES + 1))
