"""smtpguard suggest: additions to the policy that the journal speaks for, as a diff of its file, each line with its
reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import yaml

from smtpguard.app.policyedit import NotEditable, diff, with_key
from smtpguard.cli.audit import may_name, progress
from smtpguard.cli.context import CannotRun, Context, a_since, as_json, moment
from smtpguard.cli.offline import check
from smtpguard.cli.report import rules_of
from smtpguard.config.documents import POLICY
from smtpguard.incidents.observed import acts
from smtpguard.incidents.suggestions import Bound, Evidence, Found, PolicyContents
from smtpguard.policy.parse import Policy

HOLDS = 5.0
_OF_COUNTS = ("mailing.", "recipients.", "sender.", "list.", "thread.")


@click.command()
@a_since("14d")
@click.option("--holds", type=click.FloatRange(0), default=HOLDS, show_default=True, metavar="N",
              help="How many messages a rule may hold in a week before another limit is suggested.")  # fmt: skip
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the policy with all suggestions to a new file beside the policy.",
)
@as_json("One JSON object a suggestion.")
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
    from smtpguard.app.services import opened
    from smtpguard.journal.scan import verdicts

    evidence = Evidence(known)
    async with opened(settings, reads=True) as (store, _):
        may_name(store)
        await store.journal.catch_up()
        with progress("Reading the journal") as moved:
            async for page in verdicts(store, begin, now, moved):
                for entry, clear in page:
                    first, last = first or entry.at, entry.at
                    evidence.add(entry.at, entry.id, entry.data, clear)
        if not evidence.messages:
            raise CannotRun("the journal has no verdict from that time")
        await context.journal_export(store, what="suggest")
    weeks = max((last - first) / 1e6 / timedelta(days=7).total_seconds(), 1 / 7)
    found = evidence.found(weeks, holds)
    old = settings.policy.read_text()
    new, elsewhere = _edited(old, found)
    if context.json:
        for each in found.suggestions:
            context.say(
                {
                    "path": list(each.path),
                    "key": each.key,
                    "value": each.value,
                    "reason": each.reason,
                    "looser": each.looser,
                }
            )
        for note in found.notes:
            context.say({"note": note})
    else:
        click.echo(diff(old, new, settings.policy.name), nl=False)
        for note in (*found.notes, *elsewhere):
            click.echo(f"Also: {note}", err=True)
        if new == old:
            click.echo("The policy file fits the traffic of this time: nothing to suggest.", err=True)
    if write is not None:
        _write(write, new)
        if not context.json:
            click.echo(f"Wrote {write}. Next: smtpguard replay --passed --since {since} --policy {write}", err=True)


def _must_be_new(file: Path, policy: Path) -> None:
    """Raises CannotRun."""
    if file.exists() or file.is_symlink():
        raise CannotRun(f"{file} exists, and is not overwritten")
    if file.absolute().parent != policy.absolute().parent:
        raise CannotRun(
            f"--write: {file} must be in the folder of the policy, {policy}, because it refers to its files"
        )


def known_of(policy: Policy, owner: str) -> PolicyContents:
    """What the policy declares, and the bounds in its file."""
    rules = (yaml.safe_load(policy.documents[POLICY]) or {}).get("rules") or ()
    return PolicyContents(
        domains=frozenset(policy.organization.domains),
        writers={name: tuple(str(w) for w in model.writers or ()) for name, model in policy.lists.items()},
        streams=frozenset(str(sender) for stream in policy.streams.values() for sender in stream.from_),
        stream_names=tuple(policy.streams),
        customers_here=policy.organization.customers_here,
        bounds=tuple(_bounds(rules)),
        holding=frozenset(rule for rule, action in acts(rules_of(policy)).items() if action == "hold"),
        owner=owner,
    )


def _bounds(rules: Iterable[Mapping[str, Any]]) -> Iterator[Bound]:
    """Numbers in ``when`` of rules that would hold: the first of each rule, since a rule hits only if all its
    conditions do."""
    for n, rule in enumerate(rules):
        if not acts([rule])[str(rule.get("id"))]:
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


def _edited(text: str, found: Found) -> tuple[str, list[str]]:
    """The file with all additions, and those that could not be written into it, in words."""
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


def _write(file: Path, text: str) -> None:
    """Raises CannotRun if the result is no policy."""
    with file.open("x") as out:
        out.write(text)
    wrong = [problem for problem in check(file).problems if problem.fatal]
    if wrong:
        file.unlink()
        raise CannotRun("\n".join(map(str, wrong)))
    file.chmod(0o640)
