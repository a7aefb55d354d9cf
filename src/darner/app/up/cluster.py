"""`cluster.json`: by which commands find the running system. Written whole, mode 0600; there only while the system runs."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darner.kit.files import write_atomic

if TYPE_CHECKING:
    from darner.app.up.layout import Layout

FILE_NAME = "cluster.json"
VERSION = 1


def describe(layout: "Layout", pids: Mapping[str, int], started_at: float) -> dict[str, Any]:
    """The content of `cluster.json`; `pids` by process name."""
    return {
        "version": VERSION,
        "started_at": datetime.fromtimestamp(started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "token_file": str(layout.token_file),
        "manager": {"pid": pids["manager"], "http": layout.manager_http, "grpc": layout.manager_grpc},
        "schedulers": [{"pid": pids["scheduler"], "grpc": layout.scheduler_grpc}],
        "daemons": [
            {
                "name": daemon.name,
                "seed": daemon.seed,
                "pid": pids[daemon.name],
                "socket": str(daemon.socket),
                "upload": daemon.address("upload"),
                "mirror": f"http://{daemon.address('mirror')}",
                "metrics": f"http://{daemon.address('metrics')}",
                "vortex": daemon.address("vortex"),
                "dir": str(daemon.directory),
            }
            for daemon in layout.daemons
        ],
    }


def write(layout: "Layout", pids: Mapping[str, int], started_at: float) -> None:
    """Write `cluster.json` atomically."""
    text = json.dumps(describe(layout, pids, started_at), indent=1)
    write_atomic(layout.data_dir / FILE_NAME, text.encode() + b"\n", mode=0o600)


def remove(data_dir: Path) -> None:
    """Take it away: the system no longer runs."""
    (data_dir / FILE_NAME).unlink(missing_ok=True)


def read(data_dir: Path) -> dict[str, Any] | None:
    """The running system of this directory, or None."""
    try:
        found = json.loads((data_dir / FILE_NAME).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
