"""The daemon as a whole: takes the built parts, starts them in order, keeps the loops going, stops them in the reverse order.

Start: piece server → upload face → schedulers (announce) → download face → mirror, metrics, health → loops. So nobody hears of this
host before it serves, and local callers come last. Stop: local faces first, then goodbye, then children, runs and the store.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from darner.core.errors import ConflictError, DarnerError
from darner.daemon.engine import DaemonEngine
from darner.daemon.httpd import HttpPort, health_app, metrics_app
from darner.daemon.loading import Parts
from darner.daemon.rpc_download import DownloadServer
from darner.daemon.rpc_upload import UploadServer
from darner.kit.log import get_logger

_log = get_logger("daemon")


class PieceServerPort(Protocol):
    """What serves pieces to children."""

    def start(self) -> int:
        """Listen; the port."""

    def stop(self) -> None:
        """Stop serving."""


class Daemon:
    """One running daemon; an async context manager."""

    def __init__(
        self, parts: Parts, piece_server: PieceServerPort, mirror: Callable[[DaemonEngine], web.Application] | None
    ) -> None:
        """`parts` and the servers are built, nothing listens yet. `mirror` makes the mirror's application; None: no mirror."""
        self.parts = parts
        self.engine = DaemonEngine(parts)
        self._piece_server = piece_server
        self._mirror = mirror
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except OSError as error:
            await self._stack.aclose()
            raise ConflictError(f"the daemon cannot start: {error.strerror or error}") from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        config, stack = self.parts.config, self._stack
        # Pushed first, so that it runs last: connections and the store outlive everything that uses them.
        stack.push_async_callback(self._close_parts)
        await self.parts.on_disk(self._piece_server.start)
        stack.push_async_callback(self._stop_pieces)
        stack.push_async_callback(self.engine.close)
        await stack.enter_async_context(UploadServer(self.engine, config.upload.server.ip, config.upload.server.port))
        self.parts.directory.on_new = self.engine.meet
        loop = asyncio.get_running_loop()

        def on_evicted(task_id: str) -> None:
            loop.call_soon_threadsafe(self.engine.evicted, task_id)

        self.parts.store.on_evicted = on_evicted
        await self.parts.directory.start()
        stack.push_async_callback(self.parts.directory.leave)
        await stack.enter_async_context(DownloadServer(self.engine, config.download.server))
        for port in self._http_ports():
            await stack.enter_async_context(port)
        loops = [asyncio.create_task(self.parts.directory.run()), asyncio.create_task(self._collect())]
        stack.push_async_callback(_end, loops)

    def _http_ports(self) -> list[HttpPort]:
        config = self.parts.config
        ports = [
            HttpPort(metrics_app(self.parts.meters), config.metrics.server.ip, config.metrics.server.port, name="metrics"),
            HttpPort(health_app(), config.health.server.ip, config.health.server.port, name="health"),
        ]
        if self._mirror is not None:
            server = config.proxy.server
            ports.insert(0, HttpPort(self._mirror(self.engine), server.ip, server.port, name="the mirror"))
        return ports

    async def _collect(self) -> None:
        """Tidy the store now and every interval."""
        while True:
            try:
                await self.parts.on_whole_file(partial(self.parts.store.evict, self.parts.clock.now()))
                self.parts.meters.disk_used.set(self.parts.store.used_bytes())
                await self.parts.peers.tidy()
            except (DarnerError, OSError) as error:
                _log.warning("tidying the store failed; it is tried again", reason=str(error))
            await self.parts.clock.sleep(self.parts.config.gc.interval)

    async def _stop_pieces(self) -> None:
        await self.parts.on_disk(self._piece_server.stop)

    async def _close_parts(self) -> None:
        await self.parts.peers.close()
        await self.parts.directory.close()
        self.parts.pieces.close()
        self.parts.origins.close()
        await self.parts.on_disk(self.parts.store.close)
        for executor in (self.parts.bodies, self.parts.files, self.parts.scans):
            executor.shutdown(wait=False, cancel_futures=True)


async def _end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
