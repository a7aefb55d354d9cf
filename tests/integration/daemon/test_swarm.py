"""Whole downloads: origin, seed and peers in one process."""

import hashlib
from typing import Any

from darner.core.digest import Digest
from darner.core.task import Download
from darner.testing.origin import CountingOrigin

MIB = 1024 * 1024


async def test_two_peers_get_a_file_through_one_copy_from_the_origin(lab: Any) -> None:
    size = 21 * MIB + 7
    with CountingOrigin({"/a.bin": size}) as origin:
        digest = Digest("sha256", origin.sha256("/a.bin"))
        async with lab.daemon("seed", seed=True) as seed, lab.daemon("p1") as one, lab.daemon("p2") as two:
            await lab.seed(seed, origin.url("/a.bin"))
            for peer in (one, two):
                output = lab.directory / f"{peer.parts.host().hostname}.out"
                client = lab.client(peer)
                download = Download(url=origin.url("/a.bin"), output_path=str(output), digest=digest)
                events = [event async for event in client.download_task(download)]
                await client.close()
                assert len(events) == 7
                assert hashlib.sha256(output.read_bytes()).hexdigest() == digest.value
            assert origin.body_bytes("/a.bin") <= size + 1
