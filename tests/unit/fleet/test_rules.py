"""Which cluster suits a client, and what a registration must look like."""

import dataclasses

import pytest

from darner.core.errors import InvalidInputError
from darner.core.fleet import SchedulerInfo, SchedulerQuery
from darner.fleet.rules import Candidate, ClusterScopes, check_scheduler, ranked, scopes_of, score

QUERY = SchedulerQuery(hostname="web-7.eu", ip="10.1.2.3", idc="fra", location="eu|de|fra|r1")


def candidate(number: int = 1, *, default: bool = False, **scopes: object) -> Candidate:
    return Candidate(id=number, is_default=default, scopes=ClusterScopes(**scopes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scopes", "points"),
    [
        ({}, 0.0),
        ({"cidrs": ("192.168.0.0/16", "10.1.0.0/16")}, 0.30),
        ({"cidrs": ("no net",)}, 0.0),
        ({"hostnames": ("^db-", r"web-\d")}, 0.30),
        ({"hostnames": ("(", "web")}, 0.30),
        ({"idc": "FRA"}, 0.25),
        ({"idc": "ams|Fra"}, 0.25),
        ({"idc": "frankfurt"}, 0.0),
        ({"location": "EU|DE|FRA|R1"}, 0.14),
        ({"location": "eu|de|muc"}, 0.14 * 2 / 5),
        ({"location": "us|de|fra"}, 0.0),
    ],
)
def test_scopes_score_as_upstream(scopes: dict[str, object], points: float) -> None:
    assert score(candidate(**scopes), QUERY) == pytest.approx(points)  # type: ignore[arg-type]


def test_an_ipv4_address_in_ipv6_form_is_unmapped() -> None:
    mapped = dataclasses.replace(QUERY, ip="::ffff:10.1.2.3")
    assert score(candidate(cidrs=("10.1.0.0/16",)), mapped) == pytest.approx(0.30)


def test_ties_go_to_the_smaller_id_and_the_default_wins_over_nothing() -> None:
    found = [candidate(3), candidate(2), candidate(4, default=True), candidate(9, idc="fra")]
    assert ranked(found, QUERY) == [9, 4, 2, 3]


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"cidrs": "x", "idc": 5, "hostnames": [1, "a"]}'])
def test_unreadable_scopes_score_nothing(text: str) -> None:
    assert score(Candidate(id=1, is_default=False, scopes=scopes_of(text)), QUERY) == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hostname": "-bad"}, "hostname"),
        ({"hostname": "a b"}, "hostname"),
        ({"hostname": ""}, "hostname"),
        ({"ip": "300.1.1.1"}, "ip"),
        ({"port": 1023}, "port"),
        ({"port": 65535}, "port"),
        ({"idc": "x" * 1025}, "idc"),
        ({"features": ("fly",)}, "features"),
    ],
)
def test_a_wrong_registration_names_its_field(change: dict[str, object], field: str) -> None:
    good = SchedulerInfo(id=0, hostname="s-1", ip="10.0.0.9", port=8002, scheduler_cluster_id=1)
    check_scheduler(good, b"")
    with pytest.raises(InvalidInputError) as caught:
        check_scheduler(dataclasses.replace(good, **change), b"{}")  # type: ignore[arg-type]
    assert caught.value.field == field
    with pytest.raises(InvalidInputError, match="not JSON"):
        check_scheduler(good, b"{")
