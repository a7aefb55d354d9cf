"""Jobs on their way to a log system, and the sinks they go to."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, UniqueConstraint, text

revision = "0005_export"
down_revision = "0004_archive"
branch_labels = None
depends_on = None

_ID = BigInteger().with_variant(Integer, "sqlite")
_MILLIS = BigInteger()
_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_NUMBERED: dict[str, Any] = {**_OPTIONS, "sqlite_autoincrement": True}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "export_outbox",
        Column("id", _ID, primary_key=True),
        Column("job_id", _ID, nullable=False),
        Column("sink", String(64), nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("created_at", _MILLIS, nullable=False),
        Column("not_before", _MILLIS, nullable=False, server_default="0"),
        Column("acked_at", _MILLIS),
        Column("error", String(512), nullable=False, server_default=""),
        UniqueConstraint("job_id", "sink", name="uq_export_outbox_job_id_sink"),
        **_NUMBERED,
    )
    columns = ["sink", "acked_at", "not_before", "created_at"]
    if op.get_bind().dialect.name != "sqlite":
        columns.append("id")
    waiting = text("acked_at IS NULL")
    op.create_index("ix_export_outbox_sink", "export_outbox", columns, sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "export_sink",
        Column("name", String(64), primary_key=True),
        Column("delivered", _ID, nullable=False, server_default="0"),
        Column("lost", _ID, nullable=False, server_default="0"),
        Column("acked_at", _MILLIS),
        Column("failures", Integer, nullable=False, server_default="0"),
        Column("failing_since", _MILLIS),
        Column("failed_at", _MILLIS),
        Column("error", String(512), nullable=False, server_default=""),
        **_OPTIONS,
    )
