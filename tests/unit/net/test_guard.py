import pytest

from darner.core.errors import ForbiddenAddressError
from darner.net.guard import AddressPolicy, check_name, is_loopback_host, permitted

OPEN = AddressPolicy(allow_loopback=True, allow_private=True)
CLOSED = AddressPolicy(allow_loopback=False, allow_private=False)

NEVER = [
    "169.254.169.254",
    "169.254.1.1",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::a9fe:1",
    "2002:a9fe:a9fe::1",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",  # noqa: S104  (it is refused)
    "0.1.2.3",
    "::",
    "::ffff:0.0.0.0",
    "224.0.0.1",
    "239.255.255.255",
    "::ffff:224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
]
LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fd12:3456::1",
    "::ffff:10.1.2.3",
    "198.18.0.1",
    "2002:a01:203::1",
]
GLOBAL = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_refused_whatever_the_configuration(address: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="never dialled"):
        OPEN.check(address)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_refused_unless_allowed(address: str) -> None:
    OPEN.check(address)
    with pytest.raises(ForbiddenAddressError, match="loopback"):
        AddressPolicy(allow_loopback=False, allow_private=True).check(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused_unless_allowed(address: str) -> None:
    AddressPolicy(allow_loopback=False, allow_private=True).check(address)
    with pytest.raises(ForbiddenAddressError, match="private"):
        AddressPolicy(allow_loopback=True, allow_private=False).check(address)


@pytest.mark.parametrize("address", GLOBAL)
def test_global_addresses_are_always_allowed(address: str) -> None:
    CLOSED.check(address)


def test_the_error_names_host_and_address() -> None:
    with pytest.raises(ForbiddenAddressError, match=r"evil\.example \(169\.254\.169\.254\) is a cloud metadata address"):
        OPEN.check("169.254.169.254", host="evil.example")


def test_of_several_addresses_only_the_permitted_ones_are_kept() -> None:
    assert permitted([("169.254.0.9", 80), ("8.8.8.8", 80), ("10.0.0.1", 80)], "mixed.example", CLOSED) == [("8.8.8.8", 80)]
    with pytest.raises(ForbiddenAddressError, match=r"mixed\.example"):
        permitted([("169.254.0.9", 80)], "mixed.example", OPEN)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "metadata.google.internal", "METADATA", "[::ffff:a9fe:a9fe]", "metadata.goog."]
)
def test_behind_a_proxy_literal_addresses_and_metadata_names_are_still_judged(host: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        check_name(host, OPEN)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "app.localhost", "127.0.0.1", "[::1]", "::1"])
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["localhost.example.com", "128.0.0.1", "notlocalhost"])
def test_other_hosts_are_not_taken_for_this_machine(host: str) -> None:
    assert not is_loopback_host(host)
