"""The sweeper's statements: portable, bounded, and by an index without sorting."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import ClauseElement, event, func, select, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from tests.integration.retention.history import ENDED, History
from tests.integration.retention.sweeping import engine_of, seeded, swept

from darner.core.job import Tier
from darner.db import Database
from darner.db.tables.jobs import JOB_TABLES, job
from darner.retention.policy import Age, Rule, Stay
from darner.retention.rules import Move, moves
from darner.retention.sql.classify import ended_statement, unsorted_statement
from darner.retention.sql.due import due_statement, due_where, job_class
from darner.retention.sql.groups import newest_statement, older_statement
from darner.retention.values import Cursor

NOW = 1_800_000_000_000
AFTER = Cursor(base_at=7, id=9)
HOUR = Age(text="6h", ms=21_600_000)
RULE = Rule(
    name="r",
    stays=(Stay(tier=Tier.HOT, until=HOUR), Stay(tier=Tier.WARM, until=HOUR), Stay(tier=Tier.ARCHIVE, until=HOUR)),
    undo=HOUR,
    export="logs",
)
DIALECTS = {"sqlite": sqlite.dialect(), "mysql": mysql.dialect(), "postgresql": postgresql.dialect()}  # type: ignore[no-untyped-call]


def statements() -> Iterator[tuple[str, Any]]:
    for move in moves(RULE):
        yield f"due {move.start.word} {move.to}", due_statement(move, 16, NOW, after=AFTER, limit=9)
    for tier in (Tier.HOT, Tier.WARM, Tier.DELETED):
        yield f"ended {tier.word}", ended_statement(0, tier, after=AFTER, limit=9)
    yield "unsorted", unsorted_statement()


NAMED = dict(statements())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", NAMED)
def test_every_choice_is_bounded_locked_and_has_the_floor(dialect: str, name: str) -> None:
    told = str(NAMED[name].compile(dialect=DIALECTS[dialect], compile_kwargs={"literal_binds": True}))
    assert "LIMIT " in told
    assert "ORDER BY job.base_at, job.id" in told
    if dialect != "sqlite" and name != "unsorted":
        assert told.endswith("FOR UPDATE SKIP LOCKED")
    if name.startswith("due"):
        assert "job.held = 0" in told
        assert f"job.finished_at <= {NOW - 3_600_000}" in told
        assert "job.state IN ('CANCELLED', 'FAILED', 'PARTIAL', 'SUCCEEDED', 'TIMED_OUT')" in told
        assert ("export_outbox" in told) is not name.endswith(" 1")


def plan(db: Database, statement: ClauseElement | str) -> str:
    written = {"literal_binds": True}
    compiled = statement if isinstance(statement, str) else statement.compile(dialect=db.engine.dialect, compile_kwargs=written)
    return " | ".join(row[3] for row in db.read_sync(lambda conn: conn.execute(text(f"EXPLAIN QUERY PLAN {compiled}")).all()))


@pytest.mark.parametrize("name", NAMED)
async def test_every_choice_walks_the_index_without_sorting(history: History, name: str) -> None:
    for state in ENDED * 8:
        history.add(state, ended_h=8)
    told = plan(history.db, NAMED[name])
    assert "ix_job_class (class=? AND tier=? AND base_at>?" in told, told
    assert "TEMP B-TREE" not in told, told
    assert "SCAN" not in told, told


async def test_counting_what_is_due_reads_a_range_of_the_index(history: History) -> None:
    for move in moves(Rule(name="r", stays=(Stay(tier=Tier.HOT, until=HOUR),))):
        told = plan(history.db, select(func.count()).where(due_where(move, job_class == 16, NOW)))
        assert "ix_job_class (class=? AND tier=? AND base_at<?)" in told, told


async def test_groups_are_walked_from_their_newest(history: History) -> None:
    for statement in (newest_statement([5, -6], 3), older_statement({5: (7, 8, 9), -6: (7, 8, 9)})):
        told = plan(history.db, statement)
        assert "ix_job_group_group_key" in told, told
        assert "TEMP B-TREE" not in told, told
        assert "SCAN g" not in told, told
        assert "SCAN j" not in told, told


async def test_every_child_is_found_by_an_index(history: History) -> None:
    for table in JOB_TABLES:
        if table is not job:
            told = plan(history.db, select(table).where(table.c.job_id.in_([1, 2])))
            assert "SEARCH" in told
            assert "SCAN" not in told, told


async def test_the_fence_and_what_a_sweep_asks_first_read_single_rows(history: History) -> None:
    await seeded(history.db)
    async with noted(history.db) as seen, engine_of(history.db) as engine:
        await engine.run(dry_run=False, by="t")
    asked = [one for one in seen if one.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE"))]
    assert asked
    for one in asked:
        scans = [step for step in steps(history.db, one) if step.startswith("SCAN ") and "CONSTANT" not in step]
        assert all("job" not in scan.split()[1] for scan in scans), (one, scans)


async def test_a_batch_finds_its_jobs_by_their_ids_whatever_else_it_asks_of_them(history: History) -> None:
    """Not by an index on what else is asked, which all that is kept fulfils as well: a batch would walk the whole history."""
    await seeded(history.db)
    for number in range(12):
        history.add("SUCCEEDED", ended_h=9, url=f"http://x/{number % 3}")
    async with noted(history.db) as seen, engine_of(history.db) as engine:
        for undo, last in (("1h", 2), ("1h", 1), (None, None)):
            rule = {"name": "r", "hot": "6h", "undo": undo, "keep_last": last and {"count": last, "per": "url"}}
            await engine.set_policy({"rules": [{key: value for key, value in rule.items() if value}]}, by="t")
            await swept(engine, yes=True)
    writes = {one for one in seen if one.startswith(("UPDATE job SET", "DELETE FROM job WHERE")) and "json_each" in one}
    assert {"tier" in one for one in writes} == {True, False}, writes
    assert any(one.startswith("DELETE") for one in writes)
    for one in writes:
        assert steps(history.db, one)[0] == "SEARCH job USING INTEGER PRIMARY KEY (rowid=?)", (one, steps(history.db, one))


@asynccontextmanager
async def noted(db: Database) -> AsyncIterator[list[str]]:
    """The statements that are run meanwhile."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool) -> None:
        seen.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def steps(db: Database, statement: str) -> list[str]:
    asked = f"EXPLAIN QUERY PLAN {statement}"
    return [str(row[3]) for row in db.read_sync(lambda conn: conn.exec_driver_sql(asked, (1,) * statement.count("?")).all())]


def test_a_move_that_is_lossless_does_not_wait_for_the_sink() -> None:
    fold = Move(rule=RULE, start=Tier.HOT, to=Tier.WARM, age=HOUR)
    assert "export_outbox" not in str(due_statement(fold, 16, NOW, after=AFTER, limit=9))
