"""What all tables share: the metadata, key and time column types, and the options that must be set when a table is made."""

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import SchemaItem

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite needs the very word INTEGER for AUTOINCREMENT.
Id = BigInteger().with_variant(Integer, "sqlite")
# Unix milliseconds, UTC; columns of this type are named *_at or until.
Millis = BigInteger()
# MySQL's TEXT ends at 64 KiB.
LongText = Text().with_variant(mysql.LONGTEXT(), "mysql")

OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
# Ids are never used again, or a new job would hide an archived one.
NUMBERED: dict[str, Any] = {**OPTIONS, "sqlite_autoincrement": True}


def numbered_table(name: str, *items: SchemaItem) -> Table:
    """A table whose key `id` the database counts up and never uses again."""
    return Table(name, metadata, Column("id", Id, primary_key=True), *items, **NUMBERED)


def keyed_table(name: str, *items: SchemaItem) -> Table:
    """A table that brings its own key columns."""
    return Table(name, metadata, *items, **OPTIONS)
