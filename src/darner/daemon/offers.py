"""What children are told: which pieces this daemon has, as it gets them (SyncPieces), and how busy it is (SyncHost).

A child's stream ends when all it wants was offered, or when nothing more will come: no download of the task runs.
"""

from collections.abc import AsyncGenerator, Callable, Collection
from functools import partial

from darner.core.errors import DarnerError, NotFoundError
from darner.core.host import Host
from darner.core.piece import Piece
from darner.core.progress import PieceOffer
from darner.daemon.loading import Parts
from darner.daemon.run import Run

HOST_EVERY_S = 1.0


def find_run(runs: dict[str, Run], task_id: str) -> Run | None:
    """The run of a task that has not ended."""
    run = runs.get(task_id)
    return run if run is not None and not run.board.ended else None


async def sync_pieces(
    parts: Parts, runs: dict[str, Run], task_id: str, numbers: Collection[int]
) -> AsyncGenerator[PieceOffer, None]:
    """Offers of the wanted pieces. Raises NotFoundError for a task we have nothing of, DarnerError if its download fails."""
    wanted, ip = set(numbers), parts.host().ip
    if find_run(runs, task_id) is None and await parts.on_disk(partial(parts.store.task, task_id)) is None:
        raise NotFoundError(f"task {task_id} is not here")
    while wanted:
        run = find_run(runs, task_id)
        seen = run.board.version if run else 0
        pieces = run.board.pieces if run else await parts.on_disk(partial(_stored, parts, task_id))
        for piece in [pieces[number] for number in sorted(wanted & pieces.keys())]:
            wanted.discard(piece.number)
            yield _offer(parts, ip, piece)
        if not wanted or run is None:
            return
        await run.board.changed(seen)
        if run.board.error is not None:
            raise DarnerError(f"the download of task {task_id} failed here: {run.board.error.message}")


def _stored(parts: Parts, task_id: str) -> dict[int, Piece]:
    return {number: piece.to_piece() for number, piece in parts.store.pieces(task_id).items()}


def _offer(parts: Parts, ip: str, piece: Piece) -> PieceOffer:
    port = parts.config.storage.server.tcp_port
    # A QUIC child needs a port to fail on; without one it would speak to the gRPC port (daemon.md, section 1).
    return PieceOffer(number=piece.number, offset=piece.offset, length=piece.length, ip=ip, tcp_port=port, quic_port=port)


async def sync_host(parts: Parts, host: Callable[[], Host]) -> AsyncGenerator[Host, None]:
    """The numbers of this host, once a second, for as long as the child listens."""
    while True:
        yield host()
        await parts.clock.sleep(HOST_EVERY_S)
