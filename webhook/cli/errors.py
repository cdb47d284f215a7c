"""Errors that end a command."""

from __future__ import annotations


class CommandError(Exception):
    """Bad input or usage: the message names the place and the way out; the exit status is 2."""
