"""Rows by a list of keys, in one bound value where the database has a way to say so.

A thousand keys as a thousand parameters cost more in the query builder than in the database.
"""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, String, Table, any_, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY


def among(conn: Connection, key: Column[Any], ids: Iterable[int]) -> ColumnElement[bool]:
    """Whether a number column is one of `ids`."""
    keys = list(ids)
    if conn.dialect.name == "sqlite":
        given = func.json_each(bindparam(None, json.dumps(keys), String)).table_valued(column("value", BigInteger))
        return key.in_(select(given.c.value))
    if conn.dialect.name == "postgresql":
        return key == any_(bindparam(None, keys, ARRAY(BigInteger)))
    return key.in_(keys)


def delete_among(conn: Connection, table: Table, key: Column[Any], ids: Iterable[int]) -> int:
    """Delete the rows of a table whose key is one of `ids`; how many. For rows that hang on others, which `bounded_delete` takes.

    Plain SQL of two names: a dozen of these in a transaction would cost the query builder more than the database.
    """
    keys = [int(one) for one in ids]
    head = f"DELETE FROM {table.name} WHERE {key.name}"  # noqa: S608  (names of our own tables)
    if not keys:
        return 0
    if conn.dialect.name == "sqlite":
        return conn.exec_driver_sql(f"{head} IN (SELECT value FROM json_each(?))", (json.dumps(keys),)).rowcount  # noqa: S608
    if conn.dialect.name == "postgresql":
        return conn.exec_driver_sql(f"{head} = ANY(%(ids)s)", {"ids": keys}).rowcount
    return conn.exec_driver_sql(f"{head} IN ({','.join(map(str, keys))})").rowcount
