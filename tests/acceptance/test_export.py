"""Jobs exported by a whole Darner, through its command line: a rule, a sink, a job, a line in a file and a POST; and kill -9."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from darner.testing.cluster import UpFactory
from darner.testing.origin import CountingOrigin
from darner.testing.receivers import Answer, HookReceiver, Posted

CANARY = "canary-export-3141"
POLICY = {
    "rules": [
        {
            "name": "marked",
            "match": {"labels": {"env": ["production"]}},
            "hot": "6h",
            "warm": "7d",
            "undo": "24h",
            "export": "audit",
        },
        {"name": "rest", "hot": "6h", "warm": "7d", "undo": "24h", "export": "hook"},
    ]
}


def documents(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in directory.glob("audit*.ndjson") for line in path.read_bytes().splitlines()]


@pytest.mark.timeout(240)
def test_marked_jobs_go_to_their_sinks_whatever_happens_to_the_manager(darner_up: UpFactory, tmp_path: Path) -> None:
    away = True

    def answer(_: Posted) -> Answer:
        return Answer(status=503) if away else Answer()

    with CountingOrigin() as origin, HookReceiver(answer) as hook:
        origin.add("/model.bin", 1 << 20)
        sinks = [
            {"name": "audit", "kind": "ndjson", "dir": str(tmp_path / "out"), "minFree": 0},
            {"name": "hook", "kind": "webhook", "url": f"{hook.url}?key={CANARY}", "authorization": f"Bearer {CANARY}"},
        ]
        env = {"DARNER_RETENTION__EXPORT__SINKS": json.dumps(sinks)}
        cluster = darner_up(peers=1, env=env)
        policy = tmp_path / "policy.json"
        policy.write_text(json.dumps(POLICY))
        done = cluster.run("retention", "policy", "set", "--file", str(policy), "--reason", "audit", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        signed = f"{origin.url('/model.bin')}?X-Amz-Signature={CANARY}"
        assert cluster.run("preheat", signed, "--label", "env=production").returncode == 0
        assert cluster.run("preheat", origin.url("/model.bin")).returncode == 0

        deadline = time.monotonic() + 60
        while not (documents(tmp_path / "out") and hook.seen) and time.monotonic() < deadline:
            time.sleep(0.1)
        (found,) = documents(tmp_path / "out")
        assert (found["schema"], found["job"]["labels"], found["job"]["state"]) == (
            "darner.job/1",
            {"env": "production"},
            "SUCCESS",
        )
        shown = {one["name"]: one for one in cluster.documents("retention", "exports")}
        assert (shown["audit"]["state"], shown["audit"]["delivered"]) == ("idle", 1)
        assert (shown["hook"]["state"], shown["hook"]["pending"]) == ("failing", 1)
        assert "503" in shown["hook"]["failing"]["error"]

        pid = cluster.facts.manager_pid
        cluster.kill(pid)
        away = False
        cluster.wait_for_restart(pid)
        deadline = time.monotonic() + 120
        while not hook.accepted and time.monotonic() < deadline:
            time.sleep(0.1)
        (key,) = {json.loads(line)["key"] for post in hook.accepted for line in post.body.splitlines()}
        assert key != found["key"]
        assert CANARY not in json.dumps(found)
        assert CANARY not in json.dumps(shown)
        assert CANARY not in cluster.log_tail()
        assert not [post for post in hook.seen if CANARY.encode() in post.body]
