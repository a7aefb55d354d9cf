"""A database with ended jobs, and what an exporter delivered of them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.integration.retention.export.jobs import Jobs, open_jobs  # noqa: E402


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """An empty SQLite database in a real file."""
    opened = open_jobs(f"sqlite:///{tmp_path / 'darner.db'}")
    yield opened
    opened.db.close()
