"""Clusters, schedulers, applications, hosts; tokens; retention policy, runs and lease."""

from alembic import op
from sqlalchemy import Boolean, Column, Integer, String, UniqueConstraint, false

from darner.db.migrations.kinds import ID, LONG, MILLIS, NUMBERED, OPTIONS

revision = "0001_base"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _fleet()
    _hosts()
    _access()
    _retention()
    _retention_runs()


def _fleet() -> None:
    op.create_table(
        "fleet_cluster",
        Column("id", ID, primary_key=True),
        Column("name", String(256), nullable=False),
        Column("bio", String(1024), nullable=False, server_default=""),
        Column("config", LONG, nullable=False),
        Column("client_config", LONG, nullable=False),
        Column("seed_client_config", LONG, nullable=False),
        Column("scopes", LONG, nullable=False),
        Column("is_default", Boolean, nullable=False, server_default=false()),
        Column("created_at", MILLIS, nullable=False),
        Column("updated_at", MILLIS, nullable=False),
        UniqueConstraint("name", name="uq_fleet_cluster_name"),
        **NUMBERED,
    )
    op.create_table(
        "fleet_scheduler",
        Column("id", ID, primary_key=True),
        Column("cluster_id", ID, nullable=False),
        Column("hostname", String(256), nullable=False),
        Column("ip", String(64), nullable=False),
        Column("port", Integer, nullable=False),
        Column("state", String(16), nullable=False, server_default="inactive"),
        Column("idc", String(1024), nullable=False, server_default=""),
        Column("location", String(1024), nullable=False, server_default=""),
        Column("features", String(1024), nullable=False),
        Column("config", LONG, nullable=False),
        Column("last_keep_alive_at", MILLIS),
        Column("created_at", MILLIS, nullable=False),
        Column("updated_at", MILLIS, nullable=False),
        UniqueConstraint("cluster_id", "hostname", "ip", name="uq_fleet_scheduler_cluster_id_hostname_ip"),
        **NUMBERED,
    )
    op.create_index("ix_fleet_scheduler_state", "fleet_scheduler", ["state", "last_keep_alive_at"])


def _hosts() -> None:
    op.create_table(
        "fleet_application",
        Column("id", ID, primary_key=True),
        Column("name", String(256), nullable=False),
        Column("url", LONG, nullable=False),
        Column("bio", String(1024), nullable=False, server_default=""),
        Column("priority", LONG, nullable=False),
        Column("created_at", MILLIS, nullable=False),
        Column("updated_at", MILLIS, nullable=False),
        UniqueConstraint("name", name="uq_fleet_application_name"),
        **NUMBERED,
    )
    op.create_table(
        "fleet_host",
        Column("id", ID, primary_key=True),
        Column("cluster_id", ID, nullable=False),
        Column("host_id", String(256), nullable=False),
        Column("hostname", String(256), nullable=False),
        Column("ip", String(64), nullable=False),
        Column("seed", Boolean, nullable=False, server_default=false()),
        Column("facts", LONG, nullable=False),
        Column("fingerprint", String(32), nullable=False),
        Column("created_at", MILLIS, nullable=False),
        Column("updated_at", MILLIS, nullable=False),
        UniqueConstraint("cluster_id", "host_id", name="uq_fleet_host_cluster_id_host_id"),
        **NUMBERED,
    )
    op.create_index("ix_fleet_host_seed", "fleet_host", ["seed", "id"])
    op.create_index("ix_fleet_host_updated_at", "fleet_host", ["updated_at"])


def _access() -> None:
    op.create_table(
        "access_token",
        Column("id", ID, primary_key=True),
        Column("name", String(128), nullable=False),
        Column("bio", String(1024), nullable=False, server_default=""),
        Column("prefix", String(16), nullable=False),
        Column("hash", String(64), nullable=False),
        Column("scopes", String(256), nullable=False),
        Column("created_by", String(128), nullable=False, server_default=""),
        Column("created_at", MILLIS, nullable=False),
        Column("expires_at", MILLIS),
        Column("last_used_at", MILLIS),
        Column("revoked_at", MILLIS),
        UniqueConstraint("hash", name="uq_access_token_hash"),
        **NUMBERED,
    )


def _retention() -> None:
    op.create_table(
        "retention_policy",
        Column("version", ID, primary_key=True),
        Column("body", LONG, nullable=False),
        Column("origin", String(32), nullable=False),
        Column("created_at", MILLIS, nullable=False),
        Column("created_by", String(128), nullable=False, server_default=""),
        Column("reason", String(1024), nullable=False, server_default=""),
        **NUMBERED,
    )
    op.create_table(
        "lease",
        Column("name", String(64), primary_key=True),
        Column("holder", String(128), nullable=False),
        Column("epoch", ID, nullable=False),
        Column("until", MILLIS, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "retention_mark",
        Column("name", String(32), primary_key=True),
        Column("body", LONG, nullable=False),
        Column("changed_at", MILLIS, nullable=False),
        Column("changed_by", String(128), nullable=False, server_default=""),
        **OPTIONS,
    )


def _retention_runs() -> None:
    op.create_table(
        "retention_run",
        Column("id", ID, primary_key=True),
        Column("policy_version", ID),
        Column("trigger", String(32), nullable=False),
        Column("dry_run", Boolean, nullable=False, server_default=false()),
        Column("state", String(16), nullable=False),
        Column("holder", String(128), nullable=False, server_default=""),
        Column("epoch", ID, nullable=False),
        Column("started_at", MILLIS, nullable=False),
        Column("finished_at", MILLIS),
        Column("classified", ID, nullable=False, server_default="0"),
        Column("examined", ID, nullable=False, server_default="0"),
        Column("removed", ID, nullable=False, server_default="0"),
        Column("error", String(1024), nullable=False, server_default=""),
        Column("report", LONG),
        **NUMBERED,
    )
    op.create_index("ix_retention_run_state", "retention_run", ["state", "id"])
    op.create_table(
        "retention_batch",
        Column("id", ID, primary_key=True),
        Column("run_id", ID, nullable=False),
        Column("rule", String(64), nullable=False),
        Column("action", String(16), nullable=False),
        Column("at", MILLIS, nullable=False),
        Column("removed", Integer, nullable=False),
        Column("oldest_at", MILLIS, nullable=False),
        Column("newest_at", MILLIS, nullable=False),
        Column("ids_digest", String(64), nullable=False),
        **NUMBERED,
    )
    op.create_index("ix_retention_batch_run_id", "retention_batch", ["run_id", "id"])
