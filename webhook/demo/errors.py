"""What ends the demo early."""

from __future__ import annotations


class DemoError(Exception):
    """The guard did not do as the demo says it does; the message names the step."""
