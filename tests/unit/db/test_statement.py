"""Statements that are built once: what the drivers are given."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Integer, column, delete, insert, select, table, update
from sqlalchemy.dialects.mysql import pymysql
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.exc import OperationalError

from darner.core.errors import DarnerError
from darner.db import Database, Keys, Statement, among_keys, delete_among, given, migrate
from darner.db.tables.jobs import job_cluster

CLUSTERS = Statement(
    lambda dialect: (
        select(job_cluster.c.job_id, job_cluster.c.cluster_id.label("cluster"))
        .where(
            among_keys(dialect, job_cluster.c.job_id),
            job_cluster.c.cluster_id.in_([1, 2]),
            job_cluster.c.cluster_id >= given("least"),
        )
        .order_by(job_cluster.c.job_id)
        .limit(given("most", Integer))
    )
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database.open(f"sqlite:///{tmp_path}/x.db")
    migrate(made)
    rows = [{"job_id": key, "cluster_id": key % 4} for key in range(1, 41)]
    made.write_sync(lambda conn: conn.execute(insert(job_cluster), rows))
    yield made
    made.close()


def test_it_is_run_again_with_other_keys_and_values(db: Database) -> None:
    def asked(least: int, *keys: int, most: int = 100) -> list[tuple[int, int]]:
        found = db.read_sync(lambda conn: CLUSTERS.run(conn, Keys(keys), least=least, most=most).all())
        return [(row.job_id, row.cluster) for row in found]

    assert asked(1, 1, 2, 3, 4, 5) == [(1, 1), (2, 2), (5, 1)]
    assert asked(2, 1, 2, 3, 4, 5) == [(2, 2)]
    assert asked(1, *range(1, 41), most=2) == [(1, 1), (2, 2)]
    assert asked(1) == []


def test_a_value_that_is_missing_is_noticed(db: Database) -> None:
    with pytest.raises(KeyError):
        db.read_sync(lambda conn: CLUSTERS.run(conn, Keys([1]), least=1))


def test_changes_tell_how_many_rows(db: Database) -> None:
    change = Statement(
        lambda dialect: update(job_cluster).where(among_keys(dialect, job_cluster.c.job_id)).values(cluster_id=given("to"))
    )
    assert db.write_sync(lambda conn: change.run(conn, Keys([1, 2, 99]), to=7).rowcount) == 2
    assert db.write_sync(lambda conn: delete_among(conn, job_cluster, job_cluster.c.job_id, Keys([1, 2, 99]))) == 2
    assert db.write_sync(lambda conn: delete_among(conn, job_cluster, job_cluster.c.job_id, [])) == 0


def test_a_reader_cannot_write_with_it(db: Database) -> None:
    remove = Statement(lambda dialect: delete(job_cluster).where(among_keys(dialect, job_cluster.c.job_id)))
    with pytest.raises((OperationalError, DarnerError)):
        db.read_sync(lambda conn: remove.run(conn, Keys([1])))


def test_keys_can_use_an_index_on_every_dialect() -> None:
    rows = table("t", column("k"))
    for dialect, wanted in (
        (pymysql.dialect(), "t.k IN (/*keys*/)"),
        (psycopg.dialect(), "t.k = ANY (%(keys)s::BIGINT[])"),  # type: ignore[no-untyped-call]
    ):
        told = str(select(rows.c.k).where(among_keys(dialect.name, rows.c.k)).compile(dialect=dialect))  # type: ignore[arg-type]
        assert told.endswith(f"WHERE {wanted}")
