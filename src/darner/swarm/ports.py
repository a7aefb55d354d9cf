"""What the swarm needs from its owner, and the limits it keeps. Lengths in bytes, times in seconds; a limit of 0 is off."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

KIB = 1024


def _nothing() -> None:
    """Release nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPiece:
    """An open piece about to be sent: `length` bytes of `fd` from `offset`. `release` is called once, when they are sent or not."""

    fd: int
    offset: int
    length: int
    crc32: int
    parent_id: str = ""
    cost_s: float = 0.0
    created_at: float = 0.0
    release: Callable[[], None] = field(default=_nothing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


class PieceSource(Protocol):
    """Where served pieces come from. Called by many threads at once."""

    def open_piece(self, task_id: str, number: int) -> ServedPiece:
        """A piece whose bytes are known to be good. Raises NotFoundError, answered as that; other errors as internal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one piece server allows.

    A receiver may pause for `stall_timeout_s` and must take `min_bytes_per_s` on average after the first `stall_timeout_s`.
    `max_uploads` pieces are sent at once, further requests wait; `bytes_per_s` is the upload limit of all together.
    """

    workers: int = 4
    max_connections: int = 1024
    max_uploads: int = 0
    bytes_per_s: float = 0.0
    idle_timeout_s: float = 120.0
    request_timeout_s: float = 10.0
    stall_timeout_s: float = 30.0
    min_bytes_per_s: float = 64.0 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """What one piece client allows.

    A parent may think for `reply_timeout_s` before its answer (it may have an upload limit), then pause for `stall_timeout_s`, and
    must send `min_bytes_per_s` on average after the first `stall_timeout_s`.
    """

    connect_timeout_s: float = 2.0
    reply_timeout_s: float = 60.0
    stall_timeout_s: float = 10.0
    min_bytes_per_s: float = 64.0 * KIB
    idle_connections: int = 16
    idle_timeout_s: float = 60.0
