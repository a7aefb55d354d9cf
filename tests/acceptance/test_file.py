"""Files through the command line: many peers at once, one copy from the origin."""

from pathlib import Path

import httpx
import pytest

from darner.testing.cluster import UpCluster, UpFactory
from darner.testing.content import Content, sha256_of
from darner.testing.origin import CountingOrigin, Fault
from darner.testing.programs import NginxFiles

GIB = 1024**3
MIB = 1024**2


@pytest.mark.debian("nginx-light")
def test_four_daemons_ask_at_once_for_a_gibibyte_and_the_origin_sends_it_once(
    nginx_files: NginxFiles, darner_up: UpFactory, tmp_path: Path
) -> None:
    content = Content(GIB, "model")
    content.write(nginx_files.files / "model.bin")
    cluster = darner_up(peers=4)
    outputs = [tmp_path / f"model-{peer.name}.bin" for peer in cluster.facts.peers]
    commands = [
        cluster.popen("get", nginx_files.url("model.bin"), "-O", output, "--endpoint", peer.socket)
        for peer, output in zip(cluster.facts.peers, outputs, strict=True)
    ]
    for command in commands:
        _, complaint = command.communicate(timeout=240)
        assert command.returncode == 0, complaint
    assert [sha256_of(output) for output in outputs] == [content.sha256()] * 4
    assert GIB <= nginx_files.body_bytes() <= GIB * 1.02


def test_a_file_on_one_peer_comes_to_another_when_the_origin_is_gone(darner_up: UpFactory, tmp_path: Path) -> None:
    cluster = darner_up(peers=2)
    first, second = cluster.facts.peers
    with CountingOrigin({"/a.bin": 20 * MIB + 3}) as origin:
        url, digest = origin.url("/a.bin"), origin.sha256("/a.bin")
        done = cluster.run("get", url, "-O", tmp_path / "1", "--digest", f"sha256:{digest}", "--endpoint", first.socket)
        assert done.returncode == 0, done.stderr
    done = cluster.run("get", url, "-O", tmp_path / "2", "--disable-back-to-source", "--endpoint", second.socket)
    assert done.returncode == 0, done.stderr
    assert sha256_of(tmp_path / "2") == digest


def test_a_preheated_file_costs_the_origin_nothing_more(shared_cluster: UpCluster, tmp_path: Path) -> None:
    with CountingOrigin({"/big.bin": 64 * MIB}) as origin:
        done = shared_cluster.run("preheat", origin.url("/big.bin"))
        assert done.returncode == 0, done.stderr
        assert origin.body_bytes("/big.bin") <= 64 * MIB * 1.02
        origin.forget_counts()
        for peer in shared_cluster.facts.peers:
            output = tmp_path / peer.name
            done = shared_cluster.run("get", origin.url("/big.bin"), "-O", output, "--endpoint", peer.socket)
            assert done.returncode == 0, done.stderr
            assert sha256_of(output) == origin.sha256("/big.bin")
        assert origin.body_bytes() == 0


def test_a_piece_that_went_bad_on_a_seeds_disk_is_not_spread(darner_up: UpFactory, tmp_path: Path) -> None:
    cluster = darner_up(peers=1)
    with CountingOrigin({"/a.bin": 32 * MIB}) as origin:
        assert cluster.run("preheat", origin.url("/a.bin")).returncode == 0
        stored = [
            path for path in (cluster.facts.seed.dir / "content").rglob("*") if path.is_file() and path.stat().st_size == 32 * MIB
        ]
        assert len(stored) == 1
        with stored[0].open("r+b") as file:
            file.seek(9 * MIB)
            file.write(b"not what the origin sent")
        done = cluster.run("get", origin.url("/a.bin"), "-O", tmp_path / "a", "--endpoint", cluster.facts.peers[0].socket)
        assert done.returncode == 0, done.stderr
        assert sha256_of(tmp_path / "a") == origin.sha256("/a.bin")


@pytest.mark.parametrize("size", [0, 1, 4 * MIB, 4 * MIB + 1], ids=["empty", "one byte", "one piece", "a piece and a byte"])
def test_sizes_at_the_edges_arrive_whole(shared_cluster: UpCluster, tmp_path: Path, size: int) -> None:
    with CountingOrigin({"/a": size}) as origin:
        for peer in shared_cluster.facts.peers:
            output = tmp_path / peer.name
            done = shared_cluster.run("get", origin.url("/a"), "-O", output, "--endpoint", peer.socket)
            assert done.returncode == 0, done.stderr
            assert output.stat().st_size == size
            assert sha256_of(output) == origin.sha256("/a")


def test_a_range_is_what_the_output_holds(shared_cluster: UpCluster, tmp_path: Path) -> None:
    with CountingOrigin({"/a": 9 * MIB}) as origin:
        done = shared_cluster.run("get", origin.url("/a"), "-O", tmp_path / "a", "--range", "4194300-4194310")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "a").read_bytes() == origin.content("/a").bytes(4194300, 4194311)


def test_an_origin_without_ranges_and_length_works_and_is_shared(shared_cluster: UpCluster, tmp_path: Path) -> None:
    with CountingOrigin({"/stream": 13 * MIB + 5}) as origin:
        origin.set_fault("/stream", Fault(no_ranges=True, no_length=True))
        for peer in shared_cluster.facts.peers:
            output = tmp_path / peer.name
            done = shared_cluster.run("get", origin.url("/stream"), "-O", output, "--endpoint", peer.socket)
            assert done.returncode == 0, done.stderr
            assert sha256_of(output) == origin.sha256("/stream")


def test_an_origin_that_drops_connections_and_answers_503_now_and_then_still_delivers(
    shared_cluster: UpCluster, tmp_path: Path
) -> None:
    with CountingOrigin({"/a": 24 * MIB, "/b": 24 * MIB}) as origin:
        origin.set_fault("/a", Fault(drop_after=3 * MIB, times=2))
        origin.set_fault("/b", Fault(status=503, header={"Retry-After": "1"}, times=1))
        for path in ("/a", "/b"):
            done = shared_cluster.run("get", origin.url(path), "-O", tmp_path / path[1:])
            assert done.returncode == 0, done.stderr
            assert sha256_of(tmp_path / path[1:]) == origin.sha256(path)


def test_the_output_shares_its_blocks_with_the_store_unless_it_must_be_copied(shared_cluster: UpCluster, tmp_path: Path) -> None:
    with CountingOrigin({"/a": 5 * MIB}) as origin:
        (tmp_path / "a").write_bytes(b"older")
        refused = shared_cluster.run("get", origin.url("/a"), "-O", tmp_path / "a")
        assert refused.returncode == 1
        assert (tmp_path / "a").read_bytes() == b"older"
        done = shared_cluster.run("get", origin.url("/a"), "-O", tmp_path / "a", "--overwrite")
        assert done.returncode == 0, done.stderr
        assert sha256_of(tmp_path / "a") == origin.sha256("/a")


def test_only_health_answers_without_a_token(shared_cluster: UpCluster) -> None:
    base = shared_cluster.facts.manager_http
    assert httpx.get(f"{base}/healthy").status_code == 200
    for path in ("/api/v1/jobs", "/oapi/v1/jobs", "/api/v1/clusters", "/api/v1/personal-access-tokens", "/api/v1/schedulers"):
        assert httpx.get(f"{base}{path}").status_code == 401, path


def test_what_must_be_private_is_readable_by_its_owner_alone(shared_cluster: UpCluster) -> None:
    facts = shared_cluster.facts
    private = [shared_cluster.cluster_file, facts.token_file, *(Path(daemon.socket) for daemon in facts.daemons)]
    assert {str(path): oct(path.stat().st_mode & 0o777) for path in private} == {str(path): "0o600" for path in private}
