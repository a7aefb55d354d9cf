"""A grpclib server fit for upstream's children: no deadline on streams, headers at once, capped messages, no death by request.

Why grpclib, and why without deadlines: docs/adr/0004-upload-face.md. Flows in: methods by path that work on protobuf messages.
Flows out: a listening server. A DarnerError becomes status and trailers as `client` reads them, anything else INTERNAL.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias
from weakref import WeakSet

import grpclib.server
from google.protobuf.message import DecodeError, Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from grpclib.protocol import AbstractHandler, Buffer, H2Protocol, Stream
from h2.settings import SettingCodes

from darner.client.status import DETAILS_KEY, message_of, status_of, trailers_of
from darner.core.errors import DarnerError, InvalidInputError, TimedOutError
from darner.kit.log import get_logger

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_STREAMS = 1024
"""Streams per connection: two per task that a child loads from us, and all its tasks share one connection."""
SEND_TIMEOUT_S = 10.0
_log = get_logger("daemon")

Unary: TypeAlias = Callable[[Any], Awaitable[Message]]
Streaming: TypeAlias = Callable[[Any], AsyncGenerator[Message, None]]


class JsonDetails(StatusDetailsCodecBase):
    """Status details are bytes already: upstream puts JSON there, not a google.rpc.Status (daemon.md, section 15)."""

    def encode(self, status: Status, message: str | None, details: bytes) -> bytes:  # noqa: ARG002  (grpclib's signature)
        """The bytes as they are."""
        return details

    def decode(self, status: Status, message: str | None, data: bytes) -> bytes:  # noqa: ARG002  (grpclib's signature)
        """The bytes as they are."""
        return data


class _CappedBuffer(Buffer):
    """Refuses to gather a message that is larger than we take from anybody."""

    async def read(self, size: int) -> bytes:
        if size > MAX_MESSAGE_BYTES:
            raise InvalidInputError(f"a message of {size} bytes; at most {MAX_MESSAGE_BYTES} are taken")
        return await super().read(size)


class _PatientHandler(AbstractHandler):
    """Forgets the deadline that a request carries, before grpclib sees it, and caps what is read."""

    def __init__(self, inner: AbstractHandler) -> None:
        self._inner = inner

    def accept(self, stream: Stream, headers: list[tuple[str, str]], release_stream: Callable[[], None]) -> None:
        stream.buffer = _CappedBuffer(stream.buffer._ack_callback)  # noqa: SLF001  (grpclib offers no other way to cap)
        self._inner.accept(stream, [pair for pair in headers if pair[0] != "grpc-timeout"], release_stream)

    def cancel(self, stream: Stream) -> None:
        self._inner.cancel(stream)

    def close(self) -> None:
        self._inner.close()


class _WideProtocol(H2Protocol):
    """Allows more streams at the same time than h2's hundred."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS})  # noqa: SLF001
        self.connection.flush()


class PatientServer(grpclib.server.Server):
    """grpclib's server without deadlines. It remembers its connections, which grpclib would leave open when it stops."""

    def __init__(self, services: "list[Service]") -> None:
        """Not listening yet."""
        super().__init__(services, codec=ProtoCodec(), status_details_codec=JsonDetails())
        self._protocols: WeakSet[H2Protocol] = WeakSet()

    @property
    def port(self) -> int:
        """The port, once started."""
        port: int = self._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]  # asyncio's type lacks sockets
        return port

    async def stop(self) -> None:
        """Cancel what runs, close every connection, wait until the handlers are gone."""
        self.close()
        for protocol in list(self._protocols):
            if hasattr(protocol, "connection"):
                protocol.connection.close()
        await self.wait_closed()

    def _protocol_factory(self) -> H2Protocol:
        plain = super()._protocol_factory()
        protocol = _WideProtocol(_PatientHandler(plain.handler), plain.config, plain.h2_config)
        self._protocols.add(protocol)
        return protocol


class Service:
    """Methods by name below one service, as grpclib wants them."""

    def __init__(self, name: str) -> None:
        """`name` with its package."""
        self._name = name
        self._handlers: dict[str, Handler] = {}

    def unary(self, method: str, request: type[Message], reply: type[Message], call: Unary) -> None:
        """Add a method with one answer."""

        async def handle(stream: "grpclib.server.Stream[Any, Any]") -> None:
            async def work() -> None:
                await stream.send_message(await call(await _request(stream)))

            await _answer(stream, method, work)

        self._handlers[f"/{self._name}/{method}"] = Handler(handle, Cardinality.UNARY_UNARY, request, reply)

    def streaming(self, method: str, request: type[Message], reply: type[Message], call: Streaming) -> None:
        """Add a method with many answers; its headers go out before the first one is there (docs/adr/0004-upload-face.md)."""

        async def handle(stream: "grpclib.server.Stream[Any, Any]") -> None:
            async def work() -> None:
                asked = await _request(stream)
                await stream.send_initial_metadata()
                async with aclosing(call(asked)) as messages:
                    async for message in messages:
                        await _send(stream, message)

            await _answer(stream, method, work)

        self._handlers[f"/{self._name}/{method}"] = Handler(handle, Cardinality.UNARY_STREAM, request, reply)

    def __mapping__(self) -> Mapping[str, Handler]:
        """What grpclib asks a service for."""
        return self._handlers


async def _request(stream: "grpclib.server.Stream[Any, Any]") -> Any:  # noqa: ANN401
    try:
        message = await stream.recv_message()
    except (DecodeError, AssertionError, NotImplementedError) as error:
        raise InvalidInputError("the request cannot be decoded") from error
    if message is None:
        raise InvalidInputError("the call carries no request")
    return message


async def _send(stream: "grpclib.server.Stream[Any, Any]", message: Message) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await stream.send_message(message)
    except TimeoutError:
        raise TimedOutError(f"the caller took no message for {SEND_TIMEOUT_S:.0f} s") from None


async def _answer(stream: "grpclib.server.Stream[Any, Any]", method: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a handler and turn what it raises into trailers."""
    try:
        await work()
    except DarnerError as error:
        await _fail(stream, error)
    except (StreamTerminatedError, ProtocolError, ConnectionError):
        raise  # the caller went away; grpclib ends the stream
    except Exception:  # noqa: BLE001  (one bad call must not end the server)
        _log.exception("a call failed unexpectedly", method=method)
        await _fail(stream, DarnerError("an internal error; the daemon's log has it"))


async def _fail(stream: "grpclib.server.Stream[Any, Any]", error: DarnerError) -> None:
    trailers = dict(trailers_of(error))
    details = trailers.pop(DETAILS_KEY, None)
    try:
        await stream.send_trailing_metadata(
            status=Status(status_of(error).value[0]),
            status_message=message_of(error),
            status_details=details,
            metadata=trailers,
        )
    except (StreamTerminatedError, ProtocolError, ConnectionError):
        _log.debug("a caller did not wait for the error", reason=error.message)
