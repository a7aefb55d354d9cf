import pytest

from darner.core.errors import OriginError
from darner.core.fleet import ApplicationInfo
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.task import Download, Headers
from darner.kit.config import load
from darner.scheduler.config import SchedulerConfig
from darner.scheduler.engine import shown
from darner.scheduler.policy.filter import is_slow
from darner.scheduler.policy.priority import FirstStep, first_step
from darner.scheduler.policy.score import load_part, near, same_idc
from darner.scheduler.policy.verdict import concerns, is_permanent
from darner.scheduler.records import Costs, HostRecord


def record(**facts: object) -> HostRecord:
    values: dict[str, object] = {"ip": "10.0.0.1", "hostname": "h", "port": 4000, "type": HostType.NORMAL, **facts}
    return HostRecord(host=Host(id=HostId("10.0.0.1-h"), **values), announced=True, updated_at=0.0)  # type: ignore[arg-type]


def test_an_idle_host_has_full_marks_whether_its_line_is_known_or_not() -> None:
    assert load_part(record()) == 1.0
    assert load_part(record(max_tx_bandwidth=1_000_000_000)) == 1.0


def test_load_falls_with_bandwidth_bytes_and_pieces_each_by_its_weight() -> None:
    host = record(max_tx_bandwidth=1_342_177_280, tx_bandwidth=335_544_320)  # ten slots, a quarter used
    assert load_part(host) == pytest.approx(0.5 * 0.75 + 0.3 + 0.2)
    host.upload_pieces, host.upload_bytes = 20.0, 1_342_177_280 * 60 / 8 / 2
    assert load_part(host) == pytest.approx(0.5 * 0.75 + 0.3 * 0.5 + 0.2 * 0.5)
    host.upload_bps = 9e12
    assert load_part(host) == pytest.approx(0.3 * 0.5 + 0.2 * 0.5)


def test_places_are_compared_part_by_part_ignoring_case() -> None:
    assert near(record(location="EU|de|ber"), record(location="eu|DE|muc")) == 0.4
    assert near(record(location="eu|de"), record(location="EU|DE")) == 1.0
    assert near(record(location=""), record(location="")) == 0.0
    assert same_idc(record(idc="A"), record(idc="a")) == 1.0
    assert same_idc(record(), record()) == 0.0


def test_a_piece_is_slow_against_those_before_it() -> None:
    costs = Costs()
    costs.add(1.0)
    assert not is_slow(costs)
    costs.add(21.0)
    assert is_slow(costs)
    costs.add(2.0)
    assert not is_slow(costs)
    steady = Costs()
    for number in range(2500):
        steady.add(1.0 + number % 2)
    steady.add(3.5)
    assert is_slow(steady)


@pytest.mark.parametrize(
    ("status", "permanent"), [(404, True), (401, True), (410, True), (429, False), (408, False), (416, False), (503, False)]
)
def test_which_answers_of_an_origin_will_not_change(status: int, permanent: bool) -> None:
    assert is_permanent(OriginError("x", status=status)) is permanent


def test_no_answer_of_an_origin_may_be_another_next_time() -> None:
    assert not is_permanent(OriginError("no route"))


def test_refused_credentials_concern_the_same_url_and_header_only() -> None:
    error = OriginError("x", status=403)
    asked = Download(url="http://o/a?sig=1", request_header=Headers(a="1"))
    assert concerns(error, asked, Download(url="http://o/a?sig=1", request_header=Headers(a="1"), tag="other"))
    assert not concerns(error, asked, Download(url="http://o/a?sig=2", request_header=Headers(a="1")))
    assert concerns(OriginError("x", status=404), asked, Download(url="http://o/a?sig=2"))


def test_a_pattern_that_is_no_regular_expression_matches_nothing() -> None:
    table = [ApplicationInfo(id=1, name="a", url="", priority=3, urls=(("(", 1),))]
    assert first_step(Download(url="http://o/", application="a", priority=0), table) is FirstStep.ORIGIN


def test_the_configuration_takes_upstreams_keys_and_defaults(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "scheduler.yaml"
    file.write_text(
        "server: {advertiseIP: 10.0.0.9, listenIP: 127.0.0.1, port: 9002}\n"
        "scheduler: {retryBackToSourceLimit: 3, patience: 30s, gc: {peerTTL: 48h, hostGCInterval: 1m}}\n"
        "manager: {addr: '127.0.0.1:65003', schedulerClusterID: 4, keepAlive: {interval: 2s}}\n"
        "seedPeer: {taskDownloadTimeout: 1h}\n"
    )
    config = load(SchedulerConfig, file, {"DARNER_SCHEDULER__WAVE": "16"}).value
    assert (config.server.advertiseIP, config.server.port, config.scheduler.patience, config.scheduler.wave) == (
        "10.0.0.9",
        9002,
        30.0,
        16,
    )
    assert (config.scheduler.gc.peerTTL, config.scheduler.gc.hostGCInterval, config.scheduler.gc.peerGCInterval) == (
        172800.0,
        60.0,
        10.0,
    )
    assert (config.manager.schedulerClusterID, config.manager.keep_alive.interval) == (4, 2.0)
    assert config.seed_peer.task_download_timeout == 3600.0


def test_a_url_is_logged_without_its_user_and_query() -> None:
    assert shown("https://me:pw@host:8/p/x?sig=secret") == "https://host:8/p/x"
