"""What a machine may lack on loopback."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest


def _has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on loopback")
