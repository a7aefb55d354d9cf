"""How many jobs of each tier and state there are, and what they take, without reading them all.

A short history is counted. Of a longer one, windows of ids are read, spread evenly over all ids, with chance inside each stretch:
what is found in them, times the stretches' share, is an estimate without bias whatever was deleted where, exact to about two per
cent, and costs the same for a million jobs as for a hundred million. Lengths of texts are read of a few jobs; by them the bytes
that the database takes are shared out.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select

from darner.core.job import END_STATES, Tier
from darner.db.tables.jobs import job, job_event, job_fold, job_part, job_payload
from darner.retention.growth.values import Counts

_COUNTED_IDS = 8_192
_STRETCHES = 128
_WINDOW = 32
_MEASURED = 384
# What a row takes beside its texts, with its share of indexes; only the relations of these matter.
_JOB_ROW, _PAYLOAD_ROW, _PART_ROW, _EVENT_ROW, _FOLD_ROW = 420, 30, 260, 90, 30
# How far the database may take more than the texts in it before something else than jobs is in it.
_MOST_OVERHEAD = 2.5
OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """Ranges of ids (both ends included), and how many times over what is in them stands for all."""

    ranges: tuple[tuple[int, int], ...]
    weight: float
    exact: bool


def count_jobs(conn: Connection, *, live_bytes: int, chance: random.Random) -> Counts:
    """Jobs by tier and state, and their sizes. `live_bytes`: what the database's rows and indexes take; `chance` places windows."""
    lowest, highest = conn.execute(select(func.min(job.c.id), func.max(job.c.id))).one()
    if lowest is None:
        return Counts()
    windows = _windows(int(lowest), int(highest), chance)
    here = or_(*(job.c.id.between(first, last) for first, last in windows.ranges))
    rows = conn.execute(select(job.c.id, job.c.tier, job.c.state, job.c.type).where(here)).all()
    tiers = Counter(Tier(row.tier).word for row in rows)
    states = Counter(str(row.state).lower() if row.state in END_STATES else OPEN for row in rows)
    sizes = _sizes(conn, rows, chance)
    scale = _overhead(sum(tiers.values()) * windows.weight, sizes, live_bytes)
    return Counts(
        exact=windows.exact,
        tiers=_weighed(tiers, windows.weight),
        states=_weighed(states, windows.weight),
        job_bytes={name: int(mean * scale) for name, mean in _means(rows, sizes, by_type=True).items()},
        tier_bytes={
            tier: int(mean * scale * tiers[tier] * windows.weight) for tier, mean in _means(rows, sizes, by_type=False).items()
        },
    )


def _windows(lowest: int, highest: int, chance: random.Random) -> _Windows:
    span = highest - lowest + 1
    if span <= _COUNTED_IDS:
        return _Windows(ranges=((lowest, highest),), weight=1.0, exact=True)
    stretch = span / _STRETCHES
    ranges = []
    for number in range(_STRETCHES):
        first = lowest + int(number * stretch)
        last = lowest + int((number + 1) * stretch) - 1
        start = chance.randint(first, last - _WINDOW + 1)
        ranges.append((start, start + _WINDOW - 1))
    return _Windows(ranges=tuple(ranges), weight=stretch / _WINDOW, exact=False)


def _sizes(conn: Connection, rows: Sequence[Any], chance: random.Random) -> dict[int, int]:
    """What some of the jobs take, before any overhead."""
    ids = [int(row.id) for row in rows]
    some = sorted(chance.sample(ids, min(len(ids), _MEASURED)))
    found = dict.fromkeys(some, _JOB_ROW)
    if not some:
        return found
    payload = _length(conn, job_payload.c.args) + func.coalesce(_length(conn, job_payload.c.result), 0)
    queries = (
        select(job_payload.c.job_id, payload + _PAYLOAD_ROW).where(job_payload.c.job_id.in_(some)),
        select(job_fold.c.job_id, _length(conn, job_fold.c.body) + _FOLD_ROW).where(job_fold.c.job_id.in_(some)),
        select(job_part.c.job_id, func.sum(_length(conn, job_part.c.hosts) + _length(conn, job_part.c.url) + _PART_ROW))
        .where(job_part.c.job_id.in_(some))
        .group_by(job_part.c.job_id),
        select(job_event.c.job_id, func.sum(_length(conn, job_event.c.message) + _EVENT_ROW))
        .where(job_event.c.job_id.in_(some))
        .group_by(job_event.c.job_id),
    )
    for query in queries:
        for job_id, size in conn.execute(query):
            found[int(job_id)] += int(size)
    return found


def _length(conn: Connection, column: ColumnElement[Any]) -> ColumnElement[int]:
    """Bytes; characters on SQLite, where JSON has few others."""
    return func.length(column) if conn.dialect.name == "sqlite" else func.octet_length(column)


def _overhead(total: float, sizes: Mapping[int, int], live_bytes: int) -> float:
    """By how much the database takes more than the texts and rows in it."""
    if not sizes:
        return 1.0
    content = total * sum(sizes.values()) / len(sizes)
    return min(max(live_bytes / content, 0.5), _MOST_OVERHEAD)


def _means(rows: Sequence[Any], sizes: Mapping[int, int], *, by_type: bool) -> dict[str, float]:
    sums: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for row in rows:
        if row.id in sizes:
            tier = Tier(row.tier).word
            name = f"{row.type}/{tier}" if by_type else tier
            sums[name] += sizes[row.id]
            numbers[name] += 1
    return {name: sums[name] / numbers[name] for name in sorted(sums)}


def _weighed(found: Counter[str], weight: float) -> dict[str, int]:
    return {name: round(count * weight) for name, count in sorted(found.items())}
