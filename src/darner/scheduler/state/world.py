"""All records together, and one turn: an event's time, the instructions it causes, and what is to be looked at before it ends."""

from dataclasses import dataclass, field

from darner.core.announce import SchedulerAnswer
from darner.core.fleet import ApplicationInfo
from darner.scheduler.config import SchedulingConfig
from darner.scheduler.events import Instruction, Send
from darner.scheduler.policy.seed import Seeds
from darner.scheduler.records import HostRecord, PeerRecord, TaskRecord


@dataclass(slots=True, kw_only=True)
class World:
    """Everything the scheduler remembers. `watched` are the tasks in which someone waits, is waited for, or was triggered."""

    config: SchedulingConfig
    remote_ip: str = ""
    hosts: dict[str, HostRecord] = field(default_factory=dict)
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    watched: dict[str, TaskRecord] = field(default_factory=dict)
    applications: tuple[ApplicationInfo, ...] = ()
    seeds: Seeds = field(default_factory=Seeds)
    serial: int = 0


class Turn:
    """One event being taken in. `grown`: tasks with a new parent; `unsettled`: tasks whose waiting peers may have lost theirs."""

    __slots__ = ("config", "grown", "now", "out", "unsettled", "world")

    def __init__(self, world: World, now: float) -> None:
        """Nothing is to be done yet."""
        self.world = world
        self.config = world.config
        self.now = now
        self.out: list[Instruction] = []
        self.grown: list[TaskRecord] = []
        self.unsettled: dict[TaskRecord, None] = {}

    def send(self, peer: PeerRecord, answer: SchedulerAnswer) -> None:
        """Answer a peer; counted, because a client takes five answers and no more."""
        peer.answers += 1
        peer.struck.clear()
        self.out.append(Send(task_id=peer.task.id, peer_id=peer.id, answer=answer))

    def watch(self, task: TaskRecord) -> None:
        """Look at this task at every tick."""
        self.world.watched[task.id] = task
