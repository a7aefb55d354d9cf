"""Dictionaries trained from a database's own jobs, per job type, and again when they no longer fit (spec/retention.md, 4.4)."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from darner.core.errors import DarnerError
from darner.core.job import END_STATES, Tier
from darner.db.tables.jobs import history_dictionary, job, job_fold
from darner.history.codec import Codec, train
from darner.history.rows import REDACTED, blob_of, read_records

LEAST_SAMPLES = 500
MOST_SAMPLES = 3_000
# Of so many samples one is kept apart, to see what the dictionary is worth.
_APART = 10
_LOOKED_BACK = 500
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
    """Job types with enough hot jobs that have no dictionary, or one that has come to fit badly."""
    latest = select(func.max(history_dictionary.c.id)).group_by(history_dictionary.c.job_type)
    found = {row.job_type: row for row in conn.execute(select(history_dictionary).where(history_dictionary.c.id.in_(latest)))}
    wanted = []
    for job_type in _types(conn):
        newest = found.get(job_type)
        if newest is not None and (
            now_ms - newest.created_at < _LEAST_AGE_MS or not _drifted(conn, newest.id, newest.ratio_percent)
        ):
            continue
        if len(_sample_ids(conn, job_type, LEAST_SAMPLES)) >= LEAST_SAMPLES:
            wanted.append(job_type)
    return wanted


def train_type(conn: Connection, job_type: str, codec: Codec) -> Trained:
    """Train from the newest hot jobs of a type. Reads only; takes some tenths of a second."""
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


def _types(conn: Connection) -> list[str]:
    """The job types that there are, stepping from one to the next by the index."""
    found: list[str] = []
    last = conn.execute(select(func.min(job.c.type))).scalar()
    while last is not None:
        found.append(str(last))
        last = conn.execute(select(func.min(job.c.type)).where(job.c.type > last)).scalar()
    return found


def _sample_ids(conn: Connection, job_type: str, limit: int) -> list[int]:
    # Looking back without end would scan a table in which all jobs of the type are warm.
    near = select(job.c.id, job.c.tier, job.c.state).where(job.c.type == job_type)
    newest = near.order_by(job.c.created_at.desc(), job.c.id.desc()).limit(4 * MOST_SAMPLES).subquery()
    hot = (newest.c.tier == int(Tier.HOT), newest.c.state.in_(sorted(END_STATES)))
    return [int(key) for key in conn.execute(select(newest.c.id).where(*hot).limit(limit)).scalars()]


def _drifted(conn: Connection, dict_id: int, ratio_percent: int) -> bool:
    """Whether the latest blobs made with it are clearly bigger than it promised."""
    lengths = select(job_fold.c.raw_len, func.length(job_fold.c.body).label("length"), job_fold.c.dict_id)
    latest = lengths.order_by(job_fold.c.job_id.desc()).limit(4 * _LOOKED_BACK).subquery()
    mine = select(func.sum(latest.c.raw_len), func.sum(latest.c.length), func.count()).where(latest.c.dict_id == dict_id)
    before, after, count = conn.execute(mine).one()
    return bool(count >= _LOOKED_BACK and after and 100 * int(before) / int(after) < _DRIFT * ratio_percent)
