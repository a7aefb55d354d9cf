"""How the database grows."""

from alembic import op
from sqlalchemy import Column

from darner.db.migrations.kinds import ID, LONG, MILLIS, NUMBERED

revision = "0006_growth"
down_revision = "0005_export"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "growth_sample",
        Column("id", ID, primary_key=True),
        Column("at", MILLIS, nullable=False),
        Column("slot", ID, nullable=False),
        Column("body", LONG, nullable=False),
        **NUMBERED,
    )
    op.create_index("ix_growth_sample_at", "growth_sample", ["at", "id"])
    op.create_index("ix_growth_sample_slot", "growth_sample", ["slot"], unique=True)
