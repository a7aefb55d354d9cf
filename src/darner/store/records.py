"""Values of the store: what is asked for when a task is created, and what is kept of tasks and pieces.

Lengths in bytes, times in unix seconds; None means "has not happened". Facts as upstream keeps them (daemon.md, section 10).
"""

from dataclasses import dataclass, field

from darner.core.digest import Digest, crc32_digest
from darner.core.piece import Piece, TrafficType, piece_count
from darner.core.task import Headers, LocalTask

DAY_S = 86400.0
DEFAULT_TTL_S = 30 * DAY_S
UNFINISHED_GRACE_S = DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """What the store may hold. 0 switches a limit off.

    `quota_bytes` counts only our own files. `ttl_s` runs from the last use. The percentages are of the whole disk: at `high` the
    oldest of our files go until it would be back at `low` (daemon.md, section 11).
    """

    quota_bytes: int = 0
    ttl_s: float = DEFAULT_TTL_S
    disk_high_percent: float = 0.0
    disk_low_percent: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """The facts a task starts with. The content's length must be known; content of unknown length goes through a spool file."""

    id: str
    url: str
    content_length: int
    piece_length: int
    response_header: Headers = field(default_factory=Headers)
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One stored task. The counters live only in memory.

    `url` is without what may be secret in it; `used_at` is the last time the bytes were read or written.
    """

    id: str
    url: str
    content_length: int
    piece_length: int
    response_header: Headers = field(default_factory=Headers)
    digest: Digest | None = None
    uploading_count: int = 0
    uploaded_count: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    used_at: float = 0.0
    prefetched_at: float | None = None
    failed_at: float | None = None
    finished_at: float | None = None

    @property
    def piece_count(self) -> int:
        """How many pieces the whole content has."""
        return piece_count(self.content_length, self.piece_length)

    def to_local_task(self) -> LocalTask:
        """The same facts as other rooms know them."""
        return LocalTask(
            id=self.id,
            piece_length=self.piece_length,
            content_length=self.content_length,
            response_header=self.response_header,
            uploading_count=self.uploading_count,
            uploaded_count=self.uploaded_count,
            created_at=self.created_at,
            updated_at=self.updated_at,
            prefetched_at=self.prefetched_at,
            failed_at=self.failed_at,
            finished_at=self.finished_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceRecord:
    """One piece whose bytes were written. `blake3` is the raw 32 bytes, or empty where it was not computed."""

    number: int
    offset: int
    length: int
    crc32: int
    blake3: bytes = b""
    parent_id: str = ""
    traffic_type: TrafficType = TrafficType.REMOTE_PEER
    cost_s: float = 0.0
    created_at: float = 0.0

    def to_piece(self) -> Piece:
        """The piece as it is told to others, with its wire digest."""
        return Piece(
            number=self.number,
            offset=self.offset,
            length=self.length,
            digest=crc32_digest(self.crc32),
            parent_id=self.parent_id,
            traffic_type=self.traffic_type,
            cost_s=self.cost_s,
            created_at=self.created_at,
        )
