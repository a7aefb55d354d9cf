"""The first message of a stream: a peer and what it wants; and what a registration teaches about the task."""

import ipaddress

from darner.core.announce import Announced
from darner.core.errors import InvalidInputError
from darner.core.host import Host
from darner.core.ids import HostId
from darner.core.ranges import ByteRange, parse_range_header
from darner.core.task import Download
from darner.scheduler.records import ENDED, HostRecord, PeerRecord, TaskRecord, Wait
from darner.scheduler.state.answers import accept_holder
from darner.scheduler.state.removal import forget_peer
from darner.scheduler.state.sources import awaited, send_to_source
from darner.scheduler.state.waiting import serve
from darner.scheduler.state.world import Turn, World

_ANY_LENGTH = 1 << 62


def register(turn: Turn, event: Announced, download: Download) -> None:
    """Answer a new peer, or hold it. A registration that a peer repeats only teaches."""
    task = _task_of(turn, event.task_id, download)
    known = task.peers.get(event.peer_id)
    if known is not None and known.state not in ENDED:
        known.updated_at = turn.now
        _teach(task, download)
        return
    if known is not None:
        forget_peer(turn, known)
    host = host_of(turn.world, event.host_id, turn.now)
    ranged, span = _wanted(download, task)
    peer = PeerRecord(
        id=event.peer_id,
        host=host,
        task=task,
        download=download,
        created_at=turn.now,
        updated_at=turn.now,
        progress_at=turn.now,
        ranged=ranged,
        span=span,
    )
    task.peers[peer.id] = host.peers[task.id, peer.id] = peer
    _teach(task, download)
    triggered = task.trigger is not None and task.trigger.peer is None and task.trigger.seed_id == host.id
    if triggered and task.trigger is not None:
        task.trigger.peer = peer
    if download.metadata_only:
        accept_holder(turn, peer)
    elif triggered and download.actual_content_length != 0 and awaited(peer) is not Wait.SOURCE:
        send_to_source(turn, peer, "this seed was asked to load the content first", alone=False)
    else:
        serve(turn, peer)


def host_of(world: World, host_id: str, now: float) -> HostRecord:
    """The host's record. One that is not known yet (a scheduler forgets at a restart) may load; it is offered once it announces."""
    host = world.hosts.get(host_id)
    if host is None:
        ip, _, name = host_id.partition("-")
        try:
            ipaddress.ip_address(ip)
        except ValueError:
            ip, name = "", host_id
        host = HostRecord(host=Host(id=HostId(host_id), ip=ip, hostname=name, port=0), announced=False, updated_at=now)
        world.hosts[host_id] = host
    host.updated_at = now
    return host


def _task_of(turn: Turn, task_id: str, download: Download) -> TaskRecord:
    task = turn.world.tasks.get(task_id)
    if task is None:
        task = TaskRecord(id=task_id, download=download, created_at=turn.now, updated_at=turn.now, progress_at=turn.now)
        turn.world.tasks[task_id] = task
    return task


def _teach(task: TaskRecord, download: Download) -> None:
    """Learn from a registration: where the content is, and its lengths if the peer knows them. Absent is not 0."""
    task.download = download
    if download.actual_content_length is not None:
        task.content_length = download.actual_content_length
    length = download.actual_piece_length or download.piece_length
    if length:
        task.piece_length = length


def _wanted(download: Download, task: TaskRecord) -> tuple[bool, ByteRange | None]:
    """Whether only a part is wanted, and which. A `Range` header counts too (daemon.md, section 6.1)."""
    if download.range is not None:
        return True, download.range
    header = download.request_header.find("range")
    if header is None:
        return False, None
    total = download.actual_content_length or task.content_length
    try:
        span = parse_range_header(header, total or _ANY_LENGTH)
    except InvalidInputError:
        return True, None
    told = total is not None or span.end < _ANY_LENGTH
    return True, span if told else None
