"""What all tests share: Debian packages on demand, real servers on free ports, and a whole Darner through its command line."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from darner.db import Database, migrate
from darner.testing import debian
from darner.testing.cluster import UpCluster, UpFactory
from darner.testing.databases import MariaDb, PostgreSql, Server, empty
from darner.testing.programs import DockerRegistry, NginxFiles, Podman

# What `database_url` and `database` are made on: SQLite and Debian's servers, or instead of those the databases named here by URL.
ELSEWHERE = os.environ.get("DARNER_TEST_DATABASES", "").split()
SERVERS = [pytest.param(kind.kind, marks=pytest.mark.debian(kind.package)) for kind in (MariaDb, PostgreSql)]
DATABASES = ["sqlite", *(ELSEWHERE or SERVERS)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.debian("skopeo", …)`: install what is missing, else skip with one line; where CI is set, fail."""
    names = [name for marker in item.iter_markers("debian") for name in marker.args]
    try:
        debian.ensure(*names)
    except debian.MissingPackageError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    """Debian's docker-registry, empty, on a free port; mark the test `debian("docker-registry", "skopeo")`."""
    with DockerRegistry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def nginx_files(tmp_path: Path) -> Iterator[NginxFiles]:
    """nginx serving a directory; mark the test `debian("nginx-light")`."""
    with NginxFiles(tmp_path / "nginx") as running:
        yield running


@pytest.fixture
def podman() -> Iterator[Podman]:
    """podman with a storage of its own; mark the test `debian("podman")`."""
    with Podman() as storage:
        yield storage


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDb]:
    """One MariaDB for all tests; mark the test `debian("mariadb-server")`. Who stops it starts it again."""
    with MariaDb() as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSql]:
    """One PostgreSQL for all tests; mark the test `debian("postgresql")`. Who stops it starts it again."""
    with PostgreSql() as running:
        yield running


@pytest.fixture(params=DATABASES, ids=lambda name: str(name).partition(":")[0])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, once for each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
    elif ":" in request.param:
        empty(request.param)
        yield request.param
    else:
        server: Server = request.getfixturevalue(f"{request.param}_server")
        url = server.create()
        yield url
        server.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the present tables, once for each kind of database."""
    db = Database.open(database_url, patience_s=10)
    migrate(db)
    yield db
    db.close()


@pytest.fixture
def darner_up(tmp_path: Path) -> Iterator[UpFactory]:
    """Starts `darner up`: `cluster = darner_up(peers=3, env={…})`. Each must stop with 0 on SIGINT and leave nothing running."""
    clusters: list[UpCluster] = []

    def start(*, peers: int = 2, env: Mapping[str, str] | None = None, name: str = "up", database: str | None = None) -> UpCluster:
        cluster = UpCluster(tmp_path / name, peers=peers, env=env, database=database)
        clusters.append(cluster)
        cluster.start()
        return cluster

    yield start
    complaints = [complaint for cluster in clusters for complaint in _stop(cluster)]
    assert not complaints, "\n".join(complaints)


def _stop(cluster: UpCluster) -> list[str]:
    code = cluster.stop()
    left = cluster.kill_leftovers()
    found = [] if code == 0 else [f"darner up ended with {code} on SIGINT:\n{cluster.log_tail()}"]
    found += [f"processes were left running: {sorted(left)}"] if left else []
    found += ["cluster.json was left behind"] if cluster.cluster_file.exists() else []
    cluster.remove()
    return found
