"""From every released schema to the newest one: nothing is lost, no id comes twice, and no job goes earlier than it would have."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, UniqueConstraint, delete, event, insert, inspect, select
from tests.integration.db import released
from tests.integration.db.released import NUMBERED, POLICIES, Released

from darner.core.errors import ConflictError, DarnerError
from darner.db import Database, migrate, schema_of
from darner.db.tables import metadata
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_hold
from darner.retention.clock import BootReading
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.records import policy_version
from darner.retention.rules import Order, verdict
from darner.retention.sql.facts import FACTS, facts_of

REVISIONS = ("0001_base", "0002_jobs")
# What the newest schema says differently: classes and tiers are numbers, and all jobs are sorted anew.
CHANGED = {"job": {"class", "tier"}}


@pytest.fixture
def db(database_url: str) -> Any:
    opened = Database.open(database_url, patience_s=10)
    yield opened
    opened.close()


def assert_intact(db: Database, before: Released) -> None:
    """Every row of before is there, with every value that it had."""
    after = db.read_sync(lambda conn: released.read(conn, tuple(before.rows)))
    for table, rows in before.rows.items():
        kept = [{name: row[name] for name in row if name not in CHANGED.get(table, set())} for row in rows]
        assert [{name: row.get(name) for name in old} for row, old in zip(after[table], kept, strict=True)] == kept, table


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_row_is_kept_and_ids_go_on_after_the_highest_ever_given(db: Database, revision: str) -> None:
    before = released.make(db, revision, "many")
    newest = migrate(db)
    assert schema_of(db).present == newest
    assert db.read_sync(missing) == []
    assert_intact(db, before)
    for table in NUMBERED:
        if table in before.highest:
            assert db.write_sync(lambda conn, table=table: next_id(conn, table)) > before.highest[table], table  # type: ignore[misc]


def next_id(conn: Connection, name: str) -> int:
    """The id that the next row of a table gets."""
    table = metadata.tables[name]
    needed = [
        column for column in table.columns if not column.nullable and column.server_default is None and not column.primary_key
    ]
    values = {column.name: b"x" if "Binary" in str(column.type.__class__) else 1 for column in needed}
    texts = {column.name: f"new-{column.name}" for column in needed if column.type.python_type is str}
    made = conn.execute(insert(table).values(**values | texts)).inserted_primary_key
    assert made is not None
    conn.execute(delete(table).where(table.c.id == made[0]))
    return int(made[0])


def test_held_jobs_stay_held(db: Database) -> None:
    before = released.make(db, "0002_jobs", "seed")
    migrate(db)
    held = {row["id"]: row["hold_reason"] for row in before.rows["job"] if row["held"]}
    assert held
    rows = db.read_sync(lambda conn: conn.execute(select(retention_hold.c.job_id, retention_hold.c.reason)).all())
    assert {row.job_id: row.reason for row in rows} == held


def test_the_rules_forget_no_job_earlier_than_they_did(db: Database) -> None:
    before = released.make(db, "0002_jobs", "seed")
    stored = {name: released.store(db, rules) for name, rules in POLICIES.items()}
    migrate(db)

    def told(conn: Connection, version: int) -> dict[int, int | None]:
        order = Order(policy=policy_version(conn, version).policy)
        selected: Any = conn.execute(select(*FACTS)).all()
        return {row.id: verdict(row, order).forgotten_at for row in facts_of(conn, selected, order)}

    for name, rules in POLICIES.items():
        now = db.read_sync(lambda conn, name=name: told(conn, stored[name]))  # type: ignore[misc]
        for row in before.rows["job"]:
            assert now[row["id"]] == released.expiry(row, rules), (name, row)


@pytest.mark.parametrize("policy", ["seed", "from creation", "many"])
async def test_the_first_sweeps_remove_nothing_that_was_not_due_before(db: Database, policy: str) -> None:
    before = released.make(db, "0002_jobs", policy)
    migrate(db)
    config = SweepConfig(min_pause_s=0.0001, first_batch=20)
    async with RetentionEngine(db, config=config, boot_clock=lambda: BootReading(boot_id="boot-2", ms=1)) as engine:
        for _ in range(2):
            await engine.run(dry_run=False, by="tester", yes=True, accept_clock=True)
    left = set(db.read_sync(lambda conn: conn.execute(select(job.c.id)).scalars().all()))
    gone = [row for row in before.rows["job"] if row["id"] not in left]
    slack_ms = 60_000  # the sweep ran a moment after the rows were written
    assert all((expiry := released.expiry(row, before.policy)) is not None and expiry <= before.now_ms + slack_ms for row in gone)
    due = [row for row in before.rows["job"] if (at := released.expiry(row, before.policy)) is not None and at <= before.now_ms]
    assert len(gone) == len(due) > 0


def test_two_managers_upgrade_at_the_same_time(db: Database, database_url: str) -> None:
    before = released.make(db, "0002_jobs", "seed")
    others = [Database.open(database_url, patience_s=30) for _ in range(2)]
    results: list[str] = []
    threads = [threading.Thread(target=lambda one=one: results.append(migrate(one))) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.close()
    assert results == [schema_of(db).newest] * 2
    assert_intact(db, before)


class BreakageError(Exception):
    """Not a database's: nothing tries again."""


def statements(db: Database, break_at: int | None) -> Callable[[], int]:
    """Count changes of tables and rows from now on, and break off before the one with that number; the count so far."""
    done = 0

    def count(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal done
        if not statement.lstrip().upper().startswith(("ALTER", "CREATE", "DROP", "INSERT", "UPDATE", "DELETE")):
            return
        done += 1
        if done == break_at:
            raise BreakageError

    event.listen(db.engine, "before_cursor_execute", count)
    return lambda: done


def test_an_upgrade_that_breaks_off_anywhere_is_finished_by_the_next(db: Database, database_url: str) -> None:
    before = released.make(db, "0002_jobs", "seed")
    embedded_or_postgres = db.dialect != "mysql"
    breaking, step = 1, 7
    while True:
        broken = Database.open(database_url, patience_s=10)
        statements(broken, breaking)
        try:
            migrate(broken)
            break
        except BreakageError:
            if embedded_or_postgres:
                assert schema_of(db).present == "0002_jobs"
            breaking += step
        finally:
            broken.close()
    assert breaking > step * 3
    assert migrate(db) == schema_of(db).present
    assert_intact(db, before)
    holds = db.read_sync(lambda conn: len(conn.execute(select(retention_hold.c.id)).all()))
    assert holds == sum(row["held"] for row in before.rows["job"])
    assert db.read_sync(missing) == []


def missing(conn: Connection) -> list[str]:
    """Columns, defaults and indexes that the code knows and the database has not, or the other way round."""
    found, wrong = inspect(conn), []
    for table in metadata.sorted_tables:
        there = {column["name"]: column["default"] is not None for column in found.get_columns(table.name)}
        columns = there.keys() ^ {column.name for column in table.columns}
        wrong += [
            f"{table.name}.{column.name} default" for column in table.columns if column.server_default and not there[column.name]
        ]
        uniques = {str(one.name) for one in table.constraints if isinstance(one, UniqueConstraint)}
        indexes = {str(one["name"]) for one in found.get_indexes(table.name)} - uniques
        wrong += [f"{table.name}.{name}" for name in columns | (indexes ^ {str(one.name) for one in table.indexes})]
    return wrong


KILLED = "import sys; from darner.db import Database, migrate; print(migrate(Database.open(sys.argv[1])), flush=True)"


def test_kill_9_during_an_upgrade_loses_nothing(db: Database, database_url: str) -> None:
    before = released.make(db, "0002_jobs", "seed")
    for wait_s in (0.3, 0.5, 0.7, 0.9):
        process = subprocess.Popen([sys.executable, "-c", KILLED, database_url], stdout=subprocess.DEVNULL)
        threading.Event().wait(wait_s)
        process.kill()
        process.wait()
    assert migrate(db) == schema_of(db).newest
    assert_intact(db, before)


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_is_pending_is_told_and_a_newer_schema_is_refused(db: Database, revision: str) -> None:
    fresh = schema_of(db)
    assert (fresh.present, fresh.unknown, fresh.pending[:2]) == ("", False, REVISIONS)
    migrate(db, to=revision)
    found = schema_of(db)
    assert found.present == revision
    assert found.pending == fresh.pending[REVISIONS.index(revision) + 1 :]
    migrate(db)
    assert schema_of(db).pending == ()
    db.write_sync(lambda conn: conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_future'"))
    assert schema_of(db).unknown
    with pytest.raises(ConflictError, match="newer than this Darner"):
        migrate(db)


def test_a_reader_that_holds_a_table_delays_an_upgrade_and_does_not_break_it(db: Database, database_url: str) -> None:
    if db.dialect == "sqlite":
        pytest.skip("readers of SQLite hold up nobody")
    before = released.make(db, "0002_jobs", "seed")
    other = Database.open(database_url)
    reading = other.engine.connect()
    reading.exec_driver_sql("SELECT * FROM job LIMIT 1").all()
    threading.Timer(1.0, reading.close).start()
    try:
        assert migrate(db) == schema_of(db).newest
    except DarnerError as error:  # pragma: no cover  (shows what was said)
        pytest.fail(error.message)
    finally:
        other.close()
    assert_intact(db, before)
