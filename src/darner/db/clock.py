"""The database's clock: the one that every cut-off and every compared timestamp uses, so that managers need not agree."""

from typing import Any

from sqlalchemy import BigInteger, Connection, literal_column
from sqlalchemy.sql.elements import ColumnElement

_NOW = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)",
    "mysql": "CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def now_ms(dialect: str) -> ColumnElement[int]:
    """An SQL expression for the present moment in unix milliseconds; `dialect` as SQLAlchemy names it."""
    return literal_column(_NOW["mysql" if dialect == "mariadb" else dialect], BigInteger)


def db_now_ms(conn: Connection) -> int:
    """Unix milliseconds by the database's clock."""
    value: Any = conn.exec_driver_sql(
        f"SELECT {_NOW['mysql' if conn.dialect.name == 'mariadb' else conn.dialect.name]}"
    ).scalar_one()
    return int(value)
