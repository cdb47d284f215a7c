"""The sockets the server listens on, opened before anything else starts."""

from __future__ import annotations

import errno
import os
import socket

from webhook.serving.errors import StartError

BACKLOG = 2048
"""How many connections the system holds that have not been accepted."""

_UNREAD_BYTES = 64 * 1024
"""What the system takes in for a connection before the server reads it; Linux doubles it, for its
own records. uvloop keeps a buffer for each connection that is as large as what it once read at
one time, up to 256 KiB; and the system would take in some megabytes."""


def listen(host: str, port: int, what: str) -> socket.socket:
    """Open a listening TCP socket.

    Args:
        host: An address of this machine, or a name of it; ``0.0.0.0`` or ``::`` for all.
        port: 0 lets the system choose a free one.
        what: The port's name in an error, such as "admission port".

    Raises:
        StartError: The address is none of this machine's, or the port is taken or not allowed.
    """
    if not 0 <= port <= 65535:
        raise StartError(f"{what} {port}: not a port; ports go from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"cannot listen on {host!r}: no such address") from error
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BYTES)
        listener.bind(address)
        # Two sockets can be bound to one port with SO_REUSEADDR; only one of them can listen.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(_refused(error, host, port, what)) from error
    return listener


def port_of(listener: socket.socket) -> int:
    """Return the port a socket really listens on."""
    port: int = listener.getsockname()[1]
    return port


def url_of(scheme: str, listener: socket.socket) -> str:
    """Return the address a socket listens on, as a URL."""
    host = listener.getsockname()[0]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port_of(listener)}"


def _refused(error: OSError, host: str, port: int, what: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{what} {port} is already in use; stop what uses it, or choose another port"
    if error.errno == errno.EACCES:
        return f"{what} {port}: not permitted; choose a port from 1024 up"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {host!r}: not an address of this machine"
    # The error's own text may repeat the address in another notation.
    return f"{what} {port}: cannot listen: {os.strerror(error.errno or 0)}"
