"""What must always be true of the records, said as assertions; run after every event in tests."""

from darner.scheduler.policy.filter import descendants
from darner.scheduler.records import ENDED, HostRecord, PeerRecord, PeerState, TaskRecord
from darner.scheduler.state.answers import MAX_ANSWERS
from darner.scheduler.state.links import is_eligible
from darner.scheduler.state.world import World


def check_world(world: World) -> None:
    """Raise AssertionError if anything is wrong."""
    for task in world.tasks.values():
        for peer in task.peers.values():
            _check_peer(world, task, peer)
        _check_index(task)
        _check_sources(task)
        _check_waiting(world, task)
    for host in world.hosts.values():
        _check_host(world, host)


def _claim(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _check_peer(world: World, task: TaskRecord, peer: PeerRecord) -> None:
    _claim(peer.task is task, "a peer belongs to the task it is listed under")
    _claim(world.hosts.get(peer.host.id) is peer.host, "a peer's host is known")
    _claim(peer.host.peers.get((task.id, peer.id)) is peer, "a host lists its peers")
    _claim(peer.answers <= MAX_ANSWERS, "nobody gets more answers than a client takes")
    for parent in peer.parents:
        _claim(parent.host is not peer.host, "nobody loads from its own host")
        _claim(parent.host.announced, "nobody is sent to a host whose address is only guessed")
        _claim(task.peers.get(parent.id) is parent, "a parent takes part in the task")
        _claim(
            parent.state in (PeerState.RUNNING, PeerState.BACK_TO_SOURCE, PeerState.SUCCEEDED),
            "a parent has, or loads, the content",
        )
        _claim(peer in parent.children, "an edge is known at both ends")
    _claim(not (peer.parents and peer.state in ENDED), "who has ended loads from nobody")
    _claim(all(peer in child.parents for child in peer.children), "an edge is known at both ends")
    _claim(peer not in descendants(peer), "there is no cycle")


def _check_index(task: TaskRecord) -> None:
    listed = list(task.eligible)
    _claim(all(listed[peer.position] is peer for peer in listed), "the index knows where each peer stands in it")
    expected = {peer for peer in task.peers.values() if is_eligible(peer)}
    _claim(set(listed) == expected and len(listed) == len(expected), "the index lists exactly the eligible peers")
    _claim(all(not peer.host.host.disable_shared for peer in listed), "a host that does not share is not offered")


def _check_sources(task: TaskRecord) -> None:
    for source, usable in task.sources.items():
        _claim(task.peers.get(source.id) is source and source.state not in ENDED, "a source takes part and still loads")
        _claim(source.hold is None, "a source has been told")
        _claim(not usable, "nobody is sent to the origin who could wait for another")


def _check_waiting(world: World, task: TaskRecord) -> None:
    for peer in task.held:
        hold = peer.hold
        _claim(hold is not None, "who waits has a reason")
        _claim(hold is not None and hold.deadline > hold.since, "who waits has a deadline")
        _claim(task.peers.get(peer.id) is peer and peer.state not in ENDED, "who waits takes part and still loads")
        _claim(not peer.parents, "who waits has no parents")
        _claim(world.watched.get(task.id) is task, "a task with waiting peers is watched")
    _claim(all((peer.hold is not None) == (peer in task.held) for peer in task.peers.values()), "everyone who waits is listed")


def _check_host(world: World, host: HostRecord) -> None:
    children = sum(len(peer.children) for peer in host.peers.values())
    _claim(host.uploads == children, "a host counts its children")
    _claim(host.uploads > 0 or host.upload_pieces == host.upload_bps == host.upload_bytes == 0, "an idle host has no load")
    _claim(all(world.tasks[key[0]].peers.get(key[1]) is peer for key, peer in host.peers.items()), "a host's peers take part")
