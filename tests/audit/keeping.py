"""A process that keeps refusals and says which are kept; run, and killed, by the tests.

Usage: keeping.py FOLDER THREADS [LARGEST_FILE]
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from pathlib import Path

from webhook.audit.importance import Importance
from webhook.audit.loss import Loss
from webhook.audit.spool import Spool


def lost(loss: Loss) -> None:
    say(f"lost {loss.reason.value} {loss.payload.decode()}")


def say(line: str) -> None:
    # One write each: lines of several threads, and of a process that is killed, stay whole.
    os.write(1, line.encode() + b"\n")


def keep(spool: Spool, thread: int) -> None:
    number = 0
    while True:
        name = f"{os.getpid()}-{thread}-{number}"
        number += 1
        spool.keep(b"note " + name.encode(), Importance.NOTE)
        future = spool.keep(name.encode(), Importance.REFUSAL)
        if future is not None and future.result():
            say(f"kept {name}")


def main(folder: str, threads: str, largest: str = "") -> None:
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
    spool = Spool(Path(folder), on_loss=lost)
    spool.start()
    for thread in range(int(threads)):
        threading.Thread(target=keep, args=(spool, thread), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
