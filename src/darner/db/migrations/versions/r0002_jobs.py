"""Jobs: the narrow job, its payload and secrets, its clusters, parts and timeline."""

from alembic import op
from sqlalchemy import Column, Integer, String, Text, UniqueConstraint

from darner.db.migrations.kinds import ID, LONG, LONG_BINARY, MILLIS, NUMBERED, OPTIONS

revision = "0002_jobs"
down_revision = "0001_base"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _job()
    _beside_job()
    _part()
    _event()


def _job() -> None:
    op.create_table(
        "job",
        Column("id", ID, primary_key=True),
        Column("uuid", String(36), nullable=False),
        Column("type", String(32), nullable=False),
        Column("state", String(16), nullable=False),
        Column("owner", String(128), nullable=False, server_default=""),
        Column("cluster_count", Integer, nullable=False, server_default="0"),
        Column("part_count", Integer, nullable=False, server_default="0"),
        Column("part_done", Integer, nullable=False, server_default="0"),
        Column("part_failed", Integer, nullable=False, server_default="0"),
        Column("bytes_total", ID, nullable=False, server_default="0"),
        Column("bytes_done", ID, nullable=False, server_default="0"),
        Column("summary", String(512), nullable=False, server_default=""),
        Column("error", String(1024), nullable=False, server_default=""),
        Column("tag", String(1024), nullable=False, server_default=""),
        Column("application", String(1024), nullable=False, server_default=""),
        Column("priority", Integer, nullable=False, server_default="0"),
        Column("bio", String(1000), nullable=False, server_default=""),
        Column("idempotency_key", String(64)),
        Column("created_at", MILLIS, nullable=False),
        Column("started_at", MILLIS),
        Column("finished_at", MILLIS),
        Column("deadline_at", MILLIS, nullable=False),
        Column("updated_at", MILLIS, nullable=False),
        Column("class", String(64), nullable=False, server_default=""),
        Column("tier", String(16), nullable=False, server_default="hot"),
        Column("held", Integer, nullable=False, server_default="0"),
        Column("hold_reason", String(512), nullable=False, server_default=""),
        UniqueConstraint("uuid", name="uq_job_uuid"),
        UniqueConstraint("idempotency_key", name="uq_job_idempotency_key"),
        **NUMBERED,
    )
    op.create_index("ix_job_class", "job", ["class", "tier", "finished_at", "id"])
    op.create_index("ix_job_created_at", "job", ["created_at", "id"])
    op.create_index("ix_job_state", "job", ["state", "created_at", "id"])
    op.create_index("ix_job_type", "job", ["type", "created_at", "id"])
    op.create_index("ix_job_owner", "job", ["owner", "id"])


def _beside_job() -> None:
    op.create_table(
        "job_payload",
        Column("job_id", ID, primary_key=True, autoincrement=False),
        Column("args", LONG, nullable=False),
        Column("result", LONG),
        **OPTIONS,
    )
    op.create_table(
        "job_secret",
        Column("job_id", ID, primary_key=True, autoincrement=False),
        Column("sealed", LONG_BINARY, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "job_cluster",
        Column("job_id", ID, primary_key=True, autoincrement=False),
        Column("cluster_id", ID, primary_key=True, autoincrement=False),
        **OPTIONS,
    )


def _part() -> None:
    op.create_table(
        "job_part",
        Column("id", ID, primary_key=True),
        Column("job_id", ID, nullable=False),
        Column("cluster_id", ID, nullable=False),
        Column("ordinal", Integer, nullable=False),
        Column("url", Text, nullable=False),
        Column("digest", String(160), nullable=False, server_default=""),
        Column("size_bytes", ID, nullable=False, server_default="0"),
        Column("target_count", Integer, nullable=False, server_default="0"),
        Column("state", String(16), nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("lease_id", String(36), nullable=False, server_default=""),
        Column("lease_holder", String(128), nullable=False, server_default=""),
        Column("lease_until", MILLIS, nullable=False, server_default="0"),
        Column("bytes_done", ID, nullable=False, server_default="0"),
        Column("piece_count", Integer, nullable=False, server_default="0"),
        Column("pieces_done", Integer, nullable=False, server_default="0"),
        Column("error", String(1024), nullable=False, server_default=""),
        Column("hosts", LONG_BINARY, nullable=False),
        Column("verified", Integer, nullable=False, server_default="0"),
        Column("not_before", MILLIS, nullable=False, server_default="0"),
        Column("created_at", MILLIS, nullable=False),
        Column("started_at", MILLIS),
        Column("finished_at", MILLIS),
        Column("updated_at", MILLIS, nullable=False),
        UniqueConstraint("job_id", "cluster_id", "ordinal", name="uq_job_part_job_id_cluster_id_ordinal"),
        **NUMBERED,
    )
    op.create_index("ix_job_part_state", "job_part", ["state", "cluster_id", "not_before", "id"])
    op.create_index("ix_job_part_job_id", "job_part", ["job_id", "id"])
    op.create_index("ix_job_part_lease_id", "job_part", ["lease_id"])


def _event() -> None:
    op.create_table(
        "job_event",
        Column("id", ID, primary_key=True),
        Column("job_id", ID, nullable=False),
        Column("part_id", ID),
        Column("at", MILLIS, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("message", String(1024), nullable=False, server_default=""),
        **NUMBERED,
    )
    op.create_index("ix_job_event_job_id", "job_event", ["job_id", "id"])
