"""Alembic migrations, in order of their readable revision ids. A released migration is never edited."""
