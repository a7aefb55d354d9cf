"""Bad input gets one clear paragraph and the right exit code, leaves nothing stored and nothing half done (contract: bad input)."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from darner.testing.cluster import UpCluster
from darner.testing.image import make_image
from darner.testing.origin import CountingOrigin, Fault
from darner.testing.ports import free_port_base
from darner.testing.registry import SmallRegistry

MIB = 1024**2
FAILED, USAGE = 1, 2
PATH = "/file.bin"


@pytest.fixture(scope="module")
def cluster(shared_cluster: UpCluster) -> UpCluster:
    return shared_cluster


@pytest.fixture
def origin() -> Iterator[CountingOrigin]:
    with CountingOrigin({PATH: 6 * MIB}) as running:
        yield running


def assert_complains(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with this code and said why on stderr, in one line; wrong usage may show the usage too."""
    said = done.stderr.strip()
    assert done.returncode == code, (done.returncode, said, done.stdout)
    assert "Traceback" not in said
    assert said, "no reason was given"
    assert code == USAGE or "\n" not in said, said
    missing = [word for word in words if word.lower() not in said.lower()]
    assert not missing, f"{missing} not in: {said}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadGet:
    """A download that must fail: how the origin misbehaves, what is asked, and what the complaint names."""

    words: tuple[str, ...]
    url: str = ""
    fault: Fault | None = None
    options: tuple[str, ...] = ()
    code: int = FAILED


BAD_GETS = {
    "not a URL": BadGet(url="no such thing", words=("no such thing", "URL")),
    "unsupported scheme": BadGet(url="gopher://127.0.0.1/a", words=("gopher", "http")),
    "host not resolvable": BadGet(url="http://no-such-host.invalid/a", words=("no-such-host.invalid",)),
    "nobody listens": BadGet(url="http://127.0.0.1:1/a", words=("127.0.0.1",)),
    "401": BadGet(fault=Fault(status=401, header={"WWW-Authenticate": 'Basic realm="x"'}), words=("401",)),
    "403": BadGet(fault=Fault(status=403), words=("403",)),
    "404": BadGet(fault=Fault(status=404), words=("404",)),
    "416": BadGet(fault=Fault(status=416), words=("416",)),
    "429": BadGet(fault=Fault(status=429), words=("429",)),
    "500": BadGet(fault=Fault(status=500), words=("500",)),
    "503": BadGet(fault=Fault(status=503), words=("503",)),
    "wrong digest": BadGet(options=("--digest", "sha256:" + "0" * 64), words=("digest",)),
    "malformed digest": BadGet(options=("--digest", "md5:00"), words=("digest", "sha256")),
    "redirect loop": BadGet(fault=Fault(redirect_to=PATH), words=("redirect",)),
    "range beyond the end": BadGet(options=("--range", "99999999-100000000"), words=("range",)),
    "range backwards": BadGet(options=("--range", "9-3"), words=("range",)),
    "piece length too small": BadGet(options=("--piece-length", "1KiB"), words=("piece-length", "4MiB"), code=USAGE),
    "time-out no duration": BadGet(options=("--timeout", "soon"), words=("timeout", "soon"), code=USAGE),
    "header without a colon": BadGet(options=("-H", "nonsense"), words=("header",), code=USAGE),
    "unknown option": BadGet(options=("--no-such-option",), words=("no-such-option",), code=USAGE),
    "no daemon at the socket": BadGet(options=("--endpoint", "/nonexistent/daemon.sock"), words=("/nonexistent/daemon.sock",)),
    "sends another range": BadGet(fault=Fault(shifted_range=True), words=("instead of bytes",)),
}


@pytest.mark.parametrize("name", BAD_GETS)
def test_a_download_that_cannot_be_done_says_why_and_leaves_no_file(
    cluster: UpCluster, origin: CountingOrigin, tmp_path: Path, name: str
) -> None:
    case = BAD_GETS[name]
    origin.set_fault(PATH, case.fault)
    output = tmp_path / "out"
    done = cluster.run("get", case.url or origin.url(PATH), "-O", output, "--timeout", "60s", *case.options)
    assert_complains(done, case.code, *case.words)
    assert list(tmp_path.iterdir()) == []


def test_content_that_changes_while_it_is_read_is_refused(cluster: UpCluster, tmp_path: Path) -> None:
    with CountingOrigin({PATH: 64 * MIB}) as origin:
        # Every connection breaks, so what was begun with the old content must go on with the new.
        origin.set_fault(PATH, Fault(changes_after=2 * MIB, drop_after=3 * MIB))
        done = cluster.run("get", origin.url(PATH), "-O", tmp_path / "out")
    assert_complains(done, FAILED, "changed")
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_told_otherwise(cluster: UpCluster, tmp_path: Path) -> None:
    with CountingOrigin({PATH: MIB}, tls_dir=tmp_path / "tls") as origin:
        refused = cluster.run("get", origin.url(PATH), "-O", tmp_path / "out")
        assert_complains(refused, FAILED, "certificate")
        assert not (tmp_path / "out").exists()
        trusted = cluster.run("get", origin.url(PATH), "-O", tmp_path / "out", "--insecure")
        assert trusted.returncode == 0, trusted.stderr


def test_an_output_that_cannot_be_written_is_named(cluster: UpCluster, origin: CountingOrigin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cases = [("file", "exists"), ("file/out", "file"), ("missing/out", "missing"), (".", "directory")]
    for target, word in cases:
        done = cluster.run("get", origin.url(PATH), "-O", tmp_path / target)
        assert_complains(done, FAILED, word)
    assert (tmp_path / "file").read_text() == "in the way"
    assert origin.requests() == 0


def test_an_image_preheat_that_cannot_be_done_says_why_and_the_history_agrees(cluster: UpCluster, tmp_path: Path) -> None:
    layout = make_image(tmp_path / "image", layers=(100_000,), platforms=("linux/amd64", "linux/arm64"))
    with SmallRegistry() as registry, SmallRegistry(auth="bearer", username="ann", password="secret") as private:
        registry.add("app", "v1", layout)
        private.add("app", "v1", layout)
        registry.add_manifest("app", "prose", "application/vnd.oci.image.manifest.v1+json", b"this is no JSON")
        registry.add_manifest("app", "huge", "application/vnd.oci.image.manifest.v1+json", b'{"x": "' + b"y" * 40 * MIB + b'"}')
        cases: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
            ((registry.manifest_url("app", "v1"), "--platform", "plan9/mips"), ("plan9/mips", "linux/amd64", "linux/arm64")),
            ((registry.manifest_url("app", "prose"),), ("JSON",)),
            ((registry.manifest_url("app", "huge"),), ("manifest", "large")),
            ((registry.manifest_url("app", "missing"),), ("404",)),
            ((private.manifest_url("app", "v1"),), ("401",)),
            (("http://127.0.0.1:1/v2/app/manifests/v1",), ("127.0.0.1",)),
        ]
        for arguments, words in cases:
            done = cluster.run("preheat", *arguments, "--type", "image")
            assert_complains(done, FAILED, *words)
        assert registry.blob_bytes() == {}


def test_a_preheat_of_something_else_than_a_url_is_refused_before_a_job_exists(cluster: UpCluster) -> None:
    before = cluster.documents("jobs", "ls")
    for url in ("no such thing", "gopher://127.0.0.1/a"):
        done = cluster.run("preheat", url, "--type", "file")
        assert done.returncode in (FAILED, USAGE)
        assert_complains(done, done.returncode, url)
    assert cluster.documents("jobs", "ls") == before


OTHER: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kept too short": (("retention", "policy", "set", "--keep", "59m", "--reason", "x", "--yes"), ("1h",)),
    "kept no duration": (("retention", "policy", "set", "--keep", "soon", "--reason", "x", "--yes"), ("soon",)),
    "kept below zero": (("retention", "policy", "set", "--keep=-5h", "--reason", "x", "--yes"), ("-5h",)),
    "unknown job": (("jobs", "show", "999999"), ("999999",)),
    "job id no number": (("jobs", "show", "first"), ("ID", "first")),
    "unknown state": (("jobs", "ls", "--state", "HAPPY"), ("HAPPY", "SUCCE")),
    "unknown scope": (("token", "create", "--name", "n", "--scope", "everything"), ("everything", "job")),
    "unknown command": (("no-such-command",), ("no-such-command",)),
    "invalid token": (("--token", "dat_wrong", "jobs", "ls"), ("token",)),
    "manager not there": (("--manager", "http://127.0.0.1:1", "jobs", "ls"), ("127.0.0.1:1",)),
    "manager no URL": (("--manager", "here", "jobs", "ls"), ("here",)),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_commands_name_what_is_wrong(cluster: UpCluster, name: str) -> None:
    arguments, words = OTHER[name]
    done = cluster.run(*arguments)
    assert done.returncode in (FAILED, USAGE), done.stdout
    assert_complains(done, done.returncode, *words)
    assert "dat_wrong" not in done.stderr


def test_a_second_up_on_the_same_directory_says_who_holds_it(cluster: UpCluster) -> None:
    second = UpCluster(cluster.data_dir, peers=2)
    done = subprocess.run(second.command(), capture_output=True, text=True, timeout=60, check=False)
    assert_complains(done, FAILED, str(cluster.pid), str(cluster.data_dir))
    assert cluster.run("jobs", "ls").returncode == 0


def bad_ups(cluster: UpCluster, tmp_path: Path) -> dict[str, tuple[list[str], tuple[str, ...]]]:
    (tmp_path / "file").write_text("in the way")
    new = str(tmp_path / "new")
    base = str(cluster.port_base)
    free = str(free_port_base(60))
    return {
        "port taken": (["--data-dir", new, "--port-base", base], (base, "port")),
        "port out of range": (["--data-dir", new, "--port-base", "70000"], ("70000",)),
        "below a file": (["--data-dir", str(tmp_path / "file" / "below"), "--port-base", free], (str(tmp_path / "file"),)),
        "too many peers": (["--data-dir", new, "--peers", "-1"], ("peers",)),
    }


@pytest.mark.parametrize("name", ["port taken", "port out of range", "below a file", "too many peers"])
def test_an_up_that_cannot_start_says_why(cluster: UpCluster, tmp_path: Path, name: str) -> None:
    arguments, words = bad_ups(cluster, tmp_path)[name]
    done = subprocess.run([*cluster.command()[:-6], *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (FAILED, USAGE)
    assert_complains(done, done.returncode, *words)


@pytest.mark.parametrize("process", ["manager", "scheduler", "daemon"])
def test_a_configuration_with_an_unknown_key_names_the_nearest_known_one(cluster: UpCluster, tmp_path: Path, process: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("servr: {}\n")
    done = cluster.run(process, "--config", path, timeout_s=60)
    assert_complains(done, USAGE, "servr")
    path.write_text("a: [1\n")
    done = cluster.run(process, "--config", path, timeout_s=60)
    assert_complains(done, USAGE, "YAML")


@pytest.mark.parametrize("arguments", [("--version",), ("-V",), ("--help",), ("get", "--help"), ("retention", "policy", "-h")])
def test_asking_for_version_or_help_is_no_error(cluster: UpCluster, arguments: tuple[str, ...]) -> None:
    done = cluster.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "darner" in done.stdout
