"""What acceptance tests share: one running system for the tests that do not disturb it, and how results are judged."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from darner.testing.cluster import UpCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole systems need more time than the default; every test here counts as slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(autouse=True)
def _leave_no_gibibytes(tmp_path: Path) -> Iterator[None]:
    """The files of these tests are large; what a failure needs is in its message."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpCluster]:
    """One `darner up` with two peers for all tests of a module; they must leave it as they found it."""
    directory = tmp_path_factory.mktemp("shared")
    with UpCluster(directory / "up", peers=2) as cluster:
        yield cluster
    cluster.remove()
