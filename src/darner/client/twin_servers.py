"""The least of gRPC servers: each method decodes, asks a twin, encodes. A real wire for those who have only a twin to test with.

Flows in: a twin and an address (`127.0.0.1:0` picks a port, `unix:PATH`). Flows out: the address served, until the `async with`
ends. Refuses: whatever the twin refuses, as status and trailers.
"""
# ruff: noqa: N802, ANN401  (generated names; generated classes without types)

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc.aio
from dragonfly_api import (
    common_pb2,
    dfdaemon_pb2,
    dfdaemon_pb2_grpc,
    manager_pb2,
    manager_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health, health_pb2_grpc

from darner.client.channel import is_unix
from darner.client.status import abort
from darner.client.twins import DaemonTwin, ManagerTwin, SchedulerTwin
from darner.core.errors import DarnerError
from darner.wire.common import download_from_pb, host_from_pb, host_to_pb, task_to_pb
from darner.wire.dfdaemon import event_to_pb, local_task_to_pb, offer_to_pb
from darner.wire.manager import application_to_pb, query_from_pb, scheduler_to_pb, update_from_pb
from darner.wire.scheduler import announced_from_pb, answer_to_pb


def _unary(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request) or Empty()
        except DarnerError as error:
            await abort(context, error)

    return call


def _streaming(method: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any, Any], AsyncIterator[Any]]:
    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(())
        try:
            async for response in method(self, request):
                yield response
        except DarnerError as error:
            await abort(context, error)

    return call


class SchedulerFace(scheduler_pb2_grpc.SchedulerServicer):
    """scheduler.v2 around a twin."""

    def __init__(self, twin: SchedulerTwin) -> None:
        self.twin = twin

    @_streaming
    async def AnnouncePeer(self, requests: Any) -> AsyncIterator[Any]:
        """See the twin."""
        messages = (announced_from_pb(request) async for request in requests)
        async with aclosing(self.twin.announce_peer(messages)) as answers:
            async for answer in answers:
                yield answer_to_pb(answer)

    @_unary
    async def AnnounceHost(self, request: Any) -> None:
        """See the twin."""
        await self.twin.announce_host(host_from_pb(request.host), request.interval.seconds)

    @_unary
    async def DeleteHost(self, request: Any) -> None:
        """See the twin."""
        await self.twin.delete_host(request.host_id)

    @_unary
    async def StatTask(self, request: Any) -> common_pb2.Task:
        """See the twin."""
        return task_to_pb(await self.twin.stat_task(request.host_id, request.task_id))

    @_unary
    async def DeleteTask(self, request: Any) -> None:
        """See the twin."""
        await self.twin.delete_task(request.host_id, request.task_id)

    @_unary
    async def ListHosts(self, request: Any) -> scheduler_pb2.ListHostsResponse:
        """See the twin."""
        hosts = await self.twin.list_hosts(request.type if request.HasField("type") else None)
        return scheduler_pb2.ListHostsResponse(hosts=[host_to_pb(host) for host in hosts])


class DaemonFace(dfdaemon_pb2_grpc.DfdaemonUploadServicer, dfdaemon_pb2_grpc.DfdaemonDownloadServicer):
    """Both faces of dfdaemon.v2 around a twin."""

    def __init__(self, twin: DaemonTwin) -> None:
        self.twin = twin

    @_streaming
    async def DownloadTask(self, request: Any) -> AsyncIterator[Any]:
        """See the twin."""
        async for event in self.twin.download_task(download_from_pb(request.download)):
            yield event_to_pb(event)

    @_streaming
    async def SyncPieces(self, request: Any) -> AsyncIterator[Any]:
        """See the twin."""
        async for offer in self.twin.sync_pieces(request.host_id, request.task_id, request.interested_piece_numbers):
            yield offer_to_pb(offer)

    @_streaming
    async def SyncHost(self, request: Any) -> AsyncIterator[Any]:
        """See the twin."""
        async for host in self.twin.sync_host(request.host_id, request.peer_id):
            yield host_to_pb(host)

    @_unary
    async def StatTask(self, request: Any) -> common_pb2.Task:
        """See the twin."""
        return task_to_pb(await self.twin.stat_task(request.task_id))

    @_unary
    async def StatLocalTask(self, request: Any) -> dfdaemon_pb2.StatLocalTaskResponse:
        """See the twin."""
        return local_task_to_pb(await self.twin.stat_local_task(request.task_id))

    @_unary
    async def ListLocalTasks(self, _request: Any) -> dfdaemon_pb2.ListLocalTasksResponse:
        """See the twin."""
        tasks = await self.twin.list_local_tasks()
        return dfdaemon_pb2.ListLocalTasksResponse(tasks=[local_task_to_pb(task) for task in tasks])

    @_unary
    async def DeleteTask(self, request: Any) -> None:
        """See the twin."""
        await self.twin.delete_task(request.task_id)

    @_unary
    async def DeleteLocalTask(self, request: Any) -> None:
        """See the twin."""
        await self.twin.delete_local_task(request.task_id)


class ManagerFace(manager_pb2_grpc.ManagerServicer):
    """manager.v2 around a twin."""

    def __init__(self, twin: ManagerTwin) -> None:
        self.twin = twin

    @_unary
    async def ListSchedulers(self, request: Any) -> manager_pb2.ListSchedulersResponse:
        """See the twin."""
        schedulers = await self.twin.list_schedulers(query_from_pb(request))
        return manager_pb2.ListSchedulersResponse(schedulers=[scheduler_to_pb(scheduler) for scheduler in schedulers])

    @_unary
    async def UpdateScheduler(self, request: Any) -> manager_pb2.Scheduler:
        """See the twin."""
        return scheduler_to_pb(await self.twin.update_scheduler(*update_from_pb(request)))

    @_unary
    async def GetScheduler(self, request: Any) -> manager_pb2.Scheduler:
        """See the twin."""
        return scheduler_to_pb(await self.twin.get_scheduler(request.hostname, request.ip, request.scheduler_cluster_id))

    @_unary
    async def ListApplications(self, request: Any) -> manager_pb2.ListApplicationsResponse:
        """See the twin."""
        applications = await self.twin.list_applications(request.hostname, request.ip)
        return manager_pb2.ListApplicationsResponse(applications=[application_to_pb(entry) for entry in applications])

    @_unary
    async def KeepAlive(self, requests: Any) -> None:
        """See the twin."""
        key: tuple[str, str, int] | None = None
        try:
            async for beat in requests:
                key = (beat.hostname, beat.ip, beat.cluster_id)
                self.twin.beat(*key)
        finally:
            if key is not None:
                self.twin.silence(*key)


@asynccontextmanager
async def serve(twin: SchedulerTwin | DaemonTwin | ManagerTwin, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serve a twin, health included, and yield where; a daemon on `unix:` shows its socket face, else its TCP face."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
    _add(twin, server, unix=is_unix(address))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield address if is_unix(address) else f"{address.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(None)


def _add(twin: SchedulerTwin | DaemonTwin | ManagerTwin, server: grpc.aio.Server, *, unix: bool) -> None:
    if isinstance(twin, SchedulerTwin):
        scheduler_pb2_grpc.add_SchedulerServicer_to_server(SchedulerFace(twin), server)  # type: ignore[no-untyped-call]
    elif isinstance(twin, ManagerTwin):
        manager_pb2_grpc.add_ManagerServicer_to_server(ManagerFace(twin), server)  # type: ignore[no-untyped-call]
    elif unix:
        dfdaemon_pb2_grpc.add_DfdaemonDownloadServicer_to_server(DaemonFace(twin), server)  # type: ignore[no-untyped-call]
    else:
        dfdaemon_pb2_grpc.add_DfdaemonUploadServicer_to_server(DaemonFace(twin), server)  # type: ignore[no-untyped-call]
