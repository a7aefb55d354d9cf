"""Codecs of the AnnouncePeer dialogue (scheduler.v2): a peer's messages and the scheduler's answers.

Flows in and out: `Announced` and `SchedulerAnswer` of core. Refuses: a peer's message without ids, kind or required part
(InvalidInputError, as Go's rules do), and an answer of no known kind (PeerError).
"""

from collections.abc import Callable
from typing import Any

from dragonfly_api import errordetails_pb2, scheduler_pb2

from darner.core.announce import (
    Announced,
    BackToSourceFailed,
    BackToSourceFinished,
    BackToSourcePieceFailed,
    BackToSourcePieceFinished,
    BackToSourceStarted,
    EmptyTask,
    Failed,
    Finished,
    MetadataOnly,
    NeedBackToSource,
    NormalTask,
    PeerMessage,
    PieceFailed,
    PieceFinished,
    Register,
    Reschedule,
    SchedulerAnswer,
    Started,
)
from darner.core.errors import InvalidInputError, PeerError
from darner.core.piece import Piece
from darner.core.task import TaskInfo
from darner.wire.common import candidate_from_pb, candidate_to_pb, download_from_pb, download_to_pb, piece_from_pb, piece_to_pb
from darner.wire.values import put_optional

_FIELD_OF: dict[type[PeerMessage], str] = {
    Register: "register_peer_request",
    Started: "download_peer_started_request",
    BackToSourceStarted: "download_peer_back_to_source_started_request",
    Reschedule: "reschedule_peer_request",
    Finished: "download_peer_finished_request",
    BackToSourceFinished: "download_peer_back_to_source_finished_request",
    Failed: "download_peer_failed_request",
    BackToSourceFailed: "download_peer_back_to_source_failed_request",
    PieceFinished: "download_piece_finished_request",
    BackToSourcePieceFinished: "download_piece_back_to_source_finished_request",
    PieceFailed: "download_piece_failed_request",
    BackToSourcePieceFailed: "download_piece_back_to_source_failed_request",
}


def announced_to_pb(announced: Announced) -> scheduler_pb2.AnnouncePeerRequest:
    """An AnnouncePeerRequest. The lengths in `Finished` stay behind: upstream took their fields out of the message."""
    request = scheduler_pb2.AnnouncePeerRequest(host_id=announced.host_id, task_id=announced.task_id, peer_id=announced.peer_id)
    inner: Any = getattr(request, _FIELD_OF[type(announced.message)])
    inner.SetInParent()
    _fill(inner, announced.message)
    return request


def _fill(inner: Any, message: PeerMessage) -> None:  # noqa: ANN401  (one of twelve generated classes)
    match message:
        case Register(download=download):
            inner.download.CopyFrom(download_to_pb(download))
        case Reschedule(candidate_parents=parents, description=description):
            inner.candidate_parents.extend(candidate_to_pb(parent) for parent in parents)
            _describe(inner, description)
        case BackToSourceStarted() | Failed() | BackToSourceFailed():
            _describe(inner, message.description)
        case PieceFinished(piece=piece) | BackToSourcePieceFinished(piece=piece):
            inner.piece.CopyFrom(piece_to_pb(piece))
        case PieceFailed():
            inner.parent_id, inner.temporary = message.parent_id, message.temporary
            put_optional(inner, "piece_number", message.piece_number)
        case BackToSourcePieceFailed():
            put_optional(inner, "piece_number", message.piece_number)
            _blame_source(inner, message)
        case Started() | Finished() | BackToSourceFinished():
            pass


def _blame_source(inner: scheduler_pb2.DownloadPieceBackToSourceFailedRequest, message: BackToSourcePieceFailed) -> None:
    if message.status_code is None:
        inner.unknown.CopyFrom(errordetails_pb2.Unknown(message=message.message))
    else:
        inner.backend.CopyFrom(errordetails_pb2.Backend(message=message.message, status_code=message.status_code))


def _describe(inner: Any, description: str) -> None:  # noqa: ANN401  (one of the classes with a description)
    if description:
        inner.description = description


def announced_from_pb(request: scheduler_pb2.AnnouncePeerRequest) -> Announced:
    """The value of an AnnouncePeerRequest. Raises InvalidInputError naming the missing part."""
    for name in ("host_id", "task_id", "peer_id"):
        if not getattr(request, name):
            raise InvalidInputError(f"the announcement has no {name}", field=name)
    kind = request.WhichOneof("request")
    if kind is None:
        raise InvalidInputError("the announcement has no request, or one of an unknown kind", field="request")
    message = _READERS[kind](getattr(request, kind))
    return Announced(host_id=request.host_id, task_id=request.task_id, peer_id=request.peer_id, message=message)


def _register(inner: scheduler_pb2.RegisterPeerRequest) -> Register:
    if not inner.HasField("download"):
        raise InvalidInputError("the registration has no download", field="register_peer_request.download")
    return Register(download=download_from_pb(inner.download))


def _piece(inner: Any) -> Piece:  # noqa: ANN401  (one of two generated classes)
    if not inner.HasField("piece"):
        raise InvalidInputError("the report has no piece", field="piece")
    return piece_from_pb(inner.piece)


def _piece_failed(inner: scheduler_pb2.DownloadPieceFailedRequest) -> PieceFailed:
    number = inner.piece_number if inner.HasField("piece_number") else None
    return PieceFailed(parent_id=inner.parent_id, piece_number=number, temporary=inner.temporary)


def _source_piece_failed(inner: scheduler_pb2.DownloadPieceBackToSourceFailedRequest) -> BackToSourcePieceFailed:
    backend = inner.backend
    return BackToSourcePieceFailed(
        piece_number=inner.piece_number if inner.HasField("piece_number") else None,
        message=backend.message if inner.HasField("backend") else inner.unknown.message,
        status_code=backend.status_code if backend.HasField("status_code") else None,
    )


def _reschedule(inner: scheduler_pb2.ReschedulePeerRequest) -> Reschedule:
    parents = tuple(candidate_from_pb(parent) for parent in inner.candidate_parents)
    return Reschedule(candidate_parents=parents, description=inner.description)


_READERS: dict[str, Callable[[Any], PeerMessage]] = {
    _FIELD_OF[Register]: _register,
    _FIELD_OF[Started]: lambda _: Started(),
    _FIELD_OF[BackToSourceStarted]: lambda inner: BackToSourceStarted(description=inner.description),
    _FIELD_OF[Reschedule]: _reschedule,
    _FIELD_OF[Finished]: lambda _: Finished(),
    _FIELD_OF[BackToSourceFinished]: lambda _: BackToSourceFinished(),
    _FIELD_OF[Failed]: lambda inner: Failed(description=inner.description),
    _FIELD_OF[BackToSourceFailed]: lambda inner: BackToSourceFailed(description=inner.description),
    _FIELD_OF[PieceFinished]: lambda inner: PieceFinished(piece=_piece(inner)),
    _FIELD_OF[BackToSourcePieceFinished]: lambda inner: BackToSourcePieceFinished(piece=_piece(inner)),
    _FIELD_OF[PieceFailed]: _piece_failed,
    _FIELD_OF[BackToSourcePieceFailed]: _source_piece_failed,
}


_CERTAIN = b"\xf8\x7d\x01"
"""A field (number 2015, true) of Darner's own in EmptyTaskResponse; others pass over it."""


def answer_to_pb(answer: SchedulerAnswer, *, task: TaskInfo | None = None) -> scheduler_pb2.AnnouncePeerResponse:
    """An AnnouncePeerResponse. `task` is put into the candidate parents, which Go's rules require to name theirs."""
    response = scheduler_pb2.AnnouncePeerResponse()
    match answer:
        case EmptyTask():
            response.empty_task_response.SetInParent()
            if answer.certain:
                response.empty_task_response.MergeFromString(_CERTAIN)
        case NormalTask(candidate_parents=parents):
            response.normal_task_response.SetInParent()
            response.normal_task_response.candidate_parents.extend(candidate_to_pb(parent, task=task) for parent in parents)
        case NeedBackToSource(description=description):
            response.need_back_to_source_response.SetInParent()
            _describe(response.need_back_to_source_response, description)
        case MetadataOnly():
            response.metadata_only_response.SetInParent()
    return response


def answer_from_pb(response: scheduler_pb2.AnnouncePeerResponse) -> SchedulerAnswer:
    """The value of an AnnouncePeerResponse; parents without a host are left out. Raises PeerError for no known kind."""
    match response.WhichOneof("response"):
        case "empty_task_response":
            return EmptyTask(certain=_CERTAIN in response.empty_task_response.SerializeToString())
        case "normal_task_response":
            parents = response.normal_task_response.candidate_parents
            return NormalTask(candidate_parents=tuple(candidate_from_pb(parent) for parent in parents if parent.HasField("host")))
        case "need_back_to_source_response":
            return NeedBackToSource(description=response.need_back_to_source_response.description)
        case "metadata_only_response":
            return MetadataOnly()
    raise PeerError("the scheduler sent an answer of no known kind")
