"""Kinds of columns and options of tables as migrations made them. Never changed.

A migration must do tomorrow what it did when it was released, whatever `db.tables` has become; a new kind gets a new name.
"""

from typing import Any

from sqlalchemy import BigInteger, Integer, LargeBinary, Text
from sqlalchemy.dialects import mysql

ID = BigInteger().with_variant(Integer, "sqlite")
MILLIS = BigInteger()
LONG = Text().with_variant(mysql.LONGTEXT(), "mysql")
LONG_BINARY = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
NUMBERED: dict[str, Any] = {**OPTIONS, "sqlite_autoincrement": True}
