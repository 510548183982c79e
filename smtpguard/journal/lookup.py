"""The columns that SQL selects verdicts by, beside the body of their entry.

They are made of the body alone, which is what the chain has hashed, so that the walk that proves the chain compares them with it: a
verdict cannot be hidden from a report by emptying a column. A message that is relayed, and is of no list and no mailing, leaves all of
them empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, or_

from smtpguard.database.schema import entry
from smtpguard.incidents.about import NAMED
from smtpguard.journal.chain import parsed
from smtpguard.journal.event import Kind

_KIND = Kind.VERDICT.value
VERDICT = entry.c.kind == _KIND
_RELAY = "relay"


class Columns(NamedTuple):
    """``action``: of a verdict that does not relay. ``observed``: True where a rule only observed. ``lists``: those that it touches, and
    ``names``: the hold, mailing and freeze that it names beside its id; each on a line of its own between line ends."""

    action: str | None = None
    observed: bool | None = None
    lists: str | None = None
    names: str | None = None


NONE = Columns()
TABLE = tuple(entry.c[name] for name in Columns._fields)


def of(kind: str, id: str, data: Mapping[str, Any]) -> Columns:
    """Of an entry with this ``data``; all empty where it is no verdict."""
    if kind != _KIND:
        return NONE
    action = data.get("action")
    lists = data.get("lists")
    names = [name for key in NAMED if isinstance(name := data.get(key), str) and name and name != id]
    return Columns(
        action=action if isinstance(action, str) and action != _RELAY else None,
        observed=True if data.get("observed") else None,
        lists=_lines(lists) if lists and isinstance(lists, (list, tuple)) else None,
        names=_lines(dict.fromkeys(names)) if names else None,
    )


def fits(kind: str, id: str, body: str, found: Sequence[Any]) -> bool:
    """Whether the columns ``found`` beside a body are those that it makes. What is no JSON of ours is not judged here."""
    if kind != _KIND:
        return tuple(found) == NONE
    try:
        return tuple(found) == of(kind, id, parsed(body)["data"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return True


def acts(action: str) -> ColumnElement[bool]:
    """Verdicts with this action, which is not to relay."""
    return and_(VERDICT, entry.c.action == action)


def touches(lists: Collection[str]) -> ColumnElement[bool]:
    """Verdicts on a message to any of these lists."""
    return or_(*(entry.c.lists.contains(_lines([name]), autoescape=True) for name in sorted(lists)))


def named(ids: Collection[str]) -> ColumnElement[bool]:
    """Entries with one of these ids, or that name one."""
    wanted = sorted(ids)
    return or_(entry.c.id.in_(wanted), *(entry.c.names.contains(_lines([id]), autoescape=True) for id in wanted))


def _lines(names: Collection[str]) -> str:
    return "".join(("\n", *(f"{_line(name)}\n" for name in names)))


def _line(name: object) -> str:
    return name if isinstance(name, str) and name.isprintable() else ascii(name)
