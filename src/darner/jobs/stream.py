"""A job's timeline and progress as server-sent events, resumable by `Last-Event-ID`.

`event: timeline` carries an id and one timeline line; `event: job` carries the job as it is now, without an id; `event: end` is the
last one of a job that has ended. Comments keep the connection alive.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from darner.core.errors import NotFoundError
from darner.core.job import END_STATES
from darner.jobs.engine import JobsEngine
from darner.jobs.view import event_json, job_json

CHUNK = 500
ALIVE_EVERY_S = 15.0


def frame(kind: str, data: Mapping[str, Any], *, event_id: int | None = None) -> bytes:
    """One event as bytes."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {kind}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


async def follow(engine: JobsEngine, job_id: int, *, after_id: int) -> AsyncIterator[bytes]:
    """Frames until the job has ended or the process stops. The job must exist when this is called."""
    last: dict[str, Any] | None = None
    quiet_s = 0.0
    with engine.bell.listen(job_id) as ear:
        while not engine.bell.stopped:
            # The job first, then its timeline: whatever ended it is in the timeline read after it.
            try:
                details = await engine.history.details(job_id)
            except NotFoundError:
                return
            lines = await engine.history.events(job_id, after_id=after_id, limit=CHUNK)
            for line in lines:
                after_id = line.id
                yield frame("timeline", event_json(line), event_id=line.id)
            shown = job_json(details.job, args=details.args)
            if shown != last:
                yield frame("job", shown)
            if len(lines) == CHUNK:
                last = shown
                continue
            if details.job.state in END_STATES:
                yield frame("end", {"id": job_id, "state": shown["state"], "detail_state": shown["detail_state"]})
                return
            quiet_s = 0.0 if lines or shown != last else quiet_s + engine.config.tick_s
            last = shown
            if quiet_s >= ALIVE_EVERY_S:
                quiet_s = 0.0
                yield b": alive\n\n"
            await ear.wait(engine.config.tick_s)
