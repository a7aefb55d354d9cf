"""All tables, as SQLAlchemy Core objects on one `metadata`."""

from darner.db.tables import access, fleet, jobs, retention
from darner.db.tables.meta import metadata

__all__ = ["access", "fleet", "jobs", "metadata", "retention"]
