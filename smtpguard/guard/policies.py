"""Rows of policies: the documents by SHA-256, which policy is in force, and the journal entry of each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from smtpguard.database.batch import Batch, read_head
from smtpguard.database.errors import PolicyMoved
from smtpguard.database.schema import document
from smtpguard.database.statements import rows_of
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Event, Kind
from smtpguard.policy.freezing import Gate

MOST_STARTS = 500
"""The most starts since the last change that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """One change of the policy in force, from the journal. ``by``: "" once erased. ``how``: "reload", "first start",
    "restore", ...; "" in an entry of an earlier version. ``looser``: what may let more pass than before, until it is erased
    with the names of people. ``data``: of the entry."""

    seq: int
    at: datetime
    sha256: str
    before: str
    by: str
    how: str
    looser: tuple[str, ...]
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentPolicy:
    """The policy in force. ``put``: its change, None if the journal does not reach back to it. ``beside``: the hosts on which
    ``serve`` has started since then with a policy file that differs from the policy in force."""

    sha256: str
    put: Put | None
    beside: frozenset[str]


def put_policy(
    batch: Batch, sha256: str, documents: Mapping[str, bytes], event: Event, before: str | None = None
) -> Gate:
    """Put a policy in force. Returns the new gate. Raises PolicyMoved if another policy than ``before`` is in force; None: any
    may be."""
    if before is not None and batch.head.policy != before:
        raise PolicyMoved(f"policy {batch.head.policy[:12]} is in force by now")
    batch.connection.execute(delete(document).where(document.c.policy == sha256))
    if documents:
        rows = [{"policy": sha256, "name": name, "data": data} for name, data in documents.items()]
        batch.connection.execute(insert(document), rows)
    return batch.move_gate(event, policy=sha256)


def policy(connection: Connection, sha256: str) -> dict[str, bytes]:
    """Return the documents of a policy, by name; none if it is not kept."""
    rows = rows_of(connection, "SELECT name, data FROM document WHERE policy = ? ORDER BY name", (sha256,))
    return {name: bytes(data) for name, data in rows}


def documents_in_force(connection: Connection) -> dict[str, bytes]:
    """Return the documents of the policy in force, by name; none if no policy is, or its documents are not kept."""
    return policy(connection, read_head(connection).policy)


def named(connection: Connection, prefix: str, limit: int = 10) -> list[str]:
    """Return the SHA-256s of stored policies that begin with ``prefix``, at most ``limit``."""
    low = prefix.lower()
    query = select(document.c.policy).where(document.c.policy >= low, document.c.policy < f"{low}~").distinct()
    return list(connection.execute(query.order_by(document.c.policy).limit(limit)).scalars())


def history(connection: Connection, limit: int = 1000) -> list[Put]:
    """Return the changes of the policy in force, newest first."""
    return [_put(entry, clear) for entry, clear in journal.of_kinds(connection, [Kind.POLICY], limit)]


def current(connection: Connection) -> CurrentPolicy:
    """Return the policy in force, its change, and the hosts that were started with another file since then."""
    sha256 = read_head(connection).policy
    put, beside = None, set()
    for entry, clear in journal.of_kinds(connection, [Kind.POLICY, Kind.START], MOST_STARTS):
        if entry.kind == Kind.POLICY.value:
            put = _put(entry, clear)
            break
        data = entry.data
        if data.get("policy_file_sha256") and data.get("policy_file") != "same":
            beside.add(str(data.get("host", "")))
    return CurrentPolicy(sha256=sha256, put=put, beside=frozenset(beside))


def _put(entry: Entry, clear: Clear | None) -> Put:
    data = entry.data
    return Put(
        seq=entry.seq,
        at=entry.time,
        sha256=str(data.get("sha256", "")),
        before=str(data.get("before") or ""),
        by=", ".join((clear or {}).get("actor", ())),
        how=str(data.get("how", "")),
        looser=tuple((clear or {}).get("looser", ())),
        data=data,
    )
