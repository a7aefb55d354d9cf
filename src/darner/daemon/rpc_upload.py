"""The upload face (dfdaemon.v2.DfdaemonUpload): for children and schedulers, over TCP, without trust.

What a caller from the network may not do: say where output goes (it is ignored), or make this daemon die. Methods that are not
here are answered UNIMPLEMENTED.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dragonfly_api import common_pb2, dfdaemon_pb2
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2

from darner.daemon.engine import DaemonEngine
from darner.daemon.grpclib_server import PatientServer, Service
from darner.wire.common import download_from_pb, host_to_pb, task_to_pb
from darner.wire.dfdaemon import event_to_pb, local_task_to_pb, offer_to_pb

NAME = "dfdaemon.v2.DfdaemonUpload"
HEALTH = "grpc.health.v1.Health"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class UploadFace:
    """Decodes, asks the engine, encodes."""

    def __init__(self, engine: DaemonEngine) -> None:
        """The engine answers."""
        self._engine = engine

    def services(self) -> list[Service]:
        """What is served on the port."""
        upload, wire = Service(NAME), dfdaemon_pb2
        upload.streaming("DownloadTask", wire.DownloadTaskRequest, wire.DownloadTaskResponse, self._download)
        upload.streaming("SyncPieces", wire.SyncPiecesRequest, wire.SyncPiecesResponse, self._sync_pieces)
        upload.streaming("SyncHost", wire.SyncHostRequest, common_pb2.Host, self._sync_host)
        upload.unary("StatTask", wire.StatTaskRequest, common_pb2.Task, self._stat_task)
        upload.unary("StatLocalTask", wire.StatLocalTaskRequest, wire.StatLocalTaskResponse, self._stat_local_task)
        upload.unary("DeleteTask", wire.DeleteTaskRequest, Empty, self._delete_task)
        health = Service(HEALTH)
        health.unary("Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, self._check)
        health.streaming("Watch", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, self._watch)
        return [upload, health]

    async def _download(self, request: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        download = download_from_pb(request.download)
        async with aclosing(self._engine.download(download, triggered=True)) as events:
            async for event in events:
                yield event_to_pb(event)

    async def _sync_pieces(self, request: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        numbers = frozenset(request.interested_piece_numbers)
        async with aclosing(self._engine.sync_pieces(request.task_id, numbers)) as offers:
            async for offer in offers:
                yield offer_to_pb(offer)

    async def _sync_host(self, _request: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        async with aclosing(self._engine.sync_host()) as hosts:
            async for host in hosts:
                yield host_to_pb(host)

    async def _stat_task(self, request: Any) -> Any:  # noqa: ANN401
        return task_to_pb(await self._engine.stat_task(request.task_id))

    async def _stat_local_task(self, request: Any) -> Any:  # noqa: ANN401
        return local_task_to_pb(await self._engine.stat_local_task(request.task_id))

    async def _delete_task(self, request: Any) -> Empty:  # noqa: ANN401
        await self._engine.delete_task(request.task_id)
        return Empty()

    async def _check(self, request: Any) -> Any:  # noqa: ANN401
        known = request.service in {"", NAME}
        return health_pb2.HealthCheckResponse(status=_SERVING if known else _UNKNOWN)

    async def _watch(self, request: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        yield await self._check(request)
        await asyncio.Event().wait()


class UploadServer:
    """The listening face: `async with` serves."""

    def __init__(self, engine: DaemonEngine, ip: str, port: int) -> None:
        """Port 0 takes any free one."""
        self._face = UploadFace(engine)
        self._ip, self._port = ip, port
        self._server: PatientServer | None = None

    async def __aenter__(self) -> int:
        """Listen; the port."""
        self._server = PatientServer(self._face.services())
        await self._server.start(self._ip, self._port)
        return self._server.port

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop()
