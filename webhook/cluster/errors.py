"""What can go wrong between the guard and a cluster."""

from __future__ import annotations

UNREACHABLE = 0


class ClusterError(Exception):
    """No cluster can be asked: the message names the place and the way out."""


class RequestFailed(ClusterError):
    """A request to the API server came to nothing.

    Attributes:
        status: The HTTP status code; :data:`UNREACHABLE` where there was no whole answer.
        retry_after: For how many seconds the server asks to be left alone; 0 where it does not.
    """

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        """Keep the status beside the message."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
