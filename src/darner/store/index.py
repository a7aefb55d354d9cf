"""What the store knows of its tasks and pieces: rows in the database, the same in memory, and what is true only in this process.

Every change goes to the database first and to memory after it, so that a refused write leaves both as they were.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from darner.core.errors import ConflictError, InvalidInputError, NotFoundError
from darner.core.piece import piece_span
from darner.store.metadata import Metadata
from darner.store.records import PieceRecord, TaskRecord

PIECE_MAPS_KEPT = 256


@dataclass(slots=True)
class Live:
    """What is true of a task only while this process runs.

    `verified` has bit n set when the bytes of piece n were checked; for a finished task that holds while the file's time of
    change stays `mtime_ns`: whoever edits a hard-linked output in place makes us look again.
    """

    readers: int = 0
    writers: int = 0
    uploaded: int = 0
    verified: int = 0
    mtime_ns: int | None = None


class Index:
    """Tasks and pieces by id, safe for threads."""

    def __init__(self, database: Path, clock: Callable[[], float]) -> None:
        """Read all tasks; pieces are read when a task is first used."""
        self.lock = threading.RLock()
        self._clock = clock
        self._metadata = Metadata(database)
        self._tasks = {task.id: task for task in self._metadata.tasks()}
        self._live = {task_id: Live() for task_id in self._tasks}
        self._piece_maps: OrderedDict[str, dict[int, PieceRecord]] = OrderedDict()
        self._used: dict[str, float] = {}

    def close(self) -> None:
        """Write times of use, then close the database."""
        with self.lock:
            self.flush_uses()
            self._metadata.close()

    def find(self, task_id: str) -> TaskRecord | None:
        """A task with its counters, or None."""
        with self.lock:
            return self._counted(self._tasks[task_id]) if task_id in self._tasks else None

    def known(self, task_id: str) -> TaskRecord:
        """A task with its counters. Raises NotFoundError."""
        record = self.find(task_id)
        if record is None:
            raise NotFoundError(f"no task {task_id} is stored here")
        return record

    def all(self) -> list[TaskRecord]:
        """All tasks with their counters."""
        with self.lock:
            return [self._counted(record) for record in self._tasks.values()]

    def used_bytes(self) -> int:
        """Bytes reserved by all tasks."""
        with self.lock:
            return sum(record.content_length for record in self._tasks.values())

    def insert(self, record: TaskRecord, pieces: Iterable[PieceRecord] = ()) -> TaskRecord:
        """A new task, with pieces whose bytes were just checked."""
        with self.lock:
            mapped = {piece.number: piece for piece in pieces}
            self._metadata.put_task(record, mapped.values())
            self._tasks[record.id] = record
            self._live[record.id] = Live(verified=sum(1 << number for number in mapped))
            self._piece_maps[record.id] = mapped
            return record

    def change(self, task_id: str, **changes: float | None) -> TaskRecord:
        """Change times of a task."""
        with self.lock:
            now = self._clock()
            record = replace(self.known(task_id), updated_at=now, **changes)  # type: ignore[arg-type]
            self._metadata.put_task(record)
            self._tasks[task_id] = record
            return record

    def forget(self, task_id: str) -> bool:
        """Remove a task's rows; False if there is none. Raises ConflictError while it is being written."""
        with self.lock:
            if task_id not in self._tasks:
                return False
            if self._live[task_id].writers:
                raise ConflictError(f"task {task_id} is being downloaded; stop that first")
            self._metadata.delete_task(task_id)
            del self._tasks[task_id], self._live[task_id]
            self._piece_maps.pop(task_id, None)
            self._used.pop(task_id, None)
            return True

    def pieces(self, task_id: str) -> dict[int, PieceRecord]:
        """A copy of a task's pieces by number; empty for an unknown task."""
        with self.lock:
            return dict(self._pieces(task_id)) if task_id in self._tasks else {}

    def piece(self, task_id: str, number: int) -> PieceRecord | None:
        """One piece, or None."""
        with self.lock:
            return self._pieces(task_id).get(number) if task_id in self._tasks else None

    def missing(self, task_id: str) -> int:
        """How many pieces a task lacks."""
        with self.lock:
            return self.known(task_id).piece_count - len(self._pieces(task_id))

    def record_piece(self, task_id: str, piece: PieceRecord) -> None:
        """Add a piece. Raises InvalidInputError for one that does not lie where the arithmetic puts it."""
        with self.lock:
            record = self._tasks.get(task_id) or self.known(task_id)
            span = piece_span(piece.number, record.content_length, record.piece_length)
            if (piece.offset, piece.length) != (span.start, span.length):
                message = f"piece {piece.number} of task {task_id} is {span.start}+{span.length}, not {piece.offset}+{piece.length}"
                raise InvalidInputError(message, field="piece")
            pieces = self._pieces(task_id)
            self._metadata.put_piece(task_id, piece)
            pieces[piece.number] = piece
            self._live[task_id].verified |= 1 << piece.number
            self.use(task_id)

    def drop_piece(self, task_id: str, number: int) -> None:
        """Forget a piece; its task is not finished any more."""
        with self.lock:
            lacking = replace(self.known(task_id), finished_at=None, updated_at=self._clock())
            pieces = self._pieces(task_id)
            self._metadata.drop_piece(lacking, number)
            pieces.pop(number, None)
            self._live[task_id].verified &= ~(1 << number)
            self._tasks[task_id] = lacking

    def live(self, task_id: str) -> Live:
        """What is true of the task in this process. Raises NotFoundError."""
        with self.lock:
            self.known(task_id)
            return self._live[task_id]

    def use(self, task_id: str) -> None:
        """The task's bytes are used now; written to the database later."""
        self._used[task_id] = self._clock()

    def pin(self, task_id: str, *, write: bool) -> Live:
        """Count an open file. Raises NotFoundError."""
        with self.lock:
            live = self.live(task_id)
            live.writers += write
            live.readers += not write
            self.use(task_id)
            return live

    def unpin(self, live: Live, *, write: bool, uploaded: bool = True) -> None:
        """An open file was closed; a reader that was really opened counts as an upload."""
        with self.lock:
            live.writers -= write
            live.readers -= not write
            live.uploaded += uploaded and not write

    def pinned(self) -> set[str]:
        """Ids of tasks with open files."""
        with self.lock:
            return {task_id for task_id, live in self._live.items() if live.readers or live.writers}

    def flush_uses(self) -> None:
        """Write the times of last use."""
        with self.lock:
            for task_id, used_at in self._used.items():
                self._tasks[task_id] = replace(self._tasks[task_id], used_at=used_at)
            self._metadata.touch(self._used)
            self._used.clear()

    def leftovers(self) -> list[Path]:
        """Temporary files outside our directory that were being written."""
        with self.lock:
            return self._metadata.leftovers()

    def add_leftover(self, path: Path) -> None:
        """Note a temporary file before it is made."""
        with self.lock:
            self._metadata.add_leftover(path)

    def remove_leftover(self, path: Path) -> None:
        """That file is gone."""
        with self.lock:
            self._metadata.remove_leftover(path)

    def _counted(self, record: TaskRecord) -> TaskRecord:
        live = self._live[record.id]
        used_at = self._used.get(record.id, record.used_at)
        return replace(record, uploading_count=live.readers, uploaded_count=live.uploaded, used_at=used_at)

    def _pieces(self, task_id: str) -> dict[int, PieceRecord]:
        pieces = self._piece_maps.get(task_id)
        if pieces is None:
            pieces = self._piece_maps[task_id] = self._metadata.pieces(task_id)
            if len(self._piece_maps) > PIECE_MAPS_KEPT:
                self._piece_maps.popitem(last=False)
        self._piece_maps.move_to_end(task_id)
        return pieces
