"""The catalogue of the archive."""

from alembic import op
from sqlalchemy import Column, Integer, String

from darner.db.migrations.kinds import ID, LONG, MILLIS, NUMBERED, OPTIONS

revision = "0004_archive"
down_revision = "0003_tiers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _segments()
    _beside_them()


def _segments() -> None:
    op.create_table(
        "archive_segment",
        Column("id", ID, primary_key=True),
        Column("state", String(16), nullable=False),
        Column("rule", String(64), nullable=False),
        Column("policy_version", ID, nullable=False),
        Column("epoch", ID, nullable=False),
        Column("location", String(512), nullable=False, server_default=""),
        Column("format", Integer, nullable=False, server_default="1"),
        *(Column(name, ID, nullable=False, server_default="0") for name in ("row_count", "deleted", "skipped", "bytes")),
        Column("sha256", String(64), nullable=False, server_default=""),
        Column("rows_digest", String(64), nullable=False, server_default=""),
        *(Column(name, ID, nullable=False, server_default="0") for name in ("min_id", "max_id")),
        *(Column(name, MILLIS, nullable=False, server_default="0") for name in ("min_created_at", "max_created_at", "max_base_at")),
        Column("facets", LONG),
        Column("replaced_by", ID),
        Column("error", String(1024), nullable=False, server_default=""),
        Column("created_at", MILLIS, nullable=False),
        Column("sealed_at", MILLIS),
        Column("expired_at", MILLIS),
        **NUMBERED,
    )
    op.create_index("ix_archive_segment_state", "archive_segment", ["state", "max_created_at", "id"])


def _beside_them() -> None:
    op.create_table(
        "archive_absent",
        Column("segment_id", ID, primary_key=True, autoincrement=False),
        Column("job_id", ID, primary_key=True, autoincrement=False),
        Column("reason", String(16), nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_archive_absent_job_id", "archive_absent", ["job_id"])
    op.create_table(
        "archive_erasure",
        Column("id", ID, primary_key=True),
        Column("at", MILLIS, nullable=False),
        Column("by", String(128), nullable=False),
        Column("reason", String(512), nullable=False),
        Column("jobs", Integer, nullable=False),
        Column("segments", Integer, nullable=False),
        Column("ids", LONG, nullable=False),
        **NUMBERED,
    )
