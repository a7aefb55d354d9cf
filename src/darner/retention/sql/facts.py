"""Rows of jobs as the rules see them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from darner.db.tables.jobs import job, job_cluster
from darner.retention.rules import Order

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


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job's facts (`rules.JobFacts`), its class and how many parts it has."""

    id: int
    type: str
    state: str
    owner: str
    tag: str
    application: str
    labels: Mapping[str, str]
    importance: int
    clusters: tuple[int, ...]
    created_at: int
    finished_at: int | None
    base_at: int | None
    held: int
    tier: int
    part_count: int
    class_id: int


def facts_of(conn: Connection, rows: Sequence[Any], order: Order) -> list[JobRow]:
    """The facts of rows that were selected with FACTS, and maybe more. Clusters are read only if the order asks for them."""
    clusters = _clusters(conn, [row.id for row in rows]) if rows and _asks_for_clusters(order) else {}
    return [_fact(row, clusters) for row in rows]


def _fact(row: Row[Any], clusters: Mapping[int, tuple[int, ...]]) -> JobRow:
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's public name for it)
    values.pop("may_leave", None)
    values["labels"] = json.loads(values["labels"]) if values["labels"] else {}
    return JobRow(**values, clusters=clusters.get(row.id, ()))


def _asks_for_clusters(order: Order) -> bool:
    matches = [rule.match for rule in order.policy.rules] + [one.match for one in order.selectors]
    return any(match.clusters for match in matches)


def _clusters(conn: Connection, ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    wanted = select(job_cluster.c.job_id, job_cluster.c.cluster_id).where(job_cluster.c.job_id.in_(ids))
    for job_id, cluster_id in conn.execute(wanted):
        found[job_id] = (*found.get(job_id, ()), cluster_id)
    return found
