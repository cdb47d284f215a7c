"""By when a reply must have left: what the API server's ``?timeout=`` allows."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

DEFAULT_TIMEOUT = 10.0
"""Seconds; Kubernetes' own default for a webhook's timeoutSeconds. The API server always says."""

LONGEST_TIMEOUT = 30.0
"""Seconds; the most that Kubernetes takes for a webhook's timeoutSeconds."""

_PART = r"(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"\+?(?:0|(?:{_PART})+)", re.ASCII)
_PARTS = re.compile(r"([\d.]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_LONGEST_TEXT = 40


class InvalidTimeout(ValueError):
    """The request's ``timeout`` is no duration; the message is one line for the caller."""


def budget_of(query: bytes) -> float:
    """Return how many seconds after its head a request must have been answered.

    The API server rounds what is left up to whole seconds
    (apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go), so a second less is sure to
    be in time. Of the last second half is used. No timeout, or one of 0, counts as
    ``DEFAULT_TIMEOUT``, more than ``LONGEST_TIMEOUT`` as that.

    Args:
        query: The request's query string.

    Raises:
        InvalidTimeout: It has a ``timeout`` that is no positive duration as Go writes them
            (time.ParseDuration), or two of them.
    """
    if not query:
        return _within(DEFAULT_TIMEOUT)
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("timeout")
    if given is None:
        return _within(DEFAULT_TIMEOUT)
    text = given[0]
    if len(given) > 1 or len(text) > _LONGEST_TEXT or not _DURATION.fullmatch(text):
        raise InvalidTimeout("timeout: one duration such as 2s or 1m30s is wanted")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(text))
    return _within(min(seconds, LONGEST_TIMEOUT) or DEFAULT_TIMEOUT)


def _within(timeout: float) -> float:
    return max(timeout - 1, timeout / 2)
