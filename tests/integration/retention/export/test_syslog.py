"""Syslog servers that misbehave: nothing counts as received that was not read."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest
from tests.integration.retention.export.documents import checked, document

from darner.core.errors import InvalidInputError
from darner.retention.export.ports import RefusedError, SinkAwayError
from darner.retention.export.sinks import make_sink
from darner.retention.export.sinks.syslog import message_of
from darner.testing.ports import free_port
from darner.testing.receivers import Manner, Message, SyslogReceiver, split_counted
from darner.testing.tls import make_identity

BIG = [document(number, "y" * 20_000) for number in range(40)]
SMALL = [document(1)]


@pytest.mark.parametrize("size", ["small", "big"])
@pytest.mark.parametrize("confirm", ["close", "sent"])
@pytest.mark.parametrize("manner", ["turn away", "break off"])
async def test_a_server_that_does_not_read_everything_has_acknowledged_nothing(manner: Manner, confirm: str, size: str) -> None:
    if (confirm, size) == ("sent", "small"):
        pytest.skip("that the kernel has it is all that this way asks for")
    batch = BIG if size == "big" else SMALL
    with SyslogReceiver() as receiver:
        receiver.manner = manner
        sink = make_sink(checked(kind="syslog", url=receiver.url, confirm=confirm))
        for _ in range(30):
            with pytest.raises(SinkAwayError):
                await sink.deliver(batch)
        assert receiver.messages() == []
        receiver.manner = "read"
        await sink.deliver(batch)
        assert [one.body for one in receiver.messages()] == [one.body for one in batch]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_server_that_reads_and_never_closes_is_told_what_to_do(tmp_path: Path, *, tls: bool) -> None:
    identity = make_identity(tmp_path) if tls else None
    with SyslogReceiver(identity=identity) as receiver:
        receiver.manner = "never close"
        ca_file = identity.ca_file if identity else None
        sink = make_sink(checked(kind="syslog", url=receiver.url, timeout_s=1.0, ca_file=ca_file))
        with pytest.raises(SinkAwayError, match=r"in time|confirm"):
            await sink.deliver(SMALL)
        sink = make_sink(checked(kind="syslog", url=receiver.url, confirm="sent", ca_file=ca_file))
        await sink.deliver(SMALL)


async def test_a_server_that_reads_nothing_is_waited_for_only_so_long() -> None:
    with SyslogReceiver() as receiver:
        receiver.manner = "stall"
        sink = make_sink(checked(kind="syslog", url=receiver.url, timeout_s=1.0))
        with pytest.raises(SinkAwayError):
            await sink.deliver(BIG)


async def test_a_stalled_delivery_ends_when_it_is_cancelled() -> None:
    with SyslogReceiver() as receiver:
        receiver.manner = "stall"
        sink = make_sink(checked(kind="syslog", url=receiver.url, timeout_s=600.0))
        task = asyncio.create_task(sink.deliver(BIG))
        while not receiver.connections:  # noqa: ASYNC110  (another thread counts)
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        receiver.manner = "read"
        await sink.deliver(SMALL)
        assert [one.body for one in receiver.messages()] == [SMALL[0].body]


async def test_a_server_whose_certificate_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    with SyslogReceiver(identity=make_identity(tmp_path)) as receiver:
        sink = make_sink(checked(kind="syslog", url=receiver.url))
        with pytest.raises(SinkAwayError, match="certificate"):
            await sink.deliver(SMALL)
        assert receiver.messages() == []


def test_certificates_that_cannot_be_used_name_their_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_sink(checked(kind="syslog", url="tls://127.0.0.1:6514", ca_file=tmp_path / "absent"))
    assert caught.value.field == "ca_file"
    with pytest.raises(InvalidInputError) as caught:
        make_sink(checked(kind="syslog", url="tls://127.0.0.1:6514", cert_file=tmp_path / "absent"))
    assert caught.value.field == "certFile"


async def test_a_closed_udp_port_is_noticed() -> None:
    sink = make_sink(checked(kind="syslog", url=f"udp://127.0.0.1:{free_port()}"))
    with pytest.raises(SinkAwayError, match="refused"):
        await sink.deliver(SMALL)


async def test_what_fits_into_no_datagram_is_refused_by_name_and_the_rest_goes(tmp_path: Path) -> None:
    with SyslogReceiver(tmp_path / "log", datagrams=True) as receiver:
        sink = make_sink(checked(kind="syslog", url=receiver.url))
        huge = document(7, "z" * 1_000_000)
        with pytest.raises(RefusedError) as caught:
            await sink.deliver([document(1), huge, document(2)])
        assert set(caught.value.refused or ()) == {"7:1"}
        while len(receiver.messages()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("url", ["tcp://169.254.169.254:601", "udp://169.254.169.254:514", "tcp://nowhere.invalid:601"])
async def test_addresses_that_are_never_dialled_and_names_that_are_none_are_said(url: str) -> None:
    sink = make_sink(checked(kind="syslog", url=url))
    with pytest.raises(SinkAwayError):
        await sink.deliver(SMALL)


def test_a_message_is_what_rfc_5424_says() -> None:
    raw = message_of(document(42, failed=True), facility=16, host="mgr")
    assert raw.startswith(b'<132>1 2023-11-14T22:13:20.123Z mgr darner - job [darner@32473 key="42:1" job="42" ')
    parsed = Message.parse(raw)
    assert (parsed.priority, parsed.app, parsed.kind) == (16 * 8 + 4, "darner", "job")
    assert parsed.body == document(42).body


def test_messages_are_counted_by_octets_not_by_characters() -> None:
    with SyslogReceiver() as receiver:
        sock = socket.create_connection(("127.0.0.1", int(receiver.url.rpartition(":")[2])))
        messages = [message_of(document(number, "日本" * number), facility=1, host="h") for number in range(3)]
        sock.sendall(b"".join(b"%d %s" % (len(one), one) for one in messages))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        sock.close()
        assert [one.body for one in receiver.messages()] == [document(number, "日本" * number).body for number in range(3)]
    assert split_counted(b"3 abc5 ab") == [b"abc"]
    assert threading.active_count() < 50
