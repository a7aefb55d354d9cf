"""Encoding with memory: what the scheduler sends again and again is encoded once.

A host is offered to many children; the message of a parent is kept until the host announces itself anew. Children ask for a task's
digests many times while it loads; each piece is encoded when it is first asked for, and a reply is the concatenation of its parts,
which protobuf allows for repeated fields.
"""

from collections.abc import Iterable
from dataclasses import replace

from dragonfly_api import common_pb2, scheduler_pb2

from darner.core.announce import CandidateParent, NormalTask, SchedulerAnswer
from darner.core.host import Host
from darner.core.piece import Piece
from darner.core.task import TaskInfo
from darner.wire.common import candidate_to_pb, piece_to_pb, task_to_pb
from darner.wire.scheduler import answer_to_pb

MAX_HOSTS = 10_000
MAX_TASKS = 256


class Answers:
    """Encodes answers on announce streams."""

    def __init__(self) -> None:
        """Nothing is remembered yet."""
        self._peers: dict[str, tuple[Host, common_pb2.Peer]] = {}

    def encode(self, answer: SchedulerAnswer) -> scheduler_pb2.AnnouncePeerResponse:
        """The response message of an answer."""
        if not isinstance(answer, NormalTask):
            return answer_to_pb(answer)
        response = scheduler_pb2.AnnouncePeerResponse()
        parents = response.normal_task_response.candidate_parents
        for parent in answer.candidate_parents:
            message = parents.add()
            message.CopyFrom(self._template(parent))
            message.id, message.state = parent.id, parent.state
        return response

    def _template(self, parent: CandidateParent) -> common_pb2.Peer:
        known = self._peers.get(parent.host.id)
        if known is not None and known[0] is parent.host:
            return known[1]
        if len(self._peers) >= MAX_HOSTS:
            self._peers.clear()
        message = candidate_to_pb(parent)
        self._peers[parent.host.id] = (parent.host, message)
        return message


class Tasks:
    """Encodes what is known of tasks, as bytes."""

    def __init__(self) -> None:
        """Nothing is remembered yet."""
        self._pieces: dict[str, dict[int, tuple[Piece, bytes]]] = {}

    def encode(self, task: TaskInfo) -> bytes:
        """The bytes of a common.v2.Task."""
        head = task_to_pb(replace(task, pieces=())).SerializeToString()
        return head + b"".join(self._encoded(task.id, task.pieces)) if task.pieces else head

    def _encoded(self, task_id: str, pieces: Iterable[Piece]) -> list[bytes]:
        known = self._pieces.get(task_id)
        if known is None:
            if len(self._pieces) >= MAX_TASKS:
                del self._pieces[next(iter(self._pieces))]
            known = self._pieces[task_id] = {}
        found = []
        for piece in pieces:
            entry = known.get(piece.number)
            if entry is None or entry[0] is not piece:
                entry = (piece, common_pb2.Task(pieces=[piece_to_pb(piece)]).SerializeToString())
                known[piece.number] = entry
            found.append(entry[1])
        return found
