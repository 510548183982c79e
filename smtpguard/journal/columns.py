"""The columns by which SQL selects verdicts, derived from the body of their entry.

The chain hashes the body, and the walk that proves the chain compares the columns with it: emptying a column does not
hide a verdict from a report. For a relayed message that is of no list and no mailing, all of them are empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from smtpguard.journal.chain import parsed
from smtpguard.journal.event import Kind

NAMED = ("hold", "mailing", "with", "freeze")
"""Keys of a verdict's data that contain further ids of the message."""
_KIND = Kind.VERDICT.value
_RELAY = "relay"


class Columns(NamedTuple):
    """``action``: of a verdict that does not relay. ``observed``: True if a rule only observed. ``lists``: those that
    it touches, and ``names``: the hold, mailing and freeze ids in it; each on a line of its own between line ends."""

    action: str | None = None
    observed: bool | None = None
    lists: str | None = None
    names: str | None = None


NONE = Columns()


def of(kind: str, id: str, data: Mapping[str, Any]) -> Columns:
    """The columns of an entry with this ``data``; all empty if it is no verdict."""
    if kind != _KIND:
        return NONE
    get = data.get
    action, lists = get("action"), get("lists")
    if action == _RELAY and not lists and not get("observed") and not any(map(get, NAMED)):
        return NONE  # as for nearly all mail
    names = [name for key in NAMED if isinstance(name := get(key), str) and name and name != id]
    return Columns(
        action=action if isinstance(action, str) and action != _RELAY else None,
        observed=True if data.get("observed") else None,
        lists=lines(lists) if lists and isinstance(lists, (list, tuple)) else None,
        names=lines(dict.fromkeys(names)) if names else None,
    )


def fits(kind: str, id: str, body: str, found: Sequence[Any]) -> bool:
    """Whether the columns ``found`` beside a body are those that it gives. A body that is not our JSON is not judged
    here."""
    if kind != _KIND:
        return tuple(found) == NONE
    try:
        return tuple(found) == of(kind, id, parsed(body)["data"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return True


def lines(names: Collection[str]) -> str:
    """Each on a line of its own between line ends."""
    return "".join(("\n", *(f"{_line(name)}\n" for name in names)))


def _line(name: object) -> str:
    return name if isinstance(name, str) and name.isprintable() else ascii(name)
