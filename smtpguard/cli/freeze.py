"""smtpguard freeze and thaw.

``freeze`` returns when no verdict to relay a message that it stops can be committed any more, and says how many
messages were too late to recall.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from smtpguard.app.files import CannotStart
from smtpguard.cli.context import CannotRun, Command, Context, NotFine, length, mailbox, options, sentence_of
from smtpguard.cli.holdrow import freeze_row, thaw_command
from smtpguard.config.problem import unknown
from smtpguard.config.settings import STORE
from smtpguard.database.errors import CommitUnknown, StoreError
from smtpguard.freezes.hooks import Hook
from smtpguard.freezes.service import UNCOUNTED, Released, SecondPersonNeeded
from smtpguard.journal.bypass import Bypasses
from smtpguard.mailings.model import NoSuch
from smtpguard.policy.freezing import Freeze, Selector

if TYPE_CHECKING:
    from smtpguard.app.services import Brakes

Chosen = tuple[Selector, str]
_OTHER_VERSION = (
    "Freeze on the console's page, by the version that runs; or restart smtpguard serve, so that it is of this version, "
    "and freeze then. Else stop"
)


def _reason(_: click.Context, __: click.Parameter, reason: str) -> str:
    if not reason.strip():
        raise click.BadParameter("give a reason: the senders of held mail see it")
    return reason


selectors = options(
    click.option("--all", "everything", is_flag=True, help="All mail."),
    click.option("--list", "list_name", metavar="NAME", help="All mail that reaches this list."),
    click.option("--sender", metavar="ADDRESS", help="All mail from this address, or by the login of its name."),
    click.option("--mailing", metavar="ID", help="One mailing, by its id or a beginning of it."),
    click.option("--thread", metavar="MESSAGE-ID",
                 help="A conversation, by its first Message-ID, or by the id of a held message in it."),
)  # fmt: skip
"""The options for what to freeze; exactly one must be given."""


@click.command(cls=Command, json="One JSON object.")
@selectors
@click.option("--reason", required=True, callback=_reason, metavar="TEXT",
              help="The reason; it is journalled, and shown to people.")  # fmt: skip
@click.option("--for", "for_", metavar="TIME",
              help='Lift the freeze after this time, like "2h". Default: it lasts until thawed.')  # fmt: skip
async def command(context: Context, /, reason: str, for_: str | None, **given: Any) -> None:
    """Freeze mail: hold or defer everything selected, until it is thawed."""
    chosen = _chosen(**given)
    lasts = None if for_ is None else length("--for", for_)

    try:
        settings = context.settings_as_far(STORE)
        # Whether or not the store answers: what people want to stop must not go on without it.
        if (ended := Bypasses(settings.state).end(datetime.now(UTC), context.user)) is not None:
            click.echo(f"Ended: the emergency bypass {ended.id} of this host.", err=True)
        async with context.brakes(settings) as brakes:
            selector, value = await _resolve(brakes, chosen)
            frozen = await brakes.freezes.freeze(selector, value, reason=reason, by=context.user, for_=lasts)
    except (StoreError, CannotStart, OSError) as error:
        is_it = "It is not known whether it is frozen" if isinstance(error, CommitUnknown) else "NOTHING IS FROZEN"
        from smtpguard.database.migrate import SchemaError  # no freeze should wait for it

        way = _OTHER_VERSION if isinstance(error, SchemaError) else "Stop"
        raise CannotRun(f"{is_it}: {sentence_of(error)}. {way} the mail server itself.") from error
    row = {
        **freeze_row(frozen.freeze),
        "recalled": len(frozen.recalled),
        "past_recall": len(frozen.past_recall),
        "past_recall_ids": list(frozen.past_recall),
        "hooks": [{"argv": [h.program], "problem": h.problem} for h in frozen.hooks],
    }
    until = f" until {frozen.freeze.until:%Y-%m-%d %H:%M} UTC" if frozen.freeze.until else ", until it is thawed"
    text = [
        f"Frozen: {frozen.freeze.target}{until}. Nothing that it selects is relayed from now on.",
        f"Recalled before their final dot: {len(frozen.recalled)}.",
        f"Past recall, since the relay has them or may have them: {len(frozen.past_recall)}. Messages sent before the freeze are not counted.",
        *(f"  {id}" for id in frozen.past_recall[:20]),
    ]
    context.answer(row, text if frozen.counted else text[:1])
    if not frozen.counted:
        click.echo(f"smtpguard: {UNCOUNTED}", err=True)
    _complain(frozen.hooks)


@click.command(cls=Command)
@selectors
@click.option("--yes", is_flag=True, help="Do not ask.")
async def thaw(context: Context, /, yes: bool, **given: Any) -> None:
    """Lift the freezes with exactly this selection; other freezes stay in force.

    On a terminal, it first says what will be sent, and asks. Without a terminal it does not ask.
    """
    chosen = _chosen(**given)

    settings = context.settings_as_far(STORE | {"freeze"})  # otherwise one person could lift what takes two
    async with context.brakes(settings) as services:
        lifted: list[Freeze] = []
        hooks: list[Hook] = []
        meant = await services.freezes.active(*await _resolve(services, chosen, must_exist=False))
        if meant:
            asks = [one for one in meant if await services.freezes.only_asks(one.freeze_id, {context.user})]
            for line in released(
                await services.freezes.released_by(meant), "once another person agrees" if asks else "at once"
            ):
                click.echo(line, err=True)
            if not yes and sys.stdin.isatty() and sys.stderr.isatty():
                click.confirm(f"Thaw {', '.join(freeze.target for freeze in meant)}?", abort=True, err=True)
        for freeze in meant:
            try:
                hooks += await services.freezes.thaw(freeze.freeze_id, by=context.user)
            except SecondPersonNeeded:
                raise NotFine(
                    f"{freeze.target} is still frozen: another person must agree, by {thaw_command(freeze)}"
                ) from None
            lifted.append(freeze)
        active = await services.freezes.active()
    for freeze in lifted:
        text = f"Lifted: {freeze.target}, frozen by {freeze.by} at {freeze.at:%Y-%m-%d %H:%M} UTC."
        context.answer(freeze_row(freeze), text)
    for freeze in active:
        click.echo(f"Still frozen: {freeze.in_words()}", err=True)
    if not lifted:
        raise NotFine("nothing is frozen with exactly this selection" if active else "nothing is frozen")
    _complain(hooks)


def released(goes: Released, when: str) -> Iterator[str]:
    """Return what goes out with a thaw, and when, in words."""
    from smtpguard.locale.phrase import many

    if goes.messages:
        to = f", to {', '.join(goes.lists)}" if goes.lists else ""
        yield f"Goes out {when}: {many(goes.messages, 'approved message', 'approved messages')} for up to {many(goes.people, 'person', 'people')}{to}."
        if goes.doubt:
            yield f"May already have it, and are tried once more: {many(goes.doubt, 'recipient', 'recipients')}."
    else:
        yield "No approved message is sent by it."
    if goes.kept:
        yield f"Approved, and also stopped by other freezes: {goes.kept:,}."
    if goes.waiting:
        yield f"Waiting for a decision, and not sent by a thaw: {goes.waiting:,}."


def _chosen(
    *, everything: bool, list_name: str | None, sender: str | None, mailing: str | None, thread: str | None
) -> Chosen:
    given: list[Chosen] = [(Selector.ALL, "")] if everything else []
    named = (
        (Selector.LIST, list_name),
        (Selector.SENDER, sender),
        (Selector.MAILING, mailing),
        (Selector.THREAD, thread),
    )
    given += [(selector, value) for selector, value in named if value is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --all, --list, --sender, --mailing and --thread")
    return given[0]


async def _resolve(brakes: Brakes, chosen: Chosen, *, must_exist: bool = True) -> Chosen:
    """Resolve the value: an existing list, an address in canonical spelling, the whole id of a mailing."""
    selector, value = chosen
    if selector is Selector.LIST and must_exist:
        await _listed(brakes, value)
    if selector is Selector.SENDER:
        return selector, mailbox("--sender", value).canonical(brakes.digester.delimiters)
    if selector is Selector.MAILING:
        return selector, await _mailing(brakes, value, must_exist=must_exist)
    if selector is Selector.THREAD:
        return selector, await _thread(brakes, value)
    return selector, value


async def _listed(brakes: Brakes, name: str) -> None:
    """Check that the policy in force has this list. The policy is parsed and not built, which would take long. Raises CannotRun."""
    from smtpguard.config.documents import policy_document

    documents = await brakes.store.policies.in_force()
    if not documents:
        raise CannotRun("no policy is in force yet, so no list is known: --all freezes everything")
    known = list(map(str, policy_document(documents).value.get("lists") or ()))
    if name not in known:
        raise CannotRun(unknown("list", name, known))


async def _mailing(brakes: Brakes, value: str, *, must_exist: bool) -> str:
    """Return the whole id of a mailing. One that was forgotten meanwhile can still be frozen."""
    try:
        return await brakes.store.mailings.whole_id(value)
    except NoSuch as wrong:
        frozen = [f.value for f in await brakes.freezes.active() if f.selector is Selector.MAILING]
        meant = [whole for whole in frozen if whole.startswith(value.strip().upper())]
        if must_exist or len(meant) != 1:
            raise CannotRun(f"--mailing: {wrong.args[0]}") from None
        return meant[0]


async def _thread(brakes: Brakes, value: str) -> str:
    """Return a Message-ID in its brackets. For the id of a held message it is that of its conversation, or its own if it begins
    one."""
    text = value.strip()
    if "@" in text or (text.startswith("<") and text.endswith(">") and len(text) > 2):
        return text if text.startswith("<") else f"<{text}>"
    hold = await brakes.store.holds.find(text.upper()) if text else None
    thread = hold and (hold.thread or hold.message_id)
    if not thread:
        raise CannotRun(f'--thread: "{value}" is neither a Message-ID nor the id of a held message in a conversation')
    return thread


def _complain(hooks: Iterable[Hook]) -> None:
    """Report hooks that failed: a queue that was not held goes on sending, so the person who froze must know."""
    failed = [h for h in hooks if h.problem is not None]
    for hook in failed:
        click.echo(f"smtpguard: hook {hook.program}: {hook.problem}", err=True)
    if failed:
        raise click.exceptions.Exit(1)
