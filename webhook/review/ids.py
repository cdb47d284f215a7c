"""Decision ids: UUIDs of version 7 (RFC 9562), which sort by time."""

from __future__ import annotations

import re

_FORM = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    re.ASCII | re.IGNORECASE,
)


def is_decision_id(text: str) -> bool:
    """Tell whether a text is a UUIDv7 in its usual form."""
    return _FORM.fullmatch(text) is not None
