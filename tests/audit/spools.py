"""A spool to try: it can be opened again and again, and what it lost is known."""

from __future__ import annotations

from pathlib import Path

from tests.server.running import SECONDS
from webhook.audit.importance import Importance
from webhook.audit.loss import Loss, Reason
from webhook.audit.spool import Spool, SpoolLimits

MOST = 1_000_000
KIB = 1024


class Kept:
    """A spool in a folder, and what it lost."""

    def __init__(self, folder: Path, **limits) -> None:
        self.folder = folder
        self.losses: list[Loss] = []
        self.spool = Spool(folder, SpoolLimits(**limits), self.losses.append)
        self.spool.start()
        self.running = True

    def refuse(self, payload: bytes) -> bool:
        future = self.spool.keep(payload, Importance.REFUSAL)
        assert future is not None
        return future.result(SECONDS)

    def note(self, payload: bytes, importance: Importance = Importance.NOTE) -> None:
        assert self.spool.keep(payload, importance) is None

    def lost(self, reason: Reason) -> list[bytes]:
        return [loss.payload for loss in self.losses if loss.reason is reason]

    def stop(self) -> None:
        if self.running:
            self.spool.stop()
            self.spool.close()
        self.running = False

    def files(self, lane: str = "*") -> list[Path]:
        return sorted(self.folder.glob(f"{lane}-*.log"))

    def handed_out(self) -> list[bytes]:
        frames = self.spool.take(MOST, 1 << 30)
        numbers = [frame.sequence for frame in frames]
        assert numbers == sorted(set(numbers))
        return [frame.payload for frame in frames]
