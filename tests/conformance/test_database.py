"""What every database must do for Darner."""

import threading
import time
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, UniqueConstraint, delete, func, insert, inspect, select, text, update

from darner.core.errors import ConflictError, DarnerError, InvalidInputError
from darner.db import (
    Database,
    LeaseLostError,
    acquire_lease,
    bounded_delete,
    bounded_update,
    check_lease,
    db_now_ms,
    lock_ids,
    migrate,
    release_lease,
    renew_lease,
)
from darner.db.tables import metadata
from darner.db.tables.access import access_token
from darner.db.tables.fleet import fleet_cluster
from darner.db.tables.retention import lease


@pytest.fixture
def db(database: Database) -> Database:
    return database


def add_cluster(conn: Connection, name: str, *, created_at: int = 7) -> int:
    texts = dict.fromkeys(("config", "client_config", "seed_client_config", "scopes"), "{}")
    made = conn.execute(insert(fleet_cluster).values(name=name, created_at=created_at, updated_at=9, **texts)).inserted_primary_key
    assert made is not None
    return int(made[0])


def names(conn: Connection) -> list[str]:
    return list(conn.execute(select(fleet_cluster.c.name).order_by(fleet_cluster.c.id)).scalars())


def test_ids_are_never_used_again(db: Database) -> None:
    db.write_sync(lambda conn: add_cluster(conn, "old"))
    newest = db.write_sync(lambda conn: add_cluster(conn, "newest"))
    db.write_sync(lambda conn: conn.execute(delete(fleet_cluster).where(fleet_cluster.c.id == newest)))
    assert db.write_sync(lambda conn: add_cluster(conn, "newer")) > newest


def test_the_migrations_make_exactly_the_tables_the_code_knows(db: Database) -> None:
    def differences(conn: Connection) -> list[object]:
        found = [one for one in compare_metadata(MigrationContext.configure(conn), metadata) if not is_index(one)]
        return [*found, *index_differences(conn)]

    assert db.read_sync(differences) == []


def is_index(difference: Any) -> bool:
    return isinstance(difference, tuple) and difference[0] in {"add_index", "remove_index"}


def index_differences(conn: Connection) -> list[object]:
    """Alembic's own comparison does not know that every index of SQLite ends with the key, so that `id` is left away there."""
    found: list[object] = []
    for table in metadata.sorted_tables:
        there = {one["name"]: one for one in inspect(conn).get_indexes(table.name) if "duplicates_constraint" not in one}
        unique = {str(one.name) for one in table.constraints if isinstance(one, UniqueConstraint)}
        if names := {str(one.name) for one in table.indexes} ^ ({str(name) for name in there} - unique):
            found.append((table.name, names))
        for index in table.indexes:
            columns = [column.name for column in index.columns]
            allowed = [columns, columns[:-1]] if conn.dialect.name == "sqlite" and columns[-1] == "id" else [columns]
            told = there.get(str(index.name))
            if told is not None and (told["column_names"] not in allowed or bool(told["unique"]) != bool(index.unique)):
                found.append((index.name, told))
    return found


def test_migrating_again_changes_nothing(db: Database) -> None:
    db.write_sync(lambda conn: add_cluster(conn, "kept"))
    assert migrate(db) == migrate(db)
    assert db.read_sync(names) == ["kept"]


def test_two_managers_may_migrate_at_the_same_time(database_url: str) -> None:
    first, second = Database.open(database_url, patience_s=30), Database.open(database_url, patience_s=30)
    results: list[str] = []
    threads = [threading.Thread(target=lambda db=db: results.append(migrate(db))) for db in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first.close()
    second.close()
    assert len(results) == 2
    assert results[0] == results[1]


def test_a_newer_schema_is_refused_and_left_alone(db: Database) -> None:
    db.write_sync(lambda conn: conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_future'"))
    with pytest.raises(ConflictError, match=r"9999_future.*newer than this Darner"):
        migrate(db)
    assert db.read_sync(lambda conn: conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()) == "9999_future"


def test_what_fails_half_way_leaves_nothing(db: Database) -> None:
    def half(conn: Connection) -> None:
        add_cluster(conn, "half")
        raise InvalidInputError("the second half is wrong")

    with pytest.raises(InvalidInputError):
        db.write_sync(half)
    assert db.read_sync(names) == []


def test_a_contradiction_is_a_conflict_without_values_in_the_text(db: Database) -> None:
    db.write_sync(lambda conn: add_cluster(conn, "same"))
    with pytest.raises(ConflictError):
        db.write_sync(lambda conn: add_cluster(conn, "same"))


def test_a_read_sees_one_moment(db: Database) -> None:
    if db.dialect != "sqlite":
        pytest.skip("servers read committed rows")
    db.write_sync(lambda conn: add_cluster(conn, "before"))

    def count_twice(conn: Connection) -> tuple[int, int]:
        one = len(names(conn))
        writer = threading.Thread(target=lambda: db.write_sync(lambda other: add_cluster(other, "between")))
        writer.start()
        writer.join()
        return one, len(names(conn))

    assert db.read_sync(count_twice) == (1, 1)


def test_the_bound_of_a_delete_holds_and_the_order_decides(db: Database) -> None:
    for index in range(7):
        db.write_sync(lambda conn, index=index: add_cluster(conn, f"c{index}", created_at=100 - index))  # type: ignore[misc]

    def remove(conn: Connection) -> int:
        return bounded_delete(conn, fleet_cluster, fleet_cluster.c.id > 0, limit=3, order_by=[fleet_cluster.c.created_at])

    assert db.write_sync(remove) == 3
    assert db.read_sync(names) == ["c0", "c1", "c2", "c3"]


def test_the_bound_of_an_update_holds(db: Database) -> None:
    for index in range(5):
        db.write_sync(lambda conn, index=index: add_cluster(conn, f"c{index}"))  # type: ignore[misc]
    changed = db.write_sync(
        lambda conn: bounded_update(
            conn, fleet_cluster, fleet_cluster.c.bio == "", {"bio": "x"}, limit=2, order_by=[fleet_cluster.c.id]
        )
    )
    assert changed == 2
    marked = select(func.count()).select_from(fleet_cluster).where(fleet_cluster.c.bio == "x")
    assert db.read_sync(lambda conn: conn.execute(marked).scalar()) == 2


def test_ids_are_locked_in_order(db: Database) -> None:
    ids = [db.write_sync(lambda conn, i=i: add_cluster(conn, f"c{i}", created_at=50 - i)) for i in range(4)]  # type: ignore[misc]
    order = [fleet_cluster.c.created_at]
    found = db.write_sync(lambda conn: lock_ids(conn, fleet_cluster, fleet_cluster.c.id > 0, limit=2, order_by=order))
    assert found == [ids[3], ids[2]]


def test_the_database_has_a_clock_in_milliseconds(db: Database) -> None:
    before = time.time() * 1000
    told = db.read_sync(db_now_ms)
    assert before - 2000 < told < time.time() * 1000 + 2000


def test_a_lease_has_one_holder_and_its_epoch_only_grows(db: Database) -> None:
    first = db.write_sync(lambda conn: acquire_lease(conn, "sweep", "a", ttl_s=60))
    assert first is not None
    assert db.write_sync(lambda conn: acquire_lease(conn, "sweep", "b", ttl_s=60)) is None
    renewed = db.write_sync(lambda conn: renew_lease(conn, first, ttl_s=60))
    assert renewed.epoch == first.epoch
    db.write_sync(lambda conn: release_lease(conn, first))
    second = db.write_sync(lambda conn: acquire_lease(conn, "sweep", "b", ttl_s=60))
    assert second is not None
    assert second.epoch > first.epoch


def test_a_lease_that_a_wrong_clock_gave_for_years_ends_in_time(db: Database) -> None:
    held = db.write_sync(lambda conn: acquire_lease(conn, "sweep", "a", ttl_s=60))
    assert held is not None
    years = update(lease).where(lease.c.name == "sweep").values(until=held.until_ms + 10**11)
    db.write_sync(lambda conn: conn.execute(years))
    assert db.write_sync(lambda conn: acquire_lease(conn, "sweep", "b", ttl_s=60)) is None
    until = db.read_sync(lambda conn: conn.execute(select(lease.c.until).where(lease.c.name == "sweep")).scalar_one())
    assert until <= held.until_ms + 120_000
    # Its holder, if it lives, renews it and goes on.
    assert db.write_sync(lambda conn: renew_lease(conn, held, ttl_s=60)).epoch == held.epoch


def test_a_lease_that_was_never_held_goes_to_one_of_those_who_ask_at_once(db: Database) -> None:
    for attempt in range(5):
        meeting = threading.Barrier(4)
        got: list[object] = []

        def ask(holder: str, name: str = f"new-{attempt}", meeting: threading.Barrier = meeting, got: list[object] = got) -> None:
            meeting.wait()
            got.append(db.write_sync(lambda conn: acquire_lease(conn, name, holder, ttl_s=60)))

        threads = [threading.Thread(target=ask, args=(f"m{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 4
        assert sum(one is not None for one in got) == 1


def test_a_stale_holder_is_fenced_off(db: Database) -> None:
    stale = db.write_sync(lambda conn: acquire_lease(conn, "sweep", "a", ttl_s=0.001))
    assert stale is not None
    time.sleep(0.01)
    with pytest.raises(LeaseLostError):
        db.write_sync(lambda conn: check_lease(conn, stale))
    assert db.write_sync(lambda conn: acquire_lease(conn, "sweep", "b", ttl_s=60)) is not None
    with pytest.raises(LeaseLostError):
        db.write_sync(lambda conn: renew_lease(conn, stale, ttl_s=60))
    db.write_sync(lambda conn: release_lease(conn, stale))
    assert db.write_sync(lambda conn: acquire_lease(conn, "sweep", "c", ttl_s=60)) is None


async def test_many_writers_and_readers_lose_nothing(db: Database) -> None:
    import asyncio

    await db.write(lambda conn: add_cluster(conn, "counter"))
    bump = update(fleet_cluster).values(created_at=fleet_cluster.c.created_at + 1)
    reads = [db.read(names) for _ in range(40)]
    await asyncio.gather(*[db.write(lambda conn: conn.execute(bump), durable=False) for _ in range(40)], *reads)
    assert await db.read(lambda conn: conn.execute(select(fleet_cluster.c.created_at)).scalar()) == 47


def test_long_and_foreign_text_comes_back_whole(db: Database) -> None:
    long = "Größe 🐉 " * 20_000
    db.write_sync(lambda conn: add_cluster(conn, "long"))
    db.write_sync(lambda conn: conn.execute(update(fleet_cluster).values(config=long)))
    assert db.read_sync(lambda conn: conn.execute(select(fleet_cluster.c.config)).scalar()) == long


def test_names_differ_by_case(db: Database) -> None:
    db.write_sync(lambda conn: (add_cluster(conn, "Name"), add_cluster(conn, "name")))
    assert db.read_sync(names) == ["Name", "name"]


def test_every_error_is_one_of_ours(db: Database) -> None:
    with pytest.raises(DarnerError) as caught:
        db.read_sync(lambda conn: conn.execute(text("SELECT nothing FROM nowhere")))
    assert "SELECT" not in caught.value.message
    assert access_token.name not in caught.value.message


def test_a_manager_that_was_overtaken_by_an_upgrade_takes_no_lease(db: Database) -> None:
    db.write_sync(lambda conn: conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_future'"))
    with pytest.raises(ConflictError, match=r"upgraded to schema 9999_future"):
        db.write_sync(lambda conn: acquire_lease(conn, "sweep", "old", ttl_s=60))
