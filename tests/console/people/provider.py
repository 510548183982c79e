"""A small OpenID Connect provider on loopback, with real HTTP and signatures, that checks PKCE and cheats where a test
asks for it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT, CLIENT_SECRET = "smtpguard", "a secret + of the client"


@cache
def its_key() -> Any:
    return RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig"})


@dataclass
class Provider:
    """``claims``: overrides of the claims before they are signed. ``sign``: makes the token, if it should not be a
    valid one."""

    now: Callable[[], datetime]
    port: int = 0
    key: Any = field(default_factory=its_key)
    algorithm: str = "RS256"
    published: list[Any] | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    sign: Callable[[dict[str, Any]], str] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    said: bytes | None = None  # sent in place of JSON
    packed: bool = False  # compress what is sent, though nobody asked for it
    drips: bool = False  # answer without end, a little at a time

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def consents(self, url: str) -> str:
        """The address to which the provider sends the browser back after consent."""
        parts = urlsplit(url)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert parts.path == "/authorize"
        assert (given["response_type"], given["client_id"], given["code_challenge_method"]) == ("code", CLIENT, "S256")
        assert "openid" in given["scope"].split()
        code = f"code{len(self.codes)}"
        self.codes[code] = given
        return f"{given['redirect_uri']}?code={code}&state={given['state']}&iss={self.issuer}"

    def token(self, given: dict[str, str]) -> str:
        now = int(self.now().timestamp())
        claims = {"iss": self.issuer, "sub": "u-17", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": given["nonce"],
                  "email": "eva@example.com", "email_verified": True, "name": "Eva", "groups": ["guards"]}  # fmt: skip
        claims = {k: v for k, v in (claims | self.claims).items() if k not in self.without}
        if self.sign is not None:
            return self.sign(claims)
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, claims, self.key, algorithms=[self.algorithm])

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_basic"], **self.about,
            }  # fmt: skip
        if path == "/keys":
            keys = [self.key] if self.published is None else self.published
            return 200, {"keys": [k.as_dict(private=False) if not isinstance(k, dict) else k for k in keys]}
        if path == "/token" and method == "POST":
            return self.exchange(headers, body)
        return 404, {}

    def exchange(self, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        given = self.codes.pop(form.get("code", ""), None)  # a code is valid once
        quoted = f"{CLIENT}:a+secret+%2B+of+the+client"
        right = "Basic " + base64.b64encode(quoted.encode()).decode()
        posted = form.get("client_secret") == CLIENT_SECRET
        if given is None or not (headers.get("authorization") == right or posted):
            return 400, {"error": "invalid_grant"}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if challenge.decode() != given["code_challenge"] or form["redirect_uri"] != given["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.token(given)}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:]) if k}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, path = head[0].split()[:2]
                status, value = self.answer(method, path, headers, body)
                raw = json.dumps(value).encode() if self.said is None else self.said
                status = status if self.status == 200 else self.status
                while self.drips:
                    writer.write(b"HTTP/1.1 103 X\r\n\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
                raw = gzip.compress(raw) if self.packed else raw
                how = b"Content-Encoding: gzip\r\n" if self.packed else b""
                writer.write(b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n" % (status, how, len(raw)) + raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def provider(now: Callable[[], datetime]) -> AsyncIterator[Provider]:
    made = Provider(now)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def unsigned(claims: dict[str, Any]) -> str:
    """A token with "alg": "none"."""
    return f"{_octets({'alg': 'none', 'typ': 'JWT'})}.{_octets(claims)}."


def with_hmac(key: Any) -> Callable[[dict[str, Any]], str]:
    """A signer that uses HMAC with the public key as the secret, which a careless verifier accepts."""

    def sign(claims: dict[str, Any]) -> str:
        head = f"{_octets({'alg': 'HS256', 'kid': key.kid})}.{_octets(claims)}"
        mac = hmac.digest(key.as_pem(private=False), head.encode(), "sha256")
        return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    return sign


def _octets(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def another_key(kid: str = "two") -> Any:
    return ECKey.generate_key("P-256", parameters={"kid": kid, "use": "sig"})
