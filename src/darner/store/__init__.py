"""Where pieces rest on disk: one preallocated file per task, and what is known of its pieces in an embedded database.

In: facts of a task, and digests of pieces whose bytes were written through `open_file`. Out: open files, verified pieces, whole
files linked or copied to where a person wants them. Refused: a second process on the same directory, pieces that do not lie
where the piece arithmetic puts them, a `finish` with pieces missing, outputs that exist already.
"""

from darner.store.handles import SpoolFile, TaskFile
from darner.store.records import NewTask, PieceRecord, StoreLimits, TaskRecord
from darner.store.store import Store

__all__ = ["NewTask", "PieceRecord", "SpoolFile", "Store", "StoreLimits", "TaskFile", "TaskRecord"]
