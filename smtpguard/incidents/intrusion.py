"""How the messages of a case came in, compared with earlier mail of their writers: signs of an intrusion.

The journal shows the login, the client's address, and what was proven; it does not show who was at the keyboard. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smtpguard.incidents.statement import Entries
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Kind

MANY_REFUSED = 10
"""The number of refused sign-ins at the console during a case from which on they are more than typing errors."""
WATCHED = (Kind.SIGN_IN_REFUSED, Kind.SECRET, Kind.KEY)
"""Events of the guard itself that need an explanation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """How a message came in. ``client``: the client's address; ``peer``: the server that named it, "" for none.
    ``login``: "" without a login; ``helo`` and ``login`` are None if they are erased. ``proven``: whether the writer is
    proven, by a login, a checking server or a declared origin; None if it was not asked for. ``signed``, ``unsigned``:
    domains whose DKIM signatures verified, and did not; None if DKIM was not checked."""

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
            return next(iter(clear.get(role, ())), "") if clear is not None else None

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
    """Signs that need an explanation before an intrusion can be ruled out."""

    CLIENT = "client"  # none of the writer's earlier messages came from there
    LOGIN = "login"
    HELO = "helo"
    UNSIGNED = "unsigned"  # a signature did not verify
    REFUSED = "sign-in-refused"  # many sign-ins at the console were refused
    SECRET = "secret"  # the guard's secret, or key, was changed
    KEY = "key"
    JOURNAL = "journal"  # the journal was changed


COMPARED = (Sign.CLIENT, Sign.LOGIN, Sign.HELO)
"""Properties of a message that are compared with earlier ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """Of the ``earlier`` messages of the same writers, the last before the case: how many came by each client, login
    and HELO of the case, the last two as keyed digests. ``entries``: those messages."""

    earlier: int
    shared: Mapping[Sign, int]
    entries: Entries = field(default_factory=Entries)


Marks = tuple[frozenset[str], ...]
"""The properties of a verdict that are compared, in the order of COMPARED; login and HELO as the chain has them."""


def marks_of(data: Mapping[str, Any], private: Mapping[str, Sequence[str]]) -> Marks:
    client = frozenset(filter(None, [str(data.get("client") or "")]))
    return client, frozenset(private.get("actor", ())), frozenset(private.get("helo", ()))


def usual(case: Collection[Marks], earlier: Iterable[Entry]) -> Usual:
    """``case``: its own marks."""
    known = [frozenset[str]().union(*(marks[n] for marks in case)) for n in range(len(COMPARED))]
    shared, entries = [0] * len(COMPARED), Entries()
    for entry in earlier:
        content = entry.content
        entries.add(entry.seq)
        for n, some in enumerate(marks_of(content["data"], content["private"])):
            shared[n] += not some.isdisjoint(known[n])
    asked = {check: many for check, many, some in zip(COMPARED, shared, known, strict=True) if some}
    return Usual(earlier=entries.many, shared=asked, entries=entries)


def signs(
    usual: Usual | None,
    ways: Mapping[Ingress, Entries],
    watched: Mapping[str, Entries],
    *,
    whole: bool,
) -> dict[Sign, Entries]:
    """Each with the entries that show it."""
    found: dict[Sign, Entries] = {}
    every = Entries.of(*(seq for one in ways.values() for seq in one.named))
    if usual is not None and usual.earlier:
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
