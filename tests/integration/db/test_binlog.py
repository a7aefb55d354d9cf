"""What removing jobs costs a replicated MariaDB: bytes of binary log per job."""

import pytest
from sqlalchemy import create_engine, select, text

from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import job
from darner.retention.sql.remove import erase_jobs
from darner.testing.databases import PASSWORD, MariaDb
from darner.testing.history import Shape, fill

JOBS = 200
pytestmark = pytest.mark.debian("mariadb-server")


def position(server: MariaDb) -> int:
    """Bytes written to the binary log since it was emptied."""
    engine = create_engine(f"mysql+pymysql://administrator:{PASSWORD}@127.0.0.1:{server.port}/")
    with engine.connect() as conn:
        found = int(conn.execute(text("SHOW MASTER STATUS")).mappings().one()["Position"])
    engine.dispose()
    return found


def log_of_removal(server: MariaDb, url: str) -> float:
    """Bytes per job."""
    db = Database.open(url)
    migrate(db)
    fill(db, Shape(jobs=JOBS, newest_ms=db.read_sync(db_now_ms) - 90_000_000, block=JOBS))
    ids = db.read_sync(lambda conn: list(conn.execute(select(job.c.id)).scalars()))
    server.administer("FLUSH BINARY LOGS")
    before = position(server)
    db.write_sync(lambda conn: erase_jobs(conn, ids, db_now_ms(conn)))
    taken = (position(server) - before) / JOBS
    assert db.read_sync(lambda conn: conn.execute(select(job.c.id)).first()) is None
    db.close()
    return taken


def test_with_the_privilege_removed_jobs_are_named_by_their_keys_alone(mariadb_server: MariaDb) -> None:
    full = log_of_removal(mariadb_server, mariadb_server.create())
    mariadb_server.administer("GRANT BINLOG ADMIN ON *.* TO darner@'127.0.0.1'")
    try:
        lean = log_of_removal(mariadb_server, mariadb_server.create())
    finally:
        mariadb_server.administer("REVOKE BINLOG ADMIN ON *.* FROM darner@'127.0.0.1'")
    print(f"binary log per removed job: {full:.0f} B, with BINLOG ADMIN {lean:.0f} B")  # noqa: T201
    assert full > 2_000
    assert lean < 300
