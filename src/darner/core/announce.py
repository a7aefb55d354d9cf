"""The AnnouncePeer dialogue between a peer and its scheduler, as values (scheduler.v2.AnnouncePeer{Request,Response}).

Requests carry the ids of the stream in `Announced`; responses are answers to one peer. Contract: scheduler.md, section 4.
"""

from dataclasses import dataclass, field

from darner.core.host import Host
from darner.core.piece import Piece
from darner.core.task import Download


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateParent:
    """A peer that may be loaded from. `carried` is the received message: a reschedule sends it back unchanged."""

    id: str
    host: Host
    state: str = ""
    carried: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """First message of a stream: this peer wants that download."""

    download: Download


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The peer begins to load from the parents it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackToSourceStarted:
    """The peer begins to load from the origin."""

    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reschedule:
    """The parents given do not suffice; `candidate_parents` are those, unchanged."""

    candidate_parents: tuple[CandidateParent, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The peer holds everything it wanted. Terminal."""

    content_length: int = 0
    piece_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackToSourceFinished:
    """The peer holds everything, from the origin. Terminal."""

    content_length: int = 0
    piece_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The peer gives up. Terminal."""

    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackToSourceFailed:
    """The peer could not load from the origin. Terminal."""

    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceFinished:
    """A piece was loaded from a parent and verified."""

    piece: Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class BackToSourcePieceFinished:
    """A piece was loaded from the origin; `piece.digest` is `blake3:…` when a Darner peer says so."""

    piece: Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceFailed:
    """A piece could not be loaded from any parent; `parent_id` is the last one tried."""

    parent_id: str
    piece_number: int | None = None
    temporary: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BackToSourcePieceFailed:
    """A piece could not be loaded from the origin. `status_code` when the origin answered."""

    piece_number: int | None = None
    message: str = ""
    status_code: int | None = None


PeerMessage = (
    Register
    | Started
    | BackToSourceStarted
    | Reschedule
    | Finished
    | BackToSourceFinished
    | Failed
    | BackToSourceFailed
    | PieceFinished
    | BackToSourcePieceFinished
    | PieceFailed
    | BackToSourcePieceFailed
)
TERMINAL = (Finished, BackToSourceFinished, Failed, BackToSourceFailed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """One request on the stream: who says what about which task."""

    host_id: str
    task_id: str
    peer_id: str
    message: PeerMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyTask:
    """The content has no bytes. Not `certain`: or its length is not known, which upstream's schedulers do not tell apart."""

    certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalTask:
    """Load from these parents."""

    candidate_parents: tuple[CandidateParent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedBackToSource:
    """Load from the origin."""

    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataOnly:
    """The answer to a `metadata_only` registration."""


SchedulerAnswer = EmptyTask | NormalTask | NeedBackToSource | MetadataOnly
