"""How calls are made: one unary call, one stream of answers, one dialogue; each maps errors and cancels what it leaves.

Flows in: a method of a generated stub and its request. Flows out: responses as protobuf or decoded, or a DarnerError. A stream
that is left early, or whose task is cancelled, cancels its call. Refuses calls after `close()` (UnavailableError).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from darner.client.channel import CALL_TIMEOUT_S, HEALTH_TIMEOUT_S, SEND_TIMEOUT_S, bearer, open_channel
from darner.client.status import error_of
from darner.core.errors import DarnerError, TimedOutError, UnavailableError
from darner.core.secret import Secret

# Stubs are generated without types; their methods give the call objects that grpc.aio documents.
Method = Callable[..., Any]
RequestT = TypeVar("RequestT")
ValueT = TypeVar("ValueT")
_SERVING = 1


class Connection:
    """A channel to one server, and the four ways to call through it. Lives in one event loop."""

    def __init__(self, address: str, *, token: Secret | None = None) -> None:
        """Connects on first use. Raises InvalidInputError for an address of another form."""
        self.address = address
        self.channel = open_channel(address)
        self._metadata = bearer(token)
        self._closed = False

    async def unary(self, method: Method, request: object, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:  # noqa: ANN401
        """The response of a unary call. Raises the DarnerError it fails with."""
        self._check_open()
        return await self._result(method(request, timeout=timeout_s, metadata=self._metadata))

    async def stream(
        self,
        method: Method,
        request: object,
        decode: Callable[[Any], ValueT],
        *,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[ValueT, None]:
        """The responses of a call that streams them, decoded, until its end. Raises the DarnerError it fails with."""
        self._check_open()
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        try:
            while (response := await self._result(call.read())) is not grpc.aio.EOF:
                yield decode(response)
        finally:
            call.cancel()

    async def dialogue(
        self,
        method: Method,
        requests: AsyncIterator[RequestT],
        encode: Callable[[RequestT], object],
        decode: Callable[[Any], ValueT],
    ) -> AsyncGenerator[ValueT, None]:
        """Send requests and yield responses as they come, until the server ends the call.

        The end comes at once, even while `requests` has nothing to give: its iterator is cancelled and closed. An exception of
        `requests` cancels the call and is raised here. Raises TimedOutError when the server takes nothing for SEND_TIMEOUT_S.
        """
        self._check_open()
        call = method(metadata=self._metadata)
        sender = asyncio.ensure_future(_send_all(call, requests, encode))
        reader: asyncio.Future[Any] | None = None
        try:
            while True:
                reader = asyncio.ensure_future(self._result(call.read()))
                await _first_of(reader, sender)
                response = reader.result()
                if response is grpc.aio.EOF:
                    return
                yield decode(response)
        finally:
            call.cancel()
            await _end(sender, reader)

    async def repeat(self, method: Method, request: object, interval_s: float) -> None:
        """Send the same request every `interval_s` on one call, until cancelled or the call ends. Raises why it ended."""
        self._check_open()
        call = method(metadata=self._metadata)
        ended = asyncio.ensure_future(self._result(call))
        try:
            while await _send(call, request):
                await asyncio.wait({ended}, timeout=interval_s)
                if ended.done():
                    break
            await ended
            raise UnavailableError(f"{self.address} ended the stream of heartbeats")
        finally:
            call.cancel()
            await _end(ended)

    async def healthy(self) -> bool:
        """Whether the server answers SERVING for the service "" within HEALTH_TIMEOUT_S."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        check = health_pb2_grpc.HealthStub(self.channel).Check
        try:
            answer = await self.unary(check, health_pb2.HealthCheckRequest(), timeout_s=HEALTH_TIMEOUT_S)
        except DarnerError:
            return False
        return bool(answer.status == _SERVING)

    async def close(self) -> None:
        """End the connection; calls that still run fail with UnavailableError."""
        self._closed = True
        await self.channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(f"the connection to {self.address} is closed")

    async def _result(self, call: Any) -> Any:  # noqa: ANN401
        try:
            return await call
        except grpc.RpcError as failure:
            raise error_of(failure, address=self.address) from failure
        except asyncio.CancelledError:
            # grpc cancels the calls of a closed channel: their callers were not cancelled, and must not look as if.
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                self._check_open()
            raise


async def _first_of(reader: "asyncio.Future[Any]", sender: "asyncio.Future[None]") -> None:
    """Wait for the reader; raise what the sender fails with in the meantime."""
    if not sender.done():
        await asyncio.wait({reader, sender}, return_when=asyncio.FIRST_COMPLETED)
    if sender.done():
        sender.result()
        await asyncio.wait({reader})


async def _end(*futures: "asyncio.Future[Any] | None") -> None:
    """Cancel what still runs and wait until it is over."""
    running = [future for future in futures if future is not None]
    for future in running:
        future.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _send_all(call: Any, requests: AsyncIterator[RequestT], encode: Callable[[RequestT], object]) -> None:  # noqa: ANN401
    try:
        async for request in requests:
            if not await _send(call, encode(request)):
                return
        if not call.done():
            await call.done_writing()
    finally:
        close = getattr(requests, "aclose", None)
        if close is not None:
            await close()


async def _send(call: Any, request: object) -> bool:  # noqa: ANN401
    """Send one request; False when the call has ended, whose reader tells why. Raises TimedOutError."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await call.write(request)
    except TimeoutError as late:
        raise TimedOutError(f"the other side took no message for {SEND_TIMEOUT_S:.0f} s") from late
    except (grpc.RpcError, asyncio.InvalidStateError):
        return False
    return True
