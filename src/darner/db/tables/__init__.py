"""All tables, as SQLAlchemy Core objects on one `metadata`."""

from darner.db.tables import access, archive, export, fleet, growth, jobs, retention
from darner.db.tables.meta import metadata

__all__ = ["access", "archive", "export", "fleet", "growth", "jobs", "metadata", "retention"]
