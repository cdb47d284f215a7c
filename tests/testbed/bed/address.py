"""A loopback address of its own for each test bed.

All of 127.0.0.0/8 is this machine. With an address of its own, every program of a bed keeps the
port it has in real clusters, and several beds run beside each other without agreeing on anything.
"""

from __future__ import annotations

import random
import socket

APISERVER_PORT = 6443


def free_address() -> str:
    """Return a loopback address at which nothing listens."""
    choose = random.SystemRandom()
    while True:
        address = f"127.{choose.randint(16, 254)}.{choose.randint(0, 254)}.{choose.randint(2, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, APISERVER_PORT))
            except OSError:
                continue
            return address
