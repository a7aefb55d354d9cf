"""What readers of history need of the archive. `app` wires it; without an archive there is none to ask."""

from typing import Protocol

from darner.history.record import JobRecord, RecordQuery


class ArchiveReader(Protocol):
    """Finds archived jobs. Only those whose segment is sealed, and that are not in the database."""

    async def page(self, query: RecordQuery) -> list[JobRecord]:
        """Records, newest first. Raises UnavailableError when the archive cannot be read."""

    async def find(self, job_id: int) -> JobRecord | None:
        """One record; None if the archive does not have it."""
