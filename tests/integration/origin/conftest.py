"""A server that answers with exactly the bytes it is told, framed rightly or not, and a place to write to."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Script = Callable[[int, bytes], "list[bytes | float | None]"]


class RawServer:
    """`script(number, head)` gives what to send for a request: bytes, a float to go silent, None to close the connection."""

    def __init__(self, script: Script) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self._script = script
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        with connection:
            while (head := self._read_head(connection)) is not None:
                self.heads.append(head)
                for part in self._script(len(self.heads), head):
                    if part is None or self._closing.is_set():
                        return
                    if isinstance(part, float):
                        self._closing.wait(part)
                        continue
                    try:
                        connection.settimeout(10)
                        connection.sendall(part)
                        connection.settimeout(0.05)
                    except OSError:
                        return

    def _read_head(self, connection: socket.socket) -> bytes | None:
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                more = connection.recv(65536)
            except TimeoutError:
                if self._closing.is_set():
                    return None
                continue
            except OSError:
                return None
            if not more:
                return None
            data += more
        return data

    def stop(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def raw_server() -> Iterator[Callable[[Script], Any]]:
    servers: list[RawServer] = []

    def start(script: Script) -> RawServer:
        servers.append(RawServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    handle = os.open(tmp_path / "content", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)
