"""One uvicorn server inside our own event loop: starts when told, stops when told, leaves signals to the process."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from darner.core.errors import UnavailableError

STOP_GRACE_S = 5


class HttpServer:
    """`async with HttpServer(app, ip, port)`: answers inside the block. Port 0 takes a free one; `port` is what it became."""

    def __init__(self, app: FastAPI, ip: str, port: int) -> None:
        """Nothing listens yet."""
        self._ip = ip
        self.port = port
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=STOP_GRACE_S, server_header=False
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listen. Raises UnavailableError when the address is taken."""
        # With its protocol named: asyncio switches Nagle's delay off only then, and answers on kept connections would take 40 ms.
        listener = socket.socket(socket.AF_INET6 if ":" in self._ip else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._ip, self.port))
        except OSError as error:
            listener.close()
            raise UnavailableError(f"cannot listen on {self._ip}:{self.port}: {error.strerror}") from None
        listener.set_inheritable(False)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110  (uvicorn offers no event)
            await asyncio.sleep(0.01)
        if self._task.done():
            await self._task
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish what is being answered, for a few seconds, and close."""
        self._server.should_exit = True
        if self._task:
            await self._task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    def install_signal_handlers(self) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield
