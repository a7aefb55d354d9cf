"""The memory twin of the archive: records that are told to it."""

from collections.abc import Iterable

from darner.core.errors import DarnerError
from darner.history.record import JobRecord, RecordQuery


class ArchiveTwin:
    """ArchiveReader over a list. What it holds is taken for sealed, and to be in no database."""

    def __init__(self, records: Iterable[JobRecord] = ()) -> None:
        """`asked` keeps the queries that came; `failure` is raised while it is set."""
        self.records = {record.id: record for record in records}
        self.asked: list[RecordQuery] = []
        self.failure: DarnerError | None = None

    async def page(self, query: RecordQuery) -> list[JobRecord]:
        """Records, newest first."""
        self._check()
        self.asked.append(query)
        ranked = sorted(self.records.values(), key=_place, reverse=True)
        return [record for record in ranked if fits(record, query)][: query.limit]

    async def find(self, job_id: int) -> JobRecord | None:
        """One record."""
        self._check()
        return self.records.get(job_id)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


def fits(record: JobRecord, query: RecordQuery) -> bool:
    """Whether a record is what a query asks for: the meaning of RecordQuery, said once in Python."""
    job, wanted = record.job, query.text.casefold()
    return (
        (not query.states or job["state"] in query.states)
        and (not query.types or job["type"] in query.types)
        and (not query.owner or job["owner"] == query.owner)
        and (not query.tag or job["tag"] == query.tag)
        and (query.cluster_id is None or query.cluster_id in record.clusters)
        and (query.since_ms is None or job["created_at"] >= query.since_ms)
        and (query.until_ms is None or job["created_at"] < query.until_ms)
        and (query.before is None or _place(record) < query.before)
        and any(wanted in str(job.get(name) or "").casefold() for name in ("summary", "error", "bio"))
    )


def _place(record: JobRecord) -> tuple[int, int]:
    return int(record.job["created_at"]), record.id
