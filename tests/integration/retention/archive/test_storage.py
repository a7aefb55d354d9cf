"""What every place to keep an archive in must do; run on a directory and on a real S3 server."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer
from tests.integration.retention.archive.keeping import kept, several
from tests.integration.retention.history import History

from darner.core.errors import ConflictError, DarnerError, InvalidInputError, NotFoundError, UnavailableError
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.objects import ObjectStorage, open_storage
from darner.retention.archive.segment import file_digest
from darner.retention.archive.storage import MARK, DirectoryStorage, Storage

NAME = "2026/11/all-20261125T101500-1a2b3c4d.parquet"
SIGNED = "AWS4-HMAC-SHA256 Credential=tester/20261125/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
KEYS = {"access_key_id": "tester", "secret_access_key": "secret", "region": "us-east-1"}


@dataclass
class Place:
    """A place for an archive, and another view of it as from another machine."""

    storage: Storage
    again: Callable[[], Storage]
    damage: Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def put(address: str, data: bytes = b"") -> None:
    """Make a bucket, or an object in one, as somebody else would."""
    httpx.put(address, content=data, headers={"Authorization": SIGNED}).raise_for_status()


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        root = tmp_path / "archive"
        return Place(DirectoryStorage(root), lambda: DirectoryStorage(root), lambda name, data: hurt(root / name, data))
    endpoint = request.getfixturevalue("s3")
    bucket = f"archive-{os.urandom(4).hex()}"
    put(f"{endpoint}/{bucket}")
    url = f"s3://{bucket}/some/prefix"

    def opened(number: int = 0) -> Storage:
        return ObjectStorage(ArchiveConfig(url=url, cache_dir=tmp_path / f"copies{number}"), endpoint=endpoint, **KEYS)

    def damage(name: str, data: bytes) -> None:
        put(f"{endpoint}/{bucket}/some/prefix/{name}", data)

    return Place(opened(), lambda: opened(1), damage)


def hurt(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def made(storage: Storage, data: bytes, name: str = "1.1.parquet") -> Path:
    file = storage.scratch() / name
    file.write_bytes(data)
    return file


def test_a_file_is_there_whole_once_it_was_put(place: Place) -> None:
    place.storage.put(NAME, made(place.storage, b"content"))
    other = place.again()
    with other.reading([(NAME, "")]) as (file,):
        assert file.read_bytes() == b"content"
        assert other.root in file.parents
    assert [(one.name, one.bytes) for one in other.names() if not one.name.startswith(".tmp")] == [(NAME, 7)]


def test_a_name_is_never_taken_twice(place: Place) -> None:
    place.storage.put(NAME, made(place.storage, b"content"))
    with pytest.raises(ConflictError):
        place.storage.put(NAME, made(place.storage, b"CONTENT", "2.1.parquet"))
    with place.again().reading([(NAME, "")]) as (file,):
        assert file.read_bytes() == b"content"


def test_what_is_gone_is_told(place: Place) -> None:
    place.storage.put(NAME, made(place.storage, b"content"))
    for _ in range(2):
        place.storage.delete(NAME)
    for storage in (place.storage, place.again()):
        with pytest.raises(NotFoundError, match="missing"), storage.reading([(NAME, "")]):
            pass


def test_it_belongs_to_one_database(place: Place) -> None:
    with pytest.raises(UnavailableError, match="mounted"):
        place.storage.claim("mine", fresh=False)
    place.storage.claim("mine", fresh=True)
    place.again().claim("mine", fresh=False)
    with pytest.raises(UnavailableError, match="another database"):
        place.again().claim("yours", fresh=True)
    assert [one for one in place.storage.names() if not one.name.startswith(".tmp")] == []
    place.damage(MARK, b"{")
    with pytest.raises(UnavailableError):
        place.storage.claim("mine", fresh=False)


def test_a_copy_is_what_was_written(s3: str, tmp_path: Path) -> None:
    put(f"{s3}/copies")

    def opened(number: int) -> ObjectStorage:
        config = ArchiveConfig(url="s3://copies", cache_dir=tmp_path / f"c{number}", cache_size=250)
        return ObjectStorage(config, endpoint=s3, **KEYS)

    one = opened(1)
    source = made(one, b"x" * 100)
    names = [f"2026/11/all-20261125T101500-1a2b3c4{number}.parquet" for number in range(5)]
    for name in names:
        one.put(name, source)
    digest = file_digest(source)
    other = opened(2)
    with other.reading([(name, digest) for name in names]) as found:  # more than there is room for, while they are read
        assert all(file.is_file() for file in found)
    assert sum(file.is_file() for file in found) == 2
    other.keep_only({names[4]})
    assert [file.name for file in other.root.iterdir() if file.is_file()] == [names[4].replace("/", "_")]
    put(f"{s3}/copies/{names[0]}", b"y" * 100)
    with pytest.raises(DarnerError, match="damaged"), other.reading([(names[0], digest)]):
        pass


def test_a_store_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        config = ArchiveConfig(url="s3://bucket", cache_dir=tmp_path / "copies")
        storage = ObjectStorage(config, endpoint=endpoint, **KEYS)
        file = made(storage, b"content")
        for act in (
            lambda: storage.put(NAME, file),
            lambda: list(storage.names()),
            lambda: storage.delete(NAME),
            lambda: storage.claim("mine", fresh=True),
            lambda: storage.reading([(NAME, "")]).__enter__(),
        ):
            with pytest.raises(UnavailableError, match=r"s3://bucket does not answer"):
                act()


def test_addresses() -> None:
    assert isinstance(open_storage(ArchiveConfig(url="/srv/archive")), DirectoryStorage)
    assert isinstance(open_storage(ArchiveConfig(url="file:///srv/archive")), DirectoryStorage)
    assert isinstance(open_storage(ArchiveConfig(url="gs://bucket/prefix")), ObjectStorage)
    with pytest.raises(InvalidInputError):
        open_storage(ArchiveConfig(url="ftp://host/"))


async def test_the_life_of_jobs_in_a_bucket(s3: str, history: History, tmp_path: Path) -> None:
    put(f"{s3}/life")
    config = ArchiveConfig(url="s3://life/darner", cache_dir=tmp_path / "copies", cache_size=1)
    storage = ObjectStorage(config, endpoint=s3, **KEYS)
    keys = [key for number in range(13) for key in several(history, 2, ended_h=6 + number / 10)]
    policy = {"rules": [{"name": "all", "hot": "2h", "archive": "60h"}]}
    async with kept(history, config.url, policy=policy, storage=storage, segment_jobs=2) as it:
        assert (await it.sweep()).archived == 26
        assert history.left() == []
        assert sorted(await it.ids()) == keys
        await it.engine.restore(keys[0], by="ann")
        await it.archive.erase([keys[1]], reason="asked for", by="ann")
        for _ in range(3):
            assert (await it.sweep()).error == ""
        left = [keys[0], *keys[2:]]
        assert sorted(await it.ids()) == left
        assert "REPLACED" in it.states()
        it.older(70)
        for _ in range(3):
            assert (await it.sweep()).error == ""
        assert await it.ids() == [keys[0]]
        assert list(storage.names()) == []
        assert [one for one in storage.root.iterdir() if one.is_file()] == []  # no room for copies that nobody reads
