"""How a failure of our own is written to the log: one line, whatever went wrong."""

from __future__ import annotations

import json
import logging
import traceback

_LOG = logging.getLogger("webhook.serving")

LONGEST_TEXT = 500
"""Characters of an error's own text that are logged; the rest could be anything."""


def log_failure(what: str, error: BaseException, *, text: bool = True, **about: str) -> None:
    """Log an unexpected error as one line of JSON.

    The line names the error, its text (capped) and the place in the code. It carries no
    traceback and no object that was reviewed: those may hold secrets, such as cloud-init data.

    Args:
        what: What failed, in a few words.
        error: The error.
        text: Whether its text may be logged; it may quote what was read.
        about: More to say, such as the request's path; values are capped too.
    """
    frames = traceback.extract_tb(error.__traceback__)
    line = {
        "level": "error",
        "message": what,
        "error": type(error).__name__,
        "text": _capped(str(error)) if text else "",
        "at": f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
    }
    line.update((key, _capped(value)) for key, value in about.items())
    _LOG.error("%s", json.dumps(line))


def one_line(text: str) -> str:
    """Return the text with every run of white space as one blank, capped."""
    return _capped(" ".join(text.split()))


def _capped(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
