"""Canaries in every place where a secret may be given: none of them is in a file, a log, an answer or a process's arguments."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import grpc
import httpx
import pytest
from dragonfly_api import common_pb2, dfdaemon_pb2, dfdaemon_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc

from darner.core.ids import task_id
from darner.core.task import Download
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS
from darner.testing.cluster import UpCluster
from darner.testing.image import make_image
from darner.testing.origin import CountingOrigin, Fault
from darner.testing.registry import SmallRegistry

CANARY = "Canary7d41neverseen"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpCluster]:
    """A system that logs everything."""
    directory = tmp_path_factory.mktemp("secrets")
    with UpCluster(directory / "up", peers=1, env={"DARNER_LOG_LEVEL": "debug"}) as running:
        yield running
    assert files_with(CANARY, directory) == []


def files_with(text: str, directory: Path) -> list[str]:
    """Files that hold the text: databases with their journals, logs, configuration, what `up` printed."""
    return [str(path) for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def arguments_of(pids: set[int]) -> bytes:
    return b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)


def told_everywhere(cluster: UpCluster, job: int) -> str:
    """All that people and programs can ask about a job."""
    bearer = {"Authorization": f"Bearer {cluster.facts.token_file.read_text().strip()}"}
    with httpx.Client(base_url=cluster.facts.manager_http, headers=bearer) as client:
        document = client.get("/openapi.json").json()
        paths = [path for path, methods in document["paths"].items() if "get" in methods and "{job_id}" in path]
        asked = ["/openapi.json", "/api/v1/jobs", "/oapi/v1/jobs", *(path.replace("{job_id}", str(job)) for path in paths)]
        answers = [client.get(path).text for path in asked if not path.endswith("stream")]
    commands = (("jobs", "ls"), ("jobs", "ls", "--json"), ("jobs", "show", job, "--events"), ("jobs", "show", job, "--json"))
    shown = [cluster.run(*map(str, words)) for words in commands]
    return "".join(answers) + "".join(done.stdout + done.stderr for done in shown)


def newest(cluster: UpCluster) -> int:
    (job, *_) = cluster.documents("jobs", "ls", "--limit", "1")
    return int(job["id"])


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_registrys_password_and_token(
    cluster: UpCluster, tmp_path: Path, auth: Literal["basic", "bearer"], password: str
) -> None:
    with SmallRegistry(auth=auth, username="ann", password=CANARY if password == "right" else "other") as registry:
        registry.add("app", "v1", make_image(tmp_path / "image", layers=(100_000,)))
        words = ("preheat", registry.manifest_url("app", "v1"), "--type", "image", "--username", "ann", "--password-stdin")
        done = cluster.run(*words, text_in=CANARY)
        assert (done.returncode == 0) == (password == "right"), done.stderr
        job = newest(cluster)
        again = cluster.run("jobs", "retry", str(job))
        kept = cluster.run("jobs", "hold", str(job), "--reason", "an audit")
        told = told_everywhere(cluster, job) + "".join(one.stdout + one.stderr for one in (done, again, kept))
        secrets = {access.header.get("authorization", "").partition(" ")[2] for access in registry.log} - {""} | {CANARY}
        for secret in secrets:
            assert secret not in told
            assert files_with(secret, cluster.data_dir) == []


@pytest.mark.parametrize("failure", ["none", "401", "404", "500", "wrong digest", "unreachable", "no URL"])
def test_signatures_logins_and_headers_of_a_file(cluster: UpCluster, tmp_path: Path, failure: str) -> None:
    with CountingOrigin({f"/{failure.replace(' ', '-')}.bin": 5 * MIB}) as origin:
        path = f"/{failure.replace(' ', '-')}.bin"
        if failure.isdigit():
            location = f"http://ann:{CANARY}@elsewhere/?sig={CANARY}"
            origin.set_fault(path, Fault(status=int(failure), header={"Location": location, "Set-Cookie": CANARY}))
        place = origin.url(path).removeprefix("http://") if failure != "unreachable" else "127.0.0.1:9/a"
        url = f"http://ann:{CANARY}@{place}?X-Amz-Signature={CANARY}&part=1"
        url = url.replace("127.0.0.1", "127.0. 0.1") if failure == "no URL" else url
        header = ("-H", f"X-Api-Key: {CANARY}", "-H", f"Cookie: id={CANARY}")
        digest = ("--digest", "sha256:" + "0" * 64) if failure == "wrong digest" else ()
        got = [cluster.run("get", url, *header, *digest, "-O", tmp_path / "out", *more) for more in (("--json",), ("--overwrite",))]
        done = cluster.run("preheat", url, *header, "--timeout", "4s", "--json")
        assert (got[1].returncode == 0) == (failure == "none"), got[1].stderr
        assert (done.returncode == 0) == (failure in {"none", "wrong digest"}), done.stderr
        known = () if failure == "no URL" else (told_everywhere(cluster, newest(cluster)),)
        assert CANARY not in "".join([*known, *(one.stdout + one.stderr for one in (*got, done))])
        assert CANARY.encode() not in arguments_of(cluster.facts.pids | {cluster.pid})


def test_what_daemons_and_schedulers_tell_over_grpc(cluster: UpCluster) -> None:
    (scheduler,) = json.loads(cluster.cluster_file.read_text())["schedulers"]
    with CountingOrigin({"/a.bin": MIB, "/no.bin": 1}) as origin:
        origin.set_fault("/no.bin", Fault(status=403, header={"Content-Location": f"/?sig={CANARY}", "X-Auth-Token": CANARY}))
        signed = [f"{origin.url(path)}?X-Amz-Signature={CANARY}" for path in ("/a.bin", "/no.bin")]
        header = {"Authorization": f"Bearer {CANARY}"}
        filtered = list(DEFAULT_FILTERED_QUERY_PARAMS)
        wanted = [common_pb2.Download(url=url, request_header=header, filtered_query_params=filtered) for url in signed]
        known = task_id(Download(url=signed[0], filtered_query_params=DEFAULT_FILTERED_QUERY_PARAMS))
        with grpc.insecure_channel(cluster.facts.seed.upload) as channel, grpc.insecure_channel(scheduler["grpc"]) as other:
            daemon = dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)  # type: ignore[no-untyped-call]
            told = [str(list(daemon.DownloadTask(dfdaemon_pb2.DownloadTaskRequest(download=wanted[0]))))]
            with pytest.raises(grpc.RpcError) as refused:
                list(daemon.DownloadTask(dfdaemon_pb2.DownloadTaskRequest(download=wanted[1])))
            told += [str(refused.value), str(refused.value.trailing_metadata())]
            told.append(str(daemon.StatTask(dfdaemon_pb2.StatTaskRequest(task_id=known))))
            asked = scheduler_pb2.StatTaskRequest(host_id="x", task_id=known)
            told.append(str(scheduler_pb2_grpc.SchedulerStub(other).StatTask(asked)))  # type: ignore[no-untyped-call]
    assert "a.bin" in told[-1]
    assert CANARY not in "".join(told)


def test_configuration_is_shown_without_what_logs_in(cluster: UpCluster, tmp_path: Path) -> None:
    for process, text in {
        "manager": f"database:\n  url: postgresql://ann:{CANARY}@host/db\n",
        "daemon": f"backend:\n  requestHeader:\n    Authorization: Bearer {CANARY}\n",
        "scheduler": f"manager:\n  tokenFile: [{CANARY}]\n",
    }.items():
        file = tmp_path / f"{process}.yaml"
        file.write_text(text)
        for words in ((), ("--effective",), ("--json",)):
            done = cluster.run("config", "show", "--process", process, "--config", file, *words)
            assert done.stdout or done.stderr
            assert CANARY not in done.stdout + done.stderr


def test_only_the_owner_may_read_what_the_system_keeps(cluster: UpCluster) -> None:
    for path in [cluster.data_dir, *cluster.data_dir.rglob("*")]:
        # Content is given out as hard links with its own mode; nobody else comes through the directories above it.
        if path.is_dir() and path.parent.name != "tasks":
            assert path.stat().st_mode & 0o777 == 0o700, path
        elif path.is_socket() or path.name == "token" or path.suffix in {".token", ".key", ".json", ".yaml", ".log", ".db"}:
            assert path.stat().st_mode & 0o077 == 0 or path.name == "store.db", path
