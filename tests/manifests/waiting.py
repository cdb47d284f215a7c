"""Waiting for an API server that takes a moment to know what was changed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator


def tries(seconds: float = 30) -> Iterator[int]:
    """Count tries; the API server takes a moment to know of a new or deleted configuration."""
    until = time.monotonic() + seconds
    for number in itertools.count():
        yield number
        if time.monotonic() > until:
            return
        time.sleep(0.1)
