"""One parent, one child, two processes: how fast pieces travel, as ratios to a bare loop measured in the same run.

    piece_transfer.py [--size 2GiB] [--runs 3] [--threads 4] [--piece 4MiB] [--dir DIR]

darner:  Store + PieceServer -> PieceClient + Store, as a daemon uses them (a row per piece, BLAKE3 on, connections kept).
bare:    `sendfile` by a thread per connection -> `recv_into` (1 MiB) -> CRC-32 -> `pwrite` into a preallocated file, nothing else;
         same processes, same number of threads.
others:  curl from nginx and `aria2c -x 8`, when they are installed.

The page cache is warm, and before each run as much memory is touched and freed again as the run will need: a virtual machine may
have given free pages back to its host, and whoever comes first would pay for fetching them. Printed: GiB/s, ratio to bare,
CPU-seconds per GiB and peak memory of both processes. Files are removed. `--dir /dev/shm` leaves the disk out of it.
"""

import argparse
import json
import mmap
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from isal import isal_zlib

from darner.core.errors import NotFoundError
from darner.core.piece import piece_count, piece_span
from darner.core.ranges import ByteRange
from darner.kit.units import format_size, parse_size
from darner.store import NewTask, PieceRecord, Store
from darner.swarm import PieceClient, PieceServer, ServedPiece

TASK_ID = "d3" * 32
CHUNK = 1024 * 1024
Result = dict[str, float]
Parent = tuple[int, Callable[[], Result]]


class StoredPieces:
    """The server's source: verified pieces of a store."""

    def __init__(self, store: Store) -> None:
        """Serve what `store` holds."""
        self._store = store

    def open_piece(self, task_id: str, number: int) -> ServedPiece:
        """A piece, its task pinned while it is sent."""
        piece = self._store.verified_piece(task_id, number)
        if piece is None:
            raise NotFoundError
        file = self._store.open_file(task_id)
        facts = {"offset": piece.offset, "length": piece.length, "crc32": piece.crc32}
        return ServedPiece(fd=file.fd, parent_id=piece.parent_id, release=file.close, **facts)


def usage() -> Result:
    """CPU seconds and peak memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    times = os.times()
    return {"cpu_s": times.user + times.system, "peak_bytes": peak_kib * 1024}


# -- the parent: fills its file, prints its port, answers each line on stdin with its usage --------------------------------------


def parent(kind: str, directory: Path, size: int, piece_length: int) -> None:
    """Serve until stdin ends."""
    port, stop = (serve_darner if kind == "darner" else serve_bare)(directory, size, piece_length)
    print(json.dumps({"port": port}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(usage()), flush=True)
    stop()


def serve_darner(directory: Path, size: int, piece_length: int) -> tuple[int, Callable[[], None]]:
    store = Store.open(directory)
    store.create(NewTask(id=TASK_ID, url="http://bench.example/", content_length=size, piece_length=piece_length))
    with store.open_file(TASK_ID, write=True) as file:
        for number, span, crc32 in fill(file.fd, size, piece_length):
            store.record_piece(TASK_ID, PieceRecord(number=number, offset=span.start, length=span.length, crc32=crc32))
    store.finish(TASK_ID)
    server = PieceServer(("127.0.0.1", 0), StoredPieces(store))
    port = server.start()

    def stop() -> None:
        server.stop()
        store.close()

    return port, stop


def serve_bare(directory: Path, size: int, piece_length: int) -> tuple[int, Callable[[], None]]:
    """The client sends (offset, length); the thread of its connection answers with `sendfile`."""
    directory.mkdir(parents=True)
    fd = os.open(directory / "content", os.O_RDWR | os.O_CREAT)
    for _ in fill(fd, size, piece_length):
        pass
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")

    def serve(sock: socket.socket) -> None:
        while request := sock.recv(16):
            offset, length = struct.unpack("!QQ", request)
            while length:
                count = os.sendfile(sock.fileno(), fd, offset, length)
                offset, length = offset + count, length - count

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1], lambda: None


def fill(fd: int, size: int, piece_length: int) -> Iterator[tuple[int, ByteRange, int]]:
    """Write pseudo-random content; yields number, span and CRC-32 of each piece."""
    block = os.urandom(piece_length)
    for number in range(piece_count(size, piece_length)):
        span = piece_span(number, size, piece_length)
        data = (struct.pack("!Q", number) + block)[: span.length]
        os.pwrite(fd, data, span.start)
        yield number, span, isal_zlib.crc32(data)


# -- the child: fetches everything once, prints what it took ---------------------------------------------------------------------


def child(kind: str, directory: Path, size: int, piece_length: int, port: int, threads: int) -> None:
    """Fetch and print."""
    before = usage()
    fetch = {"darner": fetch_darner, "darner-no-blake3": fetch_darner, "bare": fetch_bare}[kind]
    seconds = fetch(directory, size, piece_length, port, threads, kind == "darner")
    after = usage()
    print(json.dumps({"seconds": seconds, "cpu_s": after["cpu_s"] - before["cpu_s"], "peak_bytes": after["peak_bytes"]}))


def fetch_darner(directory: Path, size: int, piece_length: int, port: int, threads: int, blake3: bool) -> float:
    store = Store.open(directory)
    client = PieceClient()
    started = time.perf_counter()
    store.create(NewTask(id=TASK_ID, url="http://bench.example/", content_length=size, piece_length=piece_length))
    with store.open_file(TASK_ID, write=True) as file, ThreadPoolExecutor(threads) as pool:

        def one(number: int) -> None:
            span = piece_span(number, size, piece_length)
            got = client.fetch(("127.0.0.1", port), TASK_ID, number, span, file.fd, blake3=blake3)
            done = PieceRecord(number=number, offset=span.start, length=got.length, crc32=got.crc32, blake3=got.blake3)
            store.record_piece(TASK_ID, done)

        list(pool.map(one, range(piece_count(size, piece_length))))
    store.finish(TASK_ID)
    seconds = time.perf_counter() - started
    client.close()
    store.close()
    return seconds


def fetch_bare(directory: Path, size: int, piece_length: int, port: int, threads: int, _: bool) -> float:
    directory.mkdir(parents=True)
    fd = os.open(directory / "content", os.O_RDWR | os.O_CREAT)
    numbers = iter(range(piece_count(size, piece_length)))
    lock = threading.Lock()

    def work() -> None:
        buffer = memoryview(bytearray(CHUNK))
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                span = piece_span(number, size, piece_length)
                sock.sendall(struct.pack("!QQ", span.start, span.length))
                at, crc32 = span.start, 0
                while at < span.end:
                    count = sock.recv_into(buffer, min(CHUNK, span.end - at))
                    crc32 = isal_zlib.crc32(buffer[:count], crc32)
                    os.pwrite(fd, buffer[:count], at)
                    at += count

    started = time.perf_counter()
    os.posix_fallocate(fd, 0, size)
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started


# -- the run ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def parent_process(kind: str, directory: Path, options: argparse.Namespace) -> Iterator[Parent]:
    """A parent in a process of its own: its port, and its usage when asked."""
    arguments = [
        "--role",
        "parent",
        "--kind",
        kind,
        "--dir",
        str(directory),
        "--size",
        str(options.size),
        "--piece",
        str(options.piece),
    ]
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def ask() -> Result:
        requests.write("\n")
        requests.flush()
        answer: Result = json.loads(answers.readline())
        return answer

    try:
        yield json.loads(answers.readline())["port"], ask
    finally:
        requests.close()
        process.wait(30)


def run_child(kind: str, directory: Path, port: int, options: argparse.Namespace) -> Result:
    """One child process; its directory is removed."""
    sizes = ["--size", str(options.size), "--piece", str(options.piece), "--threads", str(options.threads)]
    command = [sys.executable, __file__, "--role", "child", "--kind", kind, "--dir", str(directory), "--port", str(port), *sizes]
    try:
        result: Result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return result


def nginx(content: Path, root: Path) -> Iterator[int]:
    """Serve with nginx: `sendfile`, one worker, in front of a file; its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    places = f"pid {root}/pid; error_log {root}/error.log; daemon off; worker_processes 1; events {{}}"
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{name}_temp_path {root}/{name};" for name in names)
    server = f"server {{ listen 127.0.0.1:{port}; root {content.parent}; }}"
    user = "user root;" if os.geteuid() == 0 else ""
    (root / "conf").write_text(f"{user} {places} http {{ sendfile on; access_log off; {temporary} {server} }}")
    process = subprocess.Popen(["nginx", "-c", root / "conf", "-p", root], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int) -> None:
    """Until something listens."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("nginx did not start")


def run_other(command: list[str], output: Path) -> Result:
    """One run of another program: wall time and CPU of the program itself."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    shutil.rmtree(output)
    output.mkdir()
    cpu_s = used.ru_utime + used.ru_stime
    return {"seconds": seconds, "cpu_s": cpu_s}


def other_commands(port: int, output: Path) -> dict[str, list[str]]:
    """Those of curl and aria2c that are installed."""
    url = f"http://127.0.0.1:{port}/content"
    known = {
        "curl (nginx)": ["curl", "-sf", "-o", f"{output}/content", url],
        "aria2c -x8 (nginx)": ["aria2c", "-q", "-x", "8", "-s", "8", "-k", "4M", "-d", f"{output}", "-o", "content", url],
    }
    return {name: command for name, command in known.items() if shutil.which(command[0])}


def measure(options: argparse.Namespace, root: Path) -> None:
    """Alternate the kinds, so that noise meets all of them, and print medians."""
    kinds = ["bare", "darner", "darner-no-blake3"]
    output = root / "others"
    output.mkdir()
    with ExitStack() as stack:
        bare = stack.enter_context(parent_process("bare", root / "bare", options))
        darner = stack.enter_context(parent_process("darner", root / "darner", options))
        others = {}
        if shutil.which("nginx"):
            port = stack.enter_context(contextmanager(nginx)(root / "bare" / "content", root))
            others = other_commands(port, output)
        results: dict[str, list[Result]] = {kind: [] for kind in [*kinds, *others]}
        for run in range(options.runs + 1):
            for kind, found in results.items():
                touch_memory(options.size)
                if kind in others:
                    result = run_other(others[kind], output)
                else:
                    result = run_pair(kind, bare if kind == "bare" else darner, root, options)
                if run:  # the first round warms up
                    found.append(result)
    for kind, found in results.items():
        show(kind, found, [one["seconds"] for one in results["bare"]], options.size / 2**30)


def touch_memory(size: int) -> None:
    """Make sure that the machine really has `size` bytes of free memory."""
    with mmap.mmap(-1, size + size // 4) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def run_pair(kind: str, served: Parent, root: Path, options: argparse.Namespace) -> Result:
    """One child, and what its parent spent on it."""
    port, ask = served
    before = ask()
    result = run_child(kind, root / "child", port, options)
    after = ask()
    return result | {"parent_cpu_s": after["cpu_s"] - before["cpu_s"], "parent_peak_bytes": after["peak_bytes"]}


def show(kind: str, results: list[Result], bare_s: list[float], gib: float) -> None:
    """One line; the ratio is the median of the rounds' own ratios, and that of the best runs."""
    middle = {name: statistics.median(one[name] for one in results) for name in results[0]}
    ratio = statistics.median(bare / one["seconds"] for bare, one in zip(bare_s, results, strict=True))
    best = min(bare_s) / min(one["seconds"] for one in results)
    line = f"{kind:19}{gib / middle['seconds']:5.2f} GiB/s  {ratio:4.2f} x bare (best runs {best:4.2f})"
    line += f"  CPU s/GiB: child {middle['cpu_s'] / gib:.3f}"
    if "parent_cpu_s" in middle:
        line += f" parent {middle['parent_cpu_s'] / gib:.3f}"
        line += f"  peak: child {format_size(middle['peak_bytes'])} parent {format_size(middle['parent_peak_bytes'])}"
    print(line, " runs", " ".join(f"{one['seconds']:.3f}" for one in results))


def main() -> None:
    """Parse, and play the role asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=2 * 2**30)
    parser.add_argument("--piece", type=parse_size, default=4 * 2**20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--role", choices=["parent", "child"], help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "parent":
        parent(options.kind, options.dir, options.size, options.piece)
    elif options.role == "child":
        child(options.kind, options.dir, options.size, options.piece, options.port, options.threads)
    else:
        root = Path(tempfile.mkdtemp(prefix="darner-bench-", dir=options.dir))
        try:
            measure(options, root)
        finally:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
