"""In-memory twins of the ports that `app` wires, and a board that joins a worker to an engine in the same process."""

from collections.abc import Mapping, Sequence
from typing import Any

from darner.core.errors import DarnerError, NotFoundError, UnavailableError
from darner.core.host import Host
from darner.core.task import Headers
from darner.core.work import PartOrder, SeenHost, Verdict, WorkReport
from darner.jobs.engine import JobsEngine
from darner.jobs.events import Content, Job, JobSpec
from darner.jobs.ports import ClusterRef, Resolved


class ClustersTwin:
    """HostDirectory: clusters that are told to it."""

    def __init__(self, *clusters: ClusterRef) -> None:
        """One active cluster, unless told otherwise."""
        self.known = list(clusters) or [ClusterRef(id=1, name="cluster-1", active=True)]

    async def clusters(self) -> Sequence[ClusterRef]:
        """All clusters."""
        return self.known


class ResolverTwin:
    """ImageResolver: images that are told to it; `failures` are raised first, one per question."""

    def __init__(self, images: Mapping[str, Sequence[Content]] | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        """No images, unless told."""
        self.images = dict(images or {})
        self.headers = Headers(headers or {})
        self.failures: list[DarnerError] = []
        self.asked: list[JobSpec] = []

    async def resolve(self, spec: JobSpec) -> Resolved:
        """The contents of the image. Raises NotFoundError."""
        self.asked.append(spec)
        if self.failures:
            raise self.failures.pop(0)
        if spec.urls[0] not in self.images:
            raise NotFoundError(f"{spec.urls[0]}: the registry has no such image")
        return Resolved(contents=tuple(self.images[spec.urls[0]]), headers=self.headers)


class RetentionTwin:
    """RetentionView: everything is kept, and nothing comes back."""

    async def explain(self, jobs: Sequence[Job]) -> Sequence[Mapping[str, Any]]:
        """Kept for ever."""
        return [
            {
                "rule": "all",
                "tier": job.tier.word,
                "moves_at": None,
                "next_tier": None,
                "forgotten_at": None,
                "reason": "kept for ever",
            }
            for job in jobs
        ]

    async def restore(self, job_id: int, *, by: str) -> object:
        """There is nothing to restore. Raises NotFoundError."""
        raise NotFoundError(f"there is no job {job_id} for {by}")


class LocalBoard:
    """WorkBoard over an engine of the same process. `up` False: as if the manager did not answer."""

    def __init__(self, engine: JobsEngine, *, wait_s: float = 0.5) -> None:
        """`wait_s`: how long a question for work is kept open."""
        self.engine = engine
        self.up = True
        self.hosts: dict[int, Sequence[SeenHost]] = {}
        self._wait_s = wait_s

    async def lease(self, *, worker: str, cluster_id: int, limit: int) -> list[PartOrder]:
        """Take parts. Raises UnavailableError."""
        self._check()
        return await self.engine.lease(cluster_id, worker, limit, gone=self._gone, wait_s=self._wait_s)

    async def progress(self, lease_id: str, report: WorkReport) -> Verdict:
        """Tell progress. Raises UnavailableError."""
        self._check()
        return await self.engine.report(lease_id, report)

    async def finish(self, lease_id: str, report: WorkReport) -> Verdict:
        """Tell the end. Raises UnavailableError."""
        self._check()
        return await self.engine.report(lease_id, report)

    async def put_hosts(self, cluster_id: int, hosts: Sequence[SeenHost]) -> None:
        """Tell the hosts. Raises UnavailableError."""
        self._check()
        self.hosts[cluster_id] = list(hosts)

    async def _gone(self) -> bool:
        return not self.up

    def _check(self) -> None:
        if not self.up:
            raise UnavailableError("the manager does not answer")


class HostsTwin:
    """HostSource: hosts that are told to it; `failure` is raised while it is set."""

    def __init__(self, *hosts: Host) -> None:
        """These hosts."""
        self.hosts = list(hosts)
        self.failure: DarnerError | None = None

    async def list_hosts(self) -> list[Host]:
        """All hosts."""
        if self.failure is not None:
            raise self.failure
        return list(self.hosts)
