"""What matters of PostgreSQL."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, text

from darner.db.checks.finding import Finding, Level, judged
from darner.db.servers import replica_lag_s

_LEAST = 120_000
_SWEPT = ("job", "job_payload", "job_part", "job_event", "job_fold")
# Its versions are counted by Darner, not by the sequence.
_OWN_NUMBERS = ("retention_policy",)
_WRAP_AROUND = 1_000_000_000
_FEWEST_CONNECTIONS = 30


def findings(conn: Connection, *, fast: bool) -> Iterator[Finding]:  # noqa: ARG001  (all of it is)
    """Version, safety of writes, vacuuming, sequences, replication."""

    def show(name: str) -> str:
        return str(conn.exec_driver_sql(f"SHOW {name}").scalar())

    version = int(show("server_version_num"))
    yield judged(
        "version",
        f"PostgreSQL {show('server_version')}",
        good=version >= _LEAST,
        otherwise=Level.FAIL,
        hint="12 or newer is needed.",
    )
    standby = bool(conn.exec_driver_sql("SELECT pg_is_in_recovery()").scalar())
    read_only = standby or show("default_transaction_read_only") == "on"
    hint = "Nothing can be written: this is a standby, or a failover is going on; use the primary's address."
    yield judged("read_only", "on" if read_only else "off", good=not read_only, otherwise=Level.FAIL, hint=hint)
    encoding = show("server_encoding")
    hint = "Names in other scripts will be refused; make the database with ENCODING 'UTF8'."
    yield judged("encoding", encoding, good=encoding == "UTF8", otherwise=Level.FAIL, hint=hint)
    for name, good in (("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "")):
        value = show(name)
        hint = f"A power cut may lose jobs{' or ruin the database' if name != 'synchronous_commit' else ''}: set {name} = on."
        yield judged(name, value, good=value == good if good else value != "off", otherwise=Level.WARN, hint=hint)
    most = int(show("max_connections"))
    hint = "A manager uses up to 12 connections."
    yield judged("max_connections", most, good=most >= _FEWEST_CONNECTIONS, otherwise=Level.WARN, hint=hint)
    yield from _vacuum(conn, running=show("autovacuum") == "on")
    yield _sequences(conn)
    lag = replica_lag_s(conn)
    yield Finding(name="replica_lag", value="not a standby" if lag is None else f"{lag:.0f} s")


def _vacuum(conn: Connection, *, running: bool) -> Iterator[Finding]:
    hint = "Deleted rows are never cleared away: set autovacuum = on."
    yield judged("autovacuum", "on" if running else "off", good=running, otherwise=Level.FAIL, hint=hint)
    options = text("SELECT relname, array_to_string(reloptions, ',') FROM pg_class WHERE relkind = 'r' AND relname = ANY(:names)")
    found = {name: told or "" for name, told in conn.execute(options, {"names": list(_SWEPT)})}
    late = sorted(name for name, told in found.items() if "autovacuum_vacuum_scale_factor" not in told)
    off = sorted(name for name, told in found.items() if "autovacuum_enabled=false" in told)
    hint = "Large tables are vacuumed only after a fifth of them has gone; `darner db upgrade` sets 1 %."
    value = f"late for {', '.join(late)}" if late else f"disabled for {', '.join(off)}" if off else "after 1 % of a table"
    yield judged("autovacuum_tables", value, good=not late and not off, otherwise=Level.WARN, hint=hint)
    age = int(conn.exec_driver_sql("SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()").scalar_one())
    hint = "Transaction numbers run out: find what holds vacuum back (old transactions, replication slots), then VACUUM FREEZE."
    yield judged("wraparound", f"{age} transactions", good=age < _WRAP_AROUND, otherwise=Level.FAIL, hint=hint)


def _sequences(conn: Connection) -> Finding:
    """A dump that was loaded without its sequences would hand old ids out again."""
    owned = text(
        "SELECT s.relname, t.relname, a.attname FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i') "
        "JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid "
        "JOIN pg_namespace n ON n.oid = t.relnamespace WHERE s.relkind = 'S' AND n.nspname = current_schema() ORDER BY t.relname"
    )
    behind = []
    rows: list[Any] = list(conn.execute(owned))
    for sequence, table, column in rows:
        if table in _OWN_NUMBERS:
            continue
        reached = "CASE WHEN is_called THEN last_value ELSE last_value - 1 END"
        last = conn.exec_driver_sql(f'SELECT {reached} FROM "{sequence}"').scalar_one()  # noqa: S608  (catalogue)
        highest = conn.exec_driver_sql(f'SELECT COALESCE(max("{column}"), 0) FROM "{table}"').scalar_one()  # noqa: S608  (catalogue)
        if last < highest:
            behind.append(f"{sequence} ({last} < {highest})")
    hint = "Ids would be given twice: SELECT setval('SEQUENCE', HIGHEST) for each, or load the dump with its sequences."
    return judged(
        "sequences",
        f"behind: {', '.join(behind)}" if behind else f"{len(rows)} ahead of their tables",
        good=not behind,
        otherwise=Level.FAIL,
        hint=hint,
    )
