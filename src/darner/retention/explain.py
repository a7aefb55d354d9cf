"""What will happen to jobs, or why nothing will: the verdict of the rules, and what else keeps a job at present.

The rules know a job's own facts. Whether it is among the last of its group, or waits for a sink or the archive, is in the database.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sqlalchemy import Connection, and_, or_, select

from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job
from darner.retention import records
from darner.retention.policy import Group, KeepLast, Policy, Rule
from darner.retention.rules import KEPT_PREFIX, JobFacts, Order, Verdict, rule_for, verdict
from darner.retention.sql.classes import class_ids
from darner.retention.sql.facts import FACTS, JobRow, facts_of
from darner.retention.sql.holds import selectors

NO_POLICY = "There is no retention policy, so it is kept."
_GROUPS = {Group.URL: "URL", Group.IMAGE: "image"}


class KnownJob(JobFacts, Protocol):
    """A job of the database or the archive."""

    @property
    def id(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the database knows beside a job's facts. `kept`: among the last of its group; `unsent`: its sink does not have it yet.

    `archive`: whether there is one; `hold_reason`: why it is held, if it is.
    """

    now_ms: int
    archive: bool
    kept: bool = False
    unsent: bool = False
    hold_reason: str = ""


def explain(
    conn: Connection, jobs: Sequence[KnownJob], *, archive: bool, adjust: Callable[[Policy], Policy] | None = None
) -> list[Verdict]:
    """A verdict for each job. Jobs that have no row are taken as they are.

    `archive`: whether there is one for jobs to go to. `adjust`: the policy as sweeps carry it out while room runs short.
    """
    found = records.policy_in_force(conn)
    if found is None:
        return [Verdict(rule="", tier=Tier(one.tier), reason=NO_POLICY) for one in jobs]
    policy = adjust(found.policy) if adjust is not None else found.policy
    order, now_ms = Order(policy=policy, selectors=selectors(conn)), db_now_ms(conn)
    rows: Sequence[Any] = conn.execute(select(*FACTS).where(job.c.id.in_([one.id for one in jobs]))).all()
    held = _reasons(conn, [row.id for row in rows if row.held])
    known = {row.id: row for row in facts_of(conn, rows, order)}
    kept_classes = {number for name, number in class_ids(conn, order).items() if name.startswith(KEPT_PREFIX)}
    ruled = [(known.get(one.id, one), rule_for(known.get(one.id, one), order.policy)) for one in jobs]
    sent = _sent(conn, ruled)
    told = []
    for one, rule in ruled:
        around = Around(
            now_ms=now_ms,
            archive=archive,
            kept=isinstance(one, JobRow) and one.class_id in kept_classes,
            unsent=rule is not None and bool(rule.export) and one.id not in sent,
            hold_reason=held.get(one.id, ""),
        )
        told.append(under(verdict(one, order), rule, around))
    return told


def under(found: Verdict, rule: Rule | None, around: Around) -> Verdict:
    """A verdict, under circumstances that the rules do not see. Plain."""
    if around.hold_reason and found.moves_at is None:
        return replace(found, reason=f"It is held: {around.hold_reason.rstrip('.')}.")
    if rule is None or found.moves_at is None or found.tier in {Tier.DELETED, Tier.ARCHIVE}:
        return found
    if around.kept and rule.keep_last is not None:
        kept = replace(found, reason=_last(rule, rule.keep_last), forgotten_at=None)
        return kept if found.next_tier == Tier.WARM else replace(kept, moves_at=None, next_tier=None)
    due = found.due(around.now_ms)
    if around.unsent and found.next_tier != Tier.WARM:
        if due:
            said = f"It waits until the sink {rule.export} has it."
            return replace(found, reason=said, moves_at=None, next_tier=None, forgotten_at=None)
        return replace(found, reason=f"{found.reason} It stays longer if the sink {rule.export} does not have it by then.")
    if due and found.next_tier == Tier.ARCHIVE:
        why = "It waits to be archived." if around.archive else "It is to be archived, but there is no archive here, so it waits."
        return replace(found, reason=why)
    return found


def _last(rule: Rule, last: KeepLast) -> str:
    if last.count == 1:
        return f"It is the last successful job of its {_GROUPS[last.per]}, which rule {rule.name} keeps."
    return f"It is among the last {last.count} successful jobs of its {_GROUPS[last.per]}, which rule {rule.name} keeps."


def _reasons(conn: Connection, ids: Sequence[int]) -> dict[int, str]:
    if not ids:
        return {}
    return {int(key): str(reason) for key, reason in conn.execute(select(job.c.id, job.c.hold_reason).where(job.c.id.in_(ids)))}


def _sent(conn: Connection, ruled: Iterable[tuple[Any, Rule | None]]) -> set[int]:
    """The jobs that the sink of their rule has."""
    asked: dict[str, list[int]] = {}
    for one, rule in ruled:
        if rule is not None and rule.export:
            asked.setdefault(rule.export, []).append(one.id)
    if not asked:
        return set()
    outbox = export_outbox.c
    of_sinks = or_(*(and_(outbox.sink == sink, outbox.job_id.in_(ids)) for sink, ids in asked.items()))
    return {int(key) for key in conn.execute(select(outbox.job_id).where(of_sinks, outbox.acked_at.is_not(None))).scalars()}
