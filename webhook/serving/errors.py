"""Errors of starting the server."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start, for a reason that whoever started it can put right.

    The message is one line that names the file, port or setting and the way out. The server
    prints it and ends with status 2; it does not try again.
    """
