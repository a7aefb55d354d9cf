"""How calls are made: one unary call, one stream of answers, one dialogue; each maps errors and cancels what it leaves.

Flows in: a method of a generated stub and its request. Flows out: responses as protobuf, or a DarnerError. A stream that is
left early, or whose task is cancelled, cancels its call.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from darner.client.channel import CALL_TIMEOUT_S, HEALTH_TIMEOUT_S, SEND_TIMEOUT_S
from darner.client.status import error_of
from darner.core.errors import TimedOutError, UnavailableError

Metadata = tuple[tuple[str, str], ...]
# Stubs are generated without types; their methods give the call object that grpc.aio documents.
Method = Callable[..., Any]
RequestT = TypeVar("RequestT")
ValueT = TypeVar("ValueT")
_SERVING = 1


async def unary(method: Method, request: object, *, timeout_s: float = CALL_TIMEOUT_S, metadata: Metadata = ()) -> Any:  # noqa: ANN401
    """The response of a unary call. Raises the DarnerError it fails with."""
    try:
        return await method(request, timeout=timeout_s, metadata=metadata)
    except grpc.RpcError as failure:
        raise error_of(failure) from failure


async def stream(
    method: Method,
    request: object,
    decode: Callable[[Any], ValueT],
    *,
    timeout_s: float | None = None,
    metadata: Metadata = (),
) -> AsyncGenerator[ValueT, None]:
    """The responses of a call that streams them, decoded, until its end. Raises the DarnerError it fails with."""
    call = method(request, timeout=timeout_s, metadata=metadata)
    try:
        while (response := await _read(call)) is not grpc.aio.EOF:
            yield decode(response)
    finally:
        call.cancel()


async def dialogue(
    method: Method,
    requests: AsyncIterator[RequestT],
    encode: Callable[[RequestT], object],
    decode: Callable[[Any], ValueT],
    *,
    metadata: Metadata = (),
) -> AsyncGenerator[ValueT, None]:
    """Send requests and yield responses as they come, until the server ends the call.

    The end comes at once, even while `requests` has nothing to give: its iterator is cancelled and closed. An exception of
    `requests` cancels the call and is raised here. Raises TimedOutError when the server takes nothing for SEND_TIMEOUT_S.
    """
    call = method(metadata=metadata)
    sender = asyncio.ensure_future(_send_all(call, requests, encode))
    reader: asyncio.Future[Any] | None = None
    try:
        while True:
            reader = asyncio.ensure_future(_read(call))
            await _first_of(reader, sender)
            response = reader.result()
            if response is grpc.aio.EOF:
                return
            yield decode(response)
    finally:
        call.cancel()
        await _end(sender, reader)


async def _first_of(reader: "asyncio.Future[Any]", sender: "asyncio.Future[None]") -> None:
    """Wait for the reader; raise what the sender fails with in the meantime."""
    if not sender.done():
        await asyncio.wait({reader, sender}, return_when=asyncio.FIRST_COMPLETED)
    if sender.done() and not reader.done():
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
            if not await send(call, encode(request)):
                return
        if not call.done():
            await call.done_writing()
    finally:
        close = getattr(requests, "aclose", None)
        if close is not None:
            await close()


async def send(call: Any, request: object) -> bool:  # noqa: ANN401
    """Send one request; False when the call has ended, whose reader tells why. Raises TimedOutError."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await call.write(request)
    except TimeoutError as late:
        raise TimedOutError(f"the other side took no message for {SEND_TIMEOUT_S:.0f} s") from late
    except (grpc.RpcError, asyncio.InvalidStateError):
        return False
    return True


async def _read(call: Any) -> Any:  # noqa: ANN401
    try:
        return await call.read()
    except grpc.RpcError as failure:
        raise error_of(failure) from failure


async def repeat(method: Method, request: object, interval_s: float, *, metadata: Metadata = ()) -> None:
    """Send the same request every `interval_s` on one call, until cancelled or the call ends. Raises why it ended."""
    call = method(metadata=metadata)
    ended = asyncio.ensure_future(_ended(call))
    try:
        while await send(call, request):
            await asyncio.wait({ended}, timeout=interval_s)
            if ended.done():
                break
        await ended
        raise UnavailableError("the other side ended the stream of heartbeats")
    finally:
        call.cancel()
        await _end(ended)


async def _ended(call: Any) -> None:  # noqa: ANN401
    try:
        await call
    except grpc.RpcError as failure:
        raise error_of(failure) from failure


async def healthy(channel: grpc.aio.Channel, *, metadata: Metadata = ()) -> bool:
    """Whether the server answers SERVING for the service "" within HEALTH_TIMEOUT_S."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        check = health_pb2_grpc.HealthStub(channel).Check
        answer = await check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_S, metadata=metadata)
    except grpc.RpcError:
        return False
    return bool(answer.status == _SERVING)
