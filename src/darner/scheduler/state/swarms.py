"""`Swarms`: events in, instructions out; and what may be read of the records from outside."""

from collections.abc import Callable, Iterator
from typing import Any

from darner.core.announce import Announced, CandidateParent
from darner.core.host import Host
from darner.core.secret import is_secret_header
from darner.core.task import TaskInfo
from darner.core.url import redacted
from darner.scheduler.config import SchedulingConfig
from darner.scheduler.events import (
    ApplicationsKnown,
    Event,
    HostAnnounced,
    HostLeft,
    HostsSwept,
    Instruction,
    PeerLeft,
    PeersSwept,
    SeedChecked,
    StreamBroken,
    TaskLeft,
    TasksSwept,
    Ticked,
    TriggerEnded,
)
from darner.scheduler.records import ENDED, HostRecord, PeerState, TaskRecord
from darner.scheduler.state import fleet, upkeep
from darner.scheduler.state.checks import check_world
from darner.scheduler.state.dialogue import said
from darner.scheduler.state.waiting import finish
from darner.scheduler.state.world import Turn, World


class Swarms:
    """All tasks and hosts of one scheduler."""

    def __init__(self, config: SchedulingConfig, *, remote_ip: str = "") -> None:
        """Empty. `remote_ip` is the scheduler's own address, told to the seeds it asks."""
        self._world = World(config=config, remote_ip=remote_ip)

    def apply(self, event: Event, now: float) -> list[Instruction]:
        """Take in one event; `now` in seconds of one monotonic clock, never less than before."""
        turn = Turn(self._world, now)
        _HANDLERS[type(event)](turn, event)
        if turn.grown or turn.unsettled:
            finish(turn)
        return turn.out

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        check_world(self._world)

    def task_info(self, task_id: str, epoch: float) -> TaskInfo | None:
        """What is known of a task; `epoch` is added to its times."""
        task = self._world.tasks.get(task_id)
        return None if task is None else _info(task, epoch)

    def peer(self, task_id: str, peer_id: str) -> CandidateParent | None:
        """A peer as it would be offered."""
        task = self._world.tasks.get(task_id)
        peer = task.peers.get(peer_id) if task is not None else None
        return None if peer is None else CandidateParent(id=peer.id, host=peer.host.host, state=peer.state.value)

    def has_host(self, host_id: str) -> bool:
        """Whether a host is known."""
        return host_id in self._world.hosts

    def hosts(self) -> list[Host]:
        """The hosts that have announced themselves."""
        return [record.host for record in self._world.hosts.values() if record.announced]

    def seeds(self) -> Iterator[HostRecord]:
        """The records of all seeds, to be read only."""
        return (record for record in self._world.hosts.values() if record.host.is_seed and record.announced)

    def counts(self) -> dict[str, int]:
        """How many hosts, tasks, peers and waiting peers there are."""
        tasks = self._world.tasks.values()
        return {
            "hosts": len(self._world.hosts),
            "tasks": len(tasks),
            "peers": sum(len(task.peers) for task in tasks),
            "held": sum(len(task.held) for task in tasks),
        }


def _state(task: TaskRecord) -> str:
    """Upstream's words (scheduler.md, section 8.3)."""
    if any(peer.state is PeerState.SUCCEEDED and not peer.ranged for peer in task.peers.values()):
        return "Succeeded"
    if any(peer.state not in ENDED for peer in task.peers.values()):
        return "Running"
    return "Failed" if task.ever_failed else "Pending"


def _info(task: TaskRecord, epoch: float) -> TaskInfo:
    download = task.download
    return TaskInfo(
        id=task.id,
        url=redacted(download.url),
        state=_state(task),
        content_length=task.content_length,
        piece_count=task.piece_count,
        digest=str(download.digest) if download.digest else None,
        tag=download.tag,
        application=download.application,
        filtered_query_params=download.filtered_query_params,
        request_header=download.request_header.without(*(name for name in download.request_header if is_secret_header(name))),
        pieces=tuple(task.pieces[number] for number in sorted(task.pieces)),
        peer_count=len(task.peers),
        has_available_peer=len(task.eligible) > 0,
        created_at=task.created_at + epoch,
        updated_at=task.updated_at + epoch,
    )


def _applications_known(turn: Turn, event: ApplicationsKnown) -> None:
    turn.world.applications = event.applications


_HANDLERS: dict[type, Callable[[Turn, Any], None]] = {
    Announced: said,
    HostAnnounced: fleet.host_announced,
    HostLeft: fleet.host_left,
    SeedChecked: fleet.seed_checked,
    StreamBroken: fleet.stream_broken,
    PeerLeft: fleet.peer_left,
    TaskLeft: fleet.task_left,
    TriggerEnded: fleet.trigger_ended,
    ApplicationsKnown: _applications_known,
    Ticked: lambda turn, _: upkeep.tick(turn),
    PeersSwept: lambda turn, _: upkeep.sweep_peers(turn),
    TasksSwept: lambda turn, _: upkeep.sweep_tasks(turn),
    HostsSwept: lambda turn, _: upkeep.sweep_hosts(turn),
}
