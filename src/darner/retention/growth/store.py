"""Rows of the room's growth: samples, the budget, the ladder. Functions that are one step of a transaction each."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, insert, select

from darner.db.tables.growth import growth_sample
from darner.retention.growth.adjust import NO_PRESSURE, Pressure, adjusted
from darner.retention.growth.budget import Budget, budget_from_json, budget_to_json
from darner.retention.growth.ladder import Ladder, Stage, Step
from darner.retention.growth.values import Sample
from darner.retention.policy import Policy
from darner.retention.sql import marks

BUDGET, LADDER = "budget", "growth"
HISTORY = 100
# A ladder that nobody has looked after for so long says nothing any more.
STALE_MS = 2 * 3_600_000


def last_sample(conn: Connection) -> Sample | None:
    """The newest."""
    body = conn.execute(select(growth_sample.c.body).order_by(growth_sample.c.slot.desc()).limit(1)).scalar()
    return Sample.from_json(json.loads(body)) if body else None


def samples_since(conn: Connection, at: int) -> list[Sample]:
    """Those from a moment on (unix ms), oldest first."""
    bodies = select(growth_sample.c.body).where(growth_sample.c.at >= at).order_by(growth_sample.c.at)
    return [Sample.from_json(json.loads(body)) for body in conn.execute(bodies).scalars()]


def sample_ids(conn: Connection, since: int) -> list[int]:
    """The ids of samples since a moment, oldest first."""
    statement = select(growth_sample.c.id).where(growth_sample.c.at >= since).order_by(growth_sample.c.at)
    return [int(key) for key in conn.execute(statement).scalars()]


def samples_of(conn: Connection, ids: Sequence[int]) -> list[Sample]:
    """These, oldest first."""
    bodies = select(growth_sample.c.body).where(growth_sample.c.id.in_(ids)).order_by(growth_sample.c.at)
    return [Sample.from_json(json.loads(body)) for body in conn.execute(bodies).scalars()]


def add_sample(conn: Connection, sample: Sample) -> bool:
    """Store it; False if its hour has one."""
    if conn.execute(select(growth_sample.c.id).where(growth_sample.c.slot == sample.slot)).first():
        return False
    conn.execute(insert(growth_sample).values(at=sample.at, slot=sample.slot, body=json.dumps(sample.to_json())))
    return True


def budget(conn: Connection) -> Budget | None:
    """The budget that people set; None: there is none."""
    return budget_from_json(marks.mark(conn, BUDGET))


def budget_mark(conn: Connection) -> dict[str, Any]:
    """How the budget is stored, with `history` (newest last), each with who and when."""
    return marks.mark(conn, BUDGET)


def set_budget(conn: Connection, wanted: Budget | None, *, by: str, reason: str, now_ms: int) -> None:
    """A budget from now on."""
    told = {"at": now_ms, "by": by, "reason": reason, "text": wanted.text if wanted else "none"}
    told["shorten"] = wanted.shorten.text if wanted and wanted.shorten else None
    history = [*marks.mark(conn, BUDGET).get("history", []), told][-HISTORY:]
    marks.set_mark(conn, BUDGET, {**budget_to_json(wanted), "history": history}, by=by)


def ladder(conn: Connection) -> tuple[Ladder, list[dict[str, Any]]]:
    """Where the ladder stands, and its steps, newest last."""
    body = marks.mark(conn, LADDER)
    if not body:
        return Ladder(), []
    found = {**body["ladder"], "stage": Stage(body["ladder"]["stage"])}
    return Ladder(**found), list(body.get("history", []))


def ladder_mark(conn: Connection) -> dict[str, Any]:
    """How the ladder is stored; `seen_at`: when somebody last looked after it."""
    return marks.mark(conn, LADDER)


def set_ladder(conn: Connection, standing: Ladder, steps: Sequence[Step], *, by: str, now_ms: int) -> None:
    """Where it stands now, and what changed."""
    told = [{**asdict(one), "before": one.before.word, "after": one.after.word} for one in steps]
    _, before = ladder(conn)
    body = {"ladder": asdict(standing), "seen_at": now_ms, "history": [*before, *told][-HISTORY:]}
    marks.set_mark(conn, LADDER, body, by=by)


def pressure(conn: Connection, now_ms: int) -> Pressure:
    """What the sweeper adjusts the policy by. A ladder that nobody looks after any more adjusts nothing."""
    body = marks.mark(conn, LADDER)
    if not body or now_ms - int(body.get("seen_at", 0)) > STALE_MS:
        return NO_PRESSURE
    standing, wanted = body["ladder"], budget(conn)
    return Pressure(stage=Stage(standing["stage"]), cut=int(standing["cut"]), floor=wanted.shorten if wanted else None)


def carried_out(conn: Connection, policy: Policy, now_ms: int) -> Policy:
    """The policy as a sweep that begins now carries it out (`RetentionParts.adjust`)."""
    return adjusted(policy, pressure(conn, now_ms))
