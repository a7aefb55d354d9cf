"""What can happen to a download from parents, and what is to be done about it.

Events go into `state.Pull.apply`, instructions come out of it. Parents are named by their peer id, pieces by their number.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecesWanted:
    """These pieces are not here yet."""

    numbers: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentsGiven:
    """The scheduler named the parents to use from now on; `idle` is each one's unused upload bandwidth in bits per second."""

    parents: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceOffered:
    """A parent says that it has this piece."""

    parent_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleChanged:
    """A parent's unused upload bandwidth in bits per second is now this."""

    parent_id: str
    idle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OffersEnded:
    """A parent will offer no more pieces; those offered can still be loaded."""

    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentFailed:
    """A parent went away (`lied` false) or broke its word (`lied` true: it is never used again)."""

    parent_id: str
    lied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceArrived:
    """A piece is here and verified."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceMissed:
    """A piece could not be had from that parent; the parent is dropped, for good if it lied."""

    number: int
    parent_id: str
    lied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Nothing has arrived for too long: parents that still promise pieces are no longer believed."""


PullEvent = (
    PiecesWanted | ParentsGiven | PieceOffered | IdleChanged | OffersEnded | ParentFailed | PieceArrived | PieceMissed | Stalled
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Load this piece from that parent now."""

    number: int
    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenParent:
    """Begin to listen to a parent's offers."""

    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseParent:
    """Stop listening to a parent."""

    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMiss:
    """Tell the scheduler that no parent could give this piece; `parent_id` is the last one tried."""

    number: int
    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedParents:
    """The parents at hand cannot give all that is missing: ask for others. Said once per set of parents."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllHere:
    """Nothing is missing any more."""


PullInstruction = Fetch | OpenParent | CloseParent | ReportMiss | NeedParents | AllHere
