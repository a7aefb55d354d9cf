"""A TCP proxy on loopback that breaks connections at a chosen moment, as a network does that fails during a COMMIT."""

import contextlib
import socket
import threading
from typing import Self

_CHUNK = 65536


class CuttingProxy:
    """Forwards to a port of 127.0.0.1, until armed: then the next chunk from a client that holds `word` cuts that connection.

    `cut("before")`: the server never sees it; `cut("after")`: it does, and its answer never comes back. One shot each.
    """

    def __init__(self, target_port: int, word: bytes) -> None:
        """Nothing listens until the context is entered."""
        self._target = target_port
        self._word = word.upper()
        self._armed = ""
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._sockets: list[socket.socket] = []
        self.port = 0
        self.cuts = 0

    def __enter__(self) -> Self:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for one in (self._listener, *self._sockets):
            _close(one)

    def cut(self, when: str) -> None:
        """Arm it: `before` or `after`."""
        with self._lock:
            self._armed = when

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                when = self._hit(data)
                if when == "after":
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(data)
                    server.shutdown(socket.SHUT_WR)  # it does what it was sent, and then finds nobody there
                    while server.recv(_CHUNK):
                        pass
                    break
                if when == "before":
                    break
                server.sendall(data)
        _close(client)
        _close(server)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                client.sendall(data)
        _close(client)

    def _hit(self, data: bytes) -> str:
        with self._lock:
            if not self._armed or self._word not in data.upper():
                return ""
            when, self._armed = self._armed, ""
            self.cuts += 1
            return when


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
