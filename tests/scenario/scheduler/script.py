"""Scenarios as scripts: what peers say goes in, instructions come out as lines of text. Invariants are checked after every event.

A line reads: `a: parents s, b` · `a: origin` · `a: empty` · `a: holder` · `a: end` · `a: refused NotFoundError` · `seed s: load` ·
`trigger 1: cancelled`. Hosts are named like their peers unless told otherwise; the ids of seeds end in `-seed`.
"""

from typing import Any

from darner.core.announce import (
    Announced,
    BackToSourceFailed,
    BackToSourceFinished,
    BackToSourcePieceFailed,
    BackToSourcePieceFinished,
    BackToSourceStarted,
    CandidateParent,
    EmptyTask,
    Failed,
    Finished,
    MetadataOnly,
    NeedBackToSource,
    NormalTask,
    PeerMessage,
    PieceFailed,
    PieceFinished,
    Register,
    Reschedule,
    Started,
)
from darner.core.errors import DarnerError, OriginError
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.piece import MIB, Piece
from darner.core.task import Download
from darner.scheduler.config import SchedulingConfig
from darner.scheduler.events import (
    CancelTrigger,
    End,
    Event,
    HostAnnounced,
    HostLeft,
    Instruction,
    Refuse,
    SeedChecked,
    Send,
    StreamBroken,
    TaskLeft,
    Ticked,
    TriggerEnded,
    TriggerSeed,
)
from darner.scheduler.records import PeerRecord, TaskRecord
from darner.scheduler.state import Swarms

TASK = "3f" * 32
URL = "https://origin.test/file?sig=1"


class Script:
    """A scheduler's state, spoken to in short words. `now` is moved by `wait`."""

    def __init__(self, **settings: Any) -> None:
        self.swarms = Swarms(SchedulingConfig(**settings), remote_ip="10.0.0.9")
        self.now = 1000.0
        self.told: dict[str, NormalTask] = {}
        self.errors: dict[str, DarnerError] = {}
        self.triggers: dict[int, TriggerSeed] = {}
        self.reasons: dict[str, str] = {}

    # --- hosts -------------------------------------------------------------------------------------------------------------------

    def host(self, *names: str, **facts: Any) -> list[str]:
        """Ordinary hosts announce themselves."""
        return [line for name in names for line in self.announce(make_host(name, **facts))]

    def seed(self, *names: str, checked: bool = True, **facts: Any) -> list[str]:
        """Seeds announce themselves and, unless told otherwise, are found healthy."""
        lines = []
        for name in names:
            lines += self.announce(make_host(name, seed=True, **facts))
            lines += self.checked(name, healthy=True) if checked else []
        return lines

    def announce(self, host: Host, interval_s: float = 300.0) -> list[str]:
        return self.do(HostAnnounced(host=host, interval_s=interval_s))

    def checked(self, name: str, *, healthy: bool) -> list[str]:
        return self.do(SeedChecked(host_id=make_host(name, seed=True).id, healthy=healthy))

    def host_leaves(self, host_id: str) -> list[str]:
        return self.do(HostLeft(host_id=host_id))

    def forgets(self, host_id: str, task: str = TASK) -> list[str]:
        return self.do(TaskLeft(host_id=host_id, task_id=task))

    # --- peers -------------------------------------------------------------------------------------------------------------------

    def register(self, peer: str, *, on: str | None = None, task: str = TASK, **facts: Any) -> list[str]:
        facts.setdefault("url", URL)
        return self.say(peer, Register(download=Download(**facts)), on=on, task=task)

    def seed_registers(self, name: str, *, task: str = TASK, **facts: Any) -> list[str]:
        facts = {"need_back_to_source": not facts.get("metadata_only", False), **facts}
        return self.register(name, on=make_host(name, seed=True).id, task=task, **facts)

    def say(self, peer: str, message: PeerMessage, *, on: str | None = None, task: str = TASK) -> list[str]:
        record = self.task(task).peers.get(peer) if task in self.swarms._world.tasks else None
        host_id = on or (record.host.id if record is not None else make_host(peer).id)
        return self.do(Announced(host_id=host_id, task_id=task, peer_id=peer, message=message))

    def started(self, *peers: str) -> list[str]:
        return [line for peer in peers for line in self.say(peer, Started())]

    def origin_started(self, peer: str) -> list[str]:
        return self.say(peer, BackToSourceStarted())

    def origin_piece(self, peer: str, number: int, length: int = 4 * MIB, offset: int | None = None) -> list[str]:
        at = number * 4 * MIB if offset is None else offset
        piece = Piece(number=number, offset=at, length=length, digest=f"blake3:{number + 1:064x}", cost_s=0.5)
        return self.say(peer, BackToSourcePieceFinished(piece=piece))

    def piece(self, peer: str, number: int, parent: str, cost_s: float = 0.25) -> list[str]:
        piece = Piece(number=number, offset=number * 4 * MIB, length=4 * MIB, parent_id=parent, cost_s=cost_s)
        return self.say(peer, PieceFinished(piece=piece))

    def piece_failed(self, peer: str, parent: str) -> list[str]:
        return self.say(peer, PieceFailed(parent_id=parent, piece_number=3))

    def reschedule(self, peer: str) -> list[str]:
        given = self.told[peer].candidate_parents if peer in self.told else ()
        return self.say(peer, Reschedule(candidate_parents=given))

    def finished(self, peer: str) -> list[str]:
        return self.say(peer, Finished())

    def origin_finished(self, peer: str) -> list[str]:
        return self.say(peer, BackToSourceFinished())

    def failed(self, peer: str) -> list[str]:
        return self.say(peer, Failed(description="user"))

    def origin_failed(self, peer: str, status: int | None = None, message: str = "origin says no") -> list[str]:
        lines = self.say(peer, BackToSourcePieceFailed(message=message, status_code=status))
        return lines + self.say(peer, BackToSourceFailed(description=message))

    def broken(self, peer: str, task: str = TASK) -> list[str]:
        return self.do(StreamBroken(task_id=task, peer_id=peer))

    # --- triggers and time -------------------------------------------------------------------------------------------------------

    def trigger_ends(self, error: DarnerError | None = None, serial: int | None = None) -> list[str]:
        last = max(self.triggers) if serial is None else serial
        return self.do(TriggerEnded(task_id=self.triggers[last].task_id, serial=last, error=error))

    def wait(self, seconds: float, *, tick_s: float = 1.0) -> list[str]:
        """Time passes, with its ticks."""
        lines, end = [], self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + tick_s)
            lines += self.do(Ticked())
        return lines

    # --- reading -----------------------------------------------------------------------------------------------------------------

    def do(self, event: Event) -> list[str]:
        instructions = self.swarms.apply(event, self.now)
        self.swarms.check()
        return [self._line(instruction) for instruction in instructions]

    def task(self, task: str = TASK) -> TaskRecord:
        return self.swarms._world.tasks[task]

    def peer(self, peer: str) -> PeerRecord:
        return self.task().peers[peer]

    def held(self) -> list[str]:
        return [peer.id for peer in self.task().held]

    def parents(self, peer: str) -> list[str]:
        return [parent.id for parent in self.told[peer].candidate_parents]

    def _line(self, instruction: Instruction) -> str:
        match instruction:
            case Send(peer_id=peer, answer=answer):
                return self._answer(peer, answer)
            case End(peer_id=peer):
                return f"{peer}: end"
            case Refuse(peer_id=peer, error=error):
                self.errors[peer] = error
                return f"{peer}: refused {type(error).__name__}" + (f" {error.status}" if isinstance(error, OriginError) else "")
            case TriggerSeed(serial=serial, seed=seed):
                self.triggers[serial] = instruction
                return f"seed {seed.hostname}: load"
            case CancelTrigger(serial=serial):
                return f"trigger {serial}: cancelled"

    def _answer(self, peer: str, answer: Any) -> str:
        match answer:
            case NormalTask(candidate_parents=parents):
                self.told[peer] = answer
                return f"{peer}: parents {', '.join(parent.id for parent in parents)}"
            case NeedBackToSource(description=why):
                self.reasons[peer] = why
                return f"{peer}: origin"
            case EmptyTask():
                return f"{peer}: empty"
            case MetadataOnly():
                return f"{peer}: holder"
        raise AssertionError(answer)


def make_host(name: str, *, seed: bool = False, **facts: Any) -> Host:
    """`10.0.0.1-name` or `10.0.0.1-name-seed`."""
    kind = HostType.SUPER_SEED if seed else HostType.NORMAL
    host_id = HostId(f"10.0.0.1-{name}{'-seed' if seed else ''}")
    values: dict[str, Any] = {"ip": "10.0.0.1", "hostname": name, "port": 4000 + sum(name.encode()), "type": kind, **facts}
    return Host(id=host_id, **values)


def candidate(name: str) -> CandidateParent:
    """A parent as a peer gives it back."""
    return CandidateParent(id=name, host=make_host(name))
