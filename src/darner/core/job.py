"""Jobs as all rooms see them: types, the one stored state, and the two words that people read (contract: states).

`state` has upstream's three words, because Harbor treats any other as an error; `detail_state` tells the truth in full. Both are
derived from one stored value, so they cannot disagree.
"""

from enum import IntEnum, StrEnum


class DetailState(StrEnum):
    """The stored state of a job."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    PARTIAL = "PARTIAL"
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"


END_STATES = frozenset(
    {DetailState.SUCCEEDED, DetailState.FAILED, DetailState.PARTIAL, DetailState.TIMED_OUT, DetailState.CANCELLED}
)


class State(StrEnum):
    """Upstream's words."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


def state_of(detail: DetailState) -> State:
    """The upstream-compatible word for a stored state."""
    if detail == DetailState.SUCCEEDED:
        return State.SUCCESS
    return State.FAILURE if detail in END_STATES else State.PENDING


class JobType(StrEnum):
    """What a job does (upstream's names)."""

    PREHEAT = "preheat"
    DELETE_TASK = "delete_task"
    GET_TASK = "get_task"
    GET_IMAGE_DISTRIBUTION = "get_image_distribution"
    SYNC_PEERS = "sync_peers"
    GC = "gc"


class Scope(StrEnum):
    """Which hosts of a cluster a preheat fills."""

    SINGLE_SEED_PEER = "single_seed_peer"
    ALL_SEED_PEERS = "all_seed_peers"
    ALL_PEERS = "all_peers"


class PartState(StrEnum):
    """The stored state of a job part."""

    WAITING = "WAITING"
    LEASED = "LEASED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    PARTIAL = "PARTIAL"
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"


PART_END_STATES = frozenset({PartState.SUCCEEDED, PartState.FAILED, PartState.PARTIAL, PartState.TIMED_OUT, PartState.CANCELLED})


class Tier(IntEnum):
    """Where an ended job rests (spec/retention.md, 5.3). Stored as the number; people read `word`."""

    HOT = 0
    WARM = 1
    ARCHIVE = 2
    DELETED = 3

    @property
    def word(self) -> str:
        """As the API and the command line write it."""
        return self.name.lower()


class Importance(IntEnum):
    """How much a job matters to whoever asked for it; retention rules match on it. Stored as the number."""

    NORMAL = 0
    LOW = 1
    HIGH = 2
    CRITICAL = 3

    @property
    def word(self) -> str:
        """As the API and the command line write it."""
        return self.name.lower()
