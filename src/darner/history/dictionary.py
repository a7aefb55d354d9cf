"""Dictionaries trained from a database's own jobs, per job type, and again when they no longer fit (spec/retention.md, 4.4)."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from darner.core.errors import DarnerError
from darner.core.job import END_STATES, Tier
from darner.db.tables.jobs import history_dictionary, job, job_fold
from darner.history.codec import Codec, train
from darner.history.rows import REDACTED, blob_of, read_records

LEAST_SAMPLES = 500
MOST_SAMPLES = 3_000
# Of so many samples one is kept apart, to see what the dictionary is worth.
_APART = 10
# A type of which few jobs come is judged by fewer: those that are among the latest of all types.
_LOOKED_BACK = 200
_NEWEST_OF = 4
_DRIFT = 0.75
_LEAST_AGE_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A dictionary that was trained but not stored yet. `ratio`: bytes before over bytes after, on samples kept apart."""

    job_type: str
    body: bytes
    samples: int
    ratio: float


def types_to_train(conn: Connection, now_ms: int) -> list[str]:
    """Job types with enough ended jobs that have no dictionary, or one that has come to fit badly. Cheap: every sweep asks."""
    latest = select(func.max(history_dictionary.c.id)).group_by(history_dictionary.c.job_type)
    known = history_dictionary.c
    columns = (known.id, known.job_type, known.created_at, known.ratio_percent, func.length(known.body).label("length"))
    found = {row.job_type: row for row in conn.execute(select(*columns).where(known.id.in_(latest)))}
    old = [row for row in found.values() if now_ms - row.created_at >= _LEAST_AGE_MS]
    drifted = _drifted(conn, {row.id: row.ratio_percent for row in old if row.length})
    again = {row.job_type for row in old if not row.length or row.id in drifted}
    wanted = [job_type for job_type in _types(conn) if job_type not in found or job_type in again]
    return [job_type for job_type in wanted if len(_sample_ids(conn, job_type, LEAST_SAMPLES)) >= LEAST_SAMPLES]


def train_type(conn: Connection, job_type: str, codec: Codec) -> Trained:
    """Train from the newest ended jobs of a type. Reads only; takes some tenths of a second."""
    ids = _sample_ids(conn, job_type, MOST_SAMPLES)
    samples = [blob_of(record) for record in read_records(conn, ids, codec, REDACTED)]
    apart = samples[::_APART]
    body = train([sample for number, sample in enumerate(samples) if number % _APART])
    trial = Codec.with_dictionary(job_type, body)
    after = sum(len(trial.fold(job_type, sample).body) for sample in apart)
    return Trained(job_type=job_type, body=body, samples=len(samples), ratio=sum(map(len, apart)) / max(1, after))


def store(conn: Connection, trained: Trained, now_ms: int) -> None:
    """Make it the newest of its type. Older ones stay, for the blobs that name them."""
    if trained.ratio <= 1:
        raise DarnerError(f"The dictionary for {trained.job_type} jobs makes nothing smaller; it is not used.")
    values = {"job_type": trained.job_type, "body": trained.body, "samples": trained.samples, "created_at": now_ms}
    conn.execute(insert(history_dictionary).values(**values, ratio_percent=round(trained.ratio * 100)))


def store_none(conn: Connection, job_type: str, now_ms: int) -> None:
    """Remember that the jobs of a type make no dictionary, so that it is not tried again with every sweep."""
    mine = (history_dictionary.c.job_type == job_type, func.length(history_dictionary.c.body) == 0)
    conn.execute(delete(history_dictionary).where(*mine))
    values = {"job_type": job_type, "body": b"", "samples": 0, "ratio_percent": 100, "created_at": now_ms}
    conn.execute(insert(history_dictionary).values(**values))


def _types(conn: Connection) -> list[str]:
    """The job types that there are, stepping from one to the next by the index."""
    found: list[str] = []
    last = conn.execute(select(func.min(job.c.type))).scalar()
    while last is not None:
        found.append(str(last))
        last = conn.execute(select(func.min(job.c.type)).where(job.c.type > last)).scalar()
    return found


def _sample_ids(conn: Connection, job_type: str, limit: int) -> list[int]:
    """The newest ended jobs; most are hot where there are many."""
    near = select(job.c.id, job.c.tier, job.c.state).where(job.c.type == job_type)
    newest = near.order_by(job.c.created_at.desc(), job.c.id.desc()).limit(_NEWEST_OF * limit).subquery()
    ended = (newest.c.tier.in_([int(Tier.HOT), int(Tier.WARM)]), newest.c.state.in_(sorted(END_STATES)))
    return [int(key) for key in conn.execute(select(newest.c.id).where(*ended).limit(limit)).scalars()]


def _drifted(conn: Connection, promised: Mapping[int, int]) -> set[int]:
    """The dictionaries (id: ratio in percent) whose latest blobs are clearly bigger than was promised."""
    if not promised:
        return set()
    lengths = select(job_fold.c.raw_len, func.length(job_fold.c.body).label("length"), job_fold.c.dict_id)
    latest = lengths.order_by(job_fold.c.job_id.desc()).limit(4 * _LOOKED_BACK).subquery()
    sums = select(latest.c.dict_id, func.sum(latest.c.raw_len), func.sum(latest.c.length), func.count()).group_by(latest.c.dict_id)
    return {
        dict_id
        for dict_id, before, after, count in conn.execute(sums)
        if dict_id in promised and count >= _LOOKED_BACK and 100 * int(before) / max(1, int(after)) < _DRIFT * promised[dict_id]
    }
