"""Rows by a list of keys, in one bound value where the database has a way to say so.

A thousand keys as a thousand parameters cost more in the query builder than in the database.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
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
from sqlalchemy.types import TypeEngine

# Where MySQL's keys go in the text of a statement (`db.Statement`).
PLACE = "/*keys*/"
# The databases that take many keys as one value, and its type.
_BOUND: dict[str, TypeEngine[Any]] = {"sqlite": String(), "postgresql": ARRAY(BigInteger)}


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
    keys, dialect = Keys(ids), conn.dialect.name
    if dialect not in _BOUND:
        return key.in_(keys.numbers)
    return _one_of(dialect, key, bindparam(None, keys.value(dialect), _BOUND[dialect]))


def among_keys(dialect: str, key: Column[Any]) -> ColumnElement[bool]:
    """Whether a number column is one of the keys that a `db.Statement` is run with."""
    if dialect not in _BOUND:
        return key.in_([literal_column(PLACE)])
    return _one_of(dialect, key, bindparam("keys", type_=_BOUND[dialect], required=False))


def _one_of(dialect: str, key: Column[Any], keys: BindParameter[Any]) -> ColumnElement[bool]:
    """By one bound value: a JSON list on SQLite, an array on PostgreSQL."""
    if dialect == "postgresql":
        return key == any_(keys)
    return key.in_(select(func.json_each(keys).table_valued(column("value", BigInteger)).c.value))


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
