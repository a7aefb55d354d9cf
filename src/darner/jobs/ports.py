"""What the jobs room needs of others. `app` wires them; the memory twins in `jobs.twins` keep their state on the instance."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from darner.core.host import Host
from darner.core.progress import DownloadEvent
from darner.core.task import Download, Headers, LocalTask
from darner.core.work import PartOrder, SeenHost, Verdict, WorkReport
from darner.jobs.events import (
    Action,
    Content,
    Details,
    Job,
    JobPage,
    JobQuery,
    JobSpec,
    LeasedPart,
    NewJob,
    Part,
    Plan,
    Reply,
    TimelineEvent,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The blobs of an image, deduplicated by digest, and the headers that a peer needs to fetch them."""

    contents: tuple[Content, ...]
    headers: Headers = field(default_factory=Headers)
    notes: tuple[str, ...] = ()


class ImageResolver(Protocol):
    """Reads manifests."""

    async def resolve(self, spec: JobSpec) -> Resolved:
        """The blobs of `spec.urls[0]` for `spec.platforms` (empty = all).

        Raises DarnerError; OriginError, UnavailableError and TimedOutError are tried again when they may pass.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRef:
    """A cluster as jobs see it. `active`: a scheduler of it has been heard of lately."""

    id: int
    name: str
    active: bool


class HostDirectory(Protocol):
    """Knows which clusters there are."""

    async def clusters(self) -> Sequence[ClusterRef]:
        """All clusters, by id."""


class RetentionView(Protocol):
    """Knows how long a job is kept."""

    async def explain(self, jobs: Sequence[Job]) -> Sequence[Mapping[str, Any]]:
        """For each job `{rule, tier, next_tier, moves_at, forgotten_at, reason}`; one look at the policy serves a whole page."""

    async def restore(self, job_id: int, *, by: str) -> object:
        """Bring a removed or archived job back; it is held from then on. NotFoundError, ConflictError if it was never away."""


class Admission(Protocol):
    """Knows whether there is room for the history of more jobs."""

    def refuses_low_priority(self) -> str | None:
        """Why new jobs of low importance are not taken now, in a sentence; None: they are."""


class Sealer(Protocol):
    """Encrypts what must be stored secret (access.Vault)."""

    def seal(self, data: bytes) -> bytes:
        """Encrypt."""

    def open(self, data: bytes) -> bytes:
        """Decrypt. Raises DarnerError if the key does not fit."""


# The worker's side.


class WorkBoard(Protocol):
    """Where a worker gets its parts (client.ManagerRest)."""

    async def lease(self, *, worker: str, cluster_id: int, limit: int) -> list[PartOrder]:
        """Take up to `limit` parts; waits some seconds for one. Raises UnavailableError when the manager does not answer."""

    async def progress(self, lease_id: str, report: WorkReport) -> Verdict:
        """Renew the lease and tell how far the part is."""

    async def finish(self, lease_id: str, report: WorkReport) -> Verdict:
        """Tell how the part ended. May be repeated."""

    async def put_hosts(self, cluster_id: int, hosts: Sequence[SeenHost]) -> None:
        """Tell which hosts the scheduler knows."""


class HostSource(Protocol):
    """Knows the hosts of the cluster (client.SchedulerClient)."""

    async def list_hosts(self) -> list[Host]:
        """All announced hosts."""


class HostDaemon(Protocol):
    """A host's daemon (client.DaemonClient)."""

    def download_task(self, download: Download, timeout_s: float | None = None) -> AsyncGenerator[DownloadEvent, None]:
        """Have the content; events as they come. Raises DarnerError."""

    async def stat_local_task(self, task_id: str) -> LocalTask:
        """What the host holds. Raises NotFoundError."""

    async def delete_task(self, task_id: str) -> None:
        """Forget the task."""

    async def close(self) -> None:
        """Close the connection."""


DaemonDialer = Callable[[str], HostDaemon]
"""Opens a host's daemon by `ip:port`; nothing is sent yet."""


# The room's own tables (`jobs.sql`).


class JobBook(Protocol):
    """Writes jobs. Every call is one transaction."""

    async def create(self, new: NewJob) -> tuple[int, bool]:
        """Store a job: (id, True); with an idempotency key that is known: (id of then, False). Raises ConflictError."""

    async def unplanned(self, limit: int) -> list[int]:
        """Ids of jobs that wait to be planned, oldest first."""

    async def sealed(self, job_id: int) -> bytes | None:
        """The sealed request; None once the job has ended."""

    async def plan(self, job_id: int, plan: Plan) -> bool:
        """Write the parts, or end the job with the plan's error. False if it was planned or ended meanwhile."""

    async def act(self, job_id: int, action: Action, *, by: str) -> Job:
        """Do what a person asks. Raises NotFoundError or ConflictError."""


class WorkBook(Protocol):
    """Hands out parts and takes reports in. Every call is one transaction, but `tick`, which is several."""

    async def lease(self, cluster_id: int, holder: str, lease_ids: Sequence[str]) -> list[LeasedPart]:
        """Hand out at most as many parts as there are lease ids."""

    async def report(self, lease_id: str, report: WorkReport) -> Reply:
        """Take a report in; one that does not come from the holder of the lease changes nothing."""

    async def refuse(self, part_id: int, reason: str) -> int | None:
        """End a part that can't be carried out; the id of its job."""

    async def tick(self) -> list[int]:
        """Take back lost leases and end late jobs; ids of the jobs that changed."""


class JobHistory(Protocol):
    """Reads jobs."""

    async def page(self, query: JobQuery) -> JobPage:
        """Jobs, newest first, and their redacted args."""

    async def count(self, query: JobQuery, *, at_most: int) -> int:
        """How many jobs fit, counted no further than `at_most`."""

    async def details(self, job_id: int) -> Details:
        """One job, in whatever tier, removed ones too. Raises NotFoundError."""

    async def parts(self, job_id: int, *, after_id: int = 0, limit: int = 1000) -> list[Part]:
        """Parts in the order of their ids."""

    async def events(self, job_id: int, *, after_id: int = 0, limit: int = 1000) -> list[TimelineEvent]:
        """Timeline lines in order."""
