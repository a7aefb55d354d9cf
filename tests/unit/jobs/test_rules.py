"""Requests: what is accepted, what is refused and by which name, and what of them may be shown."""

from typing import Any

import pytest

from darner.core.errors import (
    DarnerError,
    DigestMismatchError,
    InvalidInputError,
    OriginError,
    StorageFullError,
    TimedOutError,
    UnavailableError,
)
from darner.core.hashring import SeedRing
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.job import Scope
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS
from darner.core.work import TargetRule
from darner.jobs.events import JobSpec
from darner.jobs.listing import ListQuery, job_query, links
from darner.jobs.rest import decoded_args
from darner.jobs.rules import may_help_to_retry, parse_request, shown_args, shown_url, summary_of, targets

MANIFEST = "https://harbor.example/v2/library/nginx/manifests/1.27"


def parse(args: Any, **envelope: Any) -> JobSpec:
    return parse_request({"type": "preheat", "args": args, **envelope}, timeout_s=3600, max_timeout_s=86_400)


def test_harbors_request_with_all_its_empty_values_means_the_defaults() -> None:
    spec = parse(
        {
            "type": "image",
            "url": MANIFEST,
            "tag": "",
            "filtered_query_params": "",
            "headers": {"Authorization": "Bearer x"},
            "scope": "",
            "concurrent_count": 0,
            "timeout": 0,
        },
        scheduler_cluster_ids=None,
    )
    assert (spec.target.scope, spec.timeout_s, spec.cluster_ids) == (Scope.SINGLE_SEED_PEER, 3600, None)
    assert spec.filtered_query_params == DEFAULT_FILTERED_QUERY_PARAMS
    assert spec.headers == {"Authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"type": "image"}, "args.url"),
        ({"type": "tar", "url": MANIFEST}, "args.type"),
        ({"url": MANIFEST}, "args.type"),
        ({"type": "file"}, "args.urls"),
        ({"type": "file", "urls": ["http://o/a", "not a url"]}, "args.urls.1"),
        ({"type": "file", "urls": ["gopher://o/a"]}, "args.urls.0"),
        ({"type": "file", "url": "http://o/a", "scope": "everyone"}, "args.scope"),
        ({"type": "file", "url": "http://o/a", "piece_length": 1024}, "args.piece_length"),
        ({"type": "file", "url": "http://o/a", "percentage": 101}, "args.percentage"),
        ({"type": "file", "url": "http://o/a", "count": True}, "args.count"),
        ({"type": "file", "url": "http://o/a", "ips": ["10.0.0.1"] * 101}, "args.ips"),
        ({"type": "file", "url": "http://o/a", "timeout": -5}, "args.timeout"),
        ({"type": "file", "url": "http://o/a", "timeout": "soon"}, "args.timeout"),
        ({"type": "file", "url": "http://o/a", "timeout": 10**18}, "args.timeout"),
        ({"type": "file", "url": "http://o/a", "headers": {"X": "a\r\nY: b"}}, "args.headers"),
        ({"type": "file", "url": "http://o/a", "headers": ["X"]}, "args.headers"),
        ({"type": "image", "url": MANIFEST, "platform": "linux"}, "args.platform"),
        ("text", "args"),
    ],
)
def test_what_is_wrong_is_named(args: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(args)
    assert caught.value.field == field
    assert len(caught.value.message) > len(field)


@pytest.mark.parametrize("kind", ["sync_peers", "nonsense", None])
def test_other_types_are_refused_with_the_known_ones(kind: object) -> None:
    with pytest.raises(InvalidInputError, match="preheat, delete_task, get_task"):
        parse_request({"type": kind, "args": {}}, timeout_s=1, max_timeout_s=9)


@pytest.mark.parametrize("ids", [["1"], [0], "1", [True]])
def test_cluster_ids_must_be_ids(ids: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse({"type": "file", "url": "http://o/a"}, scheduler_cluster_ids=ids)
    assert caught.value.field == "scheduler_cluster_ids"


def test_several_urls_are_kept_once_and_in_order_and_the_single_one_comes_last() -> None:
    spec = parse({"type": "file", "urls": ["http://o/b", "http://o/a", "http://o/b"], "url": "http://o/c"})
    assert spec.urls == ("http://o/b", "http://o/a", "http://o/c")
    assert summary_of(spec) == "http://o/b and 2 more"


def test_platforms_may_be_one_several_or_a_list() -> None:
    assert parse({"type": "image", "url": MANIFEST, "platform": "linux/amd64, linux/arm/v7"}).platforms == (
        "linux/amd64",
        "linux/arm/v7",
    )
    assert parse({"type": "image", "url": "docker://h/r:t", "platforms": ["linux/arm64"]}).platforms == ("linux/arm64",)
    assert parse({"type": "image", "url": "localhost:5000/library/nginx:1.27"}).urls == ("localhost:5000/library/nginx:1.27",)


def test_durations_and_sizes_are_numbers_or_text() -> None:
    assert decoded_args({"timeout": "60m", "piece_length": "8MiB"}) == {"timeout": 3_600_000_000_000, "piece_length": 8 * 1024**2}
    assert decoded_args({"timeout": "90000000000"}) == {"timeout": 90_000_000_000}
    assert parse({"type": "file", "url": "http://o/a", "timeout": 90_000_000_000}).timeout_s == 90
    with pytest.raises(InvalidInputError) as caught:
        decoded_args({"timeout": "60"[:1] + " minutes"})
    assert caught.value.field == "args.timeout"


def test_what_is_shown_of_a_request_holds_no_secret() -> None:
    args = {
        "type": "file",
        "urls": ["https://u:pw@o/a?X-Amz-Signature=abc&v=2", "http://o/b"],
        "password": "p",
        "username": "u",
        "headers": {"authorization": "Bearer t", "X-Team": "blue", "X-Vault-Token": "t"},
        "object_storage": {"access_key_secret": "s"},
    }
    shown = shown_args(args)
    assert shown["urls"] == ["https://o/a?X-Amz-Signature=&v=", "http://o/b"]
    assert shown["headers"] == {"authorization": "•••", "X-Team": "blue", "X-Vault-Token": "•••"}
    assert (shown["password"], shown["username"], shown["object_storage"], shown["redacted"]) == ("•••", "•••", "•••", True)
    assert shown_args({"type": "file", "url": "http://o/b"}) == {"type": "file", "url": "http://o/b"}
    assert shown_url("localhost:5000/a@sha256:" + "0" * 64) == "localhost:5000/a@sha256:" + "0" * 64


def a_host(name: str, *, seed: bool = False, ip: str = "10.0.0.1") -> Host:
    kind = HostType.SUPER_SEED if seed else HostType.NORMAL
    return Host(id=HostId(name), ip=ip, hostname=name, port=4000 + len(name) + ord(name[-1]), type=kind)


HOSTS = [a_host("s1", seed=True), a_host("s2", seed=True, ip="10.0.0.2"), *(a_host(f"p{n}", ip=f"10.0.1.{n}") for n in range(8))]


def test_the_single_seed_of_a_task_is_the_rings_choice() -> None:
    for number in range(20):
        (picked,) = targets(TargetRule(), HOSTS, f"{number:064x}")
        assert picked.address == SeedRing(host.address for host in HOSTS if host.is_seed).pick(f"{number:064x}")
    assert targets(TargetRule(), HOSTS[2:], "0" * 64) == []


def test_ips_then_count_then_percentage_then_all_choose_the_hosts_of_a_scope() -> None:
    def names(**rule: Any) -> list[str]:
        return [host.hostname for host in targets(TargetRule(**rule), HOSTS, "0" * 64)]

    assert names(scope=Scope.ALL_SEED_PEERS) == ["s1", "s2"]
    assert len(names(scope=Scope.ALL_PEERS)) == 10
    assert names(scope=Scope.ALL_PEERS, ips=("10.0.1.3", "10.0.0.2"), count=1) == ["p3", "s2"]
    assert names(scope=Scope.ALL_PEERS, count=3, percentage=90) == ["p0", "p1", "p2"]
    assert len(names(scope=Scope.ALL_PEERS, percentage=25)) == 2
    assert len(names(scope=Scope.ALL_PEERS, percentage=1)) == 1
    assert names(scope=Scope.ALL_SEED_PEERS, count=200) == ["s1", "s2"]


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (OriginError("401", status=401), False),
        (OriginError("404", status=404, retryable=True), False),
        (OriginError("503", status=503), True),
        (OriginError("429", status=429), True),
        (OriginError("reset"), True),
        (OriginError("302", status=302), False),
        (UnavailableError(), True),
        (TimedOutError(), True),
        (DigestMismatchError(), False),
        (StorageFullError(), False),
        (DarnerError("?"), True),
    ],
)
def test_only_what_may_pass_is_tried_again(error: DarnerError, helps: object) -> None:
    assert may_help_to_retry(error) is helps


def test_state_filters_of_both_kinds_mean_any_of_them() -> None:
    wanted = job_query(ListQuery(state=["SUCCESS"], detail_state=["PARTIAL"], since="1h"), now=10_000)
    assert wanted is not None
    assert set(wanted.states) == {"SUCCEEDED", "PARTIAL"}
    assert wanted.since_ms == 6_400_000
    assert job_query(ListQuery(state=["RETRY"]), now=0) is None
    with pytest.raises(InvalidInputError, match="PENDING, SUCCESS, FAILURE"):
        job_query(ListQuery(state=["DONE"]), now=0)


def test_links_are_upstreams() -> None:
    assert links("/api/v1/jobs", 2, 10, 35) == (
        "</api/v1/jobs?page=1&per_page=10>;rel=prev,</api/v1/jobs?page=3&per_page=10>;rel=next,"
        "</api/v1/jobs?page=1&per_page=10>;rel=first,</api/v1/jobs?page=4&per_page=10>;rel=last"
    )
    assert "page=0&per_page=10>;rel=last" in links("/j", 1, 10, 0)
