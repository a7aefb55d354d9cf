"""manager.v2 over gRPC: the calls that today's schedulers and daemons make; all others are UNIMPLEMENTED (spec/manager.md, 10).

In: a token in the metadata (`authorization: Bearer …`). Without one a call is refused, unless anonymous registration is on, which
is how upstream's own programs come in.
"""

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self
from urllib.parse import unquote

import grpc
import grpc.aio
from dragonfly_api import manager_pb2
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from darner.access import Principal, TokenService, token_of
from darner.client.status import abort
from darner.core.errors import DarnerError, DeniedError, InvalidInputError, NotFoundError, UnauthenticatedError, UnavailableError
from darner.fleet.config import Anonymous
from darner.fleet.engine import FleetEngine
from darner.fleet.rules import check_hostname, check_ip
from darner.kit.log import get_logger
from darner.wire.manager import application_to_pb, query_from_pb, scheduler_to_pb, update_from_pb

_SERVICE = "manager.v2.Manager"
_WRITERS = ("scheduler",)
_READERS = ("scheduler", "worker", "cluster")
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_log = get_logger("fleet")
Context = Any  # grpc.aio.ServicerContext; the package brings no types


class FleetServer:
    """The manager's gRPC server. `bind` is `host:port` (port 0: any); `address` is known after the start."""

    def __init__(
        self, engine: FleetEngine, tokens: TokenService, *, bind: str, anonymous: Anonymous = Anonymous.OFF, grace_s: float = 2.0
    ) -> None:
        """Nothing listens before `start`."""
        self._face = _Face(engine, _Gate(tokens, anonymous))
        self._bind = bind
        self._grace_s = grace_s
        self._server: Any = None
        self.address = bind

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. UnavailableError if the port is taken."""
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._face.handlers(),))
        healthy = health.aio.HealthServicer()
        await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        try:
            port = server.add_insecure_port(self._bind)
        except RuntimeError as error:
            raise UnavailableError(f"Cannot listen on {self._bind}; is the port taken by another process?") from error
        await server.start()
        self._server = server
        self.address = f"{self._bind.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """End open streams, which makes their schedulers inactive, and stop listening."""
        if self._server is not None:
            await self._server.stop(self._grace_s)
            self._server = None


class _Gate:
    """Who may call."""

    def __init__(self, tokens: TokenService, anonymous: Anonymous) -> None:
        self._tokens = tokens
        self._anonymous = anonymous

    async def check(self, context: Context, scopes: tuple[str, ...]) -> None:
        """UnauthenticatedError or DeniedError if the caller may not."""
        metadata = {str(key).lower(): value for key, value in context.invocation_metadata() or ()}
        text = token_of(_header(metadata, "authorization"), _header(metadata, "x-darner-token"))
        if not text:
            if self._open_to(context.peer()):
                return
            raise UnauthenticatedError("No token was given; send authorization: Bearer TOKEN in the metadata.")
        principal: Principal | None = await self._tokens.authenticate(text)
        if principal is None:
            raise UnauthenticatedError("The token is unknown, expired or revoked.")
        if not any(principal.allows(scope) for scope in scopes):
            raise DeniedError(f"The token {principal.name!r} lacks the scope {' or '.join(scopes)}.")

    def _open_to(self, peer: str) -> bool:
        return self._anonymous == Anonymous.ANY or (self._anonymous == Anonymous.LOOPBACK and is_loopback(peer))


def is_loopback(peer: str) -> bool:
    """Whether a gRPC peer (`ipv4:127.0.0.1:5`, `ipv6:%5B::1%5D:5`, `unix:…`) is this machine."""
    kind, _, rest = unquote(peer).partition(":")
    if kind == "unix":
        return True
    try:
        address = ipaddress.ip_address(rest.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class _Face:
    """Decodes, asks the engine, encodes."""

    def __init__(self, engine: FleetEngine, gate: _Gate) -> None:
        self._engine = engine
        self._gate = gate

    def handlers(self) -> Any:  # noqa: ANN401  (grpc brings no types)
        """The methods we answer; the server itself answers UNIMPLEMENTED to all others."""
        unary: dict[str, tuple[Callable[[Any], Awaitable[Any]], tuple[str, ...], Any]] = {
            "ListSchedulers": (self._list_schedulers, _READERS, manager_pb2.ListSchedulersRequest),
            "GetScheduler": (self._get_scheduler, _WRITERS, manager_pb2.GetSchedulerRequest),
            "UpdateScheduler": (self._update_scheduler, _WRITERS, manager_pb2.UpdateSchedulerRequest),
            "ListApplications": (self._list_applications, _READERS, manager_pb2.ListApplicationsRequest),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(call, scopes), request_deserializer=kind.FromString, response_serializer=_serialize
            )
            for name, (call, scopes, kind) in unary.items()
        }
        methods["KeepAlive"] = grpc.stream_unary_rpc_method_handler(
            self._guarded(self._keep_alive, _WRITERS),
            request_deserializer=manager_pb2.KeepAliveRequest.FromString,
            response_serializer=_serialize,
        )
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    def _guarded(self, call: Callable[[Any], Awaitable[Any]], scopes: tuple[str, ...]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401
            try:
                await self._gate.check(context, scopes)
                return await call(request)
            except DarnerError as error:
                _log.info("refused a call", peer=context.peer(), reason=error.message)
                await abort(context, error)

        return answer

    async def _list_schedulers(self, request: manager_pb2.ListSchedulersRequest) -> manager_pb2.ListSchedulersResponse:
        found = await self._engine.list_schedulers(query_from_pb(request))
        return manager_pb2.ListSchedulersResponse(schedulers=[scheduler_to_pb(one) for one in found])

    async def _get_scheduler(self, request: manager_pb2.GetSchedulerRequest) -> manager_pb2.Scheduler:
        found = await self._engine.get_scheduler(request.hostname, request.ip, request.scheduler_cluster_id)
        return scheduler_to_pb(found)

    async def _update_scheduler(self, request: manager_pb2.UpdateSchedulerRequest) -> manager_pb2.Scheduler:
        return scheduler_to_pb(await self._engine.update_scheduler(*update_from_pb(request)))

    async def _list_applications(self, _request: manager_pb2.ListApplicationsRequest) -> manager_pb2.ListApplicationsResponse:
        found = await self._engine.applications()
        if not found:
            raise NotFoundError("There are no applications.")  # as upstream; its scheduler expects it
        return manager_pb2.ListApplicationsResponse(applications=[application_to_pb(one) for one in found])

    async def _keep_alive(self, requests: AsyncIterator[manager_pb2.KeepAliveRequest]) -> Empty:
        first = await anext(requests, None)
        if first is None:
            return Empty()
        if first.source_type != manager_pb2.SCHEDULER_SOURCE:
            async for _ in requests:  # heartbeats of peers have no effect, as upstream
                pass
            return Empty()
        check_hostname(first.hostname)
        if first.ip:
            check_ip(first.ip)
        if first.cluster_id < 1:
            raise InvalidInputError("A cluster id is 1 or more.", field="cluster_id")
        async with self._engine.presence(first.hostname, first.ip, first.cluster_id) as beat:
            async for _ in requests:
                beat()
        return Empty()


def _header(metadata: dict[str, str | bytes], key: str) -> str:
    value = metadata.get(key, "")
    return value if isinstance(value, str) else ""


def _serialize(message: Any) -> bytes:  # noqa: ANN401  (any protobuf message)
    return bytes(message.SerializeToString())
