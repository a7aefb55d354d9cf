"""One batch of a move: choose, ask the rules again, act, and write the audit, in one transaction behind the fence."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, update

from darner.core.job import Tier
from darner.db import Keys, Statement, among_keys
from darner.db.tables.jobs import job
from darner.retention.rules import UNCLASSIFIED, Move, leaving
from darner.retention.sql import groups
from darner.retention.sql.due import due_rows, is_gated, job_class
from darner.retention.sql.facts import JobRow, facts_of
from darner.retention.sweep.work import SweepContext
from darner.retention.values import Batch, Cursor

# A job's parts and events move with it: a batch is cut where it would have more parts than this.
_PARTS_PER_BATCH = 5_000
# Moves the jobs (ids, now in unix ms) with all that is theirs; the bytes that this freed.
Act = Callable[[Connection, Sequence[int], int], int]
_ANEW = Statement(lambda dialect: update(job).where(among_keys(dialect, job.c.id)).values({job_class: UNCLASSIFIED}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Jobs that may move, of so many looked at. `cursor` None: there are no more."""

    going: Sequence[JobRow] = ()
    examined: int = 0
    cursor: Cursor | None = None


def action_of(move: Move) -> str:
    """The move's word in the audit."""
    words = {None: "delete", Tier.DELETED: "hide", Tier.WARM: "fold", Tier.ARCHIVE: "archive"}
    return words[move.to]


def move_batch(conn: Connection, sweep: SweepContext, *, move: Move, class_id: int, act: Act, after: Cursor, limit: int) -> Batch:
    """Move at most `limit` due jobs. LeaseLostError or SweepEndedError before anything is touched."""
    now_ms = sweep.fence(conn)
    chosen = choose(conn, sweep, move=move, class_id=class_id, now_ms=now_ms, after=after, limit=limit)
    freed = 0
    if chosen.going:
        freed = act(conn, [row.id for row in chosen.going], now_ms)
        sweep.tell(conn, action_of(move), move.rule.name, chosen.going, bytes_freed=freed, now_ms=now_ms)
    return Batch(examined=chosen.examined, changed=len(chosen.going), bytes=freed, cursor=chosen.cursor)


def choose(conn: Connection, sweep: SweepContext, *, move: Move, class_id: int, now_ms: int, after: Cursor, limit: int) -> Chosen:
    """The next jobs that may move now: ripe, known to the rule's sink, judged by the rules, not among the last that are kept.

    Those that changed since they were sorted go back to be sorted anew. `now_ms` is what the fence gave in this transaction.
    """
    rows = due_rows(conn, move, class_id, now_ms, after=after, limit=limit)
    if not rows:
        return Chosen()
    gated = {row.id for row in rows if not row.may_leave} if is_gated(move) else set()
    taken = list(_light(facts_of(conn, rows, sweep.order)))
    going, strays = [], []
    for row in taken:
        rule, moves_at = leaving(row, sweep.order)
        if rule != move.rule.name:
            strays.append(row.id)
        elif moves_at is not None and moves_at <= now_ms and row.id not in gated:
            going.append(row)
    last = _last_kept(conn, move, going)
    _sort_anew(conn, [*strays, *last])
    cursor = Cursor(base_at=taken[-1].base_at or 0, id=taken[-1].id)
    return Chosen(going=[row for row in going if row.id not in last], examined=len(taken), cursor=cursor)


def _last_kept(conn: Connection, move: Move, rows: Sequence[JobRow]) -> set[int]:
    """Those that the rule keeps as the last of their group."""
    keep_last = move.rule.keep_last
    if keep_last is None or not rows or move.takes_last:
        return set()
    return groups.newest(conn, [row.id for row in rows], keep_last.count)


def _sort_anew(conn: Connection, ids: Sequence[int]) -> None:
    if ids:
        _ANEW.run(conn, Keys(ids))


def _light(rows: Sequence[JobRow]) -> Iterator[JobRow]:
    """As many rows, one at least, as have a bounded number of parts together."""
    parts = 0
    for row in rows:
        if parts and parts + row.part_count > _PARTS_PER_BATCH:
            return
        parts += max(1, row.part_count)
        yield row
