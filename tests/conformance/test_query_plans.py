"""Every statement that runs often walks an index, on every database: lists, leases, sweeps, the outbox."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Connection, Table, delete, insert, select, text

from darner.core.job import DetailState, Tier
from darner.db import Database, db_now_ms, migrate
from darner.db.bounded import keys_statement
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import JOB_TABLES, job, job_event, job_part
from darner.jobs.events import JobQuery
from darner.jobs.sql.lists import page_statement
from darner.jobs.sql.work import late_jobs, lost_leases, waiting
from darner.retention.export import outbox
from darner.retention.policy import Age, Rule, Stay
from darner.retention.rules import moves
from darner.retention.sql.classify import ended_statement, unsorted_statement
from darner.retention.sql.due import due_statement
from darner.retention.sql.groups import newest_statement, older_statement
from darner.retention.values import Cursor
from darner.testing.history import Shape, fill

JOBS = 2_000
# More keys than servers look for in an index one by one, if they are not told to.
MANY = 250
NOW = 1_800_000_000_000
STEP_MS = 500
AFTER = Cursor(base_at=NOW - 90_000_000, id=5)
HOT, WARM, ARCHIVE, UNDO = (Age(text=f"{hours}h", ms=hours * 3_600_000) for hours in (6, 12, 24, 1))
RULE = Rule(
    name="r",
    stays=(Stay(tier=Tier.HOT, until=HOT), Stay(tier=Tier.WARM, until=WARM), Stay(tier=Tier.ARCHIVE, until=ARCHIVE)),
    undo=UNDO,
    export="logs",
)
SINCE = NOW - JOBS * STEP_MS // 10
FAILED = (DetailState.FAILED, DetailState.PARTIAL)


def statements() -> Iterator[tuple[str, Any]]:
    yield "list", page_statement(JobQuery(), None)
    yield "list after", page_statement(JobQuery(), (NOW - 300_000, 1_400))
    yield "list of a state", page_statement(JobQuery(states=(DetailState.RUNNING,)), None)
    yield "list of states", page_statement(JobQuery(states=FAILED), (NOW - 300_000, 1_400))
    yield "list of a type", page_statement(JobQuery(type="delete_task"), None)
    yield "list of an owner", page_statement(JobQuery(owner="user-7"), None)
    yield "list since", page_statement(JobQuery(since_ms=SINCE), None)
    yield "parts to lease", waiting(1, 5, 10)
    yield "lost leases", lost_leases(5)
    yield "late jobs", late_jobs(5)
    for move in moves(RULE):
        yield f"due {move.start.word} to {move.to}", due_statement(move, 16, NOW + HOT.ms, after=AFTER, limit=9)
    for tier in (Tier.HOT, Tier.WARM, Tier.DELETED):
        yield f"to sort {tier.word}", ended_statement(0, tier, after=AFTER, limit=9)
    yield "unsorted", unsorted_statement()
    yield "newest of groups", text(newest_statement([5, 6], 3))
    yield "older of groups", text(older_statement({5: (NOW, 8, 3)}))
    yield "outbox", outbox.due_statement("logs", NOW, 100)
    yield "bounded keys", keys_statement(job, job.c.id.in_([1, 2, 3]), limit=3, order_by=[job.c.id])
    for table in JOB_TABLES:
        if table is not job:
            yield f"{table.name} of jobs", select(table).where(table.c.job_id.in_([1, 2]))


NAMED = dict(statements())


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    migrate(opened)
    fill(opened, Shape(jobs=JOBS, newest_ms=NOW, step_ms=STEP_MS, events=2, block=1_000))
    opened.write_sync(send)
    analyze(opened)
    yield opened
    opened.close()


def send(conn: Connection) -> None:
    """All jobs are on their way to a sink, most have arrived."""
    now = db_now_ms(conn)
    rows = [
        {"job_id": key, "sink": "logs", "created_at": now, "not_before": key, "acked_at": None if key % 40 == 0 else now}
        for key in range(1, JOBS + 1)
    ]
    conn.execute(insert(export_outbox), rows)


def analyze(db: Database) -> None:
    """Fresh statistics, as autovacuum and InnoDB keep them."""
    tables = [*JOB_TABLES, export_outbox]
    for table in tables:
        words = "ANALYZE TABLE" if db.dialect == "mysql" else "ANALYZE"
        db.write_sync(lambda conn, words=words, table=table: conn.exec_driver_sql(f"{words} {table.name}").close())  # type: ignore[misc]


def plan(conn: Connection, statement: ClauseElement) -> tuple[str, list[str]]:
    """The plan as text, and what is wrong with it."""
    sql = str(statement.compile(conn.engine, compile_kwargs={"literal_binds": True})).replace("%%", "%")
    if conn.dialect.name == "sqlite":
        return _sqlite([str(row[-1]) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")])
    if conn.dialect.name == "postgresql":
        told = conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}".replace("%", "%%")).scalar_one()
        return json.dumps(told), list(_postgresql(told[0]["Plan"]))
    rows = [dict(row) for row in conn.exec_driver_sql(f"EXPLAIN {sql}").mappings()]
    wrong = [f"reads all of {row['table']}" for row in rows if row["type"] == "ALL" and not str(row["table"]).startswith("<")]
    wrong += [f"sorts {row['table']}" for row in rows if "filesort" in str(row["Extra"]) and not str(row["table"]).startswith("<")]
    return str(rows), wrong


def _sqlite(lines: list[str]) -> tuple[str, list[str]]:
    wrong = [line for line in lines if line.startswith("SCAN ") and "USING" not in line and line.split()[1] in TABLES]
    # A merged page sorts the few rows of its walks, never a table.
    wrong += [f"sorts after {before}" for before, line in pairwise(lines) if "ORDER BY" in line and before.split()[1] in TABLES]
    return " | ".join(lines), wrong


def _postgresql(node: dict[str, Any]) -> Iterator[str]:
    # Reading all of a table of some pages costs less than its index: those of size matter.
    if node["Node Type"] == "Seq Scan" and node["Relation Name"] in {
        "job",
        "job_part",
        "job_event",
        "job_payload",
        "export_outbox",
    }:
        yield f"reads all of {node['Relation Name']}"
    for inner in node.get("Plans", []):
        yield from _postgresql(inner)


TABLES = {table.name for table in [*JOB_TABLES, export_outbox]}


def test_every_statement_that_runs_often_walks_an_index(db: Database) -> None:
    wrong = {}
    for name, statement in NAMED.items():
        told, found = db.read_sync(lambda conn, statement=statement: plan(conn, statement))  # type: ignore[misc]
        if found:
            wrong[name] = (found, told)
    assert not wrong, "\n".join(f"{name}: {found}\n   {told}" for name, (found, told) in wrong.items())


@pytest.mark.parametrize("table", [job_part, job_event], ids=str)
def test_what_belongs_to_many_jobs_is_deleted_by_an_index(db: Database, table: Table) -> None:
    if db.dialect == "postgresql":
        pytest.skip("it reads all of a table as small as this one, and is right")
    told, wrong = db.read_sync(lambda conn: plan(conn, delete(table).where(table.c.job_id.in_(range(1, MANY + 1)))))
    assert not wrong, told
