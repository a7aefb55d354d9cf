"""The pieces that the piece server sends: from the store, verified since this process started, pinned while they are sent."""

from darner.core.errors import NotFoundError
from darner.store import Store
from darner.swarm import ServedPiece


class StoredPieces:
    """The store as the piece server's source (port of swarm). Called by many threads."""

    def __init__(self, store: Store) -> None:
        """Serve from this store."""
        self._store = store

    def open_piece(self, task_id: str, number: int) -> ServedPiece:
        """A piece to be sent. Raises NotFoundError."""
        piece = self._store.verified_piece(task_id, number)
        if piece is None:
            raise NotFoundError(f"piece {number} of task {task_id} is not here")
        file = self._store.open_file(task_id)
        return ServedPiece(
            fd=file.fd,
            offset=piece.offset,
            length=piece.length,
            crc32=piece.crc32,
            parent_id=piece.parent_id,
            cost_s=piece.cost_s,
            created_at=piece.created_at,
            release=file.close,
        )
