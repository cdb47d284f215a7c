"""The exit statuses of all commands."""

from __future__ import annotations

ALL_WELL = 0
"""All allowed; somewhere to go; nothing stuck."""
SAYS_NO = 1
"""Something is refused, stuck or blocked, there is nowhere to go, or no common model."""
BAD_INPUT = 2
"""Bad input or usage; stderr or ``errors`` name the place. It wins over 1."""
OWN_FAILURE = 70
"""A fault of the program itself (EX_SOFTWARE)."""
INTERRUPTED = 130
"""Stopped by Ctrl-C."""
PIPE_CLOSED = 141
"""Whoever read the output stopped reading."""
