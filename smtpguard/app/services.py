"""The services of one command: the store, and what changes it.

Imports that only some commands need are inside functions: a freeze waits for the store and for nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from smtpguard.app.clock import SystemClock, ids, learn, steady
from smtpguard.app.files import CannotStart, contact, installation_secret, make_state, other_secret, store_url
from smtpguard.config.fields import read_secret
from smtpguard.config.problem import Broken
from smtpguard.database.errors import PolicyUnreadable
from smtpguard.freezes.service import Freezes
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.linefiles import CHECKPOINTS
from smtpguard.lists.digest import Digester
from smtpguard.store.rollbackcheck import Foreign, OtherSecret
from smtpguard.store.store import Store, open_store
from smtpguard.store.writer import Committed

if TYPE_CHECKING:
    from smtpguard.accounts.model import Role
    from smtpguard.admission.preapproval import Corrections
    from smtpguard.app.policies import Following
    from smtpguard.config.settings import Settings
    from smtpguard.console.people.accounts import Accounts
    from smtpguard.console.people.credentials import Passwords
    from smtpguard.gathering.gather import Gather
    from smtpguard.holds.deadlines import Deadlines
    from smtpguard.holds.service import Approvals
    from smtpguard.journal.clock import Clock
    from smtpguard.mailings.matching import Matching
    from smtpguard.mailings.service import Mailings
    from smtpguard.notices.intents import Notices
    from smtpguard.notices.notice import NoticeHead
    from smtpguard.notices.render import Sign
    from smtpguard.policy.parse import Organization
    from smtpguard.returns.service import Returns


@dataclass(frozen=True, slots=True, kw_only=True)
class Brakes:
    """The services that a freeze needs, without the policy in force."""

    store: Store
    freezes: Freezes
    digester: Digester


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Brakes):
    """The services of a command or the console. ``policies.current()`` is the policy in force, with its registry of lists. It raises
    PolicyUnreadable if this version cannot read that policy; a freeze is possible all the same."""

    policies: Following
    approvals: Approvals
    mailings: Mailings
    matching: Callable[..., Matching]
    returns: Callable[[], Returns]
    clock: Clock
    correcting: Callable[[], AbstractAsyncContextManager[Corrections]]


def deadlines(settings: Settings) -> Deadlines:
    """Return the deadlines of holds, the same for holding, voting and sweeping."""
    from smtpguard.holds.deadlines import Deadlines

    hold = settings.hold
    return Deadlines(
        seconds=hold.expires.seconds,
        working=hold.expires.working,
        escalate_after_seconds=int(hold.escalate_after),
        copies=hold.copies,
        approval_seconds=int(hold.approval_lasts),
        rejection_seconds=int(hold.rejection_lasts),
        release_delay_seconds=int(hold.release_delay),
    )


def notices(settings: Settings) -> Notices:
    """Return what makes the intents of notices, the same for holding and sweeping."""
    from smtpguard.notices.intents import Notices

    return Notices(contact=str(contact(settings) or ""))


def notice_head(settings: Settings, organization: Organization | None) -> NoticeHead:
    """Return what all notices have in common. ``organization``: that of the policy in force, as far as it is known."""
    from smtpguard.notices.notice import NoticeHead

    given = settings.notices
    head = NoticeHead(
        sender=given.from_, contact=given.contact, console_url=settings.console_url, templates=given.templates
    )
    if organization is None:
        return head
    languages = organization.languages or ("en",)
    return replace(head, organization=organization.name, languages=languages, zone=organization.hours.zone)


def signer(settings: Settings) -> Sign | None:
    """Return what signs our own mail with DKIM, None if the settings have no key. Raises CannotStart if the key cannot be read
    or used."""
    given = settings.dkim_sign
    if given is None:
        return None
    from smtpguard.wire.dkim import DkimSigner

    try:
        key = read_secret(given.key_file).encode()
        return DkimSigner(domain=given.domain, selector=given.selector, key=key).sign
    except Broken as e:
        raise CannotStart(str(e)) from None
    except ValueError as e:
        raise CannotStart(f"{given.key_file}: {e}") from None


def corrections_of(settings: Settings, store: Store, policies: Following, gather: Gather, clock: Clock) -> Corrections:
    from smtpguard.admission.preapproval import Corrections

    return Corrections(
        store=store, policies=policies, gather=gather, clock=clock, new_id=ids(), term=deadlines(settings),
        notices=notices(settings),
    )  # fmt: skip


def second_factor_for(settings: Settings) -> frozenset[Role]:
    """Return the roles that must have a second factor."""
    from smtpguard.accounts.model import Role

    console = settings.console
    return frozenset(map(Role, console.second_factor.required_for)) if console is not None else frozenset()


def accounts(
    settings: Settings,
    store: Store,
    clock: Clock,
    *,
    secret: bytes,
    new_id: Callable[[], str],
    passwords: Passwords | None = None,
) -> Accounts:
    """Return what changes accounts, for the console and ``smtpguard users`` alike."""
    from smtpguard.console.people.accounts import Accounts
    from smtpguard.console.people.credentials import Factors, Passwords

    return Accounts(
        store.people,
        clock,
        new_id=new_id,
        passwords=passwords or Passwords(),
        factors=Factors(secret),
        delimiters=settings.delimiters,
    )


def never_served(settings: Settings) -> bool:
    """Return whether ``serve`` has made nothing here yet: neither a secret nor a checkpoint."""
    return not settings.secret_file.exists() and not (settings.state / CHECKPOINTS).exists()


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    migrate: bool = False,
    hot: bool = False,
    new_secret: bytes | None = None,
    old_secrets: Sequence[bytes] = (),
    reads: bool = False,
    clock: Clock | None = None,
    committed: Committed | None = None,
) -> AsyncIterator[tuple[Store, Digester]]:
    """Open the store and the digester of this installation. ``hot``: clients wait for the store; ``new_secret``: one to use from now
    on, instead of that of ``old_secrets`` which is in force, if one is; ``reads``: a read-only store is enough; ``clock``: replaces the system's;
    ``committed`` is called with the events of each commit. Raises CannotStart and StoreError."""
    missing = not settings.secret_file.exists()
    if not migrate and new_secret is None and never_served(settings):
        raise CannotStart(f"{settings.secret_file} does not exist yet: smtpguard serve makes it")
    if migrate:
        make_state(settings)
    secret = new_secret or installation_secret(settings)
    async with AsyncExitStack() as undo:
        try:
            opening = open_store(
                store_url(settings),
                secret=secret,
                state_dir=settings.state,
                clock=steady(clock or SystemClock()),
                quota_bytes=settings.hold.quota,
                migrate=migrate,
                hot=hot,
                renewing=old_secrets if new_secret is not None else None,
                reads=reads,
                committed=committed,
            )
            store = await undo.enter_async_context(opening)
        except OtherSecret:
            if missing:  # the new secret would be taken for the right one
                settings.secret_file.unlink()
            raise CannotStart(other_secret(settings, missing=missing)) from None
        except Foreign as e:
            raise CannotStart(_foreign(settings, e)) from None
        except ValueError as e:  # a url of no supported database
            raise CannotStart(str(e)) from e
        yield store, Digester(secret, settings.delimiters)


async def migrate(settings: Settings) -> None:
    """Make the store, or migrate it to this version's schema. Raises CannotStart and StoreError."""
    async with opened(settings, migrate=True):
        pass


def _foreign(settings: Settings, error: Foreign) -> str:
    file = settings.state / CHECKPOINTS
    signed = f"{file} has the journal {error.journal}, signed last on {error.at:%Y-%m-%d %H:%M} UTC"
    if error.gone:  # an empty store in its place would forget what is held
        return (
            f"{settings.store.url} is gone, or never was: {signed}. Put the database back, with its -wal, or restore a backup; or "
            f"correct store.url. To begin anew: docs/operations.md, Another store"
        )
    return (
        f"{settings.store.url} is not the store that {settings.state} belongs to: {signed}. Correct store.url; or, to start with "
        f"this store, first move {file} away"
    )


def freezes_of(settings: Settings, store: Store, clock: SteadyClock, *, loud: bool = True) -> Freezes:
    return Freezes(
        store,
        clock,
        new_id=ids(),
        freeze_hook=settings.freeze_hook,
        thaw_hook=settings.thaw_hook,
        thaw_two=settings.freeze.thaw == "two",
        loud=loud,
    )


@asynccontextmanager
async def brakes(settings: Settings) -> AsyncIterator[Brakes]:
    """Open what a freeze needs, as fast as possible. Raises CannotStart and StoreError."""
    async with opened(settings) as (store, digester):
        freezes = freezes_of(settings, store, steady(SystemClock()), loud=False)
        yield Brakes(store=store, freezes=freezes, digester=digester)


@asynccontextmanager
async def services(
    settings: Settings, *, committed: Committed | None = None, serving: bool = False
) -> AsyncIterator[Services]:
    """Open all services. ``serving``: they are for a process that reads messages, and logs what a command would print; it must call
    ``policies.watch`` first. Raises CannotStart and StoreError."""
    from smtpguard.app.policies import Following
    from smtpguard.holds.service import Approvals
    from smtpguard.mailings.matching import Matching
    from smtpguard.mailings.service import Mailings

    clock = steady(SystemClock()) if serving else SteadyClock(SystemClock())
    async with opened(settings, reads=not serving, committed=committed, clock=clock) as (store, digester):
        if not serving:
            await learn(clock, store)
        policies = Following(store, settings, digester, clock, reading=serving)
        if not serving:  # else it begins with its watch over the gate
            with contextlib.suppress(PolicyUnreadable):
                await policies.follow()
        freezes = freezes_of(settings, store, clock, loud=serving)
        mailings = Mailings(store, policies, clock, term=deadlines(settings))
        key = installation_secret(settings)

        def returns() -> Returns:
            from smtpguard.returns.service import Returns

            return Returns(store, policies, clock, digester, freezes, key=key, new_id=ids())

        yield Services(
            store=store,
            policies=policies,
            approvals=Approvals(store, policies, clock, term=deadlines(settings)),
            freezes=freezes,
            mailings=mailings,
            matching=partial(Matching, mailings, store, policies, settings.policy.parent),
            returns=returns,
            digester=digester,
            clock=clock,
            correcting=partial(_corrections, settings, store, digester, clock),
        )


@asynccontextmanager
async def _corrections(
    settings: Settings, store: Store, digester: Digester, clock: Clock
) -> AsyncIterator[Corrections]:
    """Open what approves corrections, with what reads their messages, on a store that is open already. Raises StoreError."""
    from smtpguard.app.explaining import gathering
    from smtpguard.app.policies import Following

    async with AsyncExitStack() as undo:
        policies = Following(store, settings, digester, clock, reading=True)
        await policies.begin()
        gather = gathering(settings, policies.around, undo)
        yield corrections_of(settings, store, policies, gather, clock)
