"""An exporter as a process of its own: `process.py DATABASE DIRECTORY WEBHOOK`, until it is killed."""

import asyncio
import sys
from pathlib import Path

from darner.core.secret import Secret
from darner.db import Database
from darner.history.codec import Codec
from darner.kit.log import configure
from darner.retention.export.config import SinkConfig
from darner.retention.export.exporter import Exporter
from darner.retention.export.runner import ExportPace


async def main(url: str, directory: str, hook: str) -> None:
    configure(level="debug", json=True)
    sink = SinkConfig(name="log", kind="ndjson", dir=Path(directory), batch_jobs=40, max_file_bytes=1 << 20, min_free_bytes=0)
    if hook:
        sink = SinkConfig(name="log", kind="webhook", url=hook, batch_jobs=40, authorization=Secret("Bearer canary-token-77"))
    pace = ExportPace(poll_s=0.02, retry_first_s=0.05, retry_cap_s=0.1, lease_ttl_s=0.5)
    async with Exporter(Database.open(url), Codec(), [sink], pace=pace):
        await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
