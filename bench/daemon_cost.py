"""What a daemon costs while it fetches and serves: peak memory, CPU-seconds per GiB, throughput as a ratio to curl in the same run.

    daemon_cost.py [--size 2GiB]

A whole `darner up`: the seed fetches a file from nginx (preheat), then a peer fetches it from the seed (`darner get`). Baseline:
curl fetches the same file from nginx before and after. The figures of the processes come from /proc.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from darner.kit.units import format_size, parse_size
from darner.testing.cluster import Daemon, UpCluster
from darner.testing.content import Content
from darner.testing.programs import NginxFiles

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(daemon: Daemon) -> float:
    """CPU-seconds of a process so far."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(daemon: Daemon) -> int:
    """The most memory it ever held."""
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def curl(url: str, directory: Path) -> float:
    """Seconds that curl takes."""
    target = directory / "curl.bin"
    started = time.perf_counter()
    subprocess.run(["curl", "-sf", "-o", target, url], check=True)
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a daemon costs while it fetches and serves.")
    parser.add_argument("--size", type=parse_size, default=parse_size("2GiB"))
    size = parser.parse_args().size
    gib = size / 2**30
    with tempfile.TemporaryDirectory() as name, NginxFiles(Path(name) / "nginx") as nginx:
        directory = Path(name)
        Content(size, "bench").write(nginx.files / "model.bin")
        url = nginx.url("model.bin")
        with UpCluster(directory / "up", peers=1) as cluster:
            seed, peer = cluster.facts.seed, cluster.facts.peers[0]
            base = [curl(url, directory)]
            before = {daemon.name: cpu_s(daemon) for daemon in (seed, peer)}
            started = time.perf_counter()
            assert cluster.run("preheat", url).returncode == 0
            fetched, seed_fetch_cpu = time.perf_counter() - started, cpu_s(seed) - before["seed"]
            started = time.perf_counter()
            assert cluster.run("get", url, "-O", directory / "out.bin", "--endpoint", peer.socket).returncode == 0
            shared = time.perf_counter() - started
            serve_cpu, fetch_cpu = cpu_s(seed) - before["seed"] - seed_fetch_cpu, cpu_s(peer) - before[peer.name]
            base.append(curl(url, directory))
            curl_s = sum(base) / len(base)
            print(f"content {format_size(size)}; curl from nginx {gib / curl_s:.2f} GiB/s = 1.00")
            for what, seconds, cpu in (("seed from nginx", fetched, seed_fetch_cpu), ("peer from seed", shared, fetch_cpu)):
                print(f"{what:16} {gib / seconds:.2f} GiB/s = {curl_s / seconds:.2f} x curl   {cpu / gib:.2f} CPU-s/GiB")
            print(f"{'seed serving':16} {serve_cpu / gib:.2f} CPU-s/GiB")
            print(f"{'peak memory':16} seed {format_size(peak_bytes(seed))}   peer {format_size(peak_bytes(peer))}")
        cluster.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
