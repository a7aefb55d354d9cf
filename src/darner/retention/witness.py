"""Remembers outside the database how far its sweeps were, so that one brought back from a backup is noticed.

The epoch of the sweeper's lease only grows. A database whose epoch is lower than one that was seen before was put back to an
earlier state: jobs are in it again that had been forgotten, or archived, and holds and policy may be those of last week. Then
nothing may be moved before a person has looked (spec/retention.md, 5.6). Each process remembers the highest epoch it has seen; for
SQLite also a small file beside the database does, because there a restored file usually meets a manager that has just been started.
A restore that brings that file back too is not noticed, so leave it out of backups. Managers on a server database notice a restore
while at least one of them runs. Where it cannot be noticed, say so with `darner retention pause`.
A database made anew has another instance id and is not compared.
"""

import contextlib
import json
import os
from pathlib import Path


class Witness:
    """What was seen of one database. `file` None: only in memory."""

    def __init__(self, file: Path | None) -> None:
        """Read what earlier processes saw; an unreadable file counts as none."""
        self._file = file
        self._instance = ""
        self._epoch = 0
        if file is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                told = json.loads(file.read_text())
                self._instance, self._epoch = str(told["instance"]), int(told["epoch"])

    def went_back(self, instance: str, epoch: int) -> int | None:
        """The higher epoch that was seen of this database; None: it did not go back."""
        return self._epoch if instance == self._instance and epoch < self._epoch else None

    def note(self, instance: str, epoch: int) -> None:
        """An epoch was seen."""
        self._epoch = max(epoch, self._epoch) if instance == self._instance else epoch
        self._instance = instance

    def keep(self) -> None:
        """Tell processes to come. A file that cannot be written is no reason to stop.

        Only after a durable commit: after a power cut the database may be some commits behind what was seen, and must not be taken
        for a restored one.
        """
        if self._file is None or not self._instance:
            return
        passing = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            passing.write_text(json.dumps({"instance": self._instance, "epoch": self._epoch}))
            passing.replace(self._file)


def beside(database: str | None) -> Path | None:
    """The file beside an SQLite database."""
    return Path(f"{database}-sweeps") if database else None
