"""Who may do what: every route asks for a token, and the wrong one is refused; secrets reach no file, log or answer."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from darner.testing.cluster import UpCluster
from darner.testing.origin import CountingOrigin, Fault

OPEN = {"/healthy", "/health", "/_ping"}
CANARY = "CANARY-4711"
MIB = 1024 * 1024


def call(url: str, method: str = "GET", *, token: str = "", body: bytes | None = None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    asked = urllib.request.Request(url, method=method, headers=headers, data=body)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def routes(cluster: UpCluster) -> list[tuple[str, str]]:
    facts = cluster.facts
    status, text = call(f"{facts.manager_http}/openapi.json", token=facts.token_file.read_text().strip())
    assert status == 200
    paths = json.loads(text)["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods if path not in OPEN]


def test_every_route_but_the_health_ones_refuses_strangers_and_foreign_scopes(shared_cluster: UpCluster) -> None:
    (made,) = shared_cluster.documents("token", "create", "--name", "a scheduler's", "--scope", "scheduler")
    base, found = shared_cluster.facts.manager_http, routes(shared_cluster)
    assert len(found) > 30
    for method, path in found:
        url = base + path.replace("{", "").replace("}", "").replace("job_id", "1").replace("_id", "1")
        body = b"{}" if method in {"POST", "PUT", "PATCH"} else None
        assert call(url, method, body=body)[0] == 401, (method, path)
        assert call(url, method, body=body, token="dat_invented")[0] == 401, (method, path)
        status, _ = call(url, method, body=body, token=made["token"])
        assert status in {403, 404, 422}, (method, path, status)
        assert status != 404 or "_id}" in path, (method, path)
    for path in OPEN:
        assert call(base + path) == (200, '"OK"')


def test_a_revoked_token_is_refused_at_once(shared_cluster: UpCluster) -> None:
    (made,) = shared_cluster.documents("token", "create", "--name", "short-lived", "--scope", "job")
    url = f"{shared_cluster.facts.manager_http}/api/v1/jobs"
    assert call(url, token=made["token"])[0] == 200
    assert shared_cluster.run("token", "revoke", str(made["id"])).returncode == 0
    assert call(url, token=made["token"])[0] == 401


@pytest.mark.parametrize("status", [0, 401, 404, 500])
def test_signatures_and_credentials_are_in_no_file_log_or_answer(shared_cluster: UpCluster, status: int) -> None:
    with CountingOrigin({"/signed.bin": MIB}) as origin:
        if status:
            origin.set_fault("/signed.bin", Fault(status=status))
        url = origin.url(f"/signed.bin?X-Amz-Signature={CANARY}&part={status}&sig={CANARY}")
        arguments = (url, "-H", f"Authorization: Bearer {CANARY}", "-H", f"X-Api-Key: {CANARY}")
        done = shared_cluster.run("preheat", *arguments, "--timeout", "20s")
        assert (done.returncode == 0) == (status == 0), done.stderr
        got = shared_cluster.run("get", *arguments, "-O", shared_cluster.data_dir / "signed.out", "--overwrite")
        assert (got.returncode == 0) == (status == 0), got.stderr
        (job, *_) = shared_cluster.documents("jobs", "ls", "--limit", "1")
        told = shared_cluster.run("jobs", "show", str(job["id"]), "--events", "--json")
    for text in (done.stdout, done.stderr, got.stdout, got.stderr, told.stdout):
        assert CANARY not in text
    assert not files_with(CANARY, shared_cluster.data_dir)


def files_with(text: str, directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
