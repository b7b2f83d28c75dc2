"""Which addresses receivers may have."""

from ipaddress import ip_network

import pytest

from orchestrator.webhooks.addresses import ReceiverAddresses

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]
OTHERS = [
    *("0.0.0.0", "127.0.0.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
    *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1"),
    # They contain an address of IPv4, also a public one.
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_allowed(address: str) -> None:
    assert ReceiverAddresses([]).allows(address)
    assert not ReceiverAddresses([]).is_allowed_network(address)


@pytest.mark.parametrize("address", OTHERS)
def test_everything_else_is_refused_unless_its_network_is_allowed(address: str) -> None:
    assert not ReceiverAddresses([ip_network("203.0.113.0/24")]).allows(address)
    assert ReceiverAddresses([ip_network(address)]).allows(address)


@pytest.mark.parametrize(
    ("url", "networks", "is_mistake"),
    [
        ("https://receiver.example.org/in?x=1", [], False),
        ("https://93.184.215.14:8443/", [], False),
        ("https://10.0.0.1/", [], True),
        ("https://10.0.0.1/", ["10.0.0.0/8"], False),
        ("https://[fd00::1]/", ["fd00::/8"], False),
        ("http://receiver.example.org/", [], True),
        ("http://receiver.example.org/", ["10.0.0.0/8"], False),
        ("https://localhost./", [], True),
        ("https://receiver.example.org:99999/", [], True),
        ("receiver.example.org", [], True),
    ],
)
def test_mistakes_in_a_url(url: str, networks: list[str], is_mistake: bool) -> None:
    addresses = ReceiverAddresses([ip_network(network) for network in networks])
    assert (addresses.mistake_in(url) is not None) == is_mistake
