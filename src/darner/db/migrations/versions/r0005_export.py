"""Jobs on their way to a log system, and the sinks they go to."""

from alembic import op
from sqlalchemy import Column, Integer, String, UniqueConstraint, text

from darner.db.migrations.kinds import ID, MILLIS, NUMBERED, OPTIONS

revision = "0005_export"
down_revision = "0004_archive"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "export_outbox",
        Column("id", ID, primary_key=True),
        Column("job_id", ID, nullable=False),
        Column("sink", String(64), nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("created_at", MILLIS, nullable=False),
        Column("not_before", MILLIS, nullable=False, server_default="0"),
        Column("acked_at", MILLIS),
        Column("error", String(512), nullable=False, server_default=""),
        UniqueConstraint("job_id", "sink", name="uq_export_outbox_job_id_sink"),
        **NUMBERED,
    )
    columns = ["sink", "acked_at", "not_before", "created_at"]
    if op.get_bind().dialect.name != "sqlite":
        columns.append("id")
    waiting = text("acked_at IS NULL")
    op.create_index("ix_export_outbox_sink", "export_outbox", columns, sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "export_sink",
        Column("name", String(64), primary_key=True),
        Column("delivered", ID, nullable=False, server_default="0"),
        Column("lost", ID, nullable=False, server_default="0"),
        Column("acked_at", MILLIS),
        Column("failures", Integer, nullable=False, server_default="0"),
        Column("failing_since", MILLIS),
        Column("failed_at", MILLIS),
        Column("error", String(512), nullable=False, server_default=""),
        **OPTIONS,
    )
