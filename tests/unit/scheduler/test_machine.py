"""Whatever peers, seeds, origins and time do, in whatever order: the invariants hold, and in the end nobody is left waiting."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from darner.core.announce import (
    Announced,
    BackToSourceFailed,
    BackToSourceFinished,
    BackToSourcePieceFailed,
    BackToSourcePieceFinished,
    BackToSourceStarted,
    CandidateParent,
    Failed,
    Finished,
    NormalTask,
    PieceFailed,
    PieceFinished,
    Register,
    Reschedule,
    Started,
)
from darner.core.errors import DarnerError, OriginError, UnavailableError
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.piece import MIB, Piece
from darner.core.ranges import ByteRange
from darner.core.task import Download
from darner.scheduler.config import SchedulingConfig
from darner.scheduler.events import (
    CancelTrigger,
    Event,
    HostAnnounced,
    HostLeft,
    HostsSwept,
    PeerLeft,
    PeersSwept,
    Refuse,
    SeedChecked,
    Send,
    StreamBroken,
    TaskLeft,
    TasksSwept,
    Ticked,
    TriggerEnded,
    TriggerSeed,
)
from darner.scheduler.state import Swarms

TASKS = ["a1" * 32, "b2" * 32]
HOSTS = [f"10.0.0.{number}-h{number}" for number in range(1, 7)]
SEEDS = [f"10.0.1.{number}-s{number}-seed" for number in range(1, 3)]
ALL_HOSTS = HOSTS + SEEDS
PIECE_COUNT = 4
hosts = st.sampled_from(ALL_HOSTS)
tasks = st.sampled_from(TASKS)
errors = st.sampled_from([None, UnavailableError(), OriginError("no", status=404), OriginError("later", status=503), DarnerError()])


class SwarmMachine(RuleBasedStateMachine):
    """Peers are drawn by index from those that ever registered, so that late and foreign messages occur too."""

    def __init__(self) -> None:
        super().__init__()
        config = SchedulingConfig(wave=2, load_limit=3, seed_load_limit=4, patience=20.0, parent_patience=50.0, peers_per_task=8)
        self.swarms = Swarms(config, remote_ip="10.0.0.99")
        self.now = 100.0
        self.peers: list[tuple[str, str, str]] = []
        self.given: dict[tuple[str, str], tuple[CandidateParent, ...]] = {}
        self.answers: dict[tuple[str, str], int] = {}
        self.triggers: dict[int, TriggerSeed] = {}

    def do(self, event: Event) -> None:
        for instruction in self.swarms.apply(event, self.now):
            match instruction:
                case Send(task_id=task, peer_id=peer, answer=answer):
                    self.answers[task, peer] = self.answers.get((task, peer), 0) + 1
                    assert self.answers[task, peer] <= 5
                    if isinstance(answer, NormalTask):
                        assert answer.candidate_parents
                        self.given[task, peer] = answer.candidate_parents
                case TriggerSeed(serial=serial):
                    self.triggers[serial] = instruction
                case CancelTrigger(serial=serial):
                    self.triggers.pop(serial, None)
                case Refuse():
                    pass

    @initialize(known=st.sets(hosts), good=st.sets(st.sampled_from(SEEDS)))
    def begin(self, known: set[str], good: set[str]) -> None:
        for host_id in sorted(known):
            self.announce(host_id, disable_shared=False, moved=False)
        for host_id in sorted(good & known):
            self.do(SeedChecked(host_id=host_id, healthy=True))

    @rule(host_id=hosts, disable_shared=st.booleans(), moved=st.booleans())
    def announce(self, host_id: str, disable_shared: bool, moved: bool) -> None:
        ip, name = host_id.split("-")[:2]
        kind = HostType.SUPER_SEED if host_id in SEEDS else HostType.NORMAL
        host = Host(
            id=HostId(host_id), ip=ip, hostname=name, port=4001 if moved else 4000, type=kind, disable_shared=disable_shared
        )
        self.do(HostAnnounced(host=host, interval_s=30.0))

    @rule(host_id=st.sampled_from(SEEDS), healthy=st.booleans())
    def check_seed(self, host_id: str, healthy: bool) -> None:
        self.do(SeedChecked(host_id=host_id, healthy=healthy))

    @rule(
        host_id=hosts,
        task=tasks,
        need=st.booleans(),
        holder=st.booleans(),
        closed=st.booleans(),
        length=st.sampled_from([None, None, 0, 16 * MIB]),
        span=st.sampled_from([None, None, ByteRange(start=0, length=MIB), ByteRange(start=5 * MIB, length=9 * MIB)]),
        priority=st.sampled_from([6, 6, 6, 3, 2]),
    )
    def register(self, host_id: str, task: str, need: bool, holder: bool, closed: bool, **facts: Any) -> None:
        peer = f"p{len(self.peers)}"
        length = facts["length"]
        download = Download(
            url="http://o/x",
            range=facts["span"],
            priority=facts["priority"],
            need_back_to_source=need,
            metadata_only=holder and need,
            disable_back_to_source=closed and not need,
            actual_content_length=length,
            actual_piece_length=4 * MIB if length else None,
        )
        self.peers.append((host_id, task, peer))
        self.do(Announced(host_id=host_id, task_id=task, peer_id=peer, message=Register(download=download)))

    @precondition(lambda self: self.peers)
    @rule(
        at=st.integers(0, 1000),
        kind=st.sampled_from(
            ["start", "origin", "piece", "origin piece", "miss", "again", "again", "end", "origin end", "fail", "no"]
        ),
        number=st.integers(0, PIECE_COUNT - 1),
        status=st.sampled_from([None, 404, 401, 503]),
    )
    def say(self, at: int, kind: str, number: int, status: int | None) -> None:
        host_id, task, peer = self.peers[-1 - at % len(self.peers)]
        parents = self.given.get((task, peer), ())
        parent_id = parents[0].id if parents else "nobody"
        piece = Piece(number=number, offset=number * 4 * MIB, length=4 * MIB, parent_id=parent_id, cost_s=0.1 + number)
        messages: dict[str, list[Any]] = {
            "start": [Started()],
            "origin": [BackToSourceStarted()],
            "piece": [PieceFinished(piece=piece)],
            "origin piece": [BackToSourcePieceFinished(piece=piece)],
            "miss": [PieceFailed(parent_id=parent_id, piece_number=number)],
            "again": [Reschedule(candidate_parents=parents)],
            "end": [Finished()],
            "origin end": [BackToSourceFinished()],
            "fail": [Failed()],
            "no": [BackToSourcePieceFailed(message="no", status_code=status), BackToSourceFailed()],
        }
        for message in messages[kind]:
            self.do(Announced(host_id=host_id, task_id=task, peer_id=peer, message=message))

    @precondition(lambda self: self.peers)
    @rule(at=st.integers(0, 1000), left=st.booleans())
    def lose_peer(self, at: int, left: bool) -> None:
        _, task, peer = self.peers[-1 - at % len(self.peers)]
        self.do(PeerLeft(task_id=task, peer_id=peer) if left else StreamBroken(task_id=task, peer_id=peer))

    @rule(host_id=hosts, task=tasks)
    def forget_task(self, host_id: str, task: str) -> None:
        self.do(TaskLeft(host_id=host_id, task_id=task))

    @rule(host_id=hosts)
    def lose_host(self, host_id: str) -> None:
        self.do(HostLeft(host_id=host_id))

    @precondition(lambda self: self.triggers)
    @rule(error=errors)
    def end_trigger(self, error: DarnerError | None) -> None:
        serial, wish = self.triggers.popitem()
        self.do(TriggerEnded(task_id=wish.task_id, serial=serial, error=error))

    @precondition(lambda self: self.triggers)
    @rule(holder=st.booleans())
    def seed_answers(self, holder: bool) -> None:
        wish = next(reversed(self.triggers.values()))
        peer = f"p{len(self.peers)}-seed"
        self.peers.append((wish.seed.id, wish.task_id, peer))
        download = Download(url="http://o/x", need_back_to_source=not holder, metadata_only=holder)
        self.do(Announced(host_id=wish.seed.id, task_id=wish.task_id, peer_id=peer, message=Register(download=download)))

    @rule(seconds=st.sampled_from([0.5, 3.0, 25.0, 60.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.do(Ticked())

    @rule()
    def sweep(self) -> None:
        for event in (PeersSwept(), TasksSwept(), HostsSwept()):
            self.do(event)
            self.swarms.check()

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.swarms.check()

    @invariant()
    def nobody_waits_without_hope_or_deadline(self) -> None:
        for task in self.swarms._world.tasks.values():
            for peer in task.held:
                assert peer.hold is not None
                assert peer.hold.deadline <= self.now + 20.0

    def teardown(self) -> None:
        """If everybody falls silent, patience ends: every peer that waits is answered or refused."""
        for _ in range(400):
            if not self.swarms.counts()["held"]:
                break
            self.now += 5.0
            self.do(Ticked())
            self.swarms.check()
        assert self.swarms.counts()["held"] == 0


TestSwarmMachine = SwarmMachine.TestCase
TestSwarmMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
