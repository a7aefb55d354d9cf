"""One AnnouncePeer stream to a scheduler: messages out in order, answers into a mailbox, its loss an answer like any other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from darner.core.announce import TERMINAL, Announced, PeerMessage, SchedulerAnswer
from darner.core.errors import DarnerError
from darner.daemon.ports import SchedulerPort

CLOSE_TIMEOUT_S = 2.0
"""How long the scheduler may take to end the stream after a terminal message. Upstream's clients give it 10 s (daemon.md, section
6.3), but the asker waits meanwhile, and a scheduler that hangs is told of what is held when it answers again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """Who loads what: every message of the stream carries these."""

    host_id: str
    task_id: str
    peer_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost:
    """The stream ended: by the scheduler (`error` None) or because it broke."""

    error: DarnerError | None = None


class Session:
    """A dialogue in progress. `on_answer` is called for every answer and once with SessionLost when the stream ends."""

    def __init__(self, client: SchedulerPort, ids: Ids, on_answer: Callable[[SchedulerAnswer | SessionLost], None]) -> None:
        """Nothing is sent before `async with`."""
        self._client = client
        self._ids = ids
        self._on_answer = on_answer
        self._outbox: asyncio.Queue[Announced] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self.alive = True
        self.error: DarnerError | None = None

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    def redirect(self, on_answer: Callable[[SchedulerAnswer | SessionLost], None]) -> None:
        """Answers go there from now on."""
        self._on_answer = on_answer

    def say(self, message: PeerMessage) -> None:
        """Send a message after those before it; dropped when the stream is gone."""
        if not self.alive:
            return
        ids = self._ids
        self._outbox.put_nowait(Announced(host_id=ids.host_id, task_id=ids.task_id, peer_id=ids.peer_id, message=message))

    async def finish(self, message: PeerMessage) -> None:
        """Send a terminal message and wait, within bounds, until the scheduler has ended the stream."""
        if not isinstance(message, TERMINAL):
            text = f"{type(message).__name__} does not end a dialogue"
            raise TypeError(text)
        self.say(message)
        if self._reader is not None and self.alive:
            await asyncio.wait((self._reader,), timeout=CLOSE_TIMEOUT_S)

    async def _read(self) -> None:
        lost = SessionLost()
        try:
            async with contextlib.aclosing(self._client.announce_peer(self._outgoing())) as answers:
                async for answer in answers:
                    self._on_answer(answer)
        except DarnerError as error:
            self.error = error
            lost = SessionLost(error=error)
        finally:
            self.alive = False
        self._on_answer(lost)

    async def _outgoing(self) -> AsyncIterator[Announced]:
        while True:
            yield await self._outbox.get()
