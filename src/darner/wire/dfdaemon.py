"""Codecs of dfdaemon.v2: progress of a download, pieces a parent offers, what one daemon holds of a task.

Flows in and out: values of core. Refuses: a progress message of no known kind (PeerError).
"""

from dragonfly_api import dfdaemon_pb2

from darner.core.errors import PeerError
from darner.core.progress import DownloadEvent, DownloadStarted, PieceDone, PieceOffer
from darner.core.task import Headers, LocalTask
from darner.wire.common import (
    from_timestamp,
    piece_from_pb,
    piece_into_pb,
    piece_to_pb,
    pieces_from_pb,
    range_from_pb,
    range_to_pb,
    to_timestamp,
)


def event_to_pb(event: DownloadEvent) -> dfdaemon_pb2.DownloadTaskResponse:
    """A DownloadTaskResponse."""
    response = dfdaemon_pb2.DownloadTaskResponse(host_id=event.host_id, task_id=event.task_id, peer_id=event.peer_id)
    if isinstance(event.what, DownloadStarted):
        response.download_task_started_response.CopyFrom(_started_to_pb(event.what))
    else:
        piece_into_pb(response.download_piece_finished_response.piece, event.what.piece, content=event.what.content)
    return response


def _started_to_pb(started: DownloadStarted) -> dfdaemon_pb2.DownloadTaskStartedResponse:
    return dfdaemon_pb2.DownloadTaskStartedResponse(
        content_length=started.content_length,
        range=None if started.range is None else range_to_pb(started.range),
        response_header=started.response_header,
        pieces=[piece_to_pb(piece) for piece in started.pieces],
        is_finished=started.is_finished,
    )


def event_from_pb(response: dfdaemon_pb2.DownloadTaskResponse) -> DownloadEvent:
    """The value of a DownloadTaskResponse. Raises PeerError for one of no known kind."""
    what: DownloadStarted | PieceDone
    match response.WhichOneof("response"):
        case "download_task_started_response":
            what = _started_from_pb(response.download_task_started_response)
        case "download_piece_finished_response":
            message = response.download_piece_finished_response.piece
            what = PieceDone(piece=piece_from_pb(message), content=message.content if message.HasField("content") else None)
        case _:
            raise PeerError("the daemon sent progress of no known kind")
    return DownloadEvent(host_id=response.host_id, task_id=response.task_id, peer_id=response.peer_id, what=what)


def _started_from_pb(message: dfdaemon_pb2.DownloadTaskStartedResponse) -> DownloadStarted:
    return DownloadStarted(
        content_length=message.content_length,
        range=range_from_pb(message.range) if message.HasField("range") else None,
        response_header=Headers(message.response_header),
        pieces=pieces_from_pb(message.pieces),
        is_finished=message.is_finished,
    )


def offer_to_pb(offer: PieceOffer) -> dfdaemon_pb2.SyncPiecesResponse:
    """A SyncPiecesResponse, all six fields set."""
    return dfdaemon_pb2.SyncPiecesResponse(
        number=offer.number,
        offset=offer.offset,
        length=offer.length,
        ip=offer.ip,
        tcp_port=offer.tcp_port,
        quic_port=offer.quic_port,
    )


def offer_from_pb(message: dfdaemon_pb2.SyncPiecesResponse) -> PieceOffer:
    """The value of a SyncPiecesResponse; a port that is not told is 0."""
    return PieceOffer(
        number=message.number,
        offset=message.offset,
        length=message.length,
        ip=message.ip,
        tcp_port=message.tcp_port,
        quic_port=message.quic_port,
    )


def local_task_to_pb(task: LocalTask) -> dfdaemon_pb2.StatLocalTaskResponse:
    """A StatLocalTaskResponse; its state is told by which of the times are set."""

    def time_of(at: float | None) -> object:
        return None if at is None else to_timestamp(at)

    return dfdaemon_pb2.StatLocalTaskResponse(
        task_id=task.id,
        piece_length=task.piece_length,
        content_length=task.content_length,
        response_header=task.response_header,
        uploading_count=task.uploading_count,
        uploaded_count=task.uploaded_count,
        created_at=to_timestamp(task.created_at),
        updated_at=to_timestamp(task.updated_at),
        prefetched_at=time_of(task.prefetched_at),  # type: ignore[arg-type]
        failed_at=time_of(task.failed_at),  # type: ignore[arg-type]
        finished_at=time_of(task.finished_at),  # type: ignore[arg-type]
    )


def local_task_from_pb(message: dfdaemon_pb2.StatLocalTaskResponse) -> LocalTask:
    """The value of a StatLocalTaskResponse."""
    return LocalTask(
        id=message.task_id,
        piece_length=message.piece_length if message.HasField("piece_length") else None,
        content_length=message.content_length if message.HasField("content_length") else None,
        response_header=Headers(message.response_header),
        uploading_count=message.uploading_count,
        uploaded_count=message.uploaded_count,
        created_at=from_timestamp(message.created_at),
        updated_at=from_timestamp(message.updated_at),
        prefetched_at=from_timestamp(message.prefetched_at) if message.HasField("prefetched_at") else None,
        failed_at=from_timestamp(message.failed_at) if message.HasField("failed_at") else None,
        finished_at=from_timestamp(message.finished_at) if message.HasField("finished_at") else None,
    )
