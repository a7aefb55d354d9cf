"""Makes `tests.scenario.retention` importable however pytest is started."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
