"""Works that move jobs from tier to tier, or out."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from darner.core.errors import DarnerError, StorageFullError, TimedOutError, UnavailableError
from darner.core.job import Tier
from darner.db import LeaseLostError, db_now_ms
from darner.retention.rules import KEPT_PREFIX, Move, deciding, moves
from darner.retention.sql.due import due_statement
from darner.retention.sql.probe import Place
from darner.retention.sql.step import Act, action_of, move_batch
from darner.retention.sweep.careful import Careful
from darner.retention.sweep.errors import SweepEndedError
from darner.retention.sweep.hold import Hold
from darner.retention.sweep.work import Done, SweepContext
from darner.retention.values import Batch, Cursor

NO_CLASS = -1
_DONE = {"fold": "folded", "archive": "archived", "hide": "hidden", "delete": "removed"}


class MoveWork:
    """One move of one rule. `kept`: those that the rule keeps as the last of their group, which only lossless moves may take."""

    def __init__(self, move: Move, act: Act, *, kept: bool = False) -> None:
        """`act` moves the jobs (transaction, ids, now in unix ms) with all that is theirs; the bytes that this freed."""
        self._move = move
        self._act = act
        self._class = f"{KEPT_PREFIX}{move.rule.name}" if kept else move.rule.name
        self._cursor = Cursor()
        self.name = f"{action_of(move)}:{move.start.word}:{self._class}"
        self.removes = move.removes
        self._careful = Careful(_DONE[action_of(move)])

    def has_some(self, sweep: SweepContext, there: Mapping[Place, int], now_ms: int) -> bool:
        """Whether a job may be due, as far as the oldest of its class and tier tells."""
        since = there.get((sweep.classes.get(self._class, NO_CLASS), int(self._move.start)))
        return since is not None and since <= now_ms - self._move.age.ms

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        """Move at most `limit` jobs in one transaction."""
        class_id = sweep.classes.get(self._class)
        if class_id is None:
            return Done()
        return await self._careful.attempt(
            limit, lambda at_once: self._move_some(sweep, class_id, at_once), lambda: self._skip(sweep, class_id)
        )

    async def _skip(self, sweep: SweepContext, class_id: int) -> int | None:
        """Pass over the next job."""

        def next_one(conn: Connection) -> Any:  # noqa: ANN401  (a row)
            return conn.execute(due_statement(self._move, class_id, db_now_ms(conn), after=self._cursor, limit=1)).first()

        row = await sweep.db.read(next_one)
        if row is None:
            return None
        self._cursor = Cursor(base_at=row.base_at, id=row.id)
        return int(row.id)

    async def _move_some(self, sweep: SweepContext, class_id: int, limit: int) -> Done:
        hold = Hold()

        def step(conn: Connection) -> Batch:
            hold.begins()
            return move_batch(conn, sweep, move=self._move, class_id=class_id, act=self._act, after=self._cursor, limit=limit)

        done = await sweep.db.write(step, durable=False, committed=hold.ends)
        if done.cursor is None:
            return Done(examined=done.examined, held_s=hold.held_s)
        self._cursor = done.cursor
        return Done(
            examined=done.examined,
            changed=done.changed,
            bytes=done.bytes,
            more=True,
            held_s=hold.held_s,
            waited_s=hold.waited_s,
        )


class MovesWork:
    """All moves to a tier (None: out of the database), of every rule of the order in turn, by one act."""

    def __init__(self, name: str, to: Tier | None, act: Act) -> None:
        """`name` for logs; see MoveWork for `act`."""
        self.name = name
        self.removes = to is None or to == Tier.DELETED
        self._to = to
        self._act = act
        self._left: deque[MoveWork] | None = None
        self._failures: list[str] = []

    def prime(self, sweep: SweepContext, there: Mapping[Place, int], now_ms: int) -> bool:
        """Whether there may be something to move; `there`: the oldest of each class and tier. Saves asking for each rule."""
        self._left = deque(work for work in self._moves(sweep) if work.has_some(sweep, there, now_ms))
        return bool(self._left)

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        """A batch of the next move that may have something."""
        if self._left is None:
            self._left = deque(self._moves(sweep))
        while self._left:
            work = self._left.popleft()
            done = await self._try(work, sweep, limit)
            if done.more:
                self._left.append(work)
                return done
            if done.examined:
                break
        if self._failures and not self._left:
            raise DarnerError("; ".join(self._failures))
        return Done(more=bool(self._left))

    async def _try(self, work: MoveWork, sweep: SweepContext, limit: int) -> Done:
        """What one rule's jobs do must not stop those of the others."""
        try:
            return await work.batch(sweep, limit)
        except (LeaseLostError, SweepEndedError, UnavailableError, TimedOutError, StorageFullError):
            raise
        except DarnerError as error:
            self._failures.append(f"{work.name}: {error.message}")
            return Done()

    def _moves(self, sweep: SweepContext) -> list[MoveWork]:
        found = []
        for rule in deciding(sweep.order.policy):
            wanted = [move for move in moves(rule) if move.to == self._to]
            found += [MoveWork(move, self._act) for move in wanted]
            if rule.keep_last is not None:
                kept = [move for move in wanted if move.takes_last]
                found += [MoveWork(move, self._act, kept=True) for move in kept]
        return found
