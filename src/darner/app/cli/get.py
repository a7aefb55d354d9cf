"""`darner get`: download through the local daemon (flags and meaning as upstream's dfget)."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darner.app.cli.globals import Globals
from darner.app.cli.output import note, print_json
from darner.app.cli.progress import ProgressLine
from darner.app.cli.run import UsageProblem, wait_for
from darner.core.digest import Digest
from darner.core.errors import DarnerError, InvalidInputError
from darner.core.piece import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH
from darner.core.progress import DownloadEvent, DownloadStarted
from darner.core.ranges import ByteRange, parse_range_flag
from darner.core.task import Download, Headers
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS, masked, parse_url
from darner.kit.units import format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INSECURE_HEADER = "X-Darner-Insecure-Skip-Verify"
SCHEMES = ("http", "https")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("get")(get)


def get(  # size: one parameter per flag
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="What to download: http(s)://…")],
    output: Annotated[Path, typer.Option("--output", "-O", help="Where to put it.")],
    digest: Annotated[str | None, typer.Option(help="Expected digest, ALG:VALUE (sha256, sha512, blake3, crc32).")] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="Header for the origin, 'Key: value'; repeatable.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Part of the task's identity.")] = None,
    application: Annotated[str | None, typer.Option(help="Part of the task's identity.")] = None,
    piece_length: Annotated[str | None, typer.Option(help="Piece length, 4MiB to 64MiB; part of the task's identity.")] = None,
    filtered_query_param: Annotated[
        list[str] | None, typer.Option(help="Query parameter that does not belong to the task's identity; repeatable.")
    ] = None,
    byte_range: Annotated[str | None, typer.Option("--range", help="Only these bytes, A-B.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    force_hard_link: Annotated[bool, typer.Option("--force-hard-link", help="Fail if the output cannot be a hard link.")] = False,
    disable_back_to_source: Annotated[bool, typer.Option("--disable-back-to-source", help="Never load from the origin.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify the origin's TLS certificate.")] = False,
    timeout: Annotated[str, typer.Option(help="Give up after this time.")] = "2h",
    endpoint: Annotated[str | None, typer.Option("--endpoint", "-e", help="The daemon's socket.")] = None,
) -> None:
    """Download URL through the local daemon and the swarm."""
    options: Globals = context.obj
    check_url(url)
    target = output.absolute()
    if not target.parent.is_dir():
        raise DarnerError(f"cannot write {output}: the directory {target.parent} does not exist")
    if target.is_dir():
        raise DarnerError(f"cannot write {output}: it is a directory; give a file name")
    if target.exists() and not overwrite:
        raise DarnerError(f"{output} exists already; --overwrite replaces it")
    headers = parse_headers(header or [])
    if insecure:
        headers[INSECURE_HEADER] = "true"
    download = Download(
        url=url,
        digest=Digest.parse(digest) if digest else None,
        range=_byte_range(byte_range),
        tag=tag,
        application=application,
        filtered_query_params=tuple(filtered_query_param) if filtered_query_param else DEFAULT_FILTERED_QUERY_PARAMS,
        request_header=headers,
        piece_length=_piece_length(piece_length),
        output_path=str(target),
        timeout_s=_duration("--timeout", timeout),
        disable_back_to_source=disable_back_to_source,
        force_hard_link=force_hard_link,
        overwrite=overwrite,
    )
    wait_for(_run(download, options.daemon_socket(endpoint), as_json=options.json, shown_path=output))


def check_url(url: str) -> None:
    """Raises InvalidInputError unless it is an http(s) URL."""
    scheme = str(parse_url(url).protocol).rstrip(":")
    if scheme not in SCHEMES:
        raise InvalidInputError(
            f"{masked(url)!r}: the scheme {scheme!r} is not supported; use one of {', '.join(SCHEMES)}", field="url"
        )


def parse_headers(lines: list[str]) -> Headers:
    """`Key: value` lines. Raises UsageProblem for a line without a colon."""
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UsageProblem("a header is written 'Key: value'; one of those given has no colon")
        headers[name.strip()] = value.strip()
    return headers


def _byte_range(text: str | None) -> ByteRange | None:
    if text is None:
        return None
    first, last = parse_range_flag(text)
    if last is None:
        raise UsageProblem(f"--range {text}: the end is missing; write A-B, both counted from 0 and included")
    return ByteRange(start=first, length=last - first + 1)


def _piece_length(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageProblem(f"--piece-length: {error}") from None
    if not MIN_PIECE_LENGTH <= size <= MAX_PIECE_LENGTH:
        raise UsageProblem(f"--piece-length {text}: expected 4MiB to 64MiB")
    return size


def _duration(flag: str, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageProblem(f"{flag}: {error}") from None
    if seconds <= 0:
        raise UsageProblem(f"{flag} {text}: expected more than 0")
    return seconds


async def _run(download: Download, socket: str, *, as_json: bool, shown_path: Path) -> None:
    from darner.client.dfdaemon import DaemonClient

    started = time.monotonic()
    client = DaemonClient(f"unix:{socket}")
    try:
        done, total, task = await _follow(client.download_task(download, timeout_s=download.timeout_s), as_json=as_json)
    finally:
        await client.close()
    elapsed = time.monotonic() - started
    if as_json:
        print_json(
            {"event": "finished", "task_id": task, "content_length": total, "output": str(download.output_path), "seconds": elapsed}
        )
    else:
        took = format_duration(elapsed)
        note(f"{shown_path}: {format_size(done)} in {took} ({format_size(done / max(elapsed, 1e-6))}/s), task {task[:12]}")


async def _follow(events: "AsyncIterator[DownloadEvent]", *, as_json: bool) -> tuple[int, int, str]:
    """Show the events of a download; returns (bytes done, content length, task id)."""
    line = ProgressLine("get", shown=False if as_json else None)
    total, task = 0, ""
    lengths: dict[int, int] = {}  # by piece: those that were here already are told again one by one
    try:
        async for event in events:
            task = event.task_id
            what = event.what
            if isinstance(what, DownloadStarted):
                total = what.range.length if what.range else what.content_length
                lengths.update({piece.number: piece.length for piece in what.pieces})
                told: dict[str, object] = {"event": "started", "task_id": task, "content_length": what.content_length}
            else:
                lengths[what.piece.number] = what.piece.length
                told = {
                    "event": "piece",
                    "number": what.piece.number,
                    "length": what.piece.length,
                    "traffic": what.piece.traffic_type.name,
                }
            if as_json:
                print_json(told)
            line.show(min(sum(lengths.values()), total), total)
    finally:
        line.close()
    return min(sum(lengths.values()), total), total, task
