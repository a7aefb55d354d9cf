"""The scheduler at work: what happens becomes events of `state.Swarms`, and its instructions are carried out.

Flows in: peers' messages, announcements, the ends of triggers, time. Flows out: answers into each stream's outbox, calls to seeds.
Everything runs in one event loop; taking in an event never waits, so that readers of streams never block.
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from darner.core.announce import Announced, CandidateParent, SchedulerAnswer
from darner.core.errors import DarnerError, InvalidInputError, NotFoundError
from darner.core.fleet import ApplicationInfo
from darner.core.host import Host
from darner.core.task import TaskInfo
from darner.kit.clock import Clock, SystemClock
from darner.kit.log import get_logger
from darner.scheduler.config import SchedulerConfig
from darner.scheduler.events import (
    ApplicationsKnown,
    CancelTrigger,
    End,
    Event,
    HostAnnounced,
    HostLeft,
    HostsSwept,
    Instruction,
    PeerLeft,
    PeersSwept,
    Refuse,
    Send,
    StreamBroken,
    TaskLeft,
    TasksSwept,
    Ticked,
    TriggerEnded,
    TriggerSeed,
)
from darner.scheduler.ports import SeedPort
from darner.scheduler.state import Swarms
from darner.scheduler.watch import SeedWatch

MAX_TICK_S = 1.0
TICKS_PER_PATIENCE = 4
_log = get_logger("scheduler")


class Stream:
    """One peer's dialogue. `outbox` takes answers; END ends it well, a DarnerError ends it with that."""

    __slots__ = ("ended", "key", "outbox")

    def __init__(self) -> None:
        """Not bound to a peer yet."""
        self.key: tuple[str, str] | None = None
        self.outbox: asyncio.Queue[SchedulerAnswer | DarnerError | None] = asyncio.Queue()
        self.ended = False

    def put(self, item: SchedulerAnswer | DarnerError | None) -> None:
        """Queue an answer or the end; nothing follows an end."""
        if not self.ended:
            self.ended = item is END or isinstance(item, DarnerError)
            self.outbox.put_nowait(item)


END = None


class SchedulerEngine:
    """Owns the swarms, the streams and the triggers. `async with engine:` runs it."""

    def __init__(self, config: SchedulerConfig, seeds: SeedPort, *, clock: Clock | None = None, remote_ip: str = "") -> None:
        """`remote_ip` is this scheduler's address as seeds are told it."""
        self._config = config
        self._clock = clock or SystemClock()
        self._swarms = Swarms(config.scheduler, remote_ip=remote_ip)
        self._epoch = self._clock.now() - self._clock.monotonic()
        self._seeds = seeds
        self._streams: dict[tuple[str, str], Stream] = {}
        self._triggers: dict[int, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._loops: list[asyncio.Task[None]] = []
        self._watch = SeedWatch(self._swarms, seeds, self.apply, interval_s=config.seed_peer.health_interval)
        self._running = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._running = True
        settings = self._config.scheduler
        tick_s = min(MAX_TICK_S, settings.patience / TICKS_PER_PATIENCE, settings.seed_grace / TICKS_PER_PATIENCE)
        for seconds, event in (
            (tick_s, Ticked()),
            (settings.gc.peerGCInterval, PeersSwept()),
            (settings.gc.taskGCInterval, TasksSwept()),
            (settings.gc.hostGCInterval, HostsSwept()),
        ):
            self._loops.append(self._group.create_task(self._repeat(seconds, event)))
        self._loops.append(self._group.create_task(self._watch.run()))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Order: no instruction is carried out any more; loops and triggers end; connections to seeds are closed."""
        self._running = False
        for task in (*self._loops, *self._triggers.values()):
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            await self._seeds.close()

    # --- streams -----------------------------------------------------------------------------------------------------------------

    def hear(self, stream: Stream, announced: Announced) -> None:
        """Take in a message. A second stream of the same peer replaces the first. InvalidInputError for a second peer on one."""
        key = (announced.task_id, announced.peer_id)
        if stream.key != key:
            self._bind(stream, key)
        self.apply(announced)

    def leave(self, stream: Stream) -> None:
        """A stream is over. If the peer has not said how its download ended, it has failed."""
        if stream.key is not None and self._streams.get(stream.key) is stream:
            del self._streams[stream.key]
            if not stream.ended:
                stream.ended = True
                self.apply(StreamBroken(task_id=stream.key[0], peer_id=stream.key[1]))

    def _bind(self, stream: Stream, key: tuple[str, str]) -> None:
        if stream.key is not None:
            raise InvalidInputError("one stream speaks for one peer of one task", field="peer_id")
        before = self._streams.get(key)
        if before is not None:
            self.leave(before)
            before.outbox.put_nowait(InvalidInputError("another stream speaks for this peer now", field="peer_id"))
        stream.key = key
        self._streams[key] = stream

    # --- calls -------------------------------------------------------------------------------------------------------------------

    def announce_host(self, host: Host, interval_s: float) -> None:
        """A host is here."""
        self.apply(HostAnnounced(host=host, interval_s=interval_s))
        if host.is_seed:
            self._watch.nudge(host.id)

    def delete_host(self, host_id: str) -> None:
        """A host leaves. Raises NotFoundError."""
        if not self._swarms.has_host(host_id):
            raise NotFoundError(f"host {host_id} is not known here")
        self.apply(HostLeft(host_id=host_id))

    def delete_task(self, host_id: str, task_id: str) -> None:
        """A host no longer holds a task. Not holding it, or not being known, is what was wanted."""
        self.apply(TaskLeft(host_id=host_id, task_id=task_id))

    def delete_peer(self, task_id: str, peer_id: str) -> None:
        """A peer no longer takes part. Raises NotFoundError."""
        self.stat_peer(task_id, peer_id)
        self.apply(PeerLeft(task_id=task_id, peer_id=peer_id))

    def stat_task(self, task_id: str) -> TaskInfo:
        """What is known of a task. Raises NotFoundError."""
        info = self._swarms.task_info(task_id, self._epoch)
        if info is None:
            raise NotFoundError(f"task {task_id} is not known here")
        return info

    def stat_peer(self, task_id: str, peer_id: str) -> CandidateParent:
        """What is known of a peer. Raises NotFoundError."""
        peer = self._swarms.peer(task_id, peer_id)
        if peer is None:
            raise NotFoundError(f"peer {peer_id} of task {task_id} is not known here")
        return peer

    def hosts(self) -> list[Host]:
        """All hosts that have announced themselves."""
        return self._swarms.hosts()

    def counts(self) -> dict[str, int]:
        """How many hosts, tasks, peers and waiting peers there are."""
        return self._swarms.counts()

    def know_applications(self, applications: Iterable[ApplicationInfo]) -> None:
        """The manager's applications and their priorities."""
        self.apply(ApplicationsKnown(applications=tuple(applications)))

    # --- events and instructions -------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take in an event and do what it causes."""
        for instruction in self._swarms.apply(event, self._clock.monotonic()):
            if self._running:
                self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Send(answer=answer):
                self._put(instruction.task_id, instruction.peer_id, answer)
            case End():
                self._put(instruction.task_id, instruction.peer_id, END)
            case Refuse(error=error):
                _log.info("a peer is refused", task=instruction.task_id, peer=instruction.peer_id, reason=error.message)
                self._put(instruction.task_id, instruction.peer_id, error)
            case TriggerSeed():
                self._triggers[instruction.serial] = self._group.create_task(self._trigger(instruction))
            case CancelTrigger(serial=serial):
                task = self._triggers.pop(serial, None)
                if task is not None:
                    task.cancel()

    def _put(self, task_id: str, peer_id: str, item: SchedulerAnswer | DarnerError | None) -> None:
        stream = self._streams.get((task_id, peer_id))
        if stream is not None:
            stream.put(item)

    async def _trigger(self, wish: TriggerSeed) -> None:
        _log.info("a seed is asked to load", task=wish.task_id, seed=wish.seed.id, url=shown(wish.download.url))
        error: DarnerError | None = None
        try:
            await self._seeds.load(wish.seed, wish.download)
        except DarnerError as failure:
            error = failure
            _log.warning("a seed did not load", task=wish.task_id, seed=wish.seed.id, reason=failure.message)
        except Exception as failure:  # noqa: BLE001  (whatever goes wrong, those that wait must be told)
            error = DarnerError(f"the seed could not be asked: {failure}")
            _log.exception("a seed could not be asked", task=wish.task_id, seed=wish.seed.id)
        self._triggers.pop(wish.serial, None)
        self.apply(TriggerEnded(task_id=wish.task_id, serial=wish.serial, error=error))
        if error is not None:
            self._watch.nudge(wish.seed.id)

    async def _repeat(self, seconds: float, event: Event) -> None:
        while True:
            await self._clock.sleep(seconds)
            try:
                self.apply(event)
            except Exception:  # noqa: BLE001  (a bug in upkeep must not stop the scheduler)
                _log.exception("upkeep failed", event_kind=type(event).__name__)


def shown(url: str) -> str:
    """A URL without its query and user, which may hold secrets."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}"
