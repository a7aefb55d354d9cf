"""PostgreSQL: tables that are swept are vacuumed after a hundredth of them has gone, not a fifth (spec/retention.md, 4.2)."""

from alembic import op

revision = "0007_autovacuum"
down_revision = "0006_growth"
branch_labels = None
depends_on = None

_SWEPT = (
    "job", "job_payload", "job_secret", "job_cluster", "job_part", "job_event", "job_fold", "job_group", "export_outbox",
    "archive_absent", "retention_batch",
)  # fmt: skip
_BODIES = ("job_payload", "job_part", "job_fold")
_SETTINGS = {"vacuum_scale_factor": "0.01", "vacuum_threshold": "1000"}
_ANALYZE = {"analyze_scale_factor": "0.02", "analyze_threshold": "1000"}


def upgrade() -> None:
    """Set them; long values lie in tables beside, which have settings of their own."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _SWEPT:
        settings = {f"autovacuum_{name}": value for name, value in {**_SETTINGS, **_ANALYZE}.items()}
        if table in _BODIES:
            settings |= {f"toast.autovacuum_{name}": value for name, value in _SETTINGS.items()}
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in settings.items())})")
