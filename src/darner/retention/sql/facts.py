"""Rows of jobs as the rules see them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from darner.db import Keys, Statement, among_keys
from darner.db.tables.jobs import job, job_cluster
from darner.retention.rules import Order

# The fields of `JobRow`, but for its clusters.
FACTS = (
    job.c.id,
    job.c.type,
    job.c.state,
    job.c.owner,
    job.c.tag,
    job.c.application,
    job.c.labels,
    job.c.importance,
    job.c.created_at,
    job.c.finished_at,
    job.c.base_at,
    job.c.held,
    job.c.tier,
    job.c.part_count,
    job.c["class"].label("class_id"),
)


_LABELS = [column.name for column in FACTS].index("labels")
_CLUSTERS = Statement(
    lambda dialect: select(job_cluster.c.job_id, job_cluster.c.cluster_id).where(among_keys(dialect, job_cluster.c.job_id))
)


class JobRow(NamedTuple):
    """A job's facts (`rules.JobFacts`), its class and how many parts it has. A tuple: a sweep makes very many."""

    id: int
    type: str
    state: str
    owner: str
    tag: str
    application: str
    labels: Mapping[str, str]
    importance: int
    created_at: int
    finished_at: int | None
    base_at: int | None
    held: int
    tier: int
    part_count: int
    class_id: int
    clusters: tuple[int, ...] = ()


def facts_of(conn: Connection, rows: Sequence[Any], order: Order) -> list[JobRow]:
    """The facts of rows that were selected with FACTS first. Clusters are read only if the order asks for them."""
    clusters = _clusters(conn, [row[0] for row in rows]) if rows and _asks_for_clusters(order) else {}
    return [_fact(tuple(row), clusters.get(row[0], ())) for row in rows]


def _fact(row: tuple[Any, ...], clusters: tuple[int, ...]) -> JobRow:
    labels = json.loads(row[_LABELS]) if row[_LABELS] else {}
    return JobRow._make((*row[:_LABELS], labels, *row[_LABELS + 1 : len(FACTS)], clusters))


def _asks_for_clusters(order: Order) -> bool:
    matches = [rule.match for rule in order.policy.rules] + [one.match for one in order.selectors]
    return any(match.clusters for match in matches)


def _clusters(conn: Connection, ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for job_id, cluster_id in _CLUSTERS.run(conn, Keys(ids)):
        found[job_id] = (*found.get(job_id, ()), cluster_id)
    return found
