"""How long the smallest download takes: `darner get` for 1 KiB, process start included, and the daemon's DownloadTask alone.

Printed in milliseconds and as ratios to two baselines of the same run: starting a Python that does nothing, and `curl` to the
origin. Each round asks for a URL of its own (cold: origin, scheduler) or for the same one again (warm: the daemon's own disk).

    .venv/bin/python bench/get_latency.py --rounds 30
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from darner.client.dfdaemon import DaemonClient
from darner.core.task import Download
from darner.testing.cluster import UpCluster
from darner.testing.origin import CountingOrigin

SIZE = 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="darner-bench-") as name:
        directory = Path(name)
        files = {f"/{number}.bin": SIZE for number in range(3 * rounds + 2)}
        with CountingOrigin(files) as origin, UpCluster(directory / "up", peers=1) as cluster:
            measured = measure(origin, cluster, directory, rounds)
    show(measured)


def measure(origin: CountingOrigin, cluster: UpCluster, directory: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, by what was measured. The kinds take turns, so that a busy machine disturbs all alike."""
    socket = cluster.facts.peers[0].socket
    numbers = iter(range(3 * rounds + 2))
    found: dict[str, list[float]] = {}
    cold_urls = (origin.url(f"/{number}.bin") for number in numbers)
    warm = next(cold_urls)

    def note(kind: str, seconds: float) -> None:
        found.setdefault(kind, []).append(seconds)

    get(cluster, warm, directory / "first", socket)
    asyncio.run(rpc_seconds(socket, [warm]))
    for number in range(rounds):
        note("python -c pass", timed([sys.executable, "-c", "pass"]))
        note("curl", timed(["curl", "-fsS", "-o", str(directory / f"c{number}"), origin.url("/0.bin")]))
        note("darner --version", timed([*cluster.command()[:-7], "--version"]))
        note("darner get, cold", get(cluster, next(cold_urls), directory / f"a{number}", socket))
        note("darner get, warm", get(cluster, warm, directory / f"b{number}", socket))
    found["DownloadTask, cold"] = asyncio.run(rpc_seconds(socket, [next(cold_urls) for _ in range(rounds)]))
    found["DownloadTask, warm"] = asyncio.run(rpc_seconds(socket, [warm] * rounds))
    return found


def timed(command: list[str]) -> float:
    """Seconds that a program takes from start to end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def get(cluster: UpCluster, url: str, output: Path, socket: str) -> float:
    """Seconds of one `darner get`."""
    began = time.perf_counter()
    done = cluster.run("get", url, "-O", output, "--endpoint", socket)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size == SIZE
    return seconds


async def rpc_seconds(socket: str, urls: list[str]) -> list[float]:
    """Seconds of each DownloadTask over one open channel, until its last event."""
    client = DaemonClient(f"unix:{socket}")

    async def drain(url: str) -> None:
        async for _ in client.download_task(Download(url=url)):
            pass

    try:
        return [await clocked(drain, url) for url in urls]
    finally:
        await client.close()


async def clocked(work: Callable[[str], Awaitable[None]], url: str) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    await work(url)
    return time.perf_counter() - began


def show(measured: dict[str, list[float]]) -> None:
    """Median, p90 and the ratios."""
    python, curl = (statistics.median(measured[kind]) for kind in ("python -c pass", "curl"))
    print(f"{'1 KiB':22}{'median ms':>11}{'p90 ms':>9}{'× python':>10}{'× curl':>9}")
    for kind, seconds in measured.items():
        median = statistics.median(seconds)
        p90 = sorted(seconds)[int(len(seconds) * 0.9)] if len(seconds) > 1 else median
        print(f"{kind:22}{median * 1000:11.1f}{p90 * 1000:9.1f}{median / python:10.2f}{median / curl:9.2f}")


if __name__ == "__main__":
    main()
