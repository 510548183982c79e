"""Single sign-on with OpenID Connect Core 1.0: the authorization code flow with PKCE (RFC 7636), a state and a nonce, and the
checks of the ID token.

The state, nonce, verifier and target page of an attempt are sealed in a cookie of the browser that began it. So nothing
is stored for abandoned attempts, and no other browser can finish one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2
from joserfc import jwk, jwt
from joserfc.errors import JoseError
from nacl.encoding import URLSafeBase64Encoder
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from smtpguard.accounts.model import Role
from smtpguard.config.web import Oidc
from smtpguard.console.people.signing import SIGN_ON_SECONDS, NotAuthenticated, Proven
from smtpguard.database.errors import Outage
from smtpguard.journal.clock import Clock

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""The accepted signatures: those with a public key. "none" is excluded, and so are HMACs: with those anybody could sign."""

SKEW_SECONDS = 60
"""How far the provider's clock may be off."""
FRESH_SECONDS = 3600.0
"""How long the provider's metadata and keys are used before they are fetched again."""
AGAIN_SECONDS = 30.0
"""The least time between two fetches for an unknown key."""
SECONDS = 10.0
"""How long one whole answer may take, however slowly it comes."""
PAUSE_SECONDS = 2.0
"""How long the provider is not asked after it did not answer."""
MOST_OCTETS = 1 << 20
"""The most octets of one answer."""
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_OURS = {"client_secret_basic", "client_secret_post"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    """The provider's metadata and keys, and when they were read."""

    authorization: str
    token: str
    methods: frozenset[str]
    keys: jwk.KeySet
    at: float


class Provider:
    """The provider in the settings. ``client_secret``: "" for none. ``back``: the URL that it redirects browsers to."""

    def __init__(self, trusted: Oidc, clock: Clock, *, client_secret: str, secret: bytes, back: str) -> None:
        self.trusted, self._client_secret = trusted, client_secret
        self._clock, self._back = clock, back
        self._box = SecretBox(hmac.digest(secret, b"smtpguard console sign-on attempt", "sha256"))
        self._http = httpx2.AsyncClient(timeout=SECONDS, follow_redirects=False)
        self._metadata: _Metadata | None = None
        self._failed_at = float("-inf")
        self.away, self.unproven = Outage(log, "single sign-on cannot begin"), Outage(log, "single sign-on")

    async def close(self) -> None:
        await self._http.aclose()

    def roles(self, groups: frozenset[str]) -> tuple[Role, ...]:
        given = {role for group in groups for role in self.trusted.groups.get(group, ())}
        return tuple(role for role in Role if role.value in given)

    async def begin(self, then: str, *, moves: str = "") -> tuple[str, str]:
        """Return the URL to redirect the browser to, and the sealed attempt for its cookie. ``then``: the page to go on to.
        ``moves``: the account to change to single sign-on, "" for a sign-in. Raises NotAuthenticated if the provider is away."""
        metadata = await self._provider()
        verifier, state, nonce = (secrets.token_urlsafe(32) for _ in range(3))
        attempt = {"state": state, "nonce": nonce, "verifier": verifier, "then": then, "moves": moves,
                   "until": self._clock.now().timestamp() + SIGN_ON_SECONDS}  # fmt: skip
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.trusted.client_id,
            "redirect_uri": self._back,
            "scope": " ".join(self.trusted.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        sealed = self._box.encrypt(json.dumps(attempt).encode(), encoder=URLSafeBase64Encoder).decode()
        mark = "&" if "?" in metadata.authorization else "?"
        return f"{metadata.authorization}{mark}{urlencode(query)}", sealed

    async def finish(self, sealed: str, *, code: str, state: str, issuer: str = "") -> tuple[Proven, str, str]:
        """Return the person, the page they wanted, and the account to change to single sign-on, "" for a sign-in. ``issuer``: the
        answer's ``iss``, if it has one (RFC 9207). Raises NotAuthenticated."""
        attempt = self._unsealed(sealed)
        if not state or not hmac.compare_digest(str(attempt["state"]).encode(), state.encode()):
            raise NotAuthenticated("the state is another attempt's")
        if issuer and issuer != self.trusted.issuer:
            raise NotAuthenticated("the answer is another provider's")
        if not code:
            raise NotAuthenticated("the provider gave no code")
        metadata = await self._provider()
        token = await self._exchange(metadata, code, str(attempt["verifier"]))
        claims = await self._verified_claims(token)
        self._check_claims(claims, str(attempt["nonce"]))
        return self._proven(claims), str(attempt["then"]), str(attempt.get("moves", ""))

    def _unsealed(self, sealed: str) -> Mapping[str, Any]:
        try:
            attempt: Mapping[str, Any] = json.loads(self._box.decrypt(sealed.encode(), encoder=URLSafeBase64Encoder))
        except (CryptoError, ValueError):
            raise NotAuthenticated("this browser began no sign-on here") from None
        if self._clock.now().timestamp() >= attempt["until"]:
            raise NotAuthenticated("the sign-on took too long")
        return attempt

    async def _exchange(self, metadata: _Metadata, code: str, verifier: str) -> str:
        data = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._back,
            "code_verifier": verifier,
            "client_id": self.trusted.client_id,
        }
        auth = None
        if self._client_secret:
            if "client_secret_post" in metadata.methods and "client_secret_basic" not in metadata.methods:
                data["client_secret"] = self._client_secret
            else:
                auth = httpx2.BasicAuth(*(_form_encoded(v) for v in (self.trusted.client_id, self._client_secret)))
        answer = await self._fetch_json("POST", metadata.token, data=data, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise NotAuthenticated("the provider gave no ID token")
        return token

    async def _verified_claims(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token that one of the provider's keys signed. For an unknown key the keys are fetched once more.
        Raises NotAuthenticated."""
        for fresh in (False, True):
            metadata = await self._provider(unknown_key=fresh)
            try:
                return jwt.decode(token, metadata.keys, algorithms=list(ALGORITHMS)).claims
            except (JoseError, ValueError, TypeError, KeyError) as error:
                failed = type(error).__name__
        raise NotAuthenticated(f"the ID token's signature: {failed}")

    def _check_claims(self, claims: Mapping[str, Any], nonce: str) -> None:
        """Check the claims as in OpenID Connect Core section 3.1.3.7. Raises NotAuthenticated."""
        now = self._clock.now().timestamp()
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.trusted.issuer:
            raise NotAuthenticated("the ID token is another issuer's")
        if self.trusted.client_id not in audiences:
            raise NotAuthenticated("the ID token is for another client")
        if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != self.trusted.client_id:
            raise NotAuthenticated("the ID token was given to another client")
        if not _is_number(claims.get("exp")) or now >= claims["exp"] + SKEW_SECONDS:
            raise NotAuthenticated("the ID token has expired")
        if not _is_number(claims.get("iat")) or claims["iat"] > now + SKEW_SECONDS:
            raise NotAuthenticated("the ID token is from the future")
        if "nbf" in claims and (not _is_number(claims["nbf"]) or claims["nbf"] > now + SKEW_SECONDS):
            raise NotAuthenticated("the ID token is not valid yet")
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise NotAuthenticated("the ID token is of another attempt")

    def _proven(self, claims: Mapping[str, Any]) -> Proven:
        subject, address = claims.get("sub"), claims.get("email")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise NotAuthenticated("the ID token has no subject")
        if not isinstance(address, str) or not address:
            raise NotAuthenticated("the ID token has no address")
        if not (
            claims.get("email_verified") is True
            or (self.trusted.unverified_addresses and "email_verified" not in claims)
        ):
            raise NotAuthenticated("the provider has not verified the address")
        groups = claims.get(self.trusted.groups_claim, [])
        named: Sequence[Any] = groups if isinstance(groups, list) else [groups]
        name = claims.get("name")
        return Proven(
            subject=f"{self.trusted.issuer} {subject}",
            address=address,
            name=name[:200] if isinstance(name, str) else "",
            groups=frozenset(g for g in named if isinstance(g, str)),
        )

    async def _provider(self, *, unknown_key: bool = False) -> _Metadata:
        """Return the provider's metadata and keys. They are fetched once an hour, and for an unknown key. Raises
        NotAuthenticated."""
        now = self._clock.monotonic()
        if self._metadata is not None and now - self._metadata.at < (AGAIN_SECONDS if unknown_key else FRESH_SECONDS):
            return self._metadata
        if now - self._failed_at < PAUSE_SECONDS:
            raise NotAuthenticated("the provider was away a moment ago")
        try:
            self._metadata = await self._discover(now)
        except NotAuthenticated:
            self._failed_at = self._clock.monotonic()
            raise
        return self._metadata

    async def _discover(self, now: float) -> _Metadata:
        about = await self._fetch_json("GET", self.trusted.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if about.get("issuer") != self.trusted.issuer:
            raise NotAuthenticated("the provider says it is another issuer")
        places = [about.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        if not all(isinstance(place, str) and self._may_ask(place) for place in places):
            raise NotAuthenticated("the provider's endpoints are not https")
        keys = await self._fetch_json("GET", str(places[2]))
        methods = about.get("token_endpoint_auth_methods_supported")
        return _Metadata(
            authorization=str(places[0]),
            token=str(places[1]),
            methods=frozenset(methods if isinstance(methods, list) else ["client_secret_basic"]) & _OURS,
            keys=_public_keys(keys),
            at=now,
        )

    def _may_ask(self, place: str) -> bool:
        """Return whether the URL is https. Http is allowed if the settings name an http provider, which they may on loopback
        only."""
        return place.startswith("https://") or (
            self.trusted.issuer.startswith("http://") and place.startswith("http://")
        )

    async def _fetch_json(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        """Fetch a JSON object. Redirects are not followed, and a too large answer is not read. Raises NotAuthenticated."""
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._http.stream(method, url, headers=_HEADERS, **more) as answer,
            ):
                if answer.status_code != 200:
                    raise NotAuthenticated(f"the provider answered {answer.status_code}")
                body = bytearray()
                async for piece in answer.aiter_raw():  # as it came: to unpack a few octets can take hours
                    body += piece
                    if len(body) > MOST_OCTETS:
                        raise NotAuthenticated("the provider's answer is too large")
            found = json.loads(bytes(body))
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            said = str(error) if isinstance(error, httpx2.ConnectError) else ""  # it names the host at most
            raise NotAuthenticated(f"the provider cannot be reached: {said or type(error).__name__}") from None
        except ValueError:
            raise NotAuthenticated("the provider's answer is no JSON") from None
        if not isinstance(found, dict):
            raise NotAuthenticated("the provider's answer is no object")
        return found


def _public_keys(keys: Mapping[str, Any]) -> jwk.KeySet:
    """Return the public keys of a JWK set. An unreadable key is ignored, and so is a symmetric one, which proves nothing."""
    found = []
    listed = keys.get("keys")
    for key in listed if isinstance(listed, list) else []:
        if not isinstance(key, dict) or key.get("kty") not in ("RSA", "EC", "OKP") or key.get("use", "sig") != "sig":
            continue
        try:
            found.append(jwk.import_key(key))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return jwk.KeySet(found)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _form_encoded(text: str) -> str:
    """Encode a client id or secret for HTTP Basic (RFC 6749 section 2.3.1)."""
    return urlencode({"": text})[1:]
