"""The HTTP server of the operations port: waitress, which no client can keep to itself."""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from webhook.serving.listening import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask import Flask

PROBES = ("/livez", "/readyz")
"""What the kubelet asks for. They have threads of their own, and wait for no other answer."""

MOST_CONNECTIONS = 200
MOST_CONNECTIONS_PER_PEER = 50

STALL_SECONDS = 10
"""How long a client may take for a whole request, and with an answer in which nothing moves."""

_THREADS = 4
_PROBE_THREADS = 2
_LARGEST_BODY = 64 * 1024
_LARGEST_HEAD = 64 * 1024
_STOP_SECONDS = 2
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_ROOM_SECONDS = 1.0
"""Where there is no descriptor left, and no connection to end, until the next try to accept."""
_NO_LINGERING = struct.pack("ii", 1, 0)


class OperationsServer:
    """Serves an application on a listening socket, in threads of its own.

    Args:
        application: What is served.
        listener: A socket that listens; the server closes its own copy at the end.
    """

    def __init__(self, application: Flask, listener: socket.socket) -> None:
        # waitress keeps the sockets of a server in this map, and runs until it is empty.
        self._open: dict[int, object] = {}
        self._server = _Server(application, listener, self._open)
        # A daemon: a request that hangs here must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="operations", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end the threads, which takes two seconds at most."""
        pulled = threading.Event()

        def close() -> None:
            # Among all that is closed is the trigger; whoever still pulls it would write into
            # whatever has its descriptor next.
            pulled.wait(_STOP_SECONDS)
            wasyncore.close_all(self._open)

        # waitress is to be touched by its own thread only; the trigger is its way in.
        self._server.trigger.pull_trigger(close)
        pulled.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        self._server.run()
        for dispatcher in (self._server.probe_dispatcher, self._server.task_dispatcher):
            dispatcher.shutdown(timeout=_STOP_SECONDS)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress ships no types
    """One connection.

    Attributes:
        waiting_since: When it was accepted, or its last request was answered.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.waiting_since = time.time()

    def received(self, data: bytes) -> None:
        super().received(data)
        if len(self.requests) > 1:
            # No client that anybody uses asks again before it has the answer; and each answer
            # would be held for one who does, read or not.
            self.end()

    def service(self) -> None:
        super().service()
        self.waiting_since = time.time()

    def readable(self) -> bool:
        # The descriptor of one that was ended may be that of a newer one.
        return bool(self.connected and super().readable())

    def writable(self) -> bool:
        return bool(self.connected and super().writable())

    def has_stalled(self, now: float) -> bool:
        """Tell whether its client has kept the server waiting for too long."""
        if self.total_outbufs_len:
            return bool(self.last_activity < now - STALL_SECONDS)
        # A request that is being answered is not its client's to hurry.
        return not self.requests and self.waiting_since < now - STALL_SECONDS

    def end(self) -> None:
        """Close it, whatever it is doing; to be called in waitress' own thread."""
        with suppress(OSError):
            # Otherwise the system would go on offering what the client does not read.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self.handle_close()


class _Server(TcpWSGIServer):  # type: ignore[misc]  # waitress ships no types
    """waitress' server, but one that never stops to accept: it ends a connection instead.

    waitress itself waits, at its ``connection_limit``, until a client goes or its
    ``channel_timeout`` has passed, and the kubelet's probe waits too. It also closes a connection
    only once the client has read what it was sent.
    """

    channel_class = _Channel

    def __init__(self, application: Flask, listener: socket.socket, opened: dict[int, Any]) -> None:
        # A warning each time that more is asked than there are threads.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._accepts_from = float("-inf")
        self.probe_dispatcher = ThreadedTaskDispatcher()
        self.probe_dispatcher.set_thread_count(_PROBE_THREADS)
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(_THREADS)
        super().__init__(
            application,
            opened,
            _sock=listener,
            dispatcher=dispatcher,
            adj=Adjustments(
                sockets=[listener],
                backlog=BACKLOG,
                # Beside the connections waitress counts its listener and its trigger.
                connection_limit=MOST_CONNECTIONS + 10,
                cleanup_interval=1,
                # select() fails on a descriptor above 1023, which a thousand reviewers exceed.
                asyncore_use_poll=True,
                # A client that resets its connection is no news.
                log_socket_errors=False,
                ident=None,
                # waitress would take away what tells that a proxy speaks for somebody
                # (audit_api.py).
                clear_untrusted_proxy_headers=False,
                max_request_body_size=_LARGEST_BODY,
                max_request_header_size=_LARGEST_HEAD,
                # It would put longer answers into a file, and a container may have no folder to
                # write to.
                outbuf_overflow=sys.maxsize,
            ),
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def add_task(self, channel: _Channel) -> None:
        # A request that could not be parsed has no path.
        probe = getattr(channel.requests[0], "path", "") in PROBES
        (self.probe_dispatcher if probe else self.task_dispatcher).add_task(channel)

    def readable(self) -> bool:
        # Asked first: it looks after the connections too.
        accepts: bool = super().readable()
        return accepts and time.monotonic() >= self._accepts_from

    def accept(self) -> Any:
        try:
            return super().accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                self._make_room()
            raise

    def _make_room(self) -> None:
        """End the connection that has waited longest, so that the next one finds a descriptor."""
        waiting = list(self.active_channels.values())
        if waiting:
            _longest_waiting(waiting).end()
        else:
            # The listener stays readable, and would be asked again at once, without end.
            self._accepts_from = time.monotonic() + _ROOM_SECONDS

    def handle_accept(self) -> None:
        super().handle_accept()
        # By the order in which they were accepted.
        channels = list(self.active_channels.values())
        if not channels:
            return
        newest = channels[-1]
        counts = Counter(channel.addr[0] for channel in channels)
        crowd = newest.addr[0]
        if counts[crowd] <= MOST_CONNECTIONS_PER_PEER:
            if len(channels) <= MOST_CONNECTIONS:
                return
            [(crowd, _)] = counts.most_common(1)
        # Never the newest: it may be the kubelet's, from the address of those who crowd it out.
        own = [one for one in channels if one.addr[0] == crowd and one is not newest]
        _longest_waiting(own or [newest]).end()

    def maintenance(self, now: float) -> None:
        for channel in list(self.active_channels.values()):
            if channel.has_stalled(now):
                channel.end()


def _longest_waiting(channels: Sequence[_Channel]) -> _Channel:
    """Return the connection that matters least: without a request, for the longest time."""
    return min(channels, key=lambda one: (bool(one.requests), one.waiting_since))
