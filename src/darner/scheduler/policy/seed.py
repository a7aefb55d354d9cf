"""Which seed loads a task (scheduler.md, section 11): upstream's ring over the healthy seeds, by the full task id."""

from collections.abc import Iterable
from dataclasses import replace

from darner.core.hashring import SeedRing
from darner.core.task import Download
from darner.scheduler.policy.filter import MAX_STRIKES
from darner.scheduler.records import HostRecord, PeerRecord, SeedHealth


class Seeds:
    """The healthy seeds; built anew when one comes or goes."""

    def __init__(self, hosts: Iterable[HostRecord] = ()) -> None:
        """Take those that are healthy and want to give."""
        good = [host for host in hosts if host.host.is_seed and host.shares and host.health is SeedHealth.GOOD]
        self._by_address = {host.host.address: host for host in good}
        self._ring = SeedRing(self._by_address)

    def pick(self, task_id: str) -> HostRecord | None:
        """The seed of a task, None if there is no healthy one."""
        address = self._ring.pick(task_id)
        return self._by_address[address] if address else None


def may_ask(seed: HostRecord, peer: PeerRecord, now: float) -> bool:
    """Whether this seed can help this peer: it is another host, has not got the task already, and failed neither lately.

    A failure is forgotten after a time, or when the seed has become healthy again since.
    """
    if (
        seed is peer.host
        or peer.strikes.get(seed.id, 0) >= MAX_STRIKES
        or any(holder.host is seed for holder in peer.task.eligible)
    ):
        return False
    failed = peer.task.seed_failed
    return failed is None or failed.seed_id != seed.id or now > failed.until or seed.good_since > failed.at


def seed_download(download: Download, remote_ip: str) -> Download:
    """What the seed is asked for: the whole content, for itself, from the origin, without what concerns the asker's own machine.

    The range goes too: a seed that holds only a part takes itself for complete (daemon.md, section 6.6).
    """
    return replace(
        download,
        range=None,
        request_header=download.request_header.without("range"),
        output_path=None,
        timeout_s=None,
        disable_back_to_source=False,
        need_back_to_source=True,
        prefetch=False,
        need_piece_content=False,
        force_hard_link=False,
        overwrite=False,
        metadata_only=False,
        remote_ip=remote_ip or None,
    )
