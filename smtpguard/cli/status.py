"""smtpguard status: whether all is well. Exit 0 if it is; 1 if the guard does not serve, an alarm is critical, or the store is
of another version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.bypass import row as bypass_row
from smtpguard.cli.context import Command, Context, roughly
from smtpguard.cli.holdrow import plain, thaw_command
from smtpguard.config.problem import Broken
from smtpguard.config.settings import STORE
from smtpguard.processes.statusfile import Tree, hidden, trees

if TYPE_CHECKING:
    from smtpguard.app.status import Status

_NEEDED = STORE | {"relay", "policy"}
"""Settings keys without which the status could be that of something else."""

_NEARLY = 0.9
_ENDED = "nothing serves here: start smtpguard serve; its log says why it ended"
_HIDDEN = "it is not known whether it serves"


@click.command(cls=Command, json="One JSON object.")
async def command(context: Context) -> None:
    """Show the state of the guard: parts, policy, freezes, holds, relay, store, lists, alarms. Exit 1 if anything is critical."""
    try:
        settings = context.settings_as_far(_NEEDED)
    except Broken as broken:
        _without_settings(context, broken)
        raise click.exceptions.Exit(1) from None
    from smtpguard.app.status import status

    found = await status(settings)
    context.answer(row(found), lines(found))
    if not found.fine:
        raise click.exceptions.Exit(1)


def _without_settings(context: Context, broken: Broken) -> None:
    """Show the processes alone, which run on earlier settings: a mistake in a needed key hides everything else."""
    state = _state(context.config)
    running = list(trees(state))
    problems = [str(problem) for problem in broken.problems]
    text = [
        f"The settings have errors, so only the processes are shown. {len(problems)}:",
        *(f"  {problem}" for problem in problems),
        f"Parts       {_parts(running, hidden(state))}",
    ]
    context.answer({"fine": False, "settings": problems, "parts": list(_processes(running))}, text)


def _state(config: Path) -> Path:
    from smtpguard.config.yaml import load_yaml

    try:
        value = load_yaml(config).value
        state = value.get("state") if isinstance(value, dict) else None
    except (Broken, OSError):
        state = None
    return config.absolute().parent / (state if isinstance(state, str) else "var")


def _processes(found: list[Tree]) -> Iterator[dict[str, Any]]:
    for tree in found:
        for process in tree.parts:
            running = tree.alive and process.get("pid") is not None
            yield {
                "host": tree.row.get("host"),
                "serve_pid": tree.row.get("pid"),
                **process,
                "running": running,
                "ready": running and bool(process.get("ready")),
            }


def row(found: Status) -> dict[str, Any]:
    waiting = found.waiting
    return {
        "fine": found.fine,
        "at": found.at,
        "version": found.version,
        "serves": found.serves,
        "alarms": [
            {
                "alarm": alarm.condition.name,
                "about": alarm.found.about or None,
                "severity": alarm.condition.severity.value,
                "says": alarm.says,
                "does": alarm.does,
                "since": since,
            }
            for alarm, since in found.alarms
        ],
        "parts": list(_processes(found.trees)),
        "policy": found.policy,
        "freezes": None
        if waiting is None
        else [
            {
                "id": f.freeze_id,
                "selector": f.selector.value,
                "value": f.value or None,
                "by": f.by,
                "reason": f.reason,
                "since": f.at,
                "until": f.until,
                "thaw_asked": None
                if f.freeze_id not in found.thaws_asked
                else dict(zip(("by", "at"), found.thaws_asked[f.freeze_id], strict=True)),
            }
            for f in waiting.freezes
        ],
        "waiting": None
        if waiting is None
        else {
            "holds": waiting.holds,
            "oldest_at": waiting.held_at,
            "near_deadline": waiting.near,
            "overdue": waiting.overdue,
            "outbox_due": waiting.due,
            "outbox_oldest_due_at": waiting.due_at,
            "outbox_later": waiting.later,
        },
        "relay": found.relay,
        "routes": found.routes,
        "store": found.store,
        "lists": found.lists,
        "groups": found.groups,
        "contacts_since": found.contacts_since,
        "checkpoint": found.checkpoint,
        "receivers": found.receivers,
        "bypass": bypass_row(found.bypass),
        "unknown": found.unknown,
    }


def lines(found: Status) -> Iterator[str]:
    yield f"smtpguard {found.version}: {_verdict(found)}"
    if found.hidden:
        yield f"  unknown   {_HIDDEN}: {found.hidden}"
    elif not found.serves:
        why = (
            "nothing has ever served here: start smtpguard serve"
            if found.new
            else next(map(_silence, (tree for tree in found.trees if tree.silent)), _ENDED)
        )
        yield "  " + click.style("critical", fg="red") + f"  {why}"
    for alarm, since in found.alarms:
        severity = "quiet" if alarm.condition.name in found.quiet else alarm.condition.severity.value
        mark = click.style(f"{severity:<8}", fg="red" if severity == "critical" else "yellow")
        yield f"  {mark}  {alarm.line(f' (since {_when(since)})' if since is not None else '')}"
    yield f"Parts       {_parts(found.trees, found.hidden)}"
    yield f"Policy      {_policy(found.policy)}"
    if (waiting := found.waiting) is not None:
        for n, f in enumerate(waiting.freezes):
            yield f"{'' if n else 'Freezes':<12}{f.in_words()}"
            if (asked := found.thaws_asked.get(f.freeze_id)) is not None:
                yield f"{'':<12}{asked[0]} asked to thaw it at {_when(asked[1])}; another person must agree, by {thaw_command(f)}"
        if not waiting.freezes:
            yield "Freezes     none"
        first = f", the first since {_when(waiting.held_at)}" if waiting.held_at else ""
        yield f"Waiting     {waiting.holds} to be decided{first}; {waiting.near} near the deadline, {waiting.overdue} past it"
        if waiting.kept_bytes > _NEARLY * found.quota:
            share = round(100 * waiting.kept_bytes / found.quota)
            yield f"{'':<12}held content fills {share} % of hold: {{quota_gb}}; above it, mail that would be held is answered 452"
        due = f", the first since {_when(waiting.due_at)}" if waiting.due_at else ""
        yield f"Outbox      {waiting.due} due{due}; {waiting.later} later"
    if found.relay is not None:
        yield f"Relay       {_answers(found.relay)}"
    for row in found.routes:
        yield f"Route       {row['route']}: {_answers(row)}"
    if found.store is not None:
        said = found.store["problem"] or found.store["put_back"] or "answers"
        yield f"Store       {found.store['url']}: {said}"
        for file in found.store.get("fronts_aside") or ():
            yield f"{'':<12}{file} belongs to another state of the journal, and not all of it was merged"
    if found.bypass is not None:
        yield f"Bypass      until {_when(found.bypass.ends)}, by {' and '.join(found.bypass.people)}: {found.bypass.reason}"
    for n, each in enumerate(found.lists or ()):
        people = "nobody known" if each["people"] is None else f"{each['people']:,} people"
        read = f", read {_when(each['checked_at'])}" if each["checked_at"] else ""
        yield f"{'' if n else 'Lists':<12}{each['list']}: {people}, {each['state']}{read}"
    for n, each in enumerate(found.groups or ()):
        yield f"{'' if n else 'Groups':<12}{_group(each)}"
    if found.contacts_since is not None:
        yield f"Contacts    recorded since {_when(found.contacts_since)}"
    if found.checkpoint is not None:
        yield f"Checkpoint  entry {found.checkpoint['entry']}, signed {_when(found.checkpoint['at'])}"
    for each in found.receivers:
        has = f"has those up to entry {each['entry']}, signed {_when(each['at'])}" if each["entry"] else "has none yet"
        failing = f"; has taken none since {_when(each['failing_since'])}" if each["failing_since"] else ""
        yield f"{'':<12}audit: {each['receiver']} {has}{failing}"
    for n, why in enumerate(found.unknown):
        yield f"{'' if n else 'Not known':<12}{why}"


def _group(each: Mapping[str, Any]) -> str:
    """Return a line on a group whose members a directory names."""
    read = f"read {_when(each['read_at'])}" if each["read_at"] else "never read"
    said = f"{each['group']}: {each['people']:,} people of its directory, {read}"
    return (
        f"{said}; {click.style('its directory fails', fg='yellow')}: {plain(each['problem'])}"
        if each["problem"]
        else said
    )


def _answers(relay: Mapping[str, Any]) -> str:
    return f"{relay['name']} cannot be used: {relay['problem']}" if relay["problem"] else f"{relay['name']} answers"


def _verdict(found: Status) -> str:
    if found.fine:
        warned = sum(alarm.condition.name not in found.quiet for alarm, _ in found.alarms)
        return "all is well" if not warned else f"nothing is critical, {warned} to look at"
    critical = found.critical + (not found.serves and not found.hidden)
    if not critical:
        if found.hidden:
            return _HIDDEN
        return "the store is of another version, so that most is not known"
    return "one thing is critical" if critical == 1 else f"{critical} things are critical"


def _parts(running: list[Tree], hidden: str) -> str:
    if not running:
        return "not known" if hidden else "none"
    told = []
    for tree in running:
        for process in _processes([tree]):
            if not process["running"]:
                how = "not known" if tree.silent else "does not run"
            elif not process["ready"]:
                how = "is not ready"
            else:
                how = f"ready, {roughly(int(process.get('seconds') or 0))}"
            told.append(f"{process['name']} ({how})")
    return ", ".join(told)


def _silence(tree: Tree) -> str:
    since = datetime.fromtimestamp(tree.row["at"], UTC)
    return (
        f"smtpguard serve (process {tree.row['pid']}) has not written {tree.path} since {_when(since)}: it hangs, or cannot "
        "write there, so that it is not known what its processes do"
    )


def _policy(policy: dict[str, Any] | None) -> str:
    if policy is None:
        return "not known"
    enforced = {True: "enforced", False: "observing only", None: "unreadable"}[policy["enforced"]]
    since = f", in force since {_when(policy['since'])}" if policy["since"] else ""
    by = f" by {policy['by']}" if policy["by"] else ""
    how = f" ({policy['how']})" if policy["how"] else ""
    return f"{policy['sha256'][:12]}, {enforced}{since}{by}{how}; {policy['file_says']}"


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
