"""`darner db check`, `upgrade` and `size`: what is said of databases that are as they should be, and of others."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from darner.app.cli import run_command as run
from darner.db import Database, db_now_ms, migrate, schema_of
from darner.db.checks import Finding, Level, check
from darner.db.sizes import sizes
from darner.db.tables.fleet import fleet_cluster
from darner.testing.databases import MariaDb, PostgreSql
from darner.testing.history import Shape, fill

TEXTS = dict.fromkeys(("config", "client_config", "seed_client_config", "scopes"), "{}")


def by_name(found: list[Finding]) -> dict[str, Finding]:
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def bad(found: list[Finding]) -> set[str]:
    return {one.name for one in found if one.level == Level.FAIL}


def test_a_database_as_it_should_be(database: Database) -> None:
    found = by_name(check(database))
    assert not bad(list(found.values())), found
    assert found["schema"].value == schema_of(database).newest
    assert found["clock"].level == Level.OK
    assert all(bool(one.hint) == (one.level != Level.OK) for one in found.values())
    tested_without_fsync = {"fsync", "full_page_writes", "flush_log", "sync_binlog", "binlog"}
    assert {one.name for one in found.values() if one.level == Level.WARN} <= tested_without_fsync


def test_schemas_older_newer_and_none(database_url: str) -> None:
    db = Database.open(database_url)
    assert by_name(check(db))["schema"].value == "empty"
    migrate(db, to="0002_jobs")
    older = by_name(check(db))["schema"]
    assert (older.level, older.value) == (Level.WARN, f"0002_jobs, older than {schema_of(db).newest}")
    assert "darner db upgrade" in older.hint
    db.write_sync(lambda conn: conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_future'"))
    newer = by_name(check(db))["schema"]
    assert (newer.level, "newer than" in newer.value) == (Level.FAIL, True)
    db.close()


def test_sizes_of_all_tables(database: Database) -> None:
    fill(database, Shape(jobs=300, newest_ms=database.read_sync(db_now_ms), block=300))
    if database.dialect != "sqlite":
        words = "ANALYZE TABLE" if database.dialect == "mysql" else "ANALYZE"
        for table in ("job", "job_event", "job_payload"):
            database.write_sync(lambda conn, table=table: conn.exec_driver_sql(f"{words} {table}").close())  # type: ignore[misc]
    found = database.read_sync(sizes)
    tables = {one.name: one for one in found.tables}
    off = 0 if database.dialect == "sqlite" else 0.6  # servers estimate from some pages
    assert abs(tables["job"].rows - 300) <= 300 * off
    assert abs(tables["job_event"].rows - 1200) <= 1200 * off
    assert tables["job_payload"].bytes > 300 * 1_500
    assert 0 < tables["job"].index_bytes < tables["job"].bytes
    assert found.bytes >= sum(one.bytes for one in found.tables) * 0.9
    assert [one.bytes for one in found.tables] == sorted((one.bytes for one in found.tables), reverse=True)


def test_the_fast_check_does_not_read_the_whole_file(database: Database) -> None:
    assert by_name(check(database)).keys() - by_name(check(database, fast=True)).keys() <= {"integrity"}


def test_a_file_made_by_somebody_else(tmp_path: Path) -> None:
    file = tmp_path / "d.db"
    sqlite3.connect(file).execute("CREATE TABLE x (y)").connection.close()
    file.chmod(0o644)
    db = Database.open(f"sqlite:///{file}")
    found = by_name(check(db))
    assert {name for name, one in found.items() if one.level == Level.WARN} >= {"page_size", "auto_vacuum", "mode", "schema"}
    db.close()


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "d.db"
    db = Database.open(f"sqlite:///{file}")
    migrate(db)
    fill(db, Shape(jobs=200, newest_ms=1_800_000_000_000, block=200))
    db.write_sync(lambda conn: conn.exec_driver_sql("PRAGMA user_version = 1"))
    db.close()
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    size = file.stat().st_size
    with file.open("r+b") as out:
        out.seek(size - 80_000)
        out.write(os.urandom(40_000))
    db = Database.open(f"sqlite:///{file}")
    found = by_name(check(db))
    assert found["integrity"].level == Level.FAIL
    assert ".recover" in found["integrity"].hint
    db.close()


@pytest.mark.debian("postgresql")
def test_sequences_that_a_dump_left_behind_and_vacuum_that_is_off(postgresql_server: PostgreSql) -> None:
    url = postgresql_server.create()
    db = Database.open(url)
    migrate(db)
    row = {"name": "loaded", **TEXTS, "created_at": 1, "updated_at": 1}
    db.write_sync(lambda conn: conn.execute(insert(fleet_cluster).values(id=77, **row)))
    db.write_sync(lambda conn: conn.exec_driver_sql("ALTER TABLE job SET (autovacuum_enabled = false)"))
    found = by_name(check(db))
    assert bad(list(found.values())) == {"sequences"}
    assert "fleet_cluster_id_seq (0 < 77)" in found["sequences"].value
    assert found["autovacuum_tables"].level == Level.WARN
    db.close()
    name = url.rpartition("/")[2]
    postgresql_server.administer(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    db = Database.open(url)
    assert "read_only" in bad(check(db))
    db.close()
    postgresql_server.drop(url)


@pytest.mark.debian("mariadb-server")
def test_what_a_user_may_do_about_the_binary_log(mariadb_server: MariaDb) -> None:
    url = mariadb_server.create()
    db = Database.open(url)
    found = by_name(check(db))
    assert found["binlog"].level == Level.WARN
    assert "BINLOG ADMIN" in found["binlog"].hint
    assert found["replica_lag"].value == "not a replica, or not readable"
    db.write_sync(lambda conn: conn.exec_driver_sql("CREATE TABLE job (id INT) ENGINE=Aria CHARACTER SET latin1"))
    assert bad(check(db)) == {"tables"}
    db.close()
    mariadb_server.administer("GRANT BINLOG ADMIN ON *.* TO darner@'127.0.0.1'")
    db = Database.open(url)
    assert by_name(check(db))["binlog"].level == Level.OK
    db.close()
    mariadb_server.administer("REVOKE BINLOG ADMIN ON *.* FROM darner@'127.0.0.1'")
    mariadb_server.drop(url)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """What `darner db WORDS --json` prints."""
    assert run(["db", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_commands(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    if database_url.startswith("sqlite"):
        assert run(["db", "check", "--database", database_url]) == 1
        assert "There is no database file" in capsys.readouterr().err
        Database.open(database_url).close()
    at = ("--database", database_url)
    planned = said(capsys, "upgrade", "--dry-run", *at)
    assert (planned["from"], planned["done"], planned["steps"][0]) == ("", False, "0001_base")
    assert said(capsys, "check", *at)["ok"]
    assert said(capsys, "upgrade", *at)["schema"] == planned["to"]
    assert said(capsys, "upgrade", *at)["steps"] == []
    told = said(capsys, "check", *at)
    assert told["ok"]
    assert "not-a-secret" not in json.dumps(told)
    assert {"job", "lease"} <= {one["name"] for one in said(capsys, "size", *at)["tables"]}
    for words in (("check",), ("size",), ("upgrade",), ("upgrade", "--dry-run")):
        assert run(["db", *words, *at]) == 0
        assert "newest; nothing to do" in capsys.readouterr().out or words[0] != "upgrade"


def test_an_upgrade_says_how_to_go_back(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    db = Database.open(database_url)
    migrate(db, to="0002_jobs")
    db.close()
    assert run(["db", "upgrade", "--database", database_url]) == 0
    told = capsys.readouterr()
    assert "from 0002_jobs to" in told.out
    assert "no way back but a backup" in told.err
    assert any(tool in told.err for tool in ("pg_dump", "mariadb-dump", ".backup"))
    assert "not-a-secret" not in told.err


def test_which_database_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARNER_DATABASE__URL", raising=False)
    assert run(["--data-dir", str(tmp_path), "db", "check"]) == 2
    assert "darner up" in capsys.readouterr().err
    config = tmp_path / "config" / "manager.yaml"
    config.parent.mkdir()
    url = f"sqlite:///{tmp_path / 'd.db'}"
    config.write_text(json.dumps({"database": {"url": url}}))
    Database.open(url).close()
    assert run(["--data-dir", str(tmp_path), "db", "upgrade"]) == 0
    assert run(["db", "check", "--config", str(config)]) == 0
    assert run(["db", "check", "--config", str(config), "--database", url]) == 2
