"""Deletes and updates of at most so many rows, the same on three dialects.

`DELETE … LIMIT` is not portable, and query builders drop the limit silently (spec/retention.md, fact 2), so the bound is always a
list of primary keys: a sub-select `id IN (…)` on SQLite, `= ANY(ARRAY(… FOR UPDATE SKIP LOCKED))` on PostgreSQL (where a plain IN
may run the sub-select again and exceed the bound), and on MySQL a select that locks, then a change by keys: the form that holds up
other writers least there (fact 9).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Delete, Select, Table, Update, any_, delete, func, select, update

from darner.db.servers import MYSQL

Where = ColumnElement[bool]
OrderBy = Sequence[ColumnElement[Any]]


def bounded_delete(conn: Connection, table: Table, where: Where, *, limit: int, order_by: OrderBy) -> int:
    """Delete at most `limit` rows that match, first ones of `order_by` first; the number deleted."""
    if conn.dialect.name in MYSQL:
        keys = lock_ids(conn, table, where, limit=limit, order_by=order_by)
        return conn.execute(delete(table).where(_key(table).in_(keys))).rowcount if keys else 0
    return conn.execute(delete_statement(conn.dialect.name, table, where, limit=limit, order_by=order_by)).rowcount


def bounded_update(conn: Connection, table: Table, where: Where, values: dict[str, Any], *, limit: int, order_by: OrderBy) -> int:
    """Set `values` in at most `limit` rows that match, first ones of `order_by` first; the number changed."""
    if conn.dialect.name in MYSQL:
        keys = lock_ids(conn, table, where, limit=limit, order_by=order_by)
        return conn.execute(update(table).where(_key(table).in_(keys)).values(values)).rowcount if keys else 0
    statement = update_statement(conn.dialect.name, table, where, values, limit=limit, order_by=order_by)
    return conn.execute(statement).rowcount


def lock_ids(conn: Connection, table: Table, where: Where, *, limit: int, order_by: OrderBy) -> list[int]:
    """The keys of at most `limit` matching rows, locked until the transaction ends; rows locked by others are skipped."""
    statement = keys_statement(table, where, limit=limit, order_by=order_by)
    return [int(key) for key in conn.execute(statement).scalars()]


def keys_statement(table: Table, where: Where, *, limit: int, order_by: OrderBy) -> Select[Any]:
    """The keys of at most `limit` matching rows, locked on servers; rows that others hold are skipped."""
    return _keys(table, where, limit, order_by).with_for_update(skip_locked=True)


def delete_statement(dialect: str, table: Table, where: Where, *, limit: int, order_by: OrderBy) -> Delete:
    """The bounded delete of SQLite and PostgreSQL as one statement."""
    return delete(table).where(_among(dialect, table, where, limit, order_by))


def update_statement(dialect: str, table: Table, where: Where, values: dict[str, Any], *, limit: int, order_by: OrderBy) -> Update:
    """The bounded update of SQLite and PostgreSQL as one statement."""
    return update(table).where(_among(dialect, table, where, limit, order_by)).values(values)


def _among(dialect: str, table: Table, where: Where, limit: int, order_by: OrderBy) -> ColumnElement[bool]:
    key = _key(table)
    keys = _keys(table, where, limit, order_by)
    if dialect == "postgresql":
        return key == any_(func.array(keys.with_for_update(skip_locked=True).scalar_subquery()))
    if dialect in MYSQL:
        raise ValueError("MySQL takes two statements: the keys, then the change")
    return key.in_(keys)


def _keys(table: Table, where: Where, limit: int, order_by: OrderBy) -> Select[Any]:
    if limit < 1:
        raise ValueError(f"a bound of {limit} rows is none")
    return select(_key(table)).where(where).order_by(*order_by).limit(limit)


def _key(table: Table) -> Column[Any]:
    columns = list(table.primary_key.columns)
    if len(columns) != 1:
        raise ValueError(f"table {table.name} has {len(columns)} key columns; a bounded change needs one")
    return columns[0]
