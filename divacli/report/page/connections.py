"""A local server that answers only requests with its secret. Other connections cannot block it."""

from __future__ import annotations

import errno
import resource
import socket
from contextlib import suppress
from http.server import ThreadingHTTPServer
from threading import Condition
from typing import Any

STRANGER_SECONDS, KNOWN_SECONDS = 10, 60
"""How long a connection may be silent: before and after it has shown the secret."""

_MOST = 100
"""Connections at a time; a browser has six. Each takes a thread and a descriptor."""

_PATIENCE = 1.0
"""Seconds to wait for a connection that is being closed."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class BoundedServer(ThreadingHTTPServer):
    """A server with a limit of connections, at which strangers make room.

    A stranger is a connection that has not shown the secret yet. At the limit the oldest stranger is closed
    in favour of a new connection. If there is none, the new connection is closed.
    """

    daemon_threads = True
    # Connections that come at once wait in a queue. Without room in it a browser tries again after a second.
    request_queue_size = 1_000

    def __init__(self, *arguments: Any) -> None:
        self._most = _most_connections()
        # Whether each connection has shown the secret, the oldest first.
        self._connections: dict[socket.socket, bool] = {}
        self._ended = Condition()
        super().__init__(*arguments)

    def trust(self, connection: socket.socket) -> None:
        """Keep a connection that has shown the secret."""
        connection.settimeout(KNOWN_SECONDS)
        with self._ended:
            self._connections[connection] = True

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take the next connection.

        Raises:
            OSError: There is none, or no descriptor for it.
        """
        try:
            return super().get_request()
        except OSError as error:
            # The connection goes on waiting. Without a pause the server would ask for it again and again.
            if error.errno in _NO_ROOM:
                with self._ended:
                    if not self._close_stranger():
                        self._ended.wait(_PATIENCE)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Tell whether there is room for a connection, and make it if that is possible."""
        with self._ended:
            if len(self._connections) >= self._most and not self._close_stranger():
                return False
            self._connections[request] = False
            return True

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        super().shutdown_request(request)
        with self._ended:
            self._connections.pop(request, None)
            self._ended.notify()

    def _close_stranger(self) -> bool:
        """Close the oldest stranger; the caller holds the lock.

        Returns:
            True if there was one, and it is gone.
        """
        stranger = next((one for one, known in self._connections.items() if not known), None)
        if stranger is None:
            return False
        with suppress(OSError):  # it is closed already
            stranger.shutdown(socket.SHUT_RDWR)
        return self._ended.wait_for(lambda: stranger not in self._connections, _PATIENCE)


def _most_connections() -> int:
    """The limit: far below the descriptors of this process, which also opens images and tables."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if allowed == resource.RLIM_INFINITY else min(_MOST, allowed // 4)
