"""Client of a daemon, through either face: its unix socket (DfdaemonDownload) or its TCP port (DfdaemonUpload).

Flows in and out: core values; errors are DarnerErrors, what an origin answered included (OriginError). The address decides
which face is spoken to; a call that the face does not have raises InvalidInputError.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from dragonfly_api import dfdaemon_pb2, dfdaemon_pb2_grpc

from darner.client.calls import Connection
from darner.client.channel import is_unix
from darner.core.errors import InvalidInputError
from darner.core.host import Host
from darner.core.progress import DownloadEvent, PieceOffer
from darner.core.task import Download, LocalTask, TaskInfo
from darner.wire.common import download_to_pb, host_from_pb, task_from_pb
from darner.wire.dfdaemon import event_from_pb, local_task_from_pb, offer_from_pb


class DaemonClient:
    """One daemon at `unix:PATH` or `ip:port`. Make and use it within one event loop."""

    def __init__(self, address: str) -> None:
        """Connects on first use. Raises InvalidInputError for an address of another form."""
        self.address = address
        self._connection = Connection(address)
        face = dfdaemon_pb2_grpc.DfdaemonDownloadStub if is_unix(address) else dfdaemon_pb2_grpc.DfdaemonUploadStub
        self._stub: Any = face(self._connection.channel)

    async def download_task(self, download: Download, timeout_s: float | None = None) -> AsyncGenerator[DownloadEvent, None]:
        """Have the daemon download, and yield its progress; the end of the stream is success. Raises DarnerError.

        Whoever stops reading early closes the iterator, which cancels the call.
        """
        request = dfdaemon_pb2.DownloadTaskRequest(download=download_to_pb(download))
        events = self._connection.stream(self._stub.DownloadTask, request, event_from_pb, timeout_s=timeout_s)
        async with aclosing(events):
            async for event in events:
                yield event

    async def stat_task(self, task_id: str) -> TaskInfo:
        """What the daemon's scheduler knows of a task. Raises NotFoundError."""
        request = dfdaemon_pb2.StatTaskRequest(task_id=task_id)
        return task_from_pb(await self._connection.unary(self._stub.StatTask, request))

    async def stat_local_task(self, task_id: str) -> LocalTask:
        """What the daemon itself holds of a task. Raises NotFoundError."""
        request = dfdaemon_pb2.StatLocalTaskRequest(task_id=task_id)
        return local_task_from_pb(await self._connection.unary(self._stub.StatLocalTask, request))

    async def list_local_tasks(self) -> list[LocalTask]:
        """All tasks the daemon holds anything of. Only through the unix socket."""
        self._need_socket("list local tasks")
        response = await self._connection.unary(self._stub.ListLocalTasks, dfdaemon_pb2.ListLocalTasksRequest())
        return [local_task_from_pb(task) for task in response.tasks]

    async def delete_task(self, task_id: str) -> None:
        """Delete a task on the daemon, and the daemon's peer at the scheduler."""
        await self._connection.unary(self._stub.DeleteTask, dfdaemon_pb2.DeleteTaskRequest(task_id=task_id))

    async def delete_local_task(self, task_id: str) -> None:
        """Delete a task on the daemon only. Only through the unix socket."""
        self._need_socket("delete a local task")
        await self._connection.unary(self._stub.DeleteLocalTask, dfdaemon_pb2.DeleteLocalTaskRequest(task_id=task_id))

    async def sync_pieces(self, host_id: str, task_id: str, numbers: Iterable[int]) -> AsyncGenerator[PieceOffer, None]:
        """Which of these pieces the daemon has, told as it gets them. Only through the TCP port."""
        self._need_port("follow pieces")
        request = dfdaemon_pb2.SyncPiecesRequest(host_id=host_id, task_id=task_id, interested_piece_numbers=numbers)
        offers = self._connection.stream(self._stub.SyncPieces, request, offer_from_pb)
        async with aclosing(offers):
            async for offer in offers:
                yield offer

    async def sync_host(self, host_id: str, peer_id: str) -> AsyncGenerator[Host, None]:
        """The daemon's bandwidths, told every second; upstream fills nothing else. Only through the TCP port."""
        self._need_port("follow a host")
        request = dfdaemon_pb2.SyncHostRequest(host_id=host_id, peer_id=peer_id)
        hosts = self._connection.stream(self._stub.SyncHost, request, host_from_pb)
        async with aclosing(hosts):
            async for host in hosts:
                yield host

    async def healthy(self) -> bool:
        """Whether it answers that it serves, within three seconds."""
        return await self._connection.healthy()

    async def close(self) -> None:
        """End the connection and every call on it."""
        await self._connection.close()

    def _need_socket(self, what: str) -> None:
        if not is_unix(self.address):
            raise InvalidInputError(f"to {what}, speak to the daemon's unix socket, not to {self.address}", field="address")

    def _need_port(self, what: str) -> None:
        if is_unix(self.address):
            raise InvalidInputError(f"to {what}, speak to the daemon's TCP port, not to {self.address}", field="address")
