"""The manager's HTTP server on a real socket."""

import socket

import pytest
from fastapi import FastAPI

from darner.app.http import HttpServer
from darner.core.errors import UnavailableError


def app() -> FastAPI:
    made = FastAPI()
    made.add_api_route("/nodelay", lambda: "OK", methods=["GET"])
    return made


async def test_answers_are_not_held_back_by_nagle(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[socket.socket] = []
    accept = socket.socket.accept

    def watched(self: socket.socket) -> tuple[socket.socket, object]:
        made, address = accept(self)
        accepted.append(made)
        return made, address

    monkeypatch.setattr(socket.socket, "accept", watched)
    async with HttpServer(app(), "127.0.0.1", 0) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setblocking(False)
            await _exchange(client)
            assert accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def _exchange(client: socket.socket) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, b"GET /nodelay HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 200")


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=str(port)):
            async with HttpServer(app(), "127.0.0.1", port):
                pass
