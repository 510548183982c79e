"""smtpguard replay: what the policy file would decide differently from the policy in force.

It judges holds whose content is kept, or messages in files, once under each policy, as ``explain`` does. Nothing is
decided, sent or written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from smtpguard.cli.context import AtLeast, CannotRun, Command, Context, moment
from smtpguard.cli.explain import envelope_of, mails, why_unread
from smtpguard.cli.holdrow import plain
from smtpguard.database.errors import ContentMissing
from smtpguard.lists.recipients import INTERNAL
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session
from smtpguard.mail.message import Message
from smtpguard.policy.verdict import Action, Mode, Scope, Verdict

if TYPE_CHECKING:
    from smtpguard.admission.model import Explained
    from smtpguard.config.settings import Settings
    from smtpguard.lists.digest import Digester
    from smtpguard.policy.parse import Policy
    from smtpguard.store.store import Store

MOST_SENDERS = 8
SINCE = "7d"
SHOWN = 20
IN_FORCE = "the policy file is the policy in force"
_OF_PASSED = {"until": "--until", "limit": "--limit", "every": "--all", "no_names": "--no-names"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A message to judge. ``counted``: counts of its mailing, by fact."""

    name: str
    subject: str
    message: Message
    reverse_path: Address | None
    recipients: Sequence[Address]
    session: Session
    counted: Mapping[str, int] = field(default_factory=dict)


def _rules(verdict: Verdict) -> list[str]:
    """Return the rules that hit, those that only observe with a mark."""
    return sorted(hit.rule + (" (observes)" if hit.mode is Mode.OBSERVE else "") for hit in verdict.hits)


class _Outcome(NamedTuple):
    """``all``: whether the action takes the whole message, and not the customers' part alone."""

    action: Action
    all: bool

    @classmethod
    def of(cls, found: Explained) -> _Outcome:
        verdict = found.verdict
        ours = {one.kind is INTERNAL for one in found.recipients.recipients}
        return cls(verdict.action, not (verdict.action.waits and verdict.scope is Scope.CUSTOMERS and len(ours) > 1))

    @property
    def words(self) -> str:
        return self.action.word if self.all else f"{self.action.word} the customers' part"


def _changes(was: Verdict, will: Verdict) -> Iterator[str]:
    """Yield the rules that hit under one policy alone, and those that do something else, each with its sign."""
    from smtpguard.app.replayed import effects

    before, after = _rules(was), _rules(will)
    for sign, some, others in (("-", before, after), ("+", after, before)):
        yield from (f"{sign} {rule}" for rule in some if rule not in others)
    old, new = effects(was), effects(will)
    for rule in sorted(old.keys() & new.keys()):
        if old[rule].mode is new[rule].mode:
            yield from (f"~ {rule}: {change}" for change in old[rule].changes(new[rule]))


@dataclass(slots=True)
class _HeldSums:
    """The sums of a replay. ``moved``: the senders of messages with another outcome, by both; ``looser``: the messages with a
    less strict one."""

    same: int = 0
    by_other_rules: int = 0
    moved: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    looser: int = 0
    missing: int = 0
    unread: int = 0
    in_force: bool = False

    @property
    def otherwise(self) -> int:
        return sum(senders.total() for senders in self.moved.values())

    @property
    def all(self) -> int:
        return self.same + self.by_other_rules + self.otherwise

    def add(self, was: Explained, will: Explained, sender: str) -> None:
        before, after = _Outcome.of(was), _Outcome.of(will)
        self.looser += after < before
        if before != after:
            self.moved.setdefault((before.words, after.words), Counter())[sender] += 1
        elif not any(_changes(was.verdict, will.verdict)):
            self.same += 1
        else:
            self.by_other_rules += 1


@click.command(
    cls=Command, json="One JSON object a message; with --passed only those on which the two policies differ."
)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--passed", is_flag=True,
              help="Judge every message of a period, passed ones too, from the facts in the journal.")  # fmt: skip
@click.option("--since", metavar="WHEN",
              help=f'Messages since this time: "2026-11-26 09:30" in UTC, or "30d" ago. Default with --passed: {SINCE}.')  # fmt: skip
@click.option("--until", metavar="WHEN", help="With --passed: before this time.")
@click.option("--limit", type=AtLeast(0), default=SHOWN, show_default=True,
              help="With --passed: the number of examples.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="With --passed: every message on which the two policies differ.")
@click.option("--policy", "planned", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="A policy file other than the one that the settings name, like one from smtpguard suggest.")  # fmt: skip
@click.option("--no-names", is_flag=True, help="With --passed: without addresses and subjects.")
@click.option("--expect", type=click.Choice(["same"]), help="Exit 1 if any decision would certainly differ.")
@click.option("--no-loosening", is_flag=True, help="Exit 1 if any message would certainly be treated less strictly.")
async def command(
    context: Context,
    files: Sequence[str],
    passed: bool,
    since: str | None,
    until: str | None,
    limit: int,
    every: bool,
    planned: Path | None,
    no_names: bool,
    expect: str | None,
    no_loosening: bool,
) -> None:
    """Say what the policy file would decide differently from the policy in force.

    It judges the held messages whose content is kept; or FILEs (messages, folders of them, mboxes, - for standard input). Counts are
    of the message alone; for held mail, at least what its mailing has reached.

    The content of passed mail is not kept. --passed judges all messages of a period from the facts in the journal: for each it says
    what is certain, and what depends on facts that were not recorded. A report with names is journalled.
    """  # fmt: skip
    _sound(click.get_current_context(), files, passed)
    settings, now = _with(context.settings(), planned), datetime.now(UTC)
    begin = SINCE if passed and since is None else since
    after = None if begin is None else moment("--since", begin, now)
    before = None if until is None else moment("--until", until, now)
    if passed and after is not None and after >= (before or now):
        raise CannotRun(f"--since is not before {'--until' if before else 'now'}")
    async with AsyncExitStack() as undo, _both(settings) as (store, digester, in_force, other):
        if passed and after is not None:
            from smtpguard.cli.replaypassed import Replaying, report

            walk = Replaying(store, settings, digester, in_force, other, after, before, undo)
            sums = await report(context, walk, limit=None if every else limit, names=not no_names)
            moved, looser, unread = sums.moved, sums.looser, 0
            if other.sha256 == in_force.sha256 and not context.json:
                click.echo(IN_FORCE)
        else:
            tally = await _of_contents(context, settings, store, in_force, other, files, after)
            moved, looser, unread = tally.otherwise, tally.looser, tally.unread
    if unread or (expect and moved) or (no_loosening and looser):
        raise click.exceptions.Exit(1)


def _with(settings: Settings, policy: Path | None) -> Settings:
    return settings if policy is None else settings.model_copy(update={"policy": policy.absolute()})


def _sound(given: click.Context, files: Sequence[str], passed: bool) -> None:
    """Check that the options go together. Raises UsageError."""
    if files and passed:
        raise click.UsageError("--passed reads the journal, and cannot be used with FILEs")
    if files and given.params["since"] is not None:
        raise click.UsageError("--since selects held messages, and cannot be used with FILEs")
    for name, option in _OF_PASSED.items():
        if not passed and given.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{option} is for --passed")


@asynccontextmanager
async def _both(settings: Settings) -> AsyncIterator[tuple[Store, Digester, Policy, Policy]]:
    """Open the store and its digester, the policy in force, and the policy in the file. Raises Broken and CannotRun."""
    from smtpguard.app.files import parse_policy, read_policy
    from smtpguard.app.services import opened

    planned = read_policy(settings)
    async with opened(settings, reads=True) as (store, digester):
        documents = await store.policies.in_force()
        if not documents:
            raise CannotRun("no policy is in force yet: smtpguard serve or reload puts one in force")
        yield store, digester, parse_policy(settings, dict(documents)), planned


async def _of_contents(
    context: Context,
    settings: Settings,
    store: Store,
    in_force: Policy,
    other: Policy,
    files: Sequence[str],
    after: datetime | None,
) -> _HeldSums:
    """Replay messages in files, or holds whose content is kept."""
    from smtpguard.app.explaining import explainer

    tally = _HeldSums(in_force=other.sha256 == in_force.sha256)
    async with explainer(settings, in_force) as before, explainer(settings, other) as then:

        def unread(name: str, problem: str) -> None:
            tally.unread += 1
            context.answer({"message": name, "error": problem}, plain(f"{name}: {problem}"), err=True)

        cases = _of_files(settings, files, unread) if files else _held(store, after, tally)
        async for one in cases:
            asked = one.message, one.reverse_path, one.recipients, one.session, one.counted
            try:
                was, will = await before.explain(*asked), await then.explain(*asked)
            except Exception as error:  # an error of one message must not stop the others
                unread(one.name, why_unread(error))
                continue
            tally.add(was, will, str(one.reverse_path) if one.reverse_path is not None else "<>")
            context.answer(_row(one, was, will), _lines(one, was, will))
    if not tally.all + tally.unread and files:
        raise CannotRun(f"there is no message in {', '.join(files)}")
    if not tally.all + tally.unread:
        gone = f" ({tally.missing:,} messages were held, and their content is no longer kept)" if tally.missing else ""
        click.echo(f"There was nothing to compare: no held message is kept{gone}.", err=True)
    elif not context.json:
        for line in _in_all(tally):
            click.echo(line)
    return tally


async def _of_files(
    settings: Settings, files: Sequence[str], unread: Callable[[str, str], None]
) -> AsyncIterator[_Case]:
    """Yield the messages in files. ``unread``: called with the name of an unreadable message, and why."""
    from smtpguard.app.explaining import session_at

    for mail in mails(files):
        if mail.unread:
            unread(mail.name, mail.unread)
            continue
        try:
            path, people = envelope_of(mail.message.header)
            subject = mail.message.header.get("Subject") or ""
        except Exception as error:
            unread(mail.name, why_unread(error))
            continue
        yield _Case(
            name=mail.name, subject=subject, message=mail.message, reverse_path=path, recipients=people,
            session=session_at(settings, None, "127.0.0.1"),
        )  # fmt: skip


async def _held(store: Store, after: datetime | None, tally: _HeldSums) -> AsyncIterator[_Case]:
    """Yield the held messages, the newest first, without copies of a mailing, which are decided on with it."""
    async for hold in store.holds.every():
        if after is not None and hold.held_at < after:
            return
        try:
            message = await store.contents.load(hold.content_sha256)
        except ContentMissing:
            tally.missing += 1
            continue
        mailing = await store.mailings.find(hold.mailing_id) if hold.mailing_id else None
        counted = {} if mailing is None else {
            "mailing.customers": mailing.customers, "mailing.ever": mailing.customers, "mailing.reach": mailing.people.all,
        }  # fmt: skip
        yield _Case(
            name=hold.hold_id, subject=hold.subject, message=message, reverse_path=hold.envelope.reverse_path,
            recipients=hold.envelope.addresses, session=hold.session, counted=counted,
        )  # fmt: skip


def _row(one: _Case, was: Explained, will: Explained) -> dict[str, Any]:
    in_force, file = (
        {
            "action": found.verdict.action.word,
            "scope": "all" if _Outcome.of(found).all else "customers",
            "rules": _rules(found.verdict),
            "policy_sha256": found.verdict.policy_sha256,
        }
        for found in (was, will)
    )
    same = _Outcome.of(was) == _Outcome.of(will) and not any(_changes(was.verdict, will.verdict))
    return {"message": one.name, "subject": one.subject, "same": same, "in_force": in_force, "file": file}


def _lines(one: _Case, was: Explained, will: Explained) -> Iterator[str]:
    before, after = _Outcome.of(was), _Outcome.of(will)
    changes = [*_changes(was.verdict, will.verdict)]
    if before == after and not changes:
        return
    way = f"{before.words} -> {after.words}" if before != after else before.words
    yield plain(f'{one.name}: {way}  "{one.subject}"')
    yield from (f"  {change}" for change in changes)


def _in_all(tally: _HeldSums) -> Iterator[str]:
    moved = ", ".join(f"{was} -> {will}: {who.total():,}" for (was, will), who in sorted(tally.moved.items()))
    yield (
        f"{many(tally.all, 'message')}: {tally.same:,} decided as now, {tally.by_other_rules:,} by "
        f"other rules, {tally.otherwise:,} otherwise" + (f" ({moved})" if moved else "")
    )
    for (was, will), senders in sorted(tally.moved.items()):
        if senders.total() > 1:
            named = ", ".join(f"{who} {m:,}" for who, m in senders.most_common(MOST_SENDERS))
            more = f", and {len(senders) - MOST_SENDERS:,} more" if len(senders) > MOST_SENDERS else ""
            yield plain(f"  {was} -> {will}, by sender: {named}{more}")
    if tally.in_force:
        yield IN_FORCE
    if tally.unread:
        yield f"{tally.unread:,} could not be judged"
    if tally.missing:
        yield f"{tally.missing:,} more were held, and their content is no longer kept"
