"""Pages and counts of jobs in the database: hot and warm alike, deleted ones only when asked for.

The text of a warm job is in its blob, so a search for text walks the list in its order and looks into the blobs, some hundred jobs
at a time and no further than LOOK_AT_MOST a page: whoever looks for a needle gives a time range, or goes on where it stopped.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, union_all

from darner.core.job import Tier
from darner.db.tables.jobs import job as job_table
from darner.db.tables.jobs import job_cluster, job_payload
from darner.db.tables.retention import retention_class
from darner.history.codec import Codec
from darner.history.rows import parsed, read_fold_texts, readable_folds, whole_row
from darner.jobs.events import Job, JobPage, JobQuery
from darner.jobs.sql.rows import JOB_COLUMNS, job_from

LOOK_AT_MOST = 50_000
_CHUNK = 500
_SHOWN = (Tier.HOT, Tier.WARM)
_FEW = frozenset({Tier.HOT, Tier.DELETED})
# Not sorted yet, and held by itself (`retention.rules`); all other classes have a row.
_FIXED_CLASSES = (0, 1)
Listed = tuple[Job, dict[str, Any]]
Keyset = tuple[int, int] | None


def page_of(conn: Connection, query: JobQuery, before: Keyset, codec: Codec, *, look_at_most: int = LOOK_AT_MOST) -> JobPage:
    """A page: jobs with their redacted args."""
    if query.text:
        search = Search(conn, query, codec, look_at_most=look_at_most)
        found = [row for _, row in zip(range(query.offset + query.limit), search.walk(before), strict=False)]
        return JobPage(_completed(conn, found[query.offset :], codec), stopped_at=search.stopped_at)
    statement = page_statement(query, before, classes=few_classes(conn, query))
    return JobPage(_completed(conn, conn.execute(statement).mappings().all(), codec))


def count_jobs(conn: Connection, query: JobQuery, codec: Codec, *, at_most: int) -> int:
    """How many jobs fit, counted no further than `at_most`."""
    if query.text:
        return sum(1 for _ in zip(range(at_most), Search(conn, query, codec).walk(None), strict=False))
    columns = (job_table.c.id, job_table.c.created_at)
    inner = _merged(query, at_most, keyset=None, columns=columns, classes=few_classes(conn, query)).subquery()
    return int(conn.execute(select(func.count()).select_from(inner)).scalar_one())


def place_of(conn: Connection, job_id: int) -> Keyset:
    """The place of a job in lists; None if the database does not have it."""
    job = job_table.c
    row = conn.execute(select(job.created_at, job.id).where(job.id == job_id)).first()
    return None if row is None else (int(row[0]), int(row[1]))


def place_near(conn: Connection, job_id: int) -> Keyset:
    """Where a page goes on after a job that is gone: at its nearest older neighbour, which is still to be shown."""
    job = job_table.c
    row = conn.execute(select(job.created_at, job.id).where(job.id < job_id).order_by(job.id.desc()).limit(1)).first()
    return None if row is None else (int(row[0]), int(row[1]) + 1)


def few_classes(conn: Connection, query: JobQuery) -> Sequence[int]:
    """All retention classes, if a query is for few jobs of very many; else none.

    Hot and removed jobs are found by class and tier, by an index: in the order of the list all others would be walked over.
    """
    if not query.tiers or not _FEW.issuperset(set(query.tiers) - {Tier.ARCHIVE}):
        return ()
    return (*_FIXED_CLASSES, *(int(key) for key in conn.execute(select(retention_class.c.id)).scalars()))


def page_statement(query: JobQuery, keyset: Keyset, *, classes: Sequence[int] = ()) -> Select[Any]:
    """The rows of a page; with several states one index walk each, merged, so that rare states cost no scan."""
    limit = query.offset + query.limit
    merged = _merged(query, limit, keyset=keyset, columns=JOB_COLUMNS, classes=classes).subquery()
    return select(merged).order_by(merged.c.created_at.desc(), merged.c.id.desc()).limit(query.limit).offset(query.offset)


def _completed(conn: Connection, rows: Sequence[Mapping[Any, Any]], codec: Codec) -> Iterator[Listed]:
    """The rows with what is not in them: blobs of warm jobs, payloads of the others.

    A blob that cannot be read must not hide the other jobs of its page: its job says so in `error`.
    """
    hot = [row["id"] for row in rows if row["tier"] != Tier.WARM]
    wanted = select(job_payload.c.job_id, job_payload.c.args).where(job_payload.c.job_id.in_(hot))
    args = {int(key): orjson.loads(text) for key, text in conn.execute(wanted)} if hot else {}
    # Those whose payload is not there any more were folded since their row was read.
    blobs, damaged = readable_folds(conn, [row["id"] for row in rows if row["id"] not in args], codec)
    for row in rows:
        key = row["id"]
        if key in blobs:
            yield job_from({**whole_row(row, blobs[key]), "tier": row["tier"] or int(Tier.WARM)}), blobs[key]["a"]
        elif key in damaged:
            yield job_from({**row, "error": damaged[key]}), {}
        elif key in args or row["tier"] != Tier.WARM:
            yield job_from(row), args.get(key, {})


class Search:
    """A walk over the jobs with a text in summary, error or description. `stopped_at`: where it ended, if it may go no further."""

    def __init__(self, conn: Connection, query: JobQuery, codec: Codec, *, look_at_most: int = LOOK_AT_MOST) -> None:
        """Within the transaction of `conn`."""
        self._conn = conn
        self._query = query
        self._codec = codec
        self._look_at_most = look_at_most
        self._wanted = query.text.casefold()
        self._as_json = orjson.dumps(query.text).decode()[1:-1].casefold()
        self.stopped_at: Keyset = None

    def walk(self, before: Keyset) -> Iterator[Mapping[Any, Any]]:
        """Rows with JOB_COLUMNS, newest first."""
        looked_at, chunk = 0, self._query.offset + self._query.limit
        job = job_table.c
        said = [column.icontains(self._query.text, autoescape=True) for column in (job.summary, job.error, job.bio)]
        maybe, classes = or_(job.tier != int(Tier.HOT), *said), few_classes(self._conn, self._query)
        while looked_at < self._look_at_most:
            walk = _merged(self._query, chunk, keyset=before, columns=JOB_COLUMNS, classes=classes, also=maybe)
            merged = walk.subquery()
            statement = select(merged).order_by(merged.c.created_at.desc(), merged.c.id.desc()).limit(chunk)
            rows = self._conn.execute(statement).mappings().all()
            yield from self._fitting(rows)
            if len(rows) < chunk:
                return
            before, looked_at = (rows[-1]["created_at"], rows[-1]["id"]), looked_at + len(rows)
            chunk = min(2 * chunk, _CHUNK)
        self.stopped_at = before

    def _fitting(self, rows: Sequence[Mapping[Any, Any]]) -> Iterator[Mapping[Any, Any]]:
        folded = [row["id"] for row in rows if row["tier"] != Tier.HOT]
        texts = read_fold_texts(self._conn, folded, self._codec, damaged={})
        for row in rows:
            text = texts.get(row["id"])
            if text is None:
                # The database looked into hot jobs already, and into removed ones that were hot not at all.
                if row["tier"] == Tier.HOT or self._says(row):
                    yield row
            # Most blobs do not hold it at all, so they need not be parsed.
            elif self._holds(text) and self._says(whole_row(row, parsed(text))):
                yield row

    def _holds(self, text: bytes) -> bool:
        # Lowering bytes is many times faster than folding characters.
        return self._as_json.encode() in text.lower() if self._as_json.isascii() else self._as_json in text.decode().casefold()

    def _says(self, row: Mapping[Any, Any]) -> bool:
        return any(self._wanted in row[name].casefold() for name in ("summary", "error", "bio"))


def _merged(
    query: JobQuery,
    limit: int,
    *,
    keyset: Keyset,
    columns: tuple[Any, ...],
    classes: Sequence[int],
    also: ColumnElement[bool] | None = None,
) -> Any:  # noqa: ANN401  (a select or a union of them)
    job = job_table.c
    # What is no column but a sum is in no index: of few jobs, the order is not worth a walk over all.
    at: ColumnElement[int] = job.created_at + 0 if classes else job.created_at
    shared = [*_conditions(query, at), *([also] if also is not None else [])]
    if classes:
        shared.append(job_table.c["class"].in_(classes))
    if keyset is not None:
        shared += [at <= keyset[0], or_(at < keyset[0], job.id < keyset[1])]
    walks = [
        select(*columns).where(*where, *shared).order_by(at.desc(), job.id.desc()).limit(limit)
        for where in ([[job.state == state] for state in query.states] or [[]])
    ]
    if len(walks) == 1:
        return walks[0]
    return union_all(*(select(walk.subquery()) for walk in walks))


def _conditions(query: JobQuery, at: ColumnElement[int]) -> list[ColumnElement[bool]]:
    job = job_table.c
    found: list[ColumnElement[bool]] = [job.tier.in_([int(tier) for tier in query.tiers or _SHOWN])]
    if query.type:
        found.append(job.type == query.type)
    if query.owner:
        found.append(job.owner == query.owner)
    if query.since_ms is not None:
        found.append(at >= query.since_ms)
    if query.until_ms is not None:
        found.append(at < query.until_ms)
    if query.cluster_id is not None:
        mine = and_(job_cluster.c.job_id == job.id, job_cluster.c.cluster_id == query.cluster_id)
        found.append(exists(select(job_cluster.c.job_id).where(mine)))
    return found
