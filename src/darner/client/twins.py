"""In-process twins of the clients: small services with their state on the instance, for tests and for trying things out.

Flows in and out: what the ports say. They decide simply and honestly: a scheduler that knows who finished what, a daemon whose
origin is a dictionary, a manager with one cluster. The conformance suite runs on them and on the gRPC clients alike.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace

from darner.core.announce import (
    TERMINAL,
    Announced,
    BackToSourceFinished,
    BackToSourcePieceFinished,
    CandidateParent,
    Finished,
    MetadataOnly,
    NeedBackToSource,
    NormalTask,
    Register,
    Reschedule,
    SchedulerAnswer,
)
from darner.core.digest import crc32_digest
from darner.core.errors import NotFoundError, OriginError, UnavailableError
from darner.core.fleet import ApplicationInfo, ClusterInfo, SchedulerInfo, SchedulerQuery
from darner.core.host import Host
from darner.core.ids import task_id as id_of
from darner.core.piece import Piece, TrafficType, interested_pieces, piece_length_for, piece_span
from darner.core.progress import DownloadEvent, DownloadStarted, PieceDone, PieceOffer
from darner.core.task import Download, Headers, LocalTask, TaskInfo

Answering = Callable[[Announced], Iterable[SchedulerAnswer]]


class _Twin:
    """What every twin has: it serves until it is closed."""

    def __init__(self) -> None:
        self.serving = True

    async def healthy(self) -> bool:
        """Whether it serves."""
        return self.serving

    async def close(self) -> None:
        """Stop serving."""
        self.serving = False

    def _check(self) -> None:
        if not self.serving:
            raise UnavailableError(f"{type(self).__name__} is closed")


class SchedulerTwin(_Twin):
    """A scheduler in memory. `answering` replaces its own answers to each message of a dialogue."""

    def __init__(self, *, answering: Answering | None = None) -> None:
        """No hosts, no tasks."""
        super().__init__()
        self.hosts: dict[str, Host] = {}
        self.tasks: dict[str, TaskInfo] = {}
        self.holders: dict[str, dict[str, CandidateParent]] = {}
        self.heard: list[Announced] = []
        self._answering = answering or self._answers

    async def announce_host(self, host: Host, interval_s: float) -> None:  # noqa: ARG002  (hosts never expire here)
        """Remember the host."""
        self._check()
        self.hosts[host.id] = host

    async def delete_host(self, host_id: str) -> None:
        """Forget the host. Raises NotFoundError."""
        self._host(host_id)
        del self.hosts[host_id]

    async def announce_peer(self, messages: AsyncIterator[Announced]) -> AsyncGenerator[SchedulerAnswer, None]:
        """Answer each message until a terminal one, or the end of the messages.

        Messages are taken while an answer is being handled, as on a real stream.
        """
        self._check()
        answers: asyncio.Queue[SchedulerAnswer | None] = asyncio.Queue()
        listener = asyncio.ensure_future(self._listen(messages, answers))
        try:
            while (answer := await answers.get()) is not None:
                yield answer
            await listener
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, messages: AsyncIterator[Announced], answers: "asyncio.Queue[SchedulerAnswer | None]") -> None:
        try:
            async for announced in messages:
                self.heard.append(announced)
                for answer in self._answering(announced):
                    answers.put_nowait(answer)
                if isinstance(announced.message, TERMINAL):
                    return
        finally:
            answers.put_nowait(None)
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()

    async def stat_task(self, host_id: str, task_id: str) -> TaskInfo:  # noqa: ARG002  (everybody may ask)
        """The task. Raises NotFoundError."""
        self._check()
        if task_id not in self.tasks:
            raise NotFoundError(f"task {task_id} is not known here")
        return self.tasks[task_id]

    async def delete_task(self, host_id: str, task_id: str) -> None:
        """The host no longer holds the task. Raises NotFoundError for an unknown host."""
        self._host(host_id)
        held = self.holders.get(task_id, {})
        self.holders[task_id] = {peer: parent for peer, parent in held.items() if parent.host.id != host_id}

    async def list_hosts(self, type: int | None = None) -> list[Host]:  # noqa: A002  (upstream's name)
        """The hosts, by type."""
        self._check()
        return [host for host in self.hosts.values() if type is None or host.type == type]

    def _host(self, host_id: str) -> Host:
        self._check()
        if host_id not in self.hosts:
            raise NotFoundError(f"host {host_id} is not known here; announce it first")
        return self.hosts[host_id]

    def _answers(self, announced: Announced) -> Iterable[SchedulerAnswer]:
        host, message = self._host(announced.host_id), announced.message
        if isinstance(message, Register):
            self._learn(announced.task_id, message.download)
            return [self._place(announced, message.download)]
        if isinstance(message, Reschedule):
            return [NeedBackToSource(description="there is no other parent")]
        if isinstance(message, BackToSourcePieceFinished):
            task = self.tasks[announced.task_id]
            self.tasks[task.id] = replace(task, pieces=(*task.pieces, message.piece))
        if isinstance(message, Finished | BackToSourceFinished):
            parent = CandidateParent(id=announced.peer_id, host=host, state="Succeeded")
            self.holders.setdefault(announced.task_id, {})[announced.peer_id] = parent
            self.tasks[announced.task_id] = replace(self.tasks[announced.task_id], state="Succeeded", has_available_peer=True)
        return []

    def _place(self, announced: Announced, download: Download) -> SchedulerAnswer:
        parents = tuple(self.holders.get(announced.task_id, {}).values())
        if download.metadata_only:
            return MetadataOnly()
        if download.need_back_to_source or not parents:
            return NeedBackToSource(description="no peer holds the task")
        return NormalTask(candidate_parents=parents)

    def _learn(self, task_id: str, download: Download) -> None:
        known = self.tasks.get(task_id) or TaskInfo(id=task_id, url=download.url, state="Running", tag=download.tag)
        length, count = download.actual_content_length, download.actual_piece_count
        if length is not None:
            known = replace(known, content_length=length, piece_count=count)
        self.tasks[task_id] = replace(known, peer_count=known.peer_count + 1)


class DaemonTwin(_Twin):
    """A daemon in memory. `origin` is all it can download; `now` is the time it stamps on everything, in unix seconds."""

    def __init__(
        self,
        host: Host,
        *,
        origin: Mapping[str, bytes] | None = None,
        now: float = 1_700_000_000.0,
        report_interval_s: float = 0.01,
    ) -> None:
        """Holds nothing yet; tells of its host every `report_interval_s`."""
        super().__init__()
        self.host = host
        self.origin = dict(origin or {})
        self.contents: dict[str, bytes] = {}
        self.local: dict[str, LocalTask] = {}
        self.urls: dict[str, str] = {}
        self._now = now
        self._report_interval_s = report_interval_s

    async def download_task(self, download: Download, timeout_s: float | None = None) -> AsyncGenerator[DownloadEvent, None]:  # noqa: ARG002
        """Take the content from `origin`, telling each piece. Raises OriginError for a URL that is not there."""
        self._check()
        content, task_id = self.origin.get(download.url), id_of(download)
        if content is None:
            raise OriginError(f"{download.url}: 404 Not Found", status=404, header={"content-type": "text/plain"})
        length = download.piece_length or piece_length_for(len(content))
        held = task_id in self.local
        self._hold(task_id, download.url, content, length)
        numbers = interested_pieces(len(content), length, download.range)
        pieces = [self._piece(task_id, number) for number in numbers]
        header = Headers({"content-length": str(len(content))})
        started = DownloadStarted(
            content_length=len(content),
            range=download.range,
            response_header=header,
            pieces=tuple(pieces) if held else (),
            is_finished=held,
        )
        yield self._event(task_id, started)
        for piece in pieces:
            body = content[piece.offset : piece.offset + piece.length] if download.need_piece_content else None
            yield self._event(task_id, PieceDone(piece=piece, content=body))

    async def stat_task(self, task_id: str) -> TaskInfo:
        """The task, as a scheduler with this one peer would tell it. Raises NotFoundError."""
        local = self._task(task_id)
        return TaskInfo(
            id=task_id,
            url=self.urls[task_id],
            state="Succeeded",
            content_length=local.content_length,
            piece_count=len(interested_pieces(local.content_length or 0, local.piece_length or 1)),
            peer_count=1,
            has_available_peer=True,
            created_at=self._now,
            updated_at=self._now,
        )

    async def stat_local_task(self, task_id: str) -> LocalTask:
        """What it holds of the task. Raises NotFoundError."""
        return self._task(task_id)

    async def delete_task(self, task_id: str) -> None:
        """Drop the task. Raises NotFoundError."""
        await self.delete_local_task(task_id)

    async def list_local_tasks(self) -> list[LocalTask]:
        """All it holds."""
        self._check()
        return list(self.local.values())

    async def delete_local_task(self, task_id: str) -> None:
        """Drop the task. Raises NotFoundError."""
        self._task(task_id)
        del self.local[task_id], self.contents[task_id], self.urls[task_id]

    async def sync_pieces(self, host_id: str, task_id: str, numbers: Iterable[int]) -> AsyncGenerator[PieceOffer, None]:  # noqa: ARG002
        """Offer those of the pieces that the content has. Raises NotFoundError."""
        self._task(task_id)
        for number in sorted(set(numbers)):
            piece = self._piece(task_id, number)
            yield PieceOffer(number=number, offset=piece.offset, length=piece.length, ip=self.host.ip, tcp_port=self.host.port)

    async def sync_host(self, host_id: str, peer_id: str) -> AsyncGenerator[Host, None]:  # noqa: ARG002  (anyone may follow)
        """The host, again and again."""
        while True:
            self._check()
            yield self.host
            await asyncio.sleep(self._report_interval_s)

    def _task(self, task_id: str) -> LocalTask:
        self._check()
        if task_id not in self.local:
            raise NotFoundError(f"task {task_id} is not held here")
        return self.local[task_id]

    def _hold(self, task_id: str, url: str, content: bytes, piece_length: int) -> None:
        self.contents[task_id], self.urls[task_id] = content, url
        self.local[task_id] = LocalTask(
            id=task_id,
            piece_length=piece_length,
            content_length=len(content),
            created_at=self._now,
            updated_at=self._now,
            finished_at=self._now,
        )

    def _piece(self, task_id: str, number: int) -> Piece:
        content, length = self.contents[task_id], self.local[task_id].piece_length or 1
        span = piece_span(number, len(content), length)
        return Piece(
            number=number,
            offset=span.start,
            length=span.length,
            digest=crc32_digest(zlib.crc32(content[span.start : span.end])),
            traffic_type=TrafficType.BACK_TO_SOURCE,
            cost_s=0.25,
            created_at=self._now,
        )

    def _event(self, task_id: str, what: DownloadStarted | PieceDone) -> DownloadEvent:
        return DownloadEvent(host_id=self.host.id, task_id=task_id, peer_id=f"{self.host.id}-peer", what=what)


class ManagerTwin(_Twin):
    """A manager in memory, with one cluster."""

    def __init__(self, *, cluster: ClusterInfo | None = None, applications: Iterable[ApplicationInfo] = ()) -> None:
        """No schedulers yet."""
        super().__init__()
        self.cluster = cluster or ClusterInfo(id=1, name="cluster-1")
        self.applications = list(applications)
        self.schedulers: dict[tuple[str, str, int], SchedulerInfo] = {}
        self.configs: dict[int, bytes] = {}
        self.beats = 0

    async def list_schedulers(self, query: SchedulerQuery) -> list[SchedulerInfo]:
        """The active schedulers, of the cluster asked for."""
        self._check()
        wanted = query.scheduler_cluster_id
        return [
            scheduler
            for scheduler in self.schedulers.values()
            if scheduler.state == "active" and wanted in (0, scheduler.scheduler_cluster_id)
        ]

    async def update_scheduler(self, scheduler: SchedulerInfo, config: bytes) -> SchedulerInfo:
        """Keep the scheduler under its host name, ip and cluster; inactive until it says that it lives."""
        self._check()
        key = (scheduler.hostname, scheduler.ip, scheduler.scheduler_cluster_id)
        known = self.schedulers.get(key)
        given = known.id if known else len(self.schedulers) + 1
        self.schedulers[key] = replace(scheduler, id=given, state=known.state if known else "inactive", cluster=self.cluster)
        self.configs[given] = config
        return self.schedulers[key]

    async def get_scheduler(self, hostname: str, ip: str, cluster_id: int) -> SchedulerInfo:
        """The scheduler. Raises NotFoundError."""
        self._check()
        return self._scheduler(hostname, ip, cluster_id)

    async def keep_alive(self, hostname: str, ip: str, cluster_id: int, interval_s: float) -> None:
        """Active while this runs, inactive as soon as it ends. Raises NotFoundError for an unknown scheduler."""
        try:
            while True:
                self.beat(hostname, ip, cluster_id)
                await asyncio.sleep(interval_s)
        finally:
            self.silence(hostname, ip, cluster_id)

    async def list_applications(self, hostname: str, ip: str) -> list[ApplicationInfo]:  # noqa: ARG002  (the same for all)
        """The applications."""
        self._check()
        return self.applications

    def beat(self, hostname: str, ip: str, cluster_id: int) -> None:
        """One heartbeat. Raises NotFoundError for an unknown scheduler."""
        self._check()
        scheduler = self._scheduler(hostname, ip, cluster_id)
        self.schedulers[hostname, ip, cluster_id] = replace(scheduler, state="active")
        self.beats += 1

    def silence(self, hostname: str, ip: str, cluster_id: int) -> None:
        """The stream of heartbeats has ended."""
        if (hostname, ip, cluster_id) in self.schedulers:
            scheduler = self._scheduler(hostname, ip, cluster_id)
            self.schedulers[hostname, ip, cluster_id] = replace(scheduler, state="inactive")

    def _scheduler(self, hostname: str, ip: str, cluster_id: int) -> SchedulerInfo:
        if (hostname, ip, cluster_id) not in self.schedulers:
            raise NotFoundError(f"scheduler {hostname} ({ip}) is not registered in cluster {cluster_id}")
        return self.schedulers[hostname, ip, cluster_id]
