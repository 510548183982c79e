"""Warnings about client networks that are wider than intended."""

from __future__ import annotations

from smtpguard.cli.offline import too_open
from smtpguard.config.fields import network_of
from tests.every import every

ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100120A	0003	0	0	0	00000000	0	0	0
eth0	0000120A	00000000	0001	0	0	0	0000FFFF	0	0	0
br-0123456789ab	00001CAC	00000000	0001	0	0	0	0000FFFF	0	0	0
"""  # a gateway 10.18.0.1, and a bridge with 172.28.0.0/16


@every(
    ("network", "inside", "doubt"),
    [
        ("192.0.2.0/24", False, ""), ("10.1.2.0/24", False, ""), ("10.18.0.1", False, ""), ("203.1.2.3", False, ""), ("172.17.0.5", False, ""),
        ("203.1.2.0/29", False, "is a network of the Internet"), ("0.0.0.0/0", False, "the bridge br-0123456789ab"),
        ("::/0", False, "is a network of the Internet"), ("2a00:1::/32", False, "is a network of the Internet"), ("fd00::/8", False, ""),
        ("172.17.0.0/16", False, "Docker's bridge"), ("172.17.0.1", False, "Docker's bridge"), ("10.88.0.0/24", False, "Podman's bridge"),
        ("172.16.0.0/12", False, "the bridge br-0123456789ab (172.28.0.0/16)"), ("172.28.0.1", False, "the bridge br-0123456789ab"),
        ("172.28.0.7", False, ""), ("10.18.0.0/16", True, "the gateway of this container (10.18.0.1)"),
        ("10.18.0.1", True, "the gateway of this container"), ("10.18.0.2", True, ""),
    ],
)  # fmt: skip
def test_too_wide_client_networks_are_warned_about(network: str, inside: bool, doubt: str) -> None:
    found = " ".join(too_open([network_of(network)], ROUTES, inside=inside))
    assert doubt in found
    assert bool(found) == bool(doubt)
