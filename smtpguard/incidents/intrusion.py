"""Signs of an intrusion: how the messages of a case came in, compared with earlier mail of their writers. Pure.

The journal shows the login, the client's address, and what was proven. It does not show who was at the keyboard.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.incidents.statement import Entries
from smtpguard.journal.chain import Clear, Entry, first_of
from smtpguard.journal.event import Kind

MANY_REFUSED = 10
"""The fewest refused sign-ins at the console during a case that are more than typing errors."""
WATCHED = (Kind.SIGN_IN_REFUSED, Kind.SECRET, Kind.KEY)
"""Events of the guard itself that need an explanation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """How a message came in. ``client``: the client's address; ``peer``: the server that named it, "" for none.
    ``login``: "" without a login; ``helo`` and ``login`` are None if they are erased. ``proven``: whether a login, a
    checking server or a declared origin proves the writer; None if it was not asked for. ``signed``, ``unsigned``: the
    domains whose DKIM signatures verified, and did not; ``signed`` is None if DKIM was not checked."""

    client: str
    peer: str
    listener: str
    tls: bool
    login: str | None
    helo: str | None
    proven: bool | None
    signed: tuple[str, ...] | None
    unsigned: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, data: Mapping[str, Any], private: Mapping[str, Any], clear: Clear | None, proven: bool | None
    ) -> Ingress:
        def one(role: str) -> str | None:
            if role not in private:
                return ""
            return first_of(clear, role) if clear is not None else None

        dkim = data.get("dkim")
        return cls(
            client=str(data.get("client") or ""),
            peer=str(data.get("peer") or ""),
            listener=str(data.get("listener") or ""),
            tls=bool(data.get("tls")),
            login=one("actor"),
            helo=one("helo"),
            proven=True if "actor" in private else proven,
            signed=tuple(dkim["signed"]) if dkim is not None else None,
            unsigned=tuple(dkim["failed"]) if dkim is not None else (),
        )


class Sign(enum.Enum):
    """A sign that needs an explanation before an intrusion can be ruled out."""

    CLIENT = "client"  # none of the writer's earlier messages came from there
    LOGIN = "login"
    HELO = "helo"
    UNSIGNED = "unsigned"  # a signature did not verify
    REFUSED = "sign-in-refused"  # many sign-ins at the console were refused
    SECRET = "secret"  # the guard's secret, or key, was changed
    KEY = "key"
    JOURNAL = "journal"  # the journal was changed


COMPARED = (Sign.CLIENT, Sign.LOGIN, Sign.HELO)
"""The properties of a message that are compared with earlier ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """How the last messages of the same writers before a case came in. ``entries``: their verdicts; ``shared``: how
    many of them came by a client, login or HELO of the case."""

    entries: Entries
    shared: Mapping[Sign, int]


Traits = tuple[frozenset[str], ...]
"""The properties of a verdict that are compared, in the order of COMPARED; login and HELO as keyed digests, as the
chain has them."""


def traits_of(data: Mapping[str, Any], private: Mapping[str, Sequence[str]]) -> Traits:
    client = frozenset(filter(None, [str(data.get("client") or "")]))
    return client, frozenset(private.get("actor", ())), frozenset(private.get("helo", ()))


def usual_ingress(case: Collection[Traits], earlier: Iterable[Entry]) -> Usual:
    """Compare earlier verdicts of the same writers with the traits of a case."""
    known = [frozenset[str]().union(*(traits[n] for traits in case)) for n in range(len(COMPARED))]
    shared, entries = [0] * len(COMPARED), Entries()
    for entry in earlier:
        content = entry.content
        entries.add(entry.seq)
        for n, some in enumerate(traits_of(content["data"], content["private"])):
            shared[n] += not some.isdisjoint(known[n])
    asked = {check: many for check, many, some in zip(COMPARED, shared, known, strict=True) if some}
    return Usual(entries=entries, shared=asked)


def signs(
    usual: Usual,
    ways: Mapping[Ingress, Entries],
    watched: Mapping[str, Entries],
    *,
    whole: bool,
) -> dict[Sign, Entries]:
    """Return the signs of an intrusion, each with the entries that show it. ``whole``: whether the journal is
    unchanged."""
    found: dict[Sign, Entries] = {}
    every = Entries.of(*(seq for one in ways.values() for seq in one.named))
    if usual.entries.many:
        found |= {check: every for check, shared in usual.shared.items() if not shared}
    bad = [seq for way, one in ways.items() if way.unsigned for seq in one.named]
    if bad:
        found[Sign.UNSIGNED] = Entries.of(*bad)
    for kind, entries in watched.items():
        if kind != Kind.SIGN_IN_REFUSED.value or entries.many >= MANY_REFUSED:
            found[Sign(kind)] = entries
    if not whole:
        found[Sign.JOURNAL] = Entries()
    return found
