"""Servers that go away, refuse, wait, and break in the middle: what the caller learns, and that nothing is done twice."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from darner.core.errors import DarnerError, StorageFullError, UnavailableError
from darner.db import Database, batch_cap, bounded_delete, lean_binlog, migrate, replica_lag_s
from darner.db.tables.fleet import fleet_cluster
from darner.db.tables.retention import retention_mark
from darner.testing.databases import MariaDb, PostgreSql, Server
from darner.testing.proxy import CuttingProxy

KINDS = [pytest.param(kind, marks=pytest.mark.debian(kind.package), id=kind.kind) for kind in (MariaDb, PostgreSql)]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of its own, because it is stopped and killed here."""
    with request.param() as running:
        yield running


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    if not server.running:
        server.start()
    made = server.create()
    db = Database.open(made)
    migrate(db)
    db.write_sync(lambda conn: conn.execute(insert(retention_mark).values(name="count", body="0", changed_at=0)))
    db.close()
    yield made
    if not server.running:
        server.start()
    server.drop(made)


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    opened = Database.open(url, patience_s=1.5, lock_wait_s=1)
    yield opened
    opened.close()


def bump(conn: Connection) -> None:
    """Add one to a counter: doing it twice shows."""
    conn.execute(update(retention_mark).where(retention_mark.c.name == "count").values(changed_at=retention_mark.c.changed_at + 1))


def count(conn: Connection) -> int:
    return int(conn.execute(select(retention_mark.c.changed_at).where(retention_mark.c.name == "count")).scalar_one())


def add(conn: Connection, name: str) -> object:
    return conn.execute(insert(retention_mark).values(name=name, body="{}", changed_at=0))


def test_a_server_that_is_away_is_unavailable_and_is_used_again_when_it_is_back(server: Server, db: Database) -> None:
    db.write_sync(bump)
    server.stop()
    for call in (lambda: db.write_sync(bump), lambda: db.read_sync(count)):
        with pytest.raises(UnavailableError, match=r"does not answer.*Nothing was stored"):
            call()
    server.start()
    db.write_sync(bump)
    assert db.read_sync(count) == 2


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_calls_wait_for_a_server_that_is_restarted(server: Server, url: str, how: str) -> None:
    db = Database.open(url, patience_s=30)
    db.write_sync(bump)
    getattr(server, how)()
    back = threading.Timer(0.5, server.start)
    back.start()
    db.write_sync(bump)
    assert db.read_sync(count) == 2
    back.join()
    db.close()


def test_kill_9_of_the_server_loses_nothing_that_was_answered_and_does_nothing_twice(server: Server, url: str) -> None:
    db = Database.open(url, patience_s=30)
    told, unknown, stop = 0, 0, threading.Event()

    def write() -> None:
        nonlocal told, unknown
        while not stop.is_set():
            try:
                db.write_sync(bump)
                told += 1
            except UnavailableError as error:
                assert "while committing" in error.message  # noqa: PT017  (in a thread)
                unknown += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        threading.Event().wait(0.3)
        server.kill()
        server.start()
    threading.Event().wait(0.3)
    stop.set()
    writer.join()
    assert told <= db.read_sync(count) <= told + unknown
    assert told > 3
    db.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_of_unknown_outcome_is_told_and_not_tried_again(server: Server, url: str, when: str) -> None:
    with CuttingProxy(server.port, b"COMMIT") as proxy:
        db = Database.open(url.replace(f":{server.port}/", f":{proxy.port}/"), patience_s=10)
        db.write_sync(bump)
        calls = 0

        def once(conn: Connection) -> None:
            nonlocal calls
            calls += 1
            bump(conn)

        proxy.cut(when)
        with pytest.raises(UnavailableError, match="broke while committing"):
            db.write_sync(once)
        assert (calls, proxy.cuts) == (1, 1)
        assert db.read_sync(count) == (1 if when == "before" else 2)
        db.write_sync(bump)
        db.close()


def test_what_breaks_before_the_commit_is_tried_again(server: Server, url: str) -> None:
    with CuttingProxy(server.port, b"UPDATE RETENTION_MARK") as proxy:
        db = Database.open(url.replace(f":{server.port}/", f":{proxy.port}/"), patience_s=10)
        db.read_sync(count)
        proxy.cut("after")
        db.write_sync(bump)
        assert (db.read_sync(count), proxy.cuts) == (1, 1)
        db.close()


def test_once_a_server_has_been_away_for_long_nobody_waits_until_it_is_back(server: Server, db: Database) -> None:
    db.write_sync(bump)
    server.stop()
    with pytest.raises(UnavailableError):
        db.write_sync(bump)
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(UnavailableError, match="does not answer"):
            db.read_sync(count)
    assert time.monotonic() - began < 1
    server.start()
    db.write_sync(bump)
    server.stop()
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        db.read_sync(count)
    assert time.monotonic() - began > 0.5
    server.start()


def test_a_deadlock_is_tried_again_and_both_are_done(db: Database, url: str) -> None:
    db.write_sync(lambda conn: [add(conn, name) for name in ("a", "b")])
    meeting = threading.Barrier(2)
    attempts: list[str] = []

    def cross(first: str, second: str) -> None:
        def both(conn: Connection) -> None:
            attempts.append(first)
            for name in (first, second):
                row = retention_mark.c.name == name
                conn.execute(update(retention_mark).where(row).values(changed_at=retention_mark.c.changed_at + 1))
                if name == first:
                    with contextlib.suppress(threading.BrokenBarrierError):
                        meeting.wait(0.5)

        own = Database.open(url, patience_s=10, lock_wait_s=5)
        own.write_sync(both)
        own.close()

    threads = [threading.Thread(target=cross, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = select(func.sum(retention_mark.c.changed_at)).where(retention_mark.c.name.in_(["a", "b"]))
    assert db.read_sync(lambda conn: int(conn.execute(total).scalar_one())) == 4
    assert len(attempts) >= 3


def test_a_lock_that_another_holds_is_waited_for_but_not_for_ever(db: Database, url: str) -> None:
    other = Database.open(url)
    holder = other.engine.connect()
    holder.execute(update(retention_mark).values(body="held"))
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"is busy.*Nothing was stored"):
        db.write_sync(bump)
    assert time.monotonic() - began < 10
    patient = Database.open(url, patience_s=20, lock_wait_s=1)
    threading.Timer(1.5, holder.rollback).start()
    patient.write_sync(bump)
    assert db.read_sync(count) == 1
    holder.close()
    for one in (other, patient):
        one.close()


def make_read_only(server: Server, url: str, *, on: bool) -> None:
    name = url.rpartition("/")[2]
    if server.kind == "postgresql":
        server.administer(f"ALTER DATABASE {name} SET default_transaction_read_only = {'on' if on else 'off'}")
        server.administer(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
    else:
        server.administer(f"SET GLOBAL read_only = {int(on)}")


def test_a_read_only_server_is_told_loses_nothing_and_is_written_to_again(server: Server, url: str, db: Database) -> None:
    db.write_sync(bump)
    make_read_only(server, url, on=True)
    with pytest.raises(UnavailableError, match=r"is read-only.*primary"):
        db.write_sync(bump)
    assert db.read_sync(count) == 1
    if server.kind == "postgresql":  # sessions keep what they began with: only new connections see the change
        server.administer(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = off")
    else:
        make_read_only(server, url, on=False)
    db.write_sync(bump)
    assert db.read_sync(count) == 2


def test_a_refused_login_is_told_at_once_and_without_the_password(server: Server, url: str) -> None:
    wrong = [url.replace("not-a-secret", "wr0ng-pass"), f"{url}_not_there"]
    if server.kind == "postgresql":
        wrong = [url.replace("darner:not-a-secret", "nobody:wr0ng-pass"), f"{url}_not_there"]
    for one in wrong:
        db = Database.open(one, patience_s=30)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="refuses the login") as caught:
            db.read_sync(count)
        assert time.monotonic() - began < 5
        assert "wr0ng" not in caught.value.message
        db.close()


def test_a_time_limit_of_the_server_is_told(server: Server, url: str) -> None:
    db = Database.open(url, patience_s=1)

    def slowly(conn: Connection) -> None:
        if server.kind == "postgresql":
            conn.exec_driver_sql("SET LOCAL statement_timeout = '100ms'")
            conn.exec_driver_sql("SELECT pg_sleep(5)")
        else:
            conn.exec_driver_sql("SET SESSION max_statement_time = 0.1")
            columns = "information_schema.columns"
            conn.exec_driver_sql(f"SELECT count(*) FROM {columns} a, {columns} b, {columns} c WHERE a.column_name > c.column_name")  # noqa: S608

    with pytest.raises(DarnerError, match="its own time limit"):
        db.read_sync(slowly)
    db.close()


def test_a_full_disk_of_the_server_is_storage_full() -> None:
    class FullError(Exception):
        sqlstate = "53100"

    from sqlalchemy import exc

    from darner.db import failures

    told = failures.translate(exc.OperationalError("x", None, FullError("could not extend file")), "db")
    assert isinstance(told, StorageFullError)
    for said in ("(1030, 'Got error 28 \"No space left on device\" from storage engine InnoDB')", "The table 'job' is full"):
        code = 1114 if "full" in said else 1030
        told = failures.translate(exc.OperationalError("x", None, Exception(code, said)), "db")
        assert isinstance(told, StorageFullError), said


@pytest.mark.debian("mariadb-server")
def test_ids_go_on_after_a_restart_though_the_highest_were_deleted(server: Server, db: Database) -> None:
    texts = dict.fromkeys(("config", "client_config", "seed_client_config", "scopes"), "{}")

    def put(conn: Connection) -> int:
        made = conn.execute(insert(fleet_cluster).values(name=f"c{time.monotonic_ns()}", **texts, created_at=1, updated_at=1))
        assert made.inserted_primary_key is not None
        return int(made.inserted_primary_key[0])

    highest = [db.write_sync(put) for _ in range(5)][-1]
    db.write_sync(lambda conn: bounded_delete(conn, fleet_cluster, fleet_cluster.c.id > 0, limit=9, order_by=[fleet_cluster.c.id]))
    server.kill()
    server.start()
    assert db.write_sync(put) > highest


def test_binary_logs_are_lean_where_that_is_allowed_and_only_in_that_transaction(server: Server, url: str) -> None:
    if server.kind != "mariadb":
        db = Database.open(url)
        assert not db.write_sync(lean_binlog)
        db.close()
        return
    image = text("SELECT @@session.binlog_row_image")
    db = Database.open(url)
    assert not db.write_sync(lean_binlog)
    assert not db.write_sync(lambda conn: (add(conn, "after the refusal"), lean_binlog(conn))[1])
    db.close()
    server.administer("GRANT BINLOG ADMIN ON *.* TO darner@'127.0.0.1'")
    try:
        db = Database.open(url)
        assert db.write_sync(lambda conn: (lean_binlog(conn), conn.execute(image).scalar())) == (True, "MINIMAL")
        assert {db.write_sync(lambda conn: conn.execute(image).scalar()) for _ in range(5)} == {"FULL"}
        with pytest.raises(ZeroDivisionError):
            db.write_sync(lambda conn: lean_binlog(conn) and 1 / 0)
        assert db.write_sync(lambda conn: conn.execute(image).scalar()) == "FULL"
        db.close()
    finally:
        server.administer("REVOKE BINLOG ADMIN ON *.* FROM darner@'127.0.0.1'")


def test_a_single_server_has_no_cap_and_no_lag(db: Database) -> None:
    assert db.read_sync(batch_cap) is None
    assert db.read_sync(replica_lag_s) is None
