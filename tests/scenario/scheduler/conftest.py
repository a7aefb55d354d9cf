"""Makes `tests.scenario.scheduler.script` importable however pytest is started."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[3])
if ROOT not in sys.path:
    sys.path.append(ROOT)
