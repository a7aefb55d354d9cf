"""Migrations on MySQL, where each change of a table is committed at once: a migration that broke off is begun anew from its start.

So every step there first looks whether it was done: what exists is not made again, what is gone is not dropped again. Steps that
change rows must be written so that doing them twice does no harm.
"""

from typing import Any

from alembic.ddl.mysql import MySQLImpl
from sqlalchemy import Column, Connection, Constraint, Index, Table, inspect


class ResumableMySql(MySQLImpl):
    """Alembic takes this one for MySQL, as the last that was defined."""

    __dialect__ = "mysql"

    def create_table(self, table: Table, **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Make a table that is not there."""
        if not inspect(self._conn).has_table(table.name):
            super().create_table(table, **kw)

    def drop_table(self, table: Table, **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Drop a table that is there."""
        if inspect(self._conn).has_table(table.name):
            super().drop_table(table, **kw)

    def add_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Add a column that is not there."""
        if column.name not in self._columns(table_name):
            super().add_column(table_name, column, **kw)

    def drop_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Drop a column that is there."""
        if column.name in self._columns(table_name):
            super().drop_column(table_name, column, **kw)

    def create_index(self, index: Index, **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Make an index that is not there."""
        if index.table is None or index.name not in self._indexes(index.table.name):
            super().create_index(index, **kw)

    def drop_index(self, index: Index, **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Drop an index that is there."""
        if index.table is None or index.name in self._indexes(index.table.name):
            super().drop_index(index, **kw)

    def add_constraint(self, const: Any, **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Add a constraint that is not there."""
        if const.name not in self._indexes(const.table.name):
            super().add_constraint(const, **kw)

    def drop_constraint(self, const: Constraint, **kw: Any) -> None:  # noqa: ANN401  (alembic's)
        """Drop a constraint that is there; on MySQL unique ones are indexes, and others are not used."""
        if const.name in self._indexes(const.table.name):
            super().drop_constraint(const, **kw)

    @property
    def _conn(self) -> Connection:
        if self.connection is None:
            raise RuntimeError("migrations are never written to a file")
        return self.connection

    def _columns(self, table: str) -> set[str]:
        return {column["name"] for column in inspect(self._conn).get_columns(table)}

    def _indexes(self, table: str) -> set[str | None]:
        return {index["name"] for index in inspect(self._conn).get_indexes(table)}
