"""What the scheduler vouches for: digests from the peer which read the origin (BLAKE3, or CRC-32 from upstream's peers).

A parent proves nothing by its own digest. A piece that has just been offered may be ahead of its digest, so the scheduler is
asked again for a short while. For a task without any vouched piece the parent's own CRC-32 must do.
"""

import asyncio
from collections.abc import Awaitable, Callable

from darner.core.errors import DarnerError, DigestMismatchError
from darner.core.progress import FetchedPiece
from darner.core.task import TaskInfo
from darner.kit.clock import Clock

PATIENCE_S = 2.0
FIRST_PATIENCE_S = 0.3
"""Waited once per download when the scheduler vouches for no piece at all."""
BUDGET_S = 6.0
"""Waited for late digests in one download, all its pieces together."""
REFRESH_S = 0.1
"""The most often that the scheduler is asked, once a download has been under way for a little."""
FIRST_REFRESH_S = 0.003
"""The first pause; each is twice the last. The digest of a small content's only piece is but milliseconds behind its offer."""


ASK_TIMEOUT_S = 2.0
FIRST_SILENCE_S = 5.0
"""After a question without answer the scheduler is left alone, twice as long each time: one that hangs must not stop a download."""
LONGEST_SILENCE_S = 60.0


class Anchor:
    """The digests of one task, refreshed when one is missing; concurrent questions share one answer."""

    def __init__(self, ask: Callable[[], Awaitable[TaskInfo]], clock: Clock, *, ask_timeout_s: float = ASK_TIMEOUT_S) -> None:
        """`ask` asks the scheduler for the task."""
        self._ask_timeout_s = ask_timeout_s
        self._silence_s = FIRST_SILENCE_S
        self._silent_until = 0.0
        self._ask = ask
        self._clock = clock
        self._digests: dict[int, str] = {}
        self._lock = asyncio.Lock()
        self._asked_at: float | None = None
        self._pause_s = FIRST_REFRESH_S
        self._first_patience_s = FIRST_PATIENCE_S
        self._budget_s = BUDGET_S
        self.content_length: int | None = None

    async def digest_of(self, number: int) -> str | None:
        """The vouched digest of a piece, or None if nobody vouches for it."""
        started = self._clock.monotonic()
        while number not in self._digests:
            if self._is_barren() or not await self.refresh(unless=number):
                return self._digests.get(number)
            waited_s = self._clock.monotonic() - started
            patience_s = min(PATIENCE_S, self._budget_s) if self._digests else self._first_patience_s
            if number not in self._digests and waited_s >= patience_s:
                self._budget_s = max(self._budget_s - waited_s, 0.0)
                self._first_patience_s = 0.0
                return None
        return self._digests[number]

    def _is_barren(self) -> bool:
        """Nobody vouched for anything a moment ago, or too long was waited already: asking for every piece would only cost time."""
        if self._first_patience_s or (self._digests and self._budget_s):
            return False
        return self._asked_at is not None and self._clock.monotonic() - self._asked_at < PATIENCE_S

    async def refresh(self, *, unless: int | None = None) -> bool:
        """Ask the scheduler, in pauses growing to REFRESH_S; False if it did not answer. Not if piece `unless` is known by now."""
        async with self._lock:
            if unless in self._digests:
                return True
            now = self._clock.monotonic()
            if now < self._silent_until:
                return False
            if self._asked_at is not None and now - self._asked_at < self._pause_s:
                await self._clock.sleep(self._pause_s - (now - self._asked_at))
                self._pause_s = min(2 * self._pause_s, REFRESH_S)
            self._asked_at = self._clock.monotonic()
            try:
                async with asyncio.timeout(self._ask_timeout_s):
                    info = await self._ask()
            except (DarnerError, TimeoutError):
                self._silent_until = self._clock.monotonic() + self._silence_s
                self._silence_s = min(2 * self._silence_s, LONGEST_SILENCE_S)
                return False
            self._silence_s = FIRST_SILENCE_S
            self.content_length = info.content_length if info.content_length is not None else self.content_length
            self._digests.update({piece.number: piece.digest for piece in info.pieces if piece.digest})
            return True

    def contradicts(self, number: int, *, crc32: int, blake3: bytes) -> bool:
        """Whether a piece that was kept from an earlier time is another than the one vouched for now."""
        algorithm, _, value = self._digests.get(number, "").partition(":")
        found = {"blake3": blake3.hex() or value, "crc32": str(crc32)}.get(algorithm, value)
        return found != value

    async def judge(self, number: int, fetched: FetchedPiece) -> None:
        """Raise DigestMismatchError if the bytes are not those that were vouched for."""
        wanted = await self.digest_of(number)
        algorithm, _, value = (wanted or "").partition(":")
        found = {"blake3": fetched.blake3.hex(), "crc32": str(fetched.crc32)}.get(algorithm, value)
        if found != value:
            message = f"piece {number} is not what the origin sent: the scheduler has {wanted}, the bytes give {algorithm}:{found}"
            raise DigestMismatchError(message)
