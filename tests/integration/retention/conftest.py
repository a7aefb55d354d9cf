"""Makes `tests.integration.retention.history` importable however pytest is started."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.integration.retention.history import History, open_history  # noqa: E402


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty history in a real file."""
    opened = open_history(tmp_path / "darner.db")
    yield opened
    opened.db.close()
