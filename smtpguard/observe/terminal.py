"""Lines of the log for people at a terminal: what happened to which message, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

_SHOWN_RECIPIENTS = 2
_SHOWN_SUBJECT = 80
_VERDICTS = {"confirm": "ASKED", "hold": "HELD", "reject": "REJECTED", "defer": "DEFERRED"}
_STYLES = {
    "HELD": "33;1",
    "ASKED": "33;1",
    "REJECTED": "31;1",
    "DEFERRED": "35;1",
    "relayed": "32",
    "refused": "31",
    "lost": "31",
}
_LEVEL_STYLES = {"warning": "33;1", "error": "31;1", "critical": "31;1"}
_ALWAYS = frozenset({"timestamp", "level", "event", "id", "exception"})


def escaped(text: str) -> str:
    """Return JSON on one line with all that is not printable as JSON escapes, so that it controls no terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def terminal_line(row: Mapping[str, Any], *, colours: bool) -> str:
    """Return the line of ``row``, as structlog's processors left it. The row must have no control characters."""
    level, event = str(row.get("level", "info")), str(row.get("event", ""))
    if event == "verdict" and "action" in row:
        word, rest = _verdict(row)
    elif event in ("notice", "release") and "outcome" in row:
        word, rest = event, _delivery(row)
    elif event == "list" and "people" in row:
        word, rest = event, _list(row)
    else:
        word, rest = event, " ".join(f"{k}={_value(v)}" for k, v in row.items() if k not in _ALWAYS and v is not None)
    grave = "" if level == "info" else f"{level}: "
    said = "  ".join(part for part in (str(row.get("id", "")), rest) if part)
    shown = f"{grave + word:<9}"
    if colours and (style := _LEVEL_STYLES.get(level) or _STYLES.get(word)):
        shown = f"\x1b[{style}m{shown}\x1b[0m"
    whole = f"{row.get('timestamp', '')}  {shown} {said}".rstrip()
    return f"{whole}\n{row['exception']}" if row.get("exception") else whole


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the first word and the rest. The word is the action, or the outcome if the relay refused the message."""
    action = str(row["action"])
    word = _VERDICTS.get(action) or str(row.get("outcome") or action)
    reach = row.get("counts", {}).get("reach", 0)
    people = f", {'at least ' if row.get('reach_at_least') else ''}{reach:,} people" if reach > 1 else ""
    text = f"{row.get('reverse_path') or '<>'} to {_several(row.get('recipients', ()))} {_title(str(row.get('subject', '')))}{people}"
    if row.get("hold") not in (None, row.get("id")):
        text += f", {'again' if row.get('retry') else 'held'} as {row['hold']}"
    if row.get("with"):
        text += f", a copy of {row['with']}"
    why = [*row.get("rules", ()), *(f"would have: {rule}" for rule in row.get("observed", ()))]
    if row.get("freeze"):
        why.append(f"frozen by {row['freeze']}")
    if action == "relay" and row.get("outcome") not in (None, "relayed"):
        why += row.get("replies", ())
    return word, text + (f": {', '.join(map(str, why))}" if why else "")


def _title(subject: str) -> str:
    """Return the subject, shortened, in quotation marks, with its own quotation marks escaped."""
    shown = subject if len(subject) <= _SHOWN_SUBJECT else f"{subject[: _SHOWN_SUBJECT - 3]}..."
    return '"{}"'.format(shown.replace('"', '\\"'))


def _delivery(row: Mapping[str, Any]) -> str:
    what = f"{row['notice']}, " if row.get("notice") else ""
    answer = f": {row['comment']}" if row["outcome"] != "sent" and row.get("comment") else ""
    return f"{what}to {_several(row.get('recipients', ()))}: {row['outcome']}{answer}"


def _list(row: Mapping[str, Any]) -> str:
    bad = f", {row['bad_rows']:,} rows that are no address" if row.get("bad_rows") else ""
    stale = ", too old to be relied on" if row.get("stale") else ""
    return f"{row.get('problem') or 'read'}: {row['people']:,} people of {row.get('source') or 'no source'}{bad}{stale}"


def _several(recipients: Iterable[str]) -> str:
    shown = list(recipients)
    more = len(shown) - _SHOWN_RECIPIENTS
    if shown and shown[-1].startswith("and "):  # log.fields has truncated them already
        more += int(shown[-1].split()[1]) - 1
    return ", ".join(shown[:_SHOWN_RECIPIENTS]) + (f" and {more} more" if more > 0 else "") or "nobody"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_value, value)) or "-"
    if isinstance(value, Mapping):
        return ",".join(f"{k}:{_value(v)}" for k, v in value.items())
    text = str(value)
    return f'"{text}"' if not text or " " in text else text
