"""Daemons as processes of their own, killed and frozen without warning."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from darner.client.dfdaemon import DaemonClient
from darner.core import ids
from darner.core.errors import DarnerError
from darner.core.progress import DownloadStarted
from darner.core.task import Download
from darner.testing.origin import CountingOrigin, Fault
from darner.testing.ports import free_port_base

MIB = 1024 * 1024


class Process:
    """A `darner daemon` on loopback."""

    def __init__(self, lab: Any, name: str, *, seed: bool = False, concurrent: int = 1) -> None:
        self.socket = lab.directory / f"{name}.sock"
        first = free_port_base(5)
        self.upload = first
        self._config = lab.directory / f"{name}.yaml"
        config = {
            "host": {"hostname": name, "ip": "127.0.0.1"},
            "download": {"server": {"socketPath": str(self.socket)}, "concurrentPieceCount": concurrent},
            "upload": {"server": {"ip": "127.0.0.1", "port": self.upload}},
            "scheduler": {"addrs": [lab.address]},
            "seedPeer": {"enable": seed},
            "storage": {"dir": str(lab.directory / name), "server": {"ip": "127.0.0.1", "tcpPort": first + 1}},
            "proxy": {"enable": False},
            "metrics": {"server": {"ip": "127.0.0.1", "port": first + 2}},
            "health": {"server": {"ip": "127.0.0.1", "port": first + 3}},
            "backend": {"allowLoopback": True},
        }
        self._config.write_text(yaml.safe_dump(config))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        read, write = os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "darner", "daemon", "--config", str(self._config),
            pass_fds=(write,), env=os.environ | {"DARNER_READY_FD": str(write)}, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write)
        try:
            async with asyncio.timeout(30):
                assert await asyncio.to_thread(os.read, read, 16), "the daemon did not become ready"
        finally:
            os.close(read)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        self.send(number)
        assert self._process is not None
        return await self._process.wait()

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.returncode is not None


@asynccontextmanager
async def started(*processes: Process) -> AsyncIterator[None]:
    try:
        for process in processes:
            await process.start()
        yield
    finally:
        for process in processes:
            if not process.ended:
                process.send(signal.SIGCONT)
                await process.end(signal.SIGKILL)


async def get(process: Process, url: str, output: Path) -> None:
    client = DaemonClient(f"unix:{process.socket}")
    try:
        async for _ in client.download_task(Download(url=url, output_path=str(output), overwrite=True)):
            pass
    finally:
        await client.close()


async def test_after_kill_9_pieces_on_disk_are_not_fetched_again(lab: Any) -> None:
    size = 48 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=24 * MIB))
        daemon = Process(lab, "p1")
        async with started(daemon):
            client = DaemonClient(f"unix:{daemon.socket}")
            held = 0
            events = client.download_task(Download(url=origin.url("/a.bin")))
            async for event in events:
                held += not isinstance(event.what, DownloadStarted)
                if held == 5:
                    break
            await daemon.end(signal.SIGKILL)
            await events.aclose()
            await client.close()
            origin.set_fault("/a.bin", None)
            origin.forget_counts()
            await daemon.start()
            await get(daemon, origin.url("/a.bin"), lab.directory / "out")
            assert hashlib.sha256((lab.directory / "out").read_bytes()).hexdigest() == origin.sha256("/a.bin")
            assert origin.body_bytes("/a.bin") <= size - held * 4 * MIB + 1
            assert await daemon.end(signal.SIGTERM) == 0
            assert not daemon.socket.exists()


async def test_a_parent_that_is_killed_is_replaced_at_once(lab: Any) -> None:
    size = 64 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        seed, peer = Process(lab, "seed", seed=True), Process(lab, "p1")
        async with started(seed, peer):
            await get(seed, origin.url("/a.bin"), lab.directory / "first")
            loading = asyncio.create_task(get(peer, origin.url("/a.bin"), lab.directory / "out"))
            task_id = ids.task_id(Download(url=origin.url("/a.bin")))
            client = DaemonClient(f"127.0.0.1:{peer.upload}")
            while True:
                try:
                    await client.stat_local_task(task_id)
                    break
                except DarnerError:
                    await asyncio.sleep(0.005)
            await client.close()
            await seed.end(signal.SIGKILL)
            async with asyncio.timeout(30):
                await loading
        assert hashlib.sha256((lab.directory / "out").read_bytes()).hexdigest() == origin.sha256("/a.bin")


async def test_a_parent_that_is_frozen_is_given_up(lab: Any) -> None:
    size = 24 * MIB
    with CountingOrigin({"/a.bin": size}) as origin:
        seed, peer = Process(lab, "seed", seed=True), Process(lab, "p1")
        async with started(seed, peer):
            await get(seed, origin.url("/a.bin"), lab.directory / "first")
            seed.send(signal.SIGSTOP)
            async with asyncio.timeout(60):
                await get(peer, origin.url("/a.bin"), lab.directory / "out")
        assert hashlib.sha256((lab.directory / "out").read_bytes()).hexdigest() == origin.sha256("/a.bin")
