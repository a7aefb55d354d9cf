"""Ids of hosts, peers, pieces and tasks, as upstream's Rust client makes them (scheduler.md, section 12)."""

import hashlib
from typing import NewType

from darner.core.digest import Digest
from darner.core.task import Download
from darner.core.url import blob_of, normalise_url

HostId = NewType("HostId", str)
PeerId = NewType("PeerId", str)
TaskId = NewType("TaskId", str)


def _sha256(*parts: str | None) -> str:
    return hashlib.sha256("".join(part for part in parts if part).encode()).hexdigest()


def host_id(ip: str, hostname: str, *, seed: bool) -> HostId:
    """`ip-hostname`, seeds add `-seed`."""
    return HostId(f"{ip}-{hostname}{'-seed' if seed else ''}")


def peer_id(ip: str, hostname: str, unique: str, *, seed: bool) -> PeerId:
    """`ip-hostname-uuid4`, seeds add `-seed`; `unique` is a fresh uuid4 per download."""
    return PeerId(f"{ip}-{hostname}-{unique}{'-seed' if seed else ''}")


def piece_id(task_id: str, number: int) -> str:
    """`taskid-number`."""
    return f"{task_id}-{number}"


def hashed_string(download: Download) -> str:
    """What the URL rule hashes: url, tag, application, revision, piece length, type; absent parts are skipped, no separators."""
    length = str(download.piece_length) if download.piece_length is not None else None
    url = normalise_url(download.url, download.filtered_query_params)
    parts = (url, download.tag, download.application, download.revision, length, "STANDARD")
    return "".join(part for part in parts if part)


def task_id(download: Download) -> TaskId:
    """The id of a standard task: content given, then blob digest, then the URL rule.

    Raises InvalidInputError for a URL that does not parse, or a blob-shaped URL with an invalid digest in blob-digest mode.
    """
    if download.content_for_calculating_task_id:
        return TaskId(_sha256(download.content_for_calculating_task_id))
    if download.enable_task_id_based_blob_digest:
        blob = blob_of(download.url)
        if blob is not None:
            return TaskId(Digest.parse(blob[1], field="url").value)
    return TaskId(_sha256(hashed_string(download)))


def persistent_task_id(url: str, region: str, endpoint: str) -> TaskId:
    """The id of a persistent task; the URL is hashed as given (rs:id_generator/mod.rs:212)."""
    return TaskId(_sha256(url, region, endpoint, "PERSISTENT"))


def persistent_cache_task_id(content: bytes, tag: str | None, application: str | None, piece_length: int | None) -> TaskId:
    """The id of a persistent cache task, from the file's bytes (rs:id_generator/mod.rs:234)."""
    tail = "".join(part for part in (tag, application, None if piece_length is None else str(piece_length)) if part)
    return TaskId(hashlib.sha256(content + tail.encode() + b"PERSISTENT_CACHE").hexdigest())
