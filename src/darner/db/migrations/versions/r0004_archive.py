"""The catalogue of the archive."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text
from sqlalchemy.dialects import mysql

revision = "0004_archive"
down_revision = "0003_tiers"
branch_labels = None
depends_on = None

_ID = BigInteger().with_variant(Integer, "sqlite")
_MILLIS = BigInteger()
_LONG = Text().with_variant(mysql.LONGTEXT(), "mysql")
_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_NUMBERED: dict[str, Any] = {**_OPTIONS, "sqlite_autoincrement": True}


def upgrade() -> None:
    """Make the tables."""
    _segments()
    _beside_them()


def _segments() -> None:
    op.create_table(
        "archive_segment",
        Column("id", _ID, primary_key=True),
        Column("state", String(16), nullable=False),
        Column("rule", String(64), nullable=False),
        Column("policy_version", _ID, nullable=False),
        Column("epoch", _ID, nullable=False),
        Column("location", String(512), nullable=False, server_default=""),
        Column("format", Integer, nullable=False, server_default="1"),
        *(Column(name, _ID, nullable=False, server_default="0") for name in ("row_count", "deleted", "skipped", "bytes")),
        Column("sha256", String(64), nullable=False, server_default=""),
        Column("rows_digest", String(64), nullable=False, server_default=""),
        *(Column(name, _ID, nullable=False, server_default="0") for name in ("min_id", "max_id")),
        *(
            Column(name, _MILLIS, nullable=False, server_default="0")
            for name in ("min_created_at", "max_created_at", "max_base_at")
        ),
        Column("facets", _LONG),
        Column("replaced_by", _ID),
        Column("error", String(1024), nullable=False, server_default=""),
        Column("created_at", _MILLIS, nullable=False),
        Column("sealed_at", _MILLIS),
        Column("expired_at", _MILLIS),
        **_NUMBERED,
    )
    op.create_index("ix_archive_segment_state", "archive_segment", ["state", "max_created_at", "id"])


def _beside_them() -> None:
    op.create_table(
        "archive_absent",
        Column("segment_id", _ID, primary_key=True, autoincrement=False),
        Column("job_id", _ID, primary_key=True, autoincrement=False),
        Column("reason", String(16), nullable=False),
        **_OPTIONS,
    )
    op.create_index("ix_archive_absent_job_id", "archive_absent", ["job_id"])
    op.create_table(
        "archive_erasure",
        Column("id", _ID, primary_key=True),
        Column("at", _MILLIS, nullable=False),
        Column("by", String(128), nullable=False),
        Column("reason", String(512), nullable=False),
        Column("jobs", Integer, nullable=False),
        Column("segments", Integer, nullable=False),
        Column("ids", _LONG, nullable=False),
        **_NUMBERED,
    )
