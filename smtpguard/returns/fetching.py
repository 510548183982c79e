"""Fetches feeds: from the hosts that the settings name and nowhere else, bounded in octets and time.

A name is resolved once, every address that it has is looked at, and the connection goes to that very address, so that no later answer
of DNS leads elsewhere. Redirects are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import ssl

MOST_OCTETS = 2 << 20
SECONDS = 20.0
_TCP = 6  # getaddrinfo's protocol
_EMBEDDING = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("::/96"),
)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotFetched(Exception):
    """Why there is no feed, in a phrase."""


async def resolved(host: str, port: int) -> Sequence[str]:
    """Every address of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_public(address: str) -> bool:
    """Whether it is somebody's on the Internet, and no way into a network of ours: nor one that holds such an address within it (RFC
    4291, RFC 6052, RFC 3056, RFC 4380)."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None or any(ip in network for network in _EMBEDDING):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def fetch(
    url: str,
    *,
    resolve: Resolve = resolved,
    allowed: Callable[[str], bool] = is_public,
    most: int = MOST_OCTETS,
    seconds: float = SECONDS,
    verify: ssl.SSLContext | None = None,
) -> tuple[bytes, str]:
    """The body and its Content-Type. ``allowed``: whether an address may be connected to. Raises NotFetched."""
    import httpx2

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    if parts.scheme != "https" or not host:
        raise NotFetched("it is no https url")
    try:
        async with asyncio.timeout(seconds):
            addresses = await resolve(host, port)
            if not addresses or not all(map(allowed, addresses)):
                raise NotFetched("its name leads to an address that is not public")
            chosen = addresses[0]
            literal = f"[{chosen}]" if ":" in chosen else chosen
            there = urlunsplit(("https", f"{literal}:{port}", parts.path or "/", parts.query, ""))
            options: dict[str, Any] = {"verify": verify} if verify is not None else {}
            async with httpx2.AsyncClient(
                timeout=seconds, follow_redirects=False, trust_env=False, **options
            ) as client:
                headers = {
                    "Host": parts.netloc.rpartition("@")[2],
                    "User-Agent": "smtpguard",
                    "Accept-Encoding": "identity",
                }
                async with client.stream("GET", there, headers=headers, extensions={"sni_hostname": host}) as answer:
                    if answer.status_code != 200:
                        raise NotFetched(f"it answers {answer.status_code}")
                    if answer.headers.get("content-encoding", "identity").lower() != "identity":
                        raise NotFetched("it is packed, which was not asked for")
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > most:
                            raise NotFetched(f"it is larger than {most >> 10} KiB")
                    return bytes(body), answer.headers.get("content-type", "")
    except TimeoutError:
        raise NotFetched("no answer in time") from None
    except OSError as error:
        raise NotFetched(error.strerror or type(error).__name__) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise NotFetched(type(error).__name__) from None
