from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.address_guard import AddressGuard, IpAddress, network

OWN = "vllm.team.svc.cluster.local"
FOREIGN = "vllm.other.svc.cluster.local"
guard = AddressGuard("team", (network("10.1.0.0/16"), network("fd12::/32")))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public_addresses_are_allowed_in_each_form(address: str) -> None:
    assert guard.allows("api.example.com", ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1"),
        *("169.254.169.254", "169.254.170.2", "224.0.0.1", "168.63.129.16", "100.100.100.200"),
        *(
            "::",
            "::1",
            "fe80::1",
            "fe80::1%eth0",
            "ff02::1",
            "fec0::1",
            "fd00:ec2::254",
            "fd00:ec2::254%1",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
        ),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a9fe:a9fe::"),
        # Teredo, whose client is 127.0.0.1.
        "2001:0:808:808:0:0:80ff:fffe",
    ],
)
@pytest.mark.parametrize("host", [OWN, "api.example.com"])
def test_some_addresses_are_never_allowed(host: str, address: str) -> None:
    everything = AddressGuard("team", (network("0.0.0.0/0"), network("::/0")))

    assert not everything.allows(host, ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["10.2.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.2.1", "fd00::1", "2001:db8::1"],
)
def test_private_addresses_are_for_services_of_the_own_namespace_only(address: str) -> None:
    assert guard.allows(OWN, ip_address(address))
    assert guard.allows("vllm.team.svc", ip_address(address))
    for host in (
        "api.example.com",
        FOREIGN,
        "vllm",
        "vllm.team",
        "a.b.team.svc",
        "vllm.team.svc.x",
    ):
        assert not guard.allows(host, ip_address(address))
    assert not AddressGuard().allows("vllm..svc", ip_address(address))


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "fd12::5"])
def test_private_addresses_may_be_allowed_by_the_chart(address: str) -> None:
    assert guard.allows("api.example.com", ip_address(address))


@given(st.ip_addresses(), st.ip_addresses(v=4))
def test_no_form_of_an_address_is_allowed_more_than_the_address(
    any_address: IpAddress, four: IPv4Address
) -> None:
    host = "api.example.com"
    allowed = guard.allows(host, four)
    for prefix in ("::ffff:", "64:ff9b::"):
        assert guard.allows(host, ip_address(f"{prefix}{four}")) <= allowed
    if guard.allows(host, any_address):
        assert not any_address.is_loopback
        assert not any_address.is_link_local
