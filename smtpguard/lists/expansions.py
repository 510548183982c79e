"""The file of expansions: the addresses that expand at the relay or a list server without being a list of the policy, with the people
behind each. It is beside the indexes; expanding.py makes it.

It holds keyed digests and counts, and no readable mailbox. Domains that are aliases of other domains are readable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smtpguard.config.statefiles import replace_file

EXPANSIONS = "expansions at the relay"
"""The name of this file in reports. No list can have this name: names have no spaces."""
LETTER = 3
"""The most customers of a forwarded letter; more than these are a list."""
MOST_MEMBERS = 1000
"""The most customers who are stored one by one."""
_LAYOUT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """The people behind one address. ``key``: the digest of the address. ``addressed``: the lists whose own address it leads to.

    ``people``: how many there are, without those of ``addressed``. ``customers``: how many of them are on customer lists;
    ``lists``: how many on each list; ``members``: the digests of customers, if at most MOST_MEMBERS. ``unplaced``: how many are
    on no list, and no colleagues.
    """

    key: bytes
    people: int
    customers: int = 0
    unplaced: int = 0
    lists: Mapping[str, int]
    addressed: tuple[str, ...] = ()
    members: tuple[bytes, ...] = ()

    @property
    def is_list(self) -> bool:
        """Return whether mail to it is mail to a list, and not a forwarded letter."""
        return bool(self.addressed) or self.customers > LETTER


def expansions_path(folder: Path) -> Path:
    return folder / EXPANSIONS


def write_expansions(
    path: Path,
    found: Mapping[int, Expansion],
    *,
    domains: Mapping[str, str],
    catches: bool,
    key_id: bytes,
    at: datetime,
    namesakes: Mapping[int, int],
) -> None:
    """Replace the file atomically. Raises OSError.

    ``domains``: the domain that each alias domain stands for. ``catches``: whether a domain has a catch-all. ``namesakes``: for
    the digest of a local part without a domain, which of ``found`` it is at every domain of the relay.
    """
    head = {"layout": _LAYOUT, "key": key_id.hex(), "domains": dict(domains), "catches": catches,
            "namesakes": {f"{local:016x}": f"{number:016x}" for local, number in namesakes.items()}}  # fmt: skip
    entries = {f"{number:016x}": _row(one) for number, one in found.items()}
    replace_file(path, json.dumps(head | {"entries": entries}), durable=True, at=at.timestamp())


class Expansions:
    """The file as one process has it: the latest valid one that it has read. ``why``: the problem, "" if there is none."""

    def __init__(self, folder: Path, *key_ids: bytes) -> None:
        self._path, self._key_ids = expansions_path(folder), key_ids
        self._stamp: tuple[int, int, int] | None = None
        self._digest = b""
        self.known: Mapping[int, Expansion] = {}
        """What is behind each address, by its digest as a big-endian integer."""
        self.domains: Mapping[str, str] = {}
        """The domain that each alias domain stands for."""
        self._namesakes: Mapping[int, int] = {}
        self.catches = False
        self.read_at: datetime | None = None
        self.why = "it was never synced"

    def look(self) -> bool:
        """Read the file again if it was replaced. Return whether its content has changed."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return False
            octets = self._path.read_bytes()
            digest = hashlib.blake2b(octets, digest_size=16).digest()
            changed = digest != self._digest
            if changed:  # reading takes a quarter of a second for 100,000 addresses, during which no mail is decided
                document = json.loads(octets)
                (known, domains), catches = _expansions(document, self._key_ids), bool(document["catches"])
                namesakes = {int(k, 16): int(v, 16) for k, v in document.get("namesakes", {}).items()}
                self.known, self.domains, self.catches, self._digest = known, domains, catches, digest
                self._namesakes = namesakes
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.why = "its file is damaged, or was made under another secret"
            return False
        self._stamp, self.why = stamp, ""
        self.read_at = datetime.fromtimestamp(stat.st_mtime, UTC)
        return changed

    def namesake(self, number: int) -> Expansion | None:
        """Return the list that a local part is at every domain of the relay.

        ``number``: the digest of a local part without a domain, like ``customers@``.
        """
        address = self._namesakes.get(number)
        return None if address is None else self.known.get(address)


def moved(domain: str, domains: Mapping[str, str]) -> str:
    """Return the domain that this one is an alias of; itself if it is none."""
    for _ in range(8):  # cycles end
        if domain not in domains:
            break
        domain = domains[domain]
    return domain


def _row(one: Expansion) -> dict[str, Any]:
    row: dict[str, Any] = {"people": one.people, "unplaced": one.unplaced}
    if one.customers:
        row |= {"customers": one.customers, "lists": dict(one.lists), "members": [m.hex() for m in one.members]}
    if one.addressed:
        row["addressed"] = list(one.addressed)
    return row


def _expansions(document: Any, key_ids: Iterable[bytes]) -> tuple[Mapping[int, Expansion], Mapping[str, str]]:
    """Return the expansions and the alias domains of a file's document. Raises ValueError for another layout or key."""
    if document["layout"] != _LAYOUT or document["key"] not in {key_id.hex() for key_id in key_ids}:
        raise ValueError
    known = {
        int(number, 16): Expansion(
            key=bytes.fromhex(number),
            people=int(row["people"]),
            unplaced=int(row.get("unplaced", 0)),
            customers=int(row.get("customers", 0)),
            lists={str(name): int(count) for name, count in row.get("lists", {}).items()},
            addressed=tuple(map(str, row.get("addressed", ()))),
            members=tuple(map(bytes.fromhex, row.get("members", ()))),
        )
        for number, row in document["entries"].items()
    }
    return known, {str(old): str(new) for old, new in document["domains"].items()}
