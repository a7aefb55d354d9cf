"""The download face (dfdaemon.v2.DfdaemonDownload): for local callers, on a unix socket that only its owner (and group) may open.

Whoever can open the socket acts with this daemon's rights. Methods that are not here are answered UNIMPLEMENTED.
"""
# ruff: noqa: N802, ANN401  (names of the service; messages of generated code)

import functools
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import grpc.aio
from dragonfly_api import dfdaemon_pb2, dfdaemon_pb2_grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from darner.client.status import abort
from darner.core.errors import ConflictError, DarnerError, InvalidInputError
from darner.daemon.config import SocketConfig
from darner.daemon.engine import DaemonEngine
from darner.kit.log import get_logger
from darner.wire.common import download_from_pb, task_to_pb
from darner.wire.dfdaemon import event_to_pb, local_task_to_pb

NAME = "dfdaemon.v2.DfdaemonDownload"
STOP_GRACE_S = 2.0
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)
_log = get_logger("daemon")


def _unary(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """Turn what a method raises into a status."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request) or Empty()
        except DarnerError as error:
            await abort(context, error)
        except Exception:  # noqa: BLE001  (one bad call must not end the server)
            _log.exception("a call failed unexpectedly", method=method.__name__)
            await abort(context, DarnerError("an internal error; the daemon's log has it"))

    return call


class DownloadFace(dfdaemon_pb2_grpc.DfdaemonDownloadServicer):
    """Decodes, asks the engine, encodes."""

    def __init__(self, engine: DaemonEngine) -> None:
        """The engine answers."""
        self._engine = engine

    async def DownloadTask(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Have the content here and at its output; the stream's end is success."""
        try:
            download = download_from_pb(request.download)
            async with aclosing(self._engine.download(download)) as events:
                async for event in events:
                    yield event_to_pb(event)
        except DarnerError as error:
            await abort(context, error)
        except Exception as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            _log.exception("a download failed unexpectedly")
            await abort(context, DarnerError("an internal error; the daemon's log has it"))

    @_unary
    async def StatTask(self, request: Any) -> Any:
        """What the scheduler knows of a task."""
        return task_to_pb(await self._engine.stat_task(request.task_id))

    @_unary
    async def StatLocalTask(self, request: Any) -> Any:
        """What is here of a task."""
        return local_task_to_pb(await self._engine.stat_local_task(request.task_id))

    @_unary
    async def ListLocalTasks(self, _request: Any) -> Any:
        """Everything that is here."""
        tasks = [local_task_to_pb(task) for task in self._engine.list_local_tasks()]
        return dfdaemon_pb2.ListLocalTasksResponse(tasks=tasks)

    @_unary
    async def DeleteTask(self, request: Any) -> None:
        """Remove a task here and at its scheduler."""
        await self._engine.delete_task(request.task_id)

    @_unary
    async def DeleteLocalTask(self, request: Any) -> None:
        """Remove a task here."""
        await self._engine.delete_local_task(request.task_id)

    @_unary
    async def DeleteHost(self, _request: Any) -> None:
        """Tell every scheduler that this host leaves."""
        await self._engine.delete_host()


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    async def Check(self, request: Any, _context: Any) -> Any:
        """SERVING for "" and the face."""
        known = request.service in {"", NAME}
        response = health_pb2.HealthCheckResponse
        return response(status=response.SERVING if known else response.SERVICE_UNKNOWN)


class DownloadServer:
    """The listening face: `async with` serves on the socket."""

    def __init__(self, engine: DaemonEngine, config: SocketConfig) -> None:
        """Nothing is touched before `async with`."""
        self._engine = engine
        self._config = config
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Path:
        """Listen. Raises ConflictError if another process answers there, InvalidInputError for an unusable path or group."""
        path = self._config.socket_path
        prepare_socket(path)
        server = grpc.aio.server(options=_OPTIONS)
        dfdaemon_pb2_grpc.add_DfdaemonDownloadServicer_to_server(DownloadFace(self._engine), server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(_Health(), server)
        # The mode must be right from the first instant: whoever connects in between would stay connected.
        mask = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
        except RuntimeError as error:
            raise InvalidInputError(f"cannot listen on {path}: {error}", field="download.server.socketPath") from error
        finally:
            os.umask(mask)
        apply_rights(path, self._config)
        self._server = server
        return path

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        self._config.socket_path.unlink(missing_ok=True)


def prepare_socket(path: Path) -> None:
    """Make the directory, remove a stale socket. Raises ConflictError if somebody answers on it or it is no socket."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise ConflictError(f"{path} exists and is no socket; remove it or choose another socketPath")
    refused = suppress(ConnectionRefusedError, FileNotFoundError)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, refused:
        probe.connect(str(path))
        raise ConflictError(f"another daemon answers on {path}; stop it or choose another socketPath")
    path.unlink(missing_ok=True)


def apply_rights(path: Path, config: SocketConfig) -> None:
    """Give the socket its group and mode. Raises InvalidInputError for an unknown group or a mode that is not octal."""
    try:
        mode = int(config.mode, 8)
    except ValueError as error:
        message = f"socket mode {config.mode!r} is not octal; write it like 0600"
        raise InvalidInputError(message, field="download.server.mode") from error
    if config.group:
        try:
            shutil.chown(path, group=config.group)
        except (LookupError, PermissionError) as error:
            message = f"the socket cannot be given to group {config.group!r}: {error}"
            raise InvalidInputError(message, field="download.server.group") from error
    path.chmod(mode)
