"""Client of a manager over gRPC (manager.v2.Manager).

Flows in and out: core values; errors are DarnerErrors. Every unary call ends within ten seconds. A token travels as metadata.
"""

from typing import Any

from dragonfly_api import manager_pb2, manager_pb2_grpc

from darner.client.calls import Connection
from darner.core.fleet import ApplicationInfo, SchedulerInfo, SchedulerQuery
from darner.core.secret import Secret
from darner.wire.manager import application_from_pb, query_to_pb, scheduler_from_pb, update_to_pb


class ManagerGrpcClient:
    """One manager at `host:port`. Make and use it within one event loop."""

    def __init__(self, address: str, *, token: Secret | None = None) -> None:
        """Connects on first use. Raises InvalidInputError for an address of another form."""
        self.address = address
        self._connection = Connection(address, token=token)
        self._stub: Any = manager_pb2_grpc.ManagerStub(self._connection.channel)  # type: ignore[no-untyped-call]

    async def list_schedulers(self, query: SchedulerQuery) -> list[SchedulerInfo]:
        """The schedulers for this daemon, best cluster first: the order is the manager's advice."""
        response = await self._connection.unary(self._stub.ListSchedulers, query_to_pb(query))
        return [scheduler_from_pb(scheduler) for scheduler in response.schedulers]

    async def update_scheduler(self, scheduler: SchedulerInfo, config: bytes) -> SchedulerInfo:
        """Register a scheduler, or tell its new facts; the answer has the id that the manager gave it."""
        request = update_to_pb(scheduler, config)
        return scheduler_from_pb(await self._connection.unary(self._stub.UpdateScheduler, request))

    async def get_scheduler(self, hostname: str, ip: str, cluster_id: int) -> SchedulerInfo:
        """What the manager knows of a scheduler, its cluster's configs included. Raises NotFoundError."""
        request = manager_pb2.GetSchedulerRequest(
            source_type=manager_pb2.SCHEDULER_SOURCE,
            hostname=hostname,
            ip=ip,
            scheduler_cluster_id=cluster_id,
        )
        return scheduler_from_pb(await self._connection.unary(self._stub.GetScheduler, request))

    async def keep_alive(self, hostname: str, ip: str, cluster_id: int, interval_s: float) -> None:
        """Say every `interval_s` that this scheduler lives, until cancelled. Raises DarnerError when the stream ends.

        The manager marks the scheduler inactive as soon as the stream ends, so a caller starts anew after an error.
        """
        request = manager_pb2.KeepAliveRequest(
            source_type=manager_pb2.SCHEDULER_SOURCE,
            hostname=hostname,
            ip=ip,
            cluster_id=cluster_id,
        )
        await self._connection.repeat(self._stub.KeepAlive, request, interval_s)

    async def list_applications(self, hostname: str, ip: str) -> list[ApplicationInfo]:
        """The applications and their priorities."""
        request = manager_pb2.ListApplicationsRequest(source_type=manager_pb2.SCHEDULER_SOURCE, hostname=hostname, ip=ip)
        response = await self._connection.unary(self._stub.ListApplications, request)
        return [application_from_pb(application) for application in response.applications]

    async def healthy(self) -> bool:
        """Whether it answers that it serves, within three seconds."""
        return await self._connection.healthy()

    async def close(self) -> None:
        """End the connection and every call on it."""
        await self._connection.close()
