"""The scheduler's gRPC face: scheduler.v2.Scheduler and grpc.health.v1.Health.

Flows in: protobuf requests, decoded by `wire`. Flows out: what the engine answers. Refuses, with UNIMPLEMENTED, the calls for
cache, persistent and persistent-cache tasks, and the preheat calls. Of each announce stream one task reads and another writes, so
that a client that does not take its answers cannot stop its own messages, and scheduling never stops the reader (scheduler.md,
section 4).
"""

import asyncio
from typing import Any, NoReturn, Self

import grpc
import grpc.aio
from dragonfly_api import common_pb2, scheduler_pb2, scheduler_pb2_grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from darner.client.status import message_of, status_of, trailers_of
from darner.core.errors import DarnerError, InvalidInputError, OriginError
from darner.kit.log import get_logger
from darner.scheduler.engine import END, SchedulerEngine, Stream
from darner.scheduler.replies import Answers, Tasks
from darner.wire.common import candidate_to_pb, from_duration, host_from_pb, host_to_pb
from darner.wire.scheduler import announced_from_pb

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    # Clients ping every 300 s, which is also the least that grpc-core accepts by itself (scheduler.md, section 15).
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
SERVICE = "scheduler.v2.Scheduler"
_CODE_OF_ORIGIN = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    410: grpc.StatusCode.NOT_FOUND,
}
_log = get_logger("scheduler")
# Generated servicers and grpc's contexts are untyped.
Context = Any


async def abort(context: Context, error: DarnerError) -> NoReturn:
    """End a call with an error; what an origin answered decides the code, and travels in the details."""
    code = status_of(error)
    if isinstance(error, OriginError):
        code = _CODE_OF_ORIGIN.get(error.status or 0, code)
    await context.abort(code, message_of(error), trailers_of(error))
    raise AssertionError("abort returned")


class SchedulerServicer(scheduler_pb2_grpc.SchedulerServicer):
    """The calls that are served; all others answer UNIMPLEMENTED by the generated base class."""

    def __init__(self, engine: SchedulerEngine) -> None:
        """Serve this engine."""
        self._engine = engine
        self._answers = Answers()
        self._tasks = Tasks()

    # --- announce streams --------------------------------------------------------------------------------------------------------

    async def AnnouncePeer(self, _requests: object, context: Context) -> None:  # noqa: N802
        """One peer's dialogue."""
        await context.send_initial_metadata(())  # clients wait 10 s for headers, however long the first answer takes
        stream = Stream()
        reader = asyncio.ensure_future(self._read(stream, context))
        try:
            while (item := await stream.outbox.get()) is not END:
                if isinstance(item, DarnerError):
                    await abort(context, item)
                await context.write(self._answers.encode(item))
        finally:
            self._engine.leave(stream)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, stream: Stream, context: Context) -> None:
        """Take in messages until the client has no more; a stream that ends without a last word is broken."""
        hear, read, end = self._engine.hear, context.read, grpc.aio.EOF
        try:
            while (request := await read()) is not end:
                try:
                    hear(stream, announced_from_pb(request))
                except InvalidInputError as error:
                    if stream.key is None:
                        stream.put(error)
                        return
                    _log.info("a message is ignored", peer=stream.key[1], reason=error.message)
        except grpc.RpcError:
            pass  # the connection is gone; the writer is cancelled
        except Exception:  # noqa: BLE001  (a bug met by one stream must not stay its secret)
            _log.exception("a message could not be taken in", stream=stream.key)
            stream.put(DarnerError("the scheduler could not take in a message"))
            return
        self._engine.leave(stream)
        stream.outbox.put_nowait(END)

    # --- unary calls -------------------------------------------------------------------------------------------------------------

    async def AnnounceHost(self, request: scheduler_pb2.AnnounceHostRequest, context: Context) -> Empty:  # noqa: N802
        """A host is here."""
        if not request.host.id:
            await abort(context, InvalidInputError("the announcement has no host id", field="host.id"))
        host = host_from_pb(request.host)
        self._engine.announce_host(host, from_duration(request.interval) if request.HasField("interval") else 0.0)
        return Empty()

    async def DeleteHost(self, request: scheduler_pb2.DeleteHostRequest, context: Context) -> Empty:  # noqa: N802
        """A host leaves."""
        try:
            self._engine.delete_host(request.host_id)
        except DarnerError as error:
            await abort(context, error)
        return Empty()

    async def ListHosts(self, request: scheduler_pb2.ListHostsRequest, _: Context) -> scheduler_pb2.ListHostsResponse:  # noqa: N802
        """All hosts, or those of one type."""
        wanted = request.type if request.HasField("type") else None
        hosts = [host_to_pb(host) for host in self._engine.hosts() if wanted is None or host.type == wanted]
        return scheduler_pb2.ListHostsResponse(hosts=hosts)

    async def StatTask(self, request: scheduler_pb2.StatTaskRequest, context: Context) -> bytes:  # noqa: N802
        """What is known of a task, encoded: children ask for it again and again while it loads."""
        try:
            return self._tasks.encode(self._engine.stat_task(request.task_id))
        except DarnerError as error:
            await abort(context, error)

    async def DeleteTask(self, request: scheduler_pb2.DeleteTaskRequest, context: Context) -> Empty:  # noqa: N802
        """A host no longer holds a task."""
        if not (request.host_id and request.task_id):
            await abort(context, InvalidInputError("host_id and task_id must be given", field="task_id"))
        self._engine.delete_task(request.host_id, request.task_id)
        return Empty()

    async def StatPeer(self, request: scheduler_pb2.StatPeerRequest, context: Context) -> common_pb2.Peer:  # noqa: N802
        """What is known of a peer."""
        try:
            peer = self._engine.stat_peer(request.task_id, request.peer_id)
            return candidate_to_pb(peer, task=self._engine.stat_task(request.task_id))
        except DarnerError as error:
            await abort(context, error)

    async def DeletePeer(self, request: scheduler_pb2.DeletePeerRequest, context: Context) -> Empty:  # noqa: N802
        """A peer no longer takes part."""
        try:
            self._engine.delete_peer(request.task_id, request.peer_id)
        except DarnerError as error:
            await abort(context, error)
        return Empty()


class SchedulerServer:
    """The listening server. `async with server:` serves; `port` is the port that was bound."""

    def __init__(self, engine: SchedulerEngine, *, ip: str, port: int, grace_s: float = 1.0) -> None:
        """`port` 0 takes a free one. Streams are cut `grace_s` after the stop begins: waiting peers would keep it for hours."""
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._health = health.aio.HealthServicer()
        self._grace_s = grace_s
        self._address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        self.port = 0
        servicer = SchedulerServicer(engine)
        scheduler_pb2_grpc.add_SchedulerServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
        # The last registration of a method counts: this one sends bytes as they are.
        stat_task = grpc.unary_unary_rpc_method_handler(servicer.StatTask, scheduler_pb2.StatTaskRequest.FromString, bytes)
        self._server.add_registered_method_handlers(SERVICE, {"StatTask": stat_task})
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def __aenter__(self) -> Self:
        """Raises OSError if the address is taken."""
        try:
            self.port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            message = f"cannot listen on {self._address}: {error}"
            raise OSError(message) from error
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Order: answer NOT_SERVING, so that no new download comes; then cut the streams after the grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._grace_s)


def build_server(engine: SchedulerEngine, *, ip: str, port: int) -> SchedulerServer:
    """The server of this engine at ip and port (0: any free one)."""
    return SchedulerServer(engine, ip=ip, port=port)
