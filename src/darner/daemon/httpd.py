"""The small HTTP ports: /metrics and /healthy."""

import os

from aiohttp import web
from prometheus_client import generate_latest

from darner.core.errors import ConflictError
from darner.daemon.meters import Meters

STOP_GRACE_S = 1.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def healthy(_request: web.Request) -> web.Response:
    """200 while the process serves."""
    return web.Response()


def health_app() -> web.Application:
    """GET /healthy."""
    app = web.Application()
    app.router.add_get("/healthy", healthy)
    return app


def metrics_app(meters: Meters) -> web.Application:
    """GET /metrics, and /healthy for convenience."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(meters.registry), headers={"Content-Type": METRICS_TYPE})

    app = health_app()
    app.router.add_get("/metrics", metrics)
    return app


class HttpPort:
    """An aiohttp application on one port: `async with` serves."""

    def __init__(self, app: web.Application, ip: str, port: int, *, name: str) -> None:
        """Port 0 takes any free one; `name` is for the error of a taken port."""
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_GRACE_S)
        self._ip, self._port, self._name = ip, port, name

    async def __aenter__(self) -> int:
        """Listen; the port. Raises ConflictError for a taken one."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._ip, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConflictError(
                f"cannot listen on {self._ip}:{self._port} for {self._name}: {os.strerror(error.errno or 0)}"
            ) from error
        port: int = self._runner.addresses[0][1]
        return port

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
