"""How large the tables are. Estimates where counting would read a large table; bytes as the database accounts for them."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, exc, text

from darner.db.servers import MYSQL


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """`rows` is exact on SQLite and an estimate on servers. `bytes`: table and indexes. `reclaimable`: of these, in use by no row.

    On SQLite free pages belong to no table, so `reclaimable` is 0 there and the file has it in `free_bytes`.
    """

    name: str
    rows: int
    bytes: int
    index_bytes: int
    reclaimable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """All tables, largest first. `bytes`: of the database; `free_bytes`: of these, in use by no table."""

    tables: tuple[TableSize, ...]
    bytes: int
    free_bytes: int


def sizes(conn: Connection) -> Sizes:
    """The sizes of all tables."""
    if conn.dialect.name == "sqlite":
        tables, whole, free = list(_sqlite(conn)), _pages(conn, "page_count"), _pages(conn, "freelist_count")
    elif conn.dialect.name in MYSQL:
        tables = list(_mysql(conn))
        whole, free = sum(one.bytes + one.reclaimable for one in tables), 0
    else:
        tables, free = list(_postgresql(conn)), 0
        whole = int(conn.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
    return Sizes(tables=tuple(sorted(tables, key=lambda one: (-one.bytes, one.name))), bytes=whole, free_bytes=free)


def _pages(conn: Connection, name: str) -> int:
    size, count = (int(conn.exec_driver_sql(f"PRAGMA {one}").scalar_one()) for one in ("page_size", name))
    return size * count


def _sqlite(conn: Connection) -> Iterator[TableSize]:
    """Bytes by SQLite's own account (dbstat), where it was built with one; else 0."""
    taken = _taken(conn)
    owners: dict[str, list[str]] = {}
    for kind, name, table in conn.exec_driver_sql(
        "SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('table', 'index')"
    ):
        owners.setdefault(table, [])
        if kind == "index":
            owners[table].append(name)
    for table, indexes in owners.items():
        if table.startswith("sqlite_"):
            continue
        counted = conn.exec_driver_sql(f'SELECT count(*) FROM "{table}"').scalar_one()  # noqa: S608  (catalogue)
        index_bytes = sum(taken.get(name, 0) for name in indexes)
        whole = taken.get(table, 0) + index_bytes
        yield TableSize(name=table, rows=int(counted), bytes=whole, index_bytes=index_bytes, reclaimable=0)


def _taken(conn: Connection) -> dict[str, int]:
    try:
        return {
            str(name): int(size) for name, size in conn.exec_driver_sql("SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE")
        }
    except exc.DBAPIError:
        return {}


def _mysql(conn: Connection) -> Iterator[TableSize]:
    told = text(
        "SELECT table_name, table_rows, data_length, index_length, data_free FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
    )
    for name, rows, data, index, free in conn.execute(told):
        whole = int(data or 0) + int(index or 0)
        yield TableSize(name=name, rows=int(rows or 0), bytes=whole, index_bytes=int(index or 0), reclaimable=int(free or 0))


def _postgresql(conn: Connection) -> Iterator[TableSize]:
    """Dead rows as a share of the table; pages that vacuum has freed for new rows are not in it (pgstattuple would tell)."""
    told = text(
        "SELECT c.relname, GREATEST(c.reltuples, s.n_live_tup, 0)::bigint, pg_total_relation_size(c.oid), pg_indexes_size(c.oid), "
        "COALESCE(s.n_dead_tup::float8 / NULLIF(s.n_live_tup + s.n_dead_tup, 0), 0) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid "
        "WHERE c.relkind IN ('r', 'p') AND n.nspname = current_schema()"
    )
    for name, rows, whole, index, dead in conn.execute(told):
        yield TableSize(
            name=name, rows=int(rows), bytes=int(whole), index_bytes=int(index), reclaimable=int((whole - index) * dead)
        )
