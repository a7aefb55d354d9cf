"""The request itself, with its secrets, and the headers that a registry's login gave: what lives sealed in `job_secret`.

It is dropped when the job ends; the redacted args stay. `pack` and `unpack` are the codec; sealing is the vault's business.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darner.core.digest import Digest
from darner.core.errors import InvalidInputError
from darner.core.job import JobType
from darner.core.task import Download, Headers
from darner.core.work import WorkKind
from darner.jobs.events import IMAGE, JobSpec, Part
from darner.jobs.rules import parse_request

WORK = {JobType.PREHEAT: WorkKind.FILL, JobType.DELETE_TASK: WorkKind.DELETE, JobType.GET_TASK: WorkKind.LOOK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A request and the headers to be sent to the origin of its contents."""

    spec: JobSpec
    headers: Headers = field(default_factory=Headers)

    def download(self, part: Part) -> Download:
        """What a worker asks of a host for `part`.

        Blobs have the id that the daemon's registry mirror gives them (their digest), so that a later pull finds the same task.
        """
        spec = self.spec
        blob = spec.source == IMAGE
        return Download(
            url=part.url if blob else spec.urls[part.ordinal],
            digest=Digest.parse(part.digest) if part.digest else None,
            tag=spec.tag or None,
            application=spec.application or None,
            priority=spec.priority,
            filtered_query_params=spec.filtered_query_params,
            request_header=self.headers or spec.headers,
            piece_length=spec.piece_length,
            content_for_calculating_task_id=spec.content_for_calculating_task_id or None,
            enable_task_id_based_blob_digest=blob,
        )


def pack(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    """Bytes to be sealed: the decoded request and, once an image is resolved, the headers for its blobs."""
    return json.dumps({"body": body, "headers": dict(headers or {})}).encode()


def body_of(data: bytes) -> dict[str, Any]:
    """The request inside packed bytes."""
    body = json.loads(data)["body"]
    if not isinstance(body, dict):
        raise InvalidInputError("the stored request is not an object")
    return body


def unpack(data: bytes) -> Sealed:
    """The request and headers from opened bytes."""
    document = json.loads(data)
    spec = parse_request(document["body"], timeout_s=1.0, max_timeout_s=math.inf)
    return Sealed(spec=spec, headers=Headers(document["headers"]))
