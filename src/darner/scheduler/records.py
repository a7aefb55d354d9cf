"""What the scheduler remembers of hosts, tasks and peers. Records only: who changes them, and when, is decided in `state`.

Times are seconds of one monotonic clock. A record is one thing in memory and compared by identity.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from darner.core.errors import OriginError
from darner.core.host import Host
from darner.core.piece import MIN_PIECE_LENGTH, Piece, interested_pieces
from darner.core.ranges import ByteRange
from darner.core.task import Download

DEFAULT_CONCURRENCY = 8


class PeerState(StrEnum):
    """Where a peer stands; values are upstream's words (scheduler.md, section 8.2)."""

    PENDING = "Pending"
    RECEIVED_EMPTY = "ReceivedEmpty"
    RECEIVED_NORMAL = "ReceivedNormal"
    RUNNING = "Running"
    BACK_TO_SOURCE = "BackToSource"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


ENDED = frozenset({PeerState.SUCCEEDED, PeerState.FAILED})


class SeedHealth(Enum):
    """What is known of a seed."""

    UNKNOWN = "announced, not checked yet"
    GOOD = "answers"
    BAD = "does not answer"


class Wait(Enum):
    """Why a peer has no answer yet."""

    SEED_CHECK = "a new seed is being checked"
    SEED = "a seed was asked to load the task and has not started yet"
    SOURCE = "another peer was sent to the origin and has not started yet"
    PARENT = "there are parents, but they are busy or given to others first"


@dataclass(slots=True, eq=False, kw_only=True)
class HostRecord:
    """A host. `shares` is false for one that has not announced itself, or does not want to give. `uploads` counts its children."""

    host: Host
    announced: bool
    updated_at: float
    interval_s: float = 0.0
    shares: bool = False
    health: SeedHealth = SeedHealth.UNKNOWN
    known_since: float = 0.0
    good_since: float = 0.0
    failures: int = 0
    uploads: int = 0
    upload_pieces: float = 0.0
    upload_bps: float = 0.0
    upload_bytes: float = 0.0
    peers: "dict[tuple[str, str], PeerRecord]" = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The host's id."""
        return self.host.id


@dataclass(slots=True, frozen=True)
class Charge:
    """What one child costs its parent's host: its share of pieces under way, of bandwidth (bits per second), of bytes."""

    pieces: float
    bps: float
    bytes: float


@dataclass(slots=True)
class Costs:
    """How long a peer's pieces took, in seconds: count, mean and spread (Welford), without the last one; and the last one."""

    count: int = 0
    mean: float = 0.0
    spread: float = 0.0
    last: float = -1.0

    def add(self, cost_s: float) -> None:
        """One more piece."""
        if self.last >= 0:
            self.count += 1
            delta = self.last - self.mean
            self.mean += delta / self.count
            self.spread += delta * (self.last - self.mean)
        self.last = cost_s


@dataclass(slots=True)
class Hold:
    """A peer waits: why, since when, and until when at the latest."""

    reason: Wait
    since: float
    deadline: float


@dataclass(slots=True, eq=False, kw_only=True)
class PeerRecord:
    """A host that downloads, or holds, a task.

    `ranged`: it wants only a part; `span` is that part, None while it cannot be told. `finished` is a bit set of piece numbers.
    `strikes` counts, per host, the answers in which that host failed this peer. `sent`: it was told to load from the origin.
    """

    id: str
    host: HostRecord
    task: "TaskRecord"
    download: Download
    created_at: float
    updated_at: float
    progress_at: float
    ranged: bool = False
    span: ByteRange | None = None
    state: PeerState = PeerState.PENDING
    sent: bool = False
    answers: int = 0
    hold: Hold | None = None
    finished: int = 0
    costs: Costs = field(default_factory=Costs)
    parents: "dict[PeerRecord, Charge]" = field(default_factory=dict)
    children: "dict[PeerRecord, None]" = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)
    struck: set[str] = field(default_factory=set)
    source_error: OriginError | None = None
    position: int = -1

    @property
    def concurrency(self) -> int:
        """Pieces it loads at the same time."""
        return self.download.concurrent_piece_count or DEFAULT_CONCURRENCY

    def missing(self) -> int | None:
        """A bit set of the pieces it still wants; None while that cannot be told."""
        task = self.task
        if task.content_length is None or not task.piece_length or (self.ranged and self.span is None):
            return None
        if self.span is not None and not 0 <= self.span.start < task.content_length:
            return None
        wanted = interested_pieces(task.content_length, task.piece_length, self.span if self.ranged else None)
        return ((1 << wanted.stop) - (1 << wanted.start)) & ~self.finished


@dataclass(slots=True, kw_only=True)
class Trigger:
    """A seed was asked to load the task on behalf of `download`. `peer` is the peer it registered, once it has."""

    serial: int
    seed_id: str
    since: float
    download: Download
    peer: PeerRecord | None = None


@dataclass(slots=True, frozen=True)
class SeedFailure:
    """A seed did not load the task at that time; it is not asked again until then."""

    seed_id: str
    at: float
    until: float


class Pool:
    """The peers of a task that may be offered as parents. Walks begin where the last one ended, so that all get their turn."""

    __slots__ = ("_cursor", "_items")

    def __init__(self) -> None:
        """Empty."""
        self._items: list[PeerRecord] = []
        self._cursor = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[PeerRecord]:
        return iter(self._items)

    def __contains__(self, peer: PeerRecord) -> bool:
        return peer.position >= 0

    def add(self, peer: PeerRecord) -> None:
        """Let it be offered."""
        peer.position = len(self._items)
        self._items.append(peer)

    def discard(self, peer: PeerRecord) -> None:
        """Let it not be offered any more."""
        at, peer.position = peer.position, -1
        last = self._items.pop()
        if last is not peer:
            self._items[at] = last
            last.position = at

    def walk(self) -> Iterator[PeerRecord]:
        """All peers once; the next walk begins after the last one taken here."""
        items = self._items
        count = len(items)
        start = self._cursor
        for step in range(count):
            at = (start + step) % count
            self._cursor = at + 1
            yield items[at]


@dataclass(slots=True, eq=False, kw_only=True)
class TaskRecord:
    """A task and its swarm.

    `held` are the peers without an answer, oldest first. `sources` are those sent to the origin that are still awaited, each with
    those it could have waited for itself.
    `pieces` are those that such peers vouch for. `seed_failed` is the seed that failed last.
    """

    id: str
    download: Download
    created_at: float
    updated_at: float
    progress_at: float = 0.0
    content_length: int | None = None
    piece_length: int | None = None
    peers: dict[str, PeerRecord] = field(default_factory=dict)
    eligible: Pool = field(default_factory=Pool)
    held: dict[PeerRecord, None] = field(default_factory=dict)
    sources: dict[PeerRecord, tuple[PeerRecord, ...]] = field(default_factory=dict)
    trigger: Trigger | None = None
    seed_failed: SeedFailure | None = None
    origin_error: OriginError | None = None
    origin_failures: int = 0
    pieces: dict[int, Piece] = field(default_factory=dict)
    ever_failed: bool = False

    @property
    def piece_count(self) -> int | None:
        """How many pieces it has; None while unknown."""
        if self.content_length is None:
            return None
        if self.content_length == 0:
            return 0
        return -(-self.content_length // self.piece_length) if self.piece_length else None

    def charge_length(self) -> int:
        """The piece length that load is reckoned with, in bytes."""
        return self.piece_length or MIN_PIECE_LENGTH
