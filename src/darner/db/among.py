"""Rows by a list of keys, in one bound value where the database has a way to say so.

A thousand keys as a thousand parameters cost more in the query builder than in the database.
"""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    String,
    Table,
    any_,
    bindparam,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

# Where MySQL's keys go in the text of a statement (`db.Statement`).
PLACE = "/*keys*/"


class Keys:
    """Numbers as each dialect takes them; the form is made once for all statements that ask for them."""

    __slots__ = ("_text", "numbers")

    def __init__(self, numbers: Iterable[int]) -> None:
        """Of rows in any table."""
        self.numbers = [int(one) for one in numbers]
        self._text: str | None = None

    def __len__(self) -> int:
        """How many."""
        return len(self.numbers)

    @property
    def text(self) -> str:
        """With commas between."""
        if self._text is None:
            self._text = ",".join(map(str, self.numbers))
        return self._text

    def value(self, dialect: str) -> str | list[int]:
        """What is bound; MySQL's are part of the statement's text."""
        return f"[{self.text}]" if dialect == "sqlite" else self.numbers


def among(conn: Connection, key: Column[Any], ids: Iterable[int]) -> ColumnElement[bool]:
    """Whether a number column is one of `ids`."""
    keys = list(ids)
    if conn.dialect.name == "sqlite":
        given = func.json_each(bindparam(None, json.dumps(keys), String)).table_valued(column("value", BigInteger))
        return key.in_(select(given.c.value))
    if conn.dialect.name == "postgresql":
        return key == any_(bindparam(None, keys, ARRAY(BigInteger)))
    return key.in_(keys)


def among_keys(dialect: str, key: Column[Any]) -> ColumnElement[bool]:
    """Whether a number column is one of the keys that a `db.Statement` is run with."""
    if dialect == "sqlite":
        given = func.json_each(bindparam("keys", type_=String, required=False)).table_valued(column("value", BigInteger))
        return key.in_(select(given.c.value))
    if dialect == "postgresql":
        return key == any_(bindparam("keys", type_=ARRAY(BigInteger), required=False))
    return key.in_([literal_column(PLACE)])


def delete_among(conn: Connection, table: Table, key: Column[Any], ids: Iterable[int] | Keys) -> int:
    """Delete the rows of a table whose key is one of `ids`; how many. For rows that hang on others, which `bounded_delete` takes.

    Plain SQL of two names: a dozen of these in a transaction would cost the query builder more than the database.
    """
    keys = ids if isinstance(ids, Keys) else Keys(ids)
    head = f"DELETE FROM {table.name} WHERE {key.name}"  # noqa: S608  (names of our own tables)
    if not keys:
        return 0
    if conn.dialect.name == "sqlite":
        return conn.exec_driver_sql(f"{head} IN (SELECT value FROM json_each(?))", (keys.value("sqlite"),)).rowcount  # noqa: S608
    if conn.dialect.name == "postgresql":
        return conn.exec_driver_sql(f"{head} = ANY(%(ids)s)", {"ids": keys.numbers}).rowcount
    return conn.exec_driver_sql(f"{head} IN ({keys.text})").rowcount
