"""Client of a scheduler (scheduler.v2.Scheduler).

Flows in and out: core values; errors are DarnerErrors. One channel carries all dialogues and calls of a process to one
scheduler. Every unary call ends within ten seconds.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from dragonfly_api import scheduler_pb2, scheduler_pb2_grpc

from darner.client.calls import Connection
from darner.core.announce import Announced, SchedulerAnswer
from darner.core.host import Host
from darner.core.secret import Secret
from darner.core.task import TaskInfo
from darner.wire.common import host_from_pb, host_to_pb, task_from_pb, to_duration
from darner.wire.scheduler import announced_to_pb, answer_from_pb


class SchedulerClient:
    """One scheduler at `host:port`. Make and use it within one event loop."""

    def __init__(self, address: str, *, token: Secret | None = None) -> None:
        """Connects on first use. Raises InvalidInputError for an address of another form."""
        self.address = address
        self._connection = Connection(address, token=token)
        self._stub: Any = scheduler_pb2_grpc.SchedulerStub(self._connection.channel)  # type: ignore[no-untyped-call]

    async def healthy(self) -> bool:
        """Whether it answers that it serves, within three seconds."""
        return await self._connection.healthy()

    async def announce_host(self, host: Host, interval_s: float) -> None:
        """Tell that this host is there and will say so again after `interval_s`."""
        request = scheduler_pb2.AnnounceHostRequest(host=host_to_pb(host), interval=to_duration(interval_s))
        await self._connection.unary(self._stub.AnnounceHost, request)

    async def announce_peer(self, messages: AsyncIterator[Announced]) -> AsyncGenerator[SchedulerAnswer, None]:
        """Send messages of one peer and yield the answers as they come; ends when the scheduler ends the call.

        Whoever stops reading early closes the iterator (`contextlib.aclosing`), which cancels the call. Raises DarnerError.
        """
        answers = self._connection.dialogue(self._stub.AnnouncePeer, messages, announced_to_pb, answer_from_pb)
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def stat_task(self, host_id: str, task_id: str) -> TaskInfo:
        """What the scheduler knows of a task. Raises NotFoundError."""
        request = scheduler_pb2.StatTaskRequest(host_id=host_id, task_id=task_id)
        return task_from_pb(await self._connection.unary(self._stub.StatTask, request))

    async def delete_task(self, host_id: str, task_id: str) -> None:
        """Tell that the host no longer holds the task."""
        request = scheduler_pb2.DeleteTaskRequest(host_id=host_id, task_id=task_id)
        await self._connection.unary(self._stub.DeleteTask, request)

    async def list_hosts(self, type: int | None = None) -> list[Host]:  # noqa: A002  (upstream's name)
        """The hosts known, all or those of one type."""
        request = scheduler_pb2.ListHostsRequest(type=type)
        response = await self._connection.unary(self._stub.ListHosts, request)
        return [host_from_pb(host) for host in response.hosts]

    async def delete_host(self, host_id: str) -> None:
        """Tell that the host leaves."""
        request = scheduler_pb2.DeleteHostRequest(host_id=host_id)
        await self._connection.unary(self._stub.DeleteHost, request)

    async def close(self) -> None:
        """End the connection and every call on it."""
        await self._connection.close()
