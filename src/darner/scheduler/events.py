"""What can happen to the swarms, and what is to be done about it.

Events go into `state.Swarms.apply`, instructions come out of it. A peer is named by its task and its own id. `core.Announced`, what
a peer says on its stream, is an event as it is. Times are seconds of one monotonic clock that the caller reads.
"""

from dataclasses import dataclass

from darner.core.announce import Announced, SchedulerAnswer
from darner.core.errors import DarnerError
from darner.core.fleet import ApplicationInfo
from darner.core.host import Host
from darner.core.task import Download


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAnnounced:
    """A host is here and will say so again within the interval."""

    host: Host
    interval_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLeft:
    """A host is gone, by its own word."""

    host_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedChecked:
    """A seed's health was asked for."""

    host_id: str
    healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBroken:
    """A peer's stream was cancelled, or ended before the peer said how its download ended."""

    task_id: str
    peer_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLeft:
    """A peer no longer takes part."""

    task_id: str
    peer_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLeft:
    """A host no longer holds a task."""

    host_id: str
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEnded:
    """The seed's answer to trigger number `serial` ended: well, or with an error."""

    task_id: str
    serial: int
    error: DarnerError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationsKnown:
    """The manager told the applications and their priorities."""

    applications: tuple[ApplicationInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """Time passed; someone may have waited too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersSwept:
    """Time to forget peers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksSwept:
    """Time to forget tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostsSwept:
    """Time to forget hosts."""


Event = (
    Announced
    | HostAnnounced
    | HostLeft
    | SeedChecked
    | StreamBroken
    | PeerLeft
    | TaskLeft
    | TriggerEnded
    | ApplicationsKnown
    | Ticked
    | PeersSwept
    | TasksSwept
    | HostsSwept
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Answer a peer."""

    task_id: str
    peer_id: str
    answer: SchedulerAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End a peer's stream well."""

    task_id: str
    peer_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """End a peer's stream with an error."""

    task_id: str
    peer_id: str
    error: DarnerError


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSeed:
    """Have a seed load a task; report its end as `TriggerEnded` with the same serial."""

    task_id: str
    serial: int
    seed: Host
    download: Download


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTrigger:
    """Stop asking a seed; its end needs no report."""

    serial: int


Instruction = Send | End | Refuse | TriggerSeed | CancelTrigger
