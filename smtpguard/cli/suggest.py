"""smtpguard suggest: suggest additions to the policy that the journal speaks for, as a diff of its file, each line with its reason."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import yaml

from smtpguard.cli.context import CannotRun, Command, Context, a_since, judged, may_name, moment, write_new
from smtpguard.cli.report import rules_of
from smtpguard.config.documents import POLICY
from smtpguard.config.yaml import on_a_line
from smtpguard.incidents.observed import enforced_actions
from smtpguard.incidents.suggestions import Bound, Evidence, PolicyContents, Suggestions
from smtpguard.policy.parse import Policy

HOLDS = 5.0
_OF_COUNTS = ("mailing.", "recipients.", "sender.", "list.", "thread.")


@click.command(cls=Command, json="One JSON object a suggestion.")
@a_since("14d")
@click.option("--holds", type=click.FloatRange(0), default=HOLDS, show_default=True, metavar="N",
              help="How many decisions a rule may cost in a week before another limit is suggested.")  # fmt: skip
@click.option("--write", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the policy with all suggestions to a new file beside the policy.")  # fmt: skip
async def command(context: Context, since: str, holds: float, write: Path | None) -> None:
    """Suggest streams, writers, colleagues and limits from recent traffic, as a diff of the policy file for patch(1).

    Nothing is changed. It names people, which is journalled; a change that would let more pass is marked "looser". To see its effect:
    smtpguard replay --passed --policy FILE.
    """
    now = datetime.now(UTC)
    begin = moment("--since", since, now)
    settings = context.settings()
    if write is not None:
        _must_be_new(write, settings.policy)
    policy = context.policy()
    known = known_of(policy, settings.notices.contact or "")
    first = last = 0
    evidence = Evidence(known)
    async with context.store(reads=True) as store:
        may_name(store)
        async for entry, clear in judged(store, begin, now):
            first, last = first or entry.at, entry.at
            evidence.add(entry.at, entry.id, entry.data, clear)
        if not evidence.messages:
            raise CannotRun("the journal has no verdict from that time")
        await context.journal_export(store, what="suggest")
    weeks = (last - first) / 1e6 / timedelta(days=7).total_seconds()
    found = evidence.suggestions(weeks, holds)
    if weeks < 1:
        young = "less than a week of mail was read: each number a week is what was seen so far"
        found = replace(found, notes=(*found.notes, young))
    old = settings.policy.read_text(encoding="utf-8")
    new, elsewhere = _edited(old, found)
    if context.json:
        for each in found.suggestions:
            place = {"path": list(each.path), "key": each.key, "value": each.value}
            context.print_json({**place, "reason": each.reason, "looser": each.looser})
        for note in found.notes:
            context.print_json({"note": note})
    else:
        click.echo(diff(old, new, settings.policy.name), nl=False)
        notes = (*found.notes, *elsewhere)
        if new == old:
            fits = "the policy file fits the traffic of this time"
            click.echo("No line of the policy file to change." if notes else f"Nothing to suggest: {fits}.", err=True)
        for note in notes:
            click.echo(f"Also: {note}", err=True)
    if write is not None:
        await asyncio.to_thread(_write_policy, write, new)
        if not context.json:
            click.echo(f"Wrote {write}. Next: smtpguard replay --passed --since {since} --policy {write}", err=True)


def _must_be_new(file: Path, policy: Path) -> None:
    """Check that a file to write is new, and not the policy's. Raises CannotRun."""
    if file.exists() or file.is_symlink():
        raise CannotRun(f"{file} exists, and is not overwritten")
    if file.absolute().parent != policy.absolute().parent:
        raise CannotRun(
            f"--write: {file} must be in the folder of the policy, {policy}, because it refers to its files"
        )


def known_of(policy: Policy, owner: str) -> PolicyContents:
    """Return what the policy declares, and the bounds in its file."""
    rules = (yaml.safe_load(policy.documents[POLICY]) or {}).get("rules") or ()
    return PolicyContents(
        domains=frozenset(policy.organization.domains),
        writers={name: tuple(str(w) for w in model.writers or ()) for name, model in policy.lists.items()},
        streams=frozenset(str(sender) for stream in policy.streams.values() for sender in stream.from_),
        stream_names=tuple(policy.streams),
        customers_here=policy.organization.customers_here,
        bounds=tuple(_bounds(rules)),
        holding=frozenset(rule for rule, action in enforced_actions(rules_of(policy)).items() if action == "hold"),
        owner=owner,
    )


def _bounds(rules: Iterable[Mapping[str, Any]]) -> Iterator[Bound]:
    """Return the numbers in ``when`` of rules that would hold, the first of each rule, since a rule hits only if all conditions do."""
    for n, rule in enumerate(rules):
        if not enforced_actions([rule])[str(rule.get("id"))]:
            continue
        for fact, asked in (rule.get("when") or {}).items():
            if not fact.startswith(_OF_COUNTS):
                continue
            place = {"rule": str(rule.get("id")), "path": ("rules", n, "when"), "key": fact, "fact": fact}
            if isinstance(asked, dict) and isinstance(asked.get("at_least"), int):
                yield Bound(**place, least=asked["at_least"], more=asked)
                break
            number, _, rest = str(asked).removeprefix(">= ").partition(" ")
            if str(asked).startswith(">= ") and number.isdigit():
                yield Bound(**place, least=float(number), rest=f" {rest}" if rest else "")
                break


def _edited(text: str, found: Suggestions) -> tuple[str, list[str]]:
    """Return the file with all additions, and those that could not be written into it, in words."""
    elsewhere: list[str] = []
    for each in found.suggestions:
        where = ".".join(map(str, (*each.path, each.key)))
        try:
            text = with_key(text, each.path, each.key, each.value, f"{each.reason}{' (looser)' if each.looser else ''}")
        except NotEditable as error:
            elsewhere.append(
                f"{where}: {json.dumps(each.value, ensure_ascii=False)}: {each.reason}. The file has no place for it: {error}"
            )
    return text, elsewhere


def _write_policy(file: Path, text: str) -> None:
    """Write the policy with its additions, after a check. Do not call it in a thread with an event loop: the check has its own.
    Raises CannotRun if the result is no policy."""
    from smtpguard.cli.offline import check

    write_new({file: text.encode()})
    if wrong := check(file).fatal:
        file.unlink()
        raise CannotRun("\n".join(map(str, wrong)))
    file.chmod(0o640)


class NotEditable(ValueError):
    """A place is not in this file, or is written in an unsupported style. The message says which."""


def with_key(text: str, path: Sequence[str | int], key: str, value: Any, reason: str) -> str:
    """Add a key to a mapping of a YAML text. ``path``: the mapping, from the top, added if missing. ``reason`` becomes a comment.
    Raises NotEditable."""
    root = yaml.compose(text, yaml.SafeLoader)
    said = f"# {' '.join(reason.split())}"
    if not isinstance(root, yaml.MappingNode):
        raise NotEditable("it is no mapping")
    node: yaml.Node = root
    for n, step in enumerate(path):
        found = _child(node, step)
        if found is None:
            if n or len(path) > 1 or not isinstance(step, str):
                raise NotEditable(f"{'.'.join(map(str, path))} is not in this file")
            end = "" if text.endswith("\n") else "\n"
            return f"{text}{end}\n{step}:\n  {said}\n  {key}: {_flow(value)}\n"
        node = found
    if not isinstance(node, yaml.MappingNode):
        raise NotEditable(f"{'.'.join(map(str, path))} is no mapping")
    there = _child(node, key)
    if there is not None:
        return _replaced(text, there, value, said)
    if not node.value and node.flow_style:  # {} becomes a block, which can have comments
        line = text.rfind("\n", 0, node.start_mark.index) + 1
        indent = " " * (_indent(text[line:]) + 2)
        after = text.find("\n", node.end_mark.index)
        after = len(text) if after < 0 else after
        trailing = text[node.end_mark.index : after].strip()
        head = text[: node.start_mark.index].rstrip(" ")
        return (
            f"{head}{f'  {trailing}' if trailing else ''}\n{indent}{said}\n{indent}{key}: {_flow(value)}{text[after:]}"
        )
    if node.flow_style:
        head = text[: node.end_mark.index - 1].rstrip()
        rest = text[node.end_mark.index - 1 :]
        return _above(f"{head}, {key}: {_flow(value)}{rest}", node.start_mark.index, said)
    first = node.value[0][0].start_mark
    line = text.rfind("\n", 0, first.index) + 1
    indent = " " * first.column
    if text[line : first.index].strip():  # after "- " of a sequence: use its second line
        after = text.find("\n", node.value[0][1].end_mark.index) + 1
        return f"{text[:after]}{indent}{said}\n{indent}{key}: {_flow(value)}\n{text[after:]}"
    return f"{text[:line]}{indent}{said}\n{indent}{key}: {_flow(value)}\n{text[line:]}"


def diff(old: str, new: str, name: str) -> str:
    return "".join(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name}, as suggested"
        )
    )


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        return node.value[step] if step < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == str(step)), None)
    return None


def _replaced(text: str, there: yaml.Node, value: Any, said: str) -> str:
    """Replace a value on one line, or a block of several."""
    start, end = there.start_mark.index, there.end_mark.index
    while end > start and text[end - 1] in " \n":  # a block ends where the next key begins
        end -= 1
    if "#" in text[start:end] and "\n" in text[start:end]:
        raise NotEditable(f"what stands at line {there.start_mark.line + 1} has comments of its own")
    between = " " if text[start - 1] == "\n" or "\n" in text[start:end] else ""
    if between:
        start = len(text[:start].rstrip())
    return _above(f"{text[:start]}{between}{_flow(value)}{text[end:]}", start, said)


def _above(text: str, index: int, said: str) -> str:
    """Insert the comment on a line above that of ``index``."""
    line = text.rfind("\n", 0, index) + 1
    return f"{text[:line]}{' ' * _indent(text[line:])}{said}\n{text[line:]}"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _flow(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) and value[:1] == ">" else on_a_line(value)
