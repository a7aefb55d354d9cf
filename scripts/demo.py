"""What `make demo` shows, in under a minute: one copy from the origin, everything else between peers, and a history that says so.

Starts `darner up` in a temporary directory beside an origin and a small registry of its own (`darner.testing`), preheats a file and
an image, fetches both from another peer, and prints the commands it runs, who sent how many bytes, and the job's timeline. Exit
code 1, with the end of the log, if anything is not as it should be.
"""

import argparse
import hashlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from darner.kit.units import format_size
from darner.testing.cluster import ClusterError, UpCluster
from darner.testing.content import Content, sha256_of
from darner.testing.image import ImageLayout, make_image
from darner.testing.ports import free_port

MIB = 1024**2
FILE_SIZE = 256 * MIB
LAYERS = (96 * MIB, 24 * MIB, 2 * MIB)
REPOSITORY, TAG = "demo/app", "v1"
START_TIMEOUT_S = 20.0
console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """Something was not as it should be."""


def main() -> int:
    """Run the demo; 0 if everything was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the data directory for a look")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="darner-demo-"))
    began = time.monotonic()
    cluster: UpCluster | None = None
    try:
        layout = make_image(directory / "image", layers=LAYERS)
        with (
            program("origin", "--file", f"model.bin={FILE_SIZE}") as origin,
            program("registry", *image_arguments(layout)) as registry,
        ):
            cluster = UpCluster(directory / "data", peers=2, env={"DARNER_PROXY__REGISTRYMIRROR__ADDR": registry})
            show(cluster, origin, registry, layout)
        console.print(f"\n[bold green]done[/] in {time.monotonic() - began:.1f} s: each byte left its origin once")
    except (DemoError, ClusterError, subprocess.SubprocessError, httpx.HTTPError, OSError, LookupError) as error:
        console.print(f"\n[bold red]failed[/] after {time.monotonic() - began:.1f} s")
        console.print(str(error), markup=False)
        if cluster is not None and not isinstance(error, ClusterError):  # that one holds the log already
            console.print(cluster.log_tail(), markup=False)
        return 1
    finally:
        if cluster is not None:
            cluster.kill_leftovers()
        if not options.keep:
            subprocess.run(["rm", "-rf", str(directory)], check=False)
    return 0


def show(cluster: UpCluster, origin: str, registry: str, layout: ImageLayout) -> None:
    """The acts of the demo, one after another."""
    heading("Start: a manager, a scheduler, a seed and two peers, with SQLite, in one directory")
    console.print(f"$ {shlex.join(['darner', *cluster.command()[-7:]])}", markup=False)
    facts = cluster.start()
    console.print(cluster.ready_line(), markup=False)

    heading(f"Preheat a file of {format_size(FILE_SIZE)}: the seed reads it from the origin, once")
    run(cluster, "preheat", f"{origin}/model.bin")
    heading(f"Preheat an image of {len(LAYERS)} layers")
    manifest = f"{registry}/v2/{REPOSITORY}/manifests/{TAG}"
    run(cluster, "preheat", manifest, "--type", "image")
    before = (file_bytes(origin), image_bytes(registry))

    heading("Fetch both from another peer: nothing more leaves origin or registry")
    peer = facts.peers[1]
    output = cluster.data_dir.parent / "model.bin"
    began = time.monotonic()
    run(cluster, "get", f"{origin}/model.bin", "-O", output, "--endpoint", peer.socket)
    file_s = time.monotonic() - began
    expect(sha256_of(output) == Content(FILE_SIZE, "/model.bin").sha256(), "the file's bytes differ from the origin's")
    began = time.monotonic()
    pulled = sum(pull_blob(peer.mirror, digest) for digest in layout.blobs())
    image_s = time.monotonic() - began
    after = (file_bytes(origin), image_bytes(registry))
    expect(after == before, f"origin and registry sent more: {before} became {after}")
    report(after, pulled, file_s, image_s)
    history(cluster)
    code = cluster.stop()
    expect(code == 0, f"darner up ended with {code} on Ctrl-C")


def history(cluster: UpCluster) -> None:
    """The jobs, the timeline of the newest, and when its record goes."""
    heading("What the history says, and for how long")
    run(cluster, "jobs", "ls")
    jobs = cluster.documents("jobs", "ls")
    expect([job["state"] for job in jobs] == ["SUCCESS", "SUCCESS"], "two jobs in SUCCESS were expected")
    run(cluster, "jobs", "show", str(jobs[0]["id"]), "--events")
    shown: dict[str, Any] = cluster.documents("jobs", "show", str(jobs[0]["id"]))[0]
    console.print(f"ended {shown['finished_at']}, its record is forgotten {shown['retention']['forgotten_at']}")


def report(origin_bytes: tuple[int, int], pulled: int, file_s: float, image_s: float) -> None:
    """Who sent how much."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "size", "from the origin", "copies", "from peers", "in"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    sizes = (FILE_SIZE, pulled)
    for name, size, sent, seconds in zip(("file", "image"), sizes, origin_bytes, (file_s, image_s), strict=True):
        expect(size <= sent <= size * 1.02, f"the origin of the {name} sent {sent} bytes for {size}")
        table.add_row(name, format_size(size), format_size(sent), f"{sent / size:.3f}", format_size(size), f"{seconds:.2f} s")
    console.print()
    console.print(table)


def run(cluster: UpCluster, *args: str | Path) -> None:
    """Show a command as a person would type it, run it, show what it said. Raises DemoError if it fails."""
    console.print(f"$ {shlex.join(['darner', *map(str, args)])}", markup=False)
    done = cluster.run(*args)
    console.print((done.stderr + done.stdout).rstrip(), markup=False)
    expect(done.returncode == 0, f"the command ended with {done.returncode}")


def heading(text: str) -> None:
    """A line that tells what comes."""
    console.print(f"\n[bold]{text}[/]")


def expect(holds: bool, otherwise: str) -> None:
    """Raise DemoError unless it holds."""
    if not holds:
        raise DemoError(otherwise)


def image_arguments(layout: ImageLayout) -> tuple[str, ...]:
    """What the registry program serves."""
    return ("--image", f"{REPOSITORY}:{TAG}={layout.path}")


@contextmanager
def program(name: str, *arguments: str) -> Iterator[str]:
    """One of the testing programs as a child process; gives its base URL."""
    port = free_port()
    command = [sys.executable, "-m", f"darner.testing.{name}", "--port", str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            expect(line.startswith("ready "), f"the {name} did not start")
            yield line.removeprefix("ready ").strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(START_TIMEOUT_S)


def counts(base: str) -> dict[str, Any]:
    """What a testing program has counted."""
    return dict(httpx.get(f"{base}/-/counts").raise_for_status().json())


def file_bytes(origin: str) -> int:
    """Body bytes of the file that left the origin."""
    return int(counts(origin)["/model.bin"]["body_bytes"])


def image_bytes(registry: str) -> int:
    """Blob bytes that left the registry."""
    return sum(counts(registry).values())


def pull_blob(mirror: str, digest: str) -> int:
    """Read a blob through a daemon's mirror, as a container runtime does; its size. Raises DemoError for other bytes."""
    hasher, size = hashlib.sha256(), 0
    with httpx.stream("GET", f"{mirror}/v2/{REPOSITORY}/blobs/{digest}", timeout=60) as reply:
        expect(reply.status_code == httpx.codes.OK, f"the mirror answered {reply.status_code} for {digest}")
        for chunk in reply.iter_bytes(MIB):
            hasher.update(chunk)
            size += len(chunk)
    expect(f"sha256:{hasher.hexdigest()}" == digest, f"the mirror served other bytes for {digest}")
    return size


if __name__ == "__main__":
    sys.exit(main())
