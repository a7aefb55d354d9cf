"""How the database grows."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, Text
from sqlalchemy.dialects import mysql

revision = "0006_growth"
down_revision = "0005_export"
branch_labels = None
depends_on = None

_ID = BigInteger().with_variant(Integer, "sqlite")
_MILLIS = BigInteger()
_LONG = Text().with_variant(mysql.LONGTEXT(), "mysql")
_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_NUMBERED: dict[str, Any] = {**_OPTIONS, "sqlite_autoincrement": True}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "growth_sample",
        Column("id", _ID, primary_key=True),
        Column("at", _MILLIS, nullable=False),
        Column("slot", _ID, nullable=False),
        Column("body", _LONG, nullable=False),
        **_NUMBERED,
    )
    op.create_index("ix_growth_sample_at", "growth_sample", ["at", "id"])
    op.create_index("ix_growth_sample_slot", "growth_sample", ["slot"], unique=True)
