"""Kept connections to parents, per address. One that was closed, or that carries bytes nobody asked for, is not handed out."""

import socket
import threading
import time
from collections import defaultdict

Address = tuple[str, int]


class ConnectionPool:
    """Idle connections, newest first; safe for threads."""

    def __init__(self, per_address: int, idle_timeout_s: float) -> None:
        """Keep at most `per_address` of them, each at most that long."""
        self._per_address = per_address
        self._idle_timeout_s = idle_timeout_s
        self._idle: dict[Address, list[tuple[socket.socket, float]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._closed = False

    def take(self, address: Address) -> socket.socket | None:
        """A connection that is still open and quiet, or None."""
        while True:
            with self._lock:
                group = self._idle.get(address)
                if not group:
                    self._idle.pop(address, None)
                    return None
                sock, since = group.pop()
            if time.monotonic() - since < self._idle_timeout_s and _is_quiet(sock):
                return sock
            sock.close()

    def give(self, address: Address, sock: socket.socket) -> None:
        """Keep a connection whose last reply was read to its end."""
        now = time.monotonic()
        with self._lock:
            dropped = self._expired(now)
            group = self._idle[address]
            if self._closed or len(group) >= self._per_address:
                dropped.append(sock)
            else:
                group.append((sock, now))
        for old in dropped:
            old.close()

    def close(self) -> None:
        """Close all; later ones are closed when given."""
        with self._lock:
            self._closed = True
            kept = [sock for group in self._idle.values() for sock, _ in group]
            self._idle.clear()
        for sock in kept:
            sock.close()

    def _expired(self, now: float) -> list[socket.socket]:
        """Take out what is too old, at any address, so that parents met once do not cost a descriptor for ever."""
        dropped = []
        for address, group in list(self._idle.items()):
            old = [entry for entry in group if now - entry[1] >= self._idle_timeout_s]
            if old:
                dropped += [sock for sock, _ in old]
                self._idle[address] = [entry for entry in group if entry not in old]
            if not self._idle[address]:
                del self._idle[address]
        return dropped


def _is_quiet(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False  # closed, or bytes beyond what the last piece announced
