"""Batches read from the outbox within bounds: a job may have thousands of parts, so they are weighed before they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from darner.core.errors import DarnerError
from darner.db.tables.jobs import job, job_fold
from darner.history.codec import Codec
from darner.history.record import JobRecord
from darner.history.rows import read_records
from darner.kit.log import get_logger
from darner.retention.export import outbox
from darner.retention.export.document import document_of
from darner.retention.export.ports import Limits
from darner.retention.export.values import Document, Waiting
from darner.retention.sql.marks import mark

_log = get_logger("retention")
# What is in memory unfolded at a time. A hot part with its hosts takes about that much; a job without parts that much.
_CHUNK_BYTES = 4 << 20
_CHUNK_JOBS = 50
# Of jobs that were refused before, that many are tried beside each batch.
_AGAIN_JOBS = 10
_PART_BYTES = 1_024
_JOB_BYTES = 4_096


@dataclass(slots=True, kw_only=True)
class Load:
    """What is to be delivered, by row of the outbox: `ready` together, and `again`, which were refused, each by itself.

    `unreadable`: rows with the reason; `lost`: ids of rows whose job is gone.
    """

    ready: list[tuple[Waiting, Document]] = field(default_factory=list)
    again: list[tuple[Waiting, Document]] = field(default_factory=list)
    unreadable: list[tuple[Waiting, str]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was due."""
        return not (self.ready or self.again or self.unreadable or self.lost)


class Loader:
    """Reads what is due; `codec` unfolds warm jobs."""

    def __init__(self, codec: Codec) -> None:
        """See the class."""
        self._codec = codec

    def load(self, conn: Connection, sink: str, limits: Limits, now_ms: int, *, again: bool = True) -> Load:
        """At most one batch, and few of the refused. Jobs that cannot be read do not stop the others.

        `again` False: look for refused ones only if few others wait, because they are found by walking past all that wait.
        """
        load = Load()
        rows = outbox.due(conn, sink, now_ms, limits.documents)
        look = again or len(rows) < limits.documents
        refused = outbox.due(conn, sink, now_ms, _AGAIN_JOBS, refused=True) if look else []
        if rows or refused:
            instance = str(mark(conn, "instance").get("id", ""))
            self._fill(conn, rows, load, load.ready, limits, instance)
            self._fill(conn, refused, load, load.again, limits, instance)
        return load

    def _fill(
        self,
        conn: Connection,
        rows: Sequence[Waiting],
        load: Load,
        into: list[tuple[Waiting, Document]],
        limits: Limits,
        instance: str,
    ) -> None:
        """Put the documents of rows into a part of the load, until that has as many bytes as a batch may have."""
        room = limits.batch_bytes
        for chunk in _chunks(conn, rows) if rows else ():
            records = self._records(conn, [row.job_id for row in chunk])
            for row in chunk:
                found = records.get(row.job_id)
                one = None if found is None else _document(found, instance, limits.document_bytes)
                if one is None:
                    load.lost.append(row.id)
                elif isinstance(one, str):
                    load.unreadable.append((row, one))
                else:
                    room -= len(one.body) + 1
                    if room < 0 and into:
                        return
                    into.append((row, one))

    def _records(self, conn: Connection, ids: Sequence[int]) -> dict[int, JobRecord | str]:
        """Records by id, or why there is none; nothing for jobs that are gone."""
        try:
            return {record.id: record for record in read_records(conn, ids, self._codec)}
        except (DarnerError, ValueError, KeyError, TypeError) as error:
            if len(ids) == 1:
                _log.warning("a job cannot be read for its export", job=ids[0], reason=str(error))
                return {ids[0]: f"The job cannot be read: {error}"}
        return {key: found for one in ids for key, found in self._records(conn, [one]).items()}


def _document(found: JobRecord | str, instance: str, limit: int) -> Document | str:
    if isinstance(found, str):
        return found
    try:
        return document_of(found, instance=instance, limit=limit)
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("a job cannot be written as a document", job=found.id, reason=str(error))
        return f"The job cannot be written as a document: {error}"


def _chunks(conn: Connection, rows: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """The rows in their order, in chunks that fit into memory."""
    weights = _weights(conn, [row.job_id for row in rows])
    chunk: list[Waiting] = []
    weight = 0
    for row in rows:
        mine = weights.get(row.job_id, 0)
        if chunk and (weight + mine > _CHUNK_BYTES or len(chunk) >= _CHUNK_JOBS):
            yield chunk
            chunk, weight = [], 0
        chunk.append(row)
        weight += mine
    if chunk:
        yield chunk


def _weights(conn: Connection, ids: Sequence[int]) -> dict[int, int]:
    """About how many bytes each job takes when it is read."""
    joined = job.outerjoin(job_fold, job_fold.c.job_id == job.c.id)
    size = func.coalesce(job_fold.c.raw_len, job.c.part_count * _PART_BYTES + _JOB_BYTES)
    return {
        int(key): int(weight) for key, weight in conn.execute(select(job.c.id, size).select_from(joined).where(job.c.id.in_(ids)))
    }
