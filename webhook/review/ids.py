"""Decision ids: UUIDs of version 7 (RFC 9562), which sort by time."""

from __future__ import annotations

import uuid

VERSION = 7


def is_decision_id(text: str) -> bool:
    """Tell whether a text is a UUIDv7 in its usual form."""
    try:
        known = uuid.UUID(text)
    except ValueError:
        return False
    return known.version == VERSION and str(known) == text.lower()
