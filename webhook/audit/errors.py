"""What keeps an audit from being opened or read."""

from __future__ import annotations


class AuditError(Exception):
    """The audit cannot be opened or read: the message names the place and the way out."""
