"""One look at the database: what it takes now, and once an hour a sample. Reads in short transactions; writes one row."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from darner.db import Database, Lease, acquire_lease, check_lease, db_now_ms
from darner.retention import records
from darner.retention.growth import store
from darner.retention.growth.budget import Budget
from darner.retention.growth.counting import count_jobs
from darner.retention.growth.measure import archive_of, disk_of, moved_between, other_disk, seen_of, sizes_of
from darner.retention.growth.values import Disk, Sample, Sizes
from darner.retention.policy import Policy

LEASE = "retention-growth"
# Bytes and rows of the archive, and whether it is on the disk beside the database.
ArchiveFigures = Callable[[], tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is cheap enough for every minute."""

    now_ms: int
    sizes: Sizes
    disk: Disk | None
    archive_disk: Disk | None
    archive: tuple[int, int]
    archive_local: bool
    budget: Budget | None
    policy: Policy | None
    last: Sample | None

    @property
    def used(self) -> int:
        """What the history takes where the operator pays for it."""
        return self.sizes.live + (self.archive[0] if self.archive_local else 0)


class Watcher:
    """Looks and samples for one process."""

    def __init__(
        self,
        db: Database,
        *,
        directory: Path | None,
        archive_directory: Path | None,
        archive: ArchiveFigures | None,
        archive_local: bool,
    ) -> None:
        """Directories whose disks are looked at; `archive`: figures of the archive, by default those of its catalogue."""
        self._db = db
        self._directory = directory
        self._archive_directory = archive_directory
        self._archive = archive
        self._archive_local = archive_local

    async def lease(self, holder: str, ttl_s: float) -> Lease | None:
        """Be the one manager that samples; None when another is."""
        return await self._db.write(lambda conn: acquire_lease(conn, LEASE, holder, ttl_s=ttl_s), durable=False)

    async def look(self) -> Look:
        """Sizes, disk, budget and policy as they are now."""
        return await self._db.read(self._look)

    def _look(self, conn: Connection) -> Look:
        found = records.policy_in_force(conn)
        return Look(
            now_ms=db_now_ms(conn),
            sizes=sizes_of(conn),
            disk=disk_of(self._directory),
            archive_disk=other_disk(self._archive_directory, self._directory),
            archive=self._archive() if self._archive is not None else archive_of(conn),
            archive_local=self._archive_local,
            budget=store.budget(conn),
            policy=found.policy if found else None,
            last=store.last_sample(conn),
        )

    async def sample(self, look: Look, held: Lease) -> Sample | None:
        """The sample of this hour, stored; None if the hour has one. LeaseLostError when another manager samples now."""
        chance = random.Random(look.now_ms)  # noqa: S311  (where to look, not a secret)
        counts = await self._db.read(lambda conn: count_jobs(conn, live_bytes=look.sizes.live, chance=chance))
        before = look.last
        seen = await self._db.read(seen_of)
        if before is not None:  # the newest job may have been removed since
            seen = replace(seen, job_id=max(seen.job_id, before.seen.job_id), batch_id=max(seen.batch_id, before.seen.batch_id))
        moved = {} if before is None else await self._db.read(lambda conn: moved_between(conn, before.seen, seen))
        made = Sample(
            at=look.now_ms,
            sizes=look.sizes,
            counts=counts,
            seen=seen,
            disk=look.disk,
            archive_bytes=look.archive[0],
            archive_rows=look.archive[1],
            archive_local=look.archive_local,
            archive_disk=look.archive_disk,
            span_ms=None if before is None else look.now_ms - before.at,
            created=0 if before is None else seen.job_id - before.seen.job_id,
            moved=moved,
        )

        def keep(conn: Connection) -> bool:
            check_lease(conn, held)
            return store.add_sample(conn, made)

        return made if await self._db.write(keep, durable=False) else None
