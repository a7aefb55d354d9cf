"""Whether the database's clock can be believed: it is compared with one that only runs forward (spec/retention.md, 4.7).

A wall clock that is set wrong, or set right after having been wrong, makes jobs look older than they are. The machine's time since
boot does not jump, so the two must have moved by the same amount since the last sweep.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_PROCESS_ID = uuid.uuid4().hex
_KEPT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BootReading:
    """Milliseconds since the boot that has this id."""

    boot_id: str
    ms: int


def read_boot_clock() -> BootReading:
    """The machine's time since boot, suspended time included; where there is none, the process's monotonic clock."""
    try:
        boot_id = _BOOT_ID_FILE.read_text().strip()
        return BootReading(boot_id=boot_id, ms=int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000))
    except (OSError, AttributeError):
        return BootReading(boot_id=_PROCESS_ID, ms=int(time.monotonic() * 1000))


def distrust(mark: Mapping[str, Any], boot: BootReading, database_ms: int, *, tolerance_ms: int) -> str | None:
    """Why the database's clock cannot be believed; None if it can. `mark` is what `marked` gave at the last sweep."""
    last = mark.get("database_ms")
    if last is not None and database_ms < last - tolerance_ms:
        return f"The database's clock went back by {(last - database_ms) // 1000} s since the last sweep."
    before = mark.get("readings", {}).get(boot.boot_id)
    if before is None:
        return None
    ahead = (database_ms - before[1]) - (boot.ms - before[0])
    if abs(ahead) > tolerance_ms:
        way = "ahead" if ahead > 0 else "back"
        return f"The database's clock jumped {way} by {abs(ahead) // 1000} s since the last sweep."
    return None


def ran_evenly(mark: Mapping[str, Any], boot: BootReading) -> int:
    """For how long (ms) sweeps have found the database's clock to run as evenly as this boot's; 0: this is the first of them."""
    _, _, *first = mark.get("readings", {}).get(boot.boot_id, (0, 0))
    return boot.ms - int(first[0]) if first else 0


def marked(mark: Mapping[str, Any], boot: BootReading, database_ms: int) -> dict[str, Any]:
    """What to remember of this sweep: one reading per machine and boot, the latest few; and its first reading of that boot."""
    readings = {key: value for key, value in mark.get("readings", {}).items() if key != boot.boot_id}
    readings[boot.boot_id] = [boot.ms, database_ms, boot.ms - ran_evenly(mark, boot)]
    return {"database_ms": database_ms, "readings": dict(list(readings.items())[-_KEPT:])}
