"""Check the store before anything is started: the right database, not rolled back, what is frozen in it, and whether it fits
the policy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from smtpguard.accounts.model import Account, unseated
from smtpguard.app.files import CannotStart, store_url
from smtpguard.app.finding import Finding, State
from smtpguard.app.lists import names
from smtpguard.app.policyfile import look_before_upgrade
from smtpguard.app.services import opened
from smtpguard.app.traffic import DAYS, undeclared
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import owner_of
from smtpguard.counts.backfill import known_since
from smtpguard.database.engine import file_of
from smtpguard.database.errors import StoreError
from smtpguard.database.migrate import Newer, SchemaError
from smtpguard.journal.rows import FILE as CHECKPOINTS
from smtpguard.policy.freezing import PUT_BACK, Freeze
from smtpguard.policy.parse import Policy
from smtpguard.policy.verdict import Action, Mode
from smtpguard.store.rollbackcheck import Rollback
from smtpguard.store.store import Store

CONTACTS_DAYS = 30
"""By then most customers to whom people write have been written to."""


def unreadable(settings: Settings) -> Finding | None:
    """A finding if this user may not read it, which is no error."""
    for path, bits in (
        (settings.state, os.R_OK | os.X_OK),
        (settings.secret_file, os.R_OK),
        (_file(settings), os.R_OK | os.W_OK),
    ):
        if path is not None and os.access(path, os.F_OK) and not os.access(path, bits):
            text = f"the store was not read: {path} belongs to {owner_of(path)}, not to this user"
            return State.UNKNOWN.of("store", text)
    return None


def is_readable_file(settings: Settings) -> bool:
    """Whether it is a file that this user may read."""
    file = _file(settings)
    return file is not None and all(_ours(path) for path in (file, settings.secret_file))


def _file(settings: Settings) -> Path | None:
    """The SQLite database."""
    try:
        return file_of(store_url(settings))
    except (Broken, ValueError):  # reported elsewhere
        return None


def _ours(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK) or (os.access(path.parent, os.R_OK | os.W_OK) and not path.exists())


async def store_findings(settings: Settings, policy: Policy | None = None) -> list[Finding]:
    """Nothing if the guard has never served. ``policy``: its groups are checked against accounts."""
    if (away := unreadable(settings)) is not None:
        return [away]
    if not settings.secret_file.exists() and not (settings.state / CHECKPOINTS).exists():
        return []
    try:
        async with opened(settings) as (store, _):
            found = list(_found(settings, store.put_back, (await store.gate.read()).freezes))
            for file in store.journal.fronts_aside():
                text = (
                    f"{file} belongs to another state of the journal, and was not merged; examine it, and move it away"
                )
                found.append(State.WRONG.of("store", text))
            if settings.console is not None and policy is not None:
                found += _deciding(policy, await store.people.everybody())
            if policy is not None:
                found += await _namesakes(settings, policy, store)
                found += _contacts(policy, await known_since(store), store.now())
                found += await undeclared(settings, policy, store)
            return found
    except (CannotStart, StoreError) as e:
        older = isinstance(e, SchemaError) and not isinstance(e, Newer)
        state = State.UNKNOWN if older else State.WRONG
        return [state.of("store", str(e))]


async def _namesakes(settings: Settings, policy: Policy, store: Store) -> list[Finding]:
    """Addresses that are list addresses only because they have a list's name, with the mail to them lately: one with
    much mail is probably a mailbox of its own."""
    implied = dict(names(settings, policy).implied())
    if not implied:
        return []
    often = await store.journal.named(list(implied), store.now() - timedelta(days=DAYS))
    found = []
    for address, n in sorted(often.items(), key=lambda one: (-one[1], one[0])):
        if n:
            text = (
                f"{address} counts as the list {implied[address]}, and {n:,} message{'s name' if n != 1 else ' names'} it in "
                f"{DAYS} days; if it is something else: addresses_elsewhere: [{address}] at the list"
            )
            found.append(State.ODD.of("name", text))
    quiet = [address for address in implied if not often[address]]
    if quiet:
        more = f" and {len(quiet) - 3} more" if len(quiet) > 3 else ""
        text = f"as lists count {', '.join(quiet[:3])}{more}, which no message names in {DAYS} days"
        found.append(State.FINE.of("name", text))
    return found


def _contacts(policy: Policy, since: datetime | None, now: datetime) -> Iterator[Finding]:
    """Since when first contacts are known, if rules ask for them. None: the next start reads the journal for it."""
    enforced = [r for r in policy.rules.rules if r.mode is Mode.ENFORCE and r.then is not Action.RELAY]
    rules = [r.rule_id for r in enforced if any(c.fact.of_letters for c in r.when)]
    if not rules or since is None:
        return
    text, until = f"recipients of past mail are known since {since:%Y-%m-%d}", since + timedelta(days=CONTACTS_DAYS)
    if now >= until:
        yield State.FINE.of("contacts", text)
        return
    more = f" and {len(rules) - 2} more" if len(rules) > 2 else ""
    text = (
        f"{text} only: until {until:%Y-%m-%d} {', '.join(rules[:2])}{more} may count customers as new who had mail before; "
        f"with mode: observe they only report what they would hold"
    )
    yield State.UNKNOWN.of("contacts", text)


def _deciding(policy: Policy, accounts: Sequence[Account]) -> Iterator[Finding]:
    """People who must decide in the console and cannot."""
    gaps = unseated(accounts, policy.groups.with_deputies(), policy.rules.groups_asked())
    if not accounts:
        yield State.ODD.of("people", "the console has no accounts: smtpguard users add")
        return
    for gap in gaps:
        yield State.ODD.of("people", str(gap))


def policy_findings(settings: Settings) -> list[Finding]:
    """The policy file compared with the policy in force. Nothing if none is in force, or the store cannot be read."""
    if unreadable(settings) is not None:
        return []
    try:
        seen = look_before_upgrade(settings)
    except (StoreError, Broken, SQLAlchemyError, OSError, ValueError):  # of the store, reported elsewhere
        return []
    if seen is None:
        return []
    found = [State.WRONG.of("policy", seen.unreadable)] if seen.unreadable else []
    state = State.ODD if seen.file.differs else State.FINE
    return [*found, state.of("policy", seen.in_words())]


def _found(settings: Settings, put_back: Rollback | None, freezes: tuple[Freeze, ...]) -> Iterator[Finding]:
    if put_back is not None:
        yield State.WRONG.of("store", f"{put_back}; nothing is sent until it is thawed")
    for freeze in freezes:
        since = f"{freeze.selector.value} {freeze.value}".strip()
        text = f"frozen: {since}, since {freeze.at:%Y-%m-%d %H:%M} UTC, by {freeze.by}: {freeze.reason}"
        yield (State.WRONG if freeze.reason == PUT_BACK else State.FINE).of("store", text)
    if put_back is None and not freezes:
        yield State.FINE.of("store", f"{settings.store.url} is the store that {settings.state} belongs to")
