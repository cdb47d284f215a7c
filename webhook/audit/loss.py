"""Records that could not be kept, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a record was lost."""

    FULL = "full"
    """The spool is as large as it may be, and holds nothing that matters less."""
    MADE_ROOM = "made-room"
    """It was dropped for a record that matters more."""
    DISK_FULL = "disk-full"
    """The file system has no room."""
    DISK_ERROR = "disk-error"
    """The disk took it badly or not at all."""
    STALLED = "stalled"
    """The disk was so slow that too much waited in memory, or it hung until the server ended."""
    AGE = "age"
    """It waited for the database longer than the spool keeps records."""
    DAMAGED = "damaged"
    """A part of a spool file cannot be read, and no killed process explains that."""
    REJECTED = "rejected"
    """The database takes others, but not this one."""
    STOPPED = "stopped"
    """It came after the server had stopped to keep records."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One record that is lost.

    Attributes:
        payload: The record in JSON; empty where it cannot be read any more.
        detail: What happened, for the log.
    """

    reason: Reason
    payload: bytes
    detail: str = ""
