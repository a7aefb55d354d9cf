"""Tiers: class and tier as numbers, the moment that ages count from, labels and importance; folded jobs, classes, holds, previews.

All jobs are sorted anew by the first sweep; the policy in force stays as it is. SQLite cannot change a table's constraints, so
there the job table is copied; its ids go on where they were, or a new job would hide an archived one.
"""

from typing import Any

from alembic import op
from sqlalchemy import Boolean, Column, Integer, String, UniqueConstraint, false, text

from darner.db.migrations.kinds import ID, LONG, LONG_BINARY, MILLIS, NUMBERED, OPTIONS

revision = "0003_tiers"
down_revision = "0002_jobs"
branch_labels = None
depends_on = None


_FIRST_CLASS = 16
_AT_ONCE = 5_000
_KEPT = (
    "id", "uuid", "type", "state", "owner", "cluster_count", "part_count", "part_done", "part_failed", "bytes_total", "bytes_done",
    "summary", "error", "tag", "application", "priority", "bio", "idempotency_key", "created_at", "started_at", "finished_at",
    "deadline_at", "updated_at", "held", "hold_reason",
)  # fmt: skip
_INDEXES = {
    "ix_job_class": ("class", "tier", "base_at"),
    "ix_job_created_at": ("created_at",),
    "ix_job_state": ("state", "created_at"),
    "ix_job_type": ("type", "created_at"),
    "ix_job_owner": ("owner", "created_at"),
}


def upgrade() -> None:
    """Change `job`, make the other tables."""
    if op.get_bind().dialect.name == "sqlite":
        _copy_job()
        _copy_clusters()
    else:
        _alter_job()
    _folded()
    _classes()
    _holds_and_previews()
    _more_columns()


def _copy_job() -> None:
    highest = op.get_bind().execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'job'")).scalar()
    for name in _INDEXES:
        op.drop_index(name, "job")
    op.rename_table("job", "job_before")
    _job()
    columns = ", ".join(_KEPT)
    op.execute(f"INSERT INTO job ({columns}, base_at) SELECT {columns}, finished_at FROM job_before")  # noqa: S608  (constants)
    op.drop_table("job_before")
    if highest is not None:
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'job'")
        op.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES ('job', :seq)").bindparams(seq=highest))
    for name, columns_of in _INDEXES.items():
        op.create_index(name, "job", list(columns_of))
    op.create_index(
        "uq_job_idempotency_key", "job", ["idempotency_key"], unique=True, sqlite_where=text("idempotency_key IS NOT NULL")
    )


def _copy_clusters() -> None:
    """Without a rowid of its own a row of two numbers takes half the room (13 bytes a job)."""
    op.rename_table("job_cluster", "job_cluster_before")
    op.create_table(
        "job_cluster",
        Column("job_id", ID, primary_key=True, autoincrement=False),
        Column("cluster_id", ID, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO job_cluster SELECT job_id, cluster_id FROM job_cluster_before")
    op.drop_table("job_cluster_before")


def _job() -> None:
    op.create_table(
        "job",
        Column("id", ID, primary_key=True),
        Column("uuid", String(36), nullable=False, server_default=""),
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
        Column("deadline_at", MILLIS, nullable=False, server_default="0"),
        Column("updated_at", MILLIS, nullable=False),
        *_new_columns(),
        Column("held", Integer, nullable=False, server_default="0"),
        Column("hold_reason", String(512), nullable=False, server_default=""),
        **NUMBERED,
    )


def _new_columns() -> list[Column[Any]]:
    return [
        Column("labels", String(1024), nullable=False, server_default=""),
        Column("importance", Integer, nullable=False, server_default="0"),
        Column("class", Integer, nullable=False, server_default="0"),
        Column("tier", Integer, nullable=False, server_default="0"),
        Column("base_at", MILLIS),
    ]


def _alter_job() -> None:
    op.drop_index("ix_job_class", "job")
    # MySQL keeps unique constraints as indexes, and so does this table from now on.
    op.drop_constraint("uq_job_uuid", "job", type_="unique")
    op.drop_constraint("uq_job_idempotency_key", "job", type_="unique")
    op.create_index("uq_job_idempotency_key", "job", ["idempotency_key"], unique=True)
    op.drop_column("job", "class")
    op.drop_column("job", "tier")
    for column in _new_columns():
        op.add_column("job", column)
    op.alter_column("job", "uuid", server_default="", existing_type=String(36), existing_nullable=False)
    op.alter_column("job", "deadline_at", server_default="0", existing_type=MILLIS, existing_nullable=False)
    _fill_base()
    op.drop_index("ix_job_owner", "job")
    for name in ("ix_job_class", "ix_job_owner"):
        op.create_index(name, "job", [*_INDEXES[name], "id"])


def _fill_base() -> None:
    """In one statement, but on MySQL, where a long history in one transaction exceeds limits, in many; it cannot go back anyway."""
    bind = op.get_bind()
    if bind.dialect.name != "mysql":
        op.execute("UPDATE job SET base_at = finished_at")
        return
    last = bind.execute(text("SELECT COALESCE(max(id), 0) FROM job")).scalar_one()
    for first in range(0, last + 1, _AT_ONCE):
        span = {"first": first, "last": first + _AT_ONCE}
        bind.execute(text("UPDATE job SET base_at = finished_at WHERE id > :first AND id <= :last"), span)
        bind.exec_driver_sql("COMMIT")


def _folded() -> None:
    op.create_table(
        "job_fold",
        Column("job_id", ID, primary_key=True, autoincrement=False),
        Column("dict_id", Integer, nullable=False),
        Column("raw_len", Integer, nullable=False),
        Column("body", LONG_BINARY, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "history_dictionary",
        Column("id", ID, primary_key=True),
        Column("job_type", String(32), nullable=False),
        Column("body", LONG_BINARY, nullable=False),
        Column("samples", Integer, nullable=False),
        Column("ratio_percent", Integer, nullable=False),
        Column("created_at", MILLIS, nullable=False),
        **NUMBERED,
    )
    op.create_index("ix_history_dictionary_job_type", "history_dictionary", ["job_type", "id"])
    op.create_table(
        "job_group",
        Column("job_id", ID, primary_key=True, autoincrement=False),
        Column("group_key", ID, nullable=False),
        Column("finished_at", MILLIS, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_job_group_group_key", "job_group", ["group_key", "finished_at", "job_id"])


def _classes() -> None:
    op.create_table(
        "retention_class",
        Column("id", ID, primary_key=True),
        Column("scheme", String(16), nullable=False),
        Column("rule", String(64), nullable=False),
        UniqueConstraint("scheme", "rule", name="uq_retention_class_scheme_rule"),
        **NUMBERED,
    )
    # The ids below are fixed; a row makes every dialect count on from there.
    op.execute("DELETE FROM retention_class")  # MySQL: of an attempt that broke off
    op.execute(f"INSERT INTO retention_class (id, scheme, rule) VALUES ({_FIRST_CLASS - 1}, '', '')")  # noqa: S608  (a constant)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"SELECT setval(pg_get_serial_sequence('retention_class', 'id'), {_FIRST_CLASS - 1})")


def _holds_and_previews() -> None:
    op.create_table(
        "retention_hold",
        Column("id", ID, primary_key=True),
        Column("job_id", ID),
        Column("selector", LONG),
        Column("reason", String(512), nullable=False),
        Column("created_at", MILLIS, nullable=False),
        Column("created_by", String(128), nullable=False, server_default=""),
        Column("until", MILLIS),
        **NUMBERED,
    )
    op.create_index("ix_retention_hold_job_id", "retention_hold", ["job_id"])
    op.execute("DELETE FROM retention_hold")
    op.execute(
        "INSERT INTO retention_hold (job_id, reason, created_at, created_by) "
        "SELECT id, hold_reason, updated_at, '' FROM job WHERE held = 1"
    )
    op.create_table(
        "retention_preview",
        Column("token", String(64), primary_key=True),
        Column("policy_digest", String(64), nullable=False),
        Column("body", LONG, nullable=False),
        Column("created_at", MILLIS, nullable=False),
        Column("created_by", String(128), nullable=False, server_default=""),
        **OPTIONS,
    )
    op.create_index("ix_retention_preview_created_at", "retention_preview", ["created_at"])


def _more_columns() -> None:
    op.add_column("retention_policy", Column("confirmed_at", MILLIS))
    op.add_column("retention_policy", Column("confirmed_by", String(128), nullable=False, server_default=""))
    for name in ("folded", "archived", "hidden", "bytes"):
        op.add_column("retention_run", Column(name, ID, nullable=False, server_default="0"))
    op.add_column("retention_run", Column("cancel_asked", Boolean, nullable=False, server_default=false()))
    op.add_column("retention_batch", Column("bytes", ID, nullable=False, server_default="0"))
    op.add_column("retention_batch", Column("policy_version", ID))
    op.add_column("retention_batch", Column("epoch", ID, nullable=False, server_default="0"))
