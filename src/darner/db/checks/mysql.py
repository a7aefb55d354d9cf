"""What matters of MariaDB and MySQL."""

import re
from collections.abc import Iterator

from sqlalchemy import Connection, text

from darner.db.checks.finding import Finding, Level, judged
from darner.db.servers import batch_cap, lean_binlog, replica_lag_s, variables

_LEAST = {"MariaDB": (10, 6), "MySQL": (8, 0)}
_PACKET_BYTES = 16 * 1024 * 1024
_NAMES = (
    "version", "version_comment", "log_bin", "binlog_format", "binlog_row_image", "read_only", "innodb_read_only", "sql_mode",
    "max_allowed_packet", "innodb_flush_log_at_trx_commit", "sync_binlog", "innodb_file_per_table", "transaction_isolation",
    "tx_isolation", "character_set_database", "max_connections", "wait_timeout",
)  # fmt: skip
_FEWEST_CONNECTIONS = 30


def findings(conn: Connection, *, fast: bool) -> Iterator[Finding]:  # noqa: ARG001  (all of it is)
    """Version, safety of writes, replication, and what limits a batch."""
    found = variables(conn, *_NAMES)
    yield from _version(found)
    yield from _sessions(found)
    yield from _durability(found)
    yield from _replication(conn, found)
    cap = batch_cap(conn)
    yield Finding(name="cluster", value=f"batches of at most {cap} rows" if cap else "none (no cap on batches)")
    yield from _tables(conn)


def _version(found: dict[str, str]) -> Iterator[Finding]:
    product = "MariaDB" if "mariadb" in (found["version"] + found.get("version_comment", "")).lower() else "MySQL"
    numbers = tuple(int(part) for part in re.findall(r"\d+", found["version"])[:2])
    least = _LEAST[product]
    hint = f"{product} {'.'.join(map(str, least))} or newer is needed (SKIP LOCKED)."
    yield judged("version", f"{product} {found['version']}", good=numbers >= least, otherwise=Level.FAIL, hint=hint)
    read_only = found.get("read_only") == "ON" or found.get("innodb_read_only") == "ON"
    hint = "Nothing can be written: this is a replica, or a failover is going on; use the primary's address."
    yield judged("read_only", "on" if read_only else "off", good=not read_only, otherwise=Level.FAIL, hint=hint)


def _sessions(found: dict[str, str]) -> Iterator[Finding]:
    isolation = found.get("transaction_isolation") or found.get("tx_isolation", "")
    yield judged(
        "isolation", isolation, good=isolation == "READ-COMMITTED", otherwise=Level.WARN, hint="Darner sets it per session."
    )
    strict = "STRICT_TRANS_TABLES" in found["sql_mode"] or "STRICT_ALL_TABLES" in found["sql_mode"]
    hint = "Values that are too long would be cut without a word: SET GLOBAL sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')."
    yield judged("strict", "on" if strict else "off", good=strict, otherwise=Level.WARN, hint=hint)
    packet = int(found["max_allowed_packet"])
    hint = f"Large jobs will be refused: SET GLOBAL max_allowed_packet = {_PACKET_BYTES}, and in my.cnf."
    yield judged("max_allowed_packet", packet, good=packet >= _PACKET_BYTES, otherwise=Level.WARN, hint=hint)
    most = int(found["max_connections"])
    hint = "A manager uses up to 12 connections."
    yield judged("max_connections", most, good=most >= _FEWEST_CONNECTIONS, otherwise=Level.WARN, hint=hint)


def _durability(found: dict[str, str]) -> Iterator[Finding]:
    flush, sync = found["innodb_flush_log_at_trx_commit"], found["sync_binlog"]
    hint = "The last second of jobs is lost in a power cut: set innodb_flush_log_at_trx_commit = 1."
    yield judged("flush_log", flush, good=flush == "1", otherwise=Level.WARN, hint=hint)
    if found.get("log_bin") == "ON":
        hint = "Replicas may miss the last changes after a power cut: set sync_binlog = 1."
        yield judged("sync_binlog", sync, good=sync == "1", otherwise=Level.WARN, hint=hint)
    apart = found.get("innodb_file_per_table") == "ON"
    hint = "Space of deleted rows can never be given back to the disk: set innodb_file_per_table = ON before the tables are made."
    yield judged("file_per_table", "on" if apart else "off", good=apart, otherwise=Level.WARN, hint=hint)


def _replication(conn: Connection, found: dict[str, str]) -> Iterator[Finding]:
    if found.get("log_bin") == "ON":
        lean = lean_binlog(conn)
        image = found.get("binlog_row_image", "FULL")
        said = f"{found.get('binlog_format')}, {image}; sweeps {'write MINIMAL' if lean else 'may not change that'}"
        hint = "Each deleted job is 2 KB of binary log; 28 bytes with GRANT BINLOG ADMIN (MySQL: SESSION_VARIABLES_ADMIN) ON *.*."
        yield judged("binlog", said, good=lean or image == "MINIMAL", otherwise=Level.WARN, hint=hint)
    else:
        yield Finding(name="binlog", value="off")
    lag = replica_lag_s(conn)
    yield Finding(name="replica_lag", value="not a replica, or not readable" if lag is None else f"{lag:.0f} s")


def _tables(conn: Connection) -> Iterator[Finding]:
    charset = str(conn.exec_driver_sql("SELECT @@character_set_database").scalar())
    yield Finding(name="charset", value=f"{charset} (Darner's tables name their own: utf8mb4)")
    wrong = text(
        "SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version' "
        "AND (engine <> 'InnoDB' OR table_collation <> 'utf8mb4_bin')"
    )
    rows = [f"{name} ({engine}, {collation})" for name, engine, collation in conn.execute(wrong)]
    hint = "Ids and names would compare wrongly: convert them to InnoDB and utf8mb4_bin."
    yield judged("tables", ", ".join(rows) or "InnoDB, utf8mb4_bin", good=not rows, otherwise=Level.FAIL, hint=hint)
