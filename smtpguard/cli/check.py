"""smtpguard check: show every mistake in settings and policy at once, one a line; without mistakes a summary in words. And smtpguard
schema: print the JSON Schema of a configuration file, for an editor.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smtpguard import __version__
from smtpguard.app.lists import names
from smtpguard.app.policycheck import CheckedPolicy
from smtpguard.cli.context import CannotRun, Command, Context
from smtpguard.cli.offline import Checked, check
from smtpguard.config.durations import in_short
from smtpguard.config.schema import settings_schema
from smtpguard.config.settings import Relay, Settings
from smtpguard.lists.members import ListMembers, Remote
from smtpguard.locale.phrase import many, some_of
from smtpguard.policy.models import OriginModel
from smtpguard.policy.parse import Policy
from smtpguard.policy.rule import Rule
from smtpguard.policy.schema import list_schema, policy_schema
from smtpguard.policy.verdict import Action, Scope
from smtpguard.reading.looks import THRESHOLD
from smtpguard.reading.marks import KINDS, Side

if TYPE_CHECKING:
    from smtpguard.app.storestatus import Finding


@click.command(cls=Command, json="One JSON object a problem (or finding), and nothing else.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--live", is_flag=True, help="Connect to the relays and the list servers as well. Nothing is sent.")
@click.option("--in-force", is_flag=True,
              help="Check only that this version can read the policy in force; run it before an upgrade.")  # fmt: skip
@click.option("--fail-on-warning", is_flag=True, help="Exit 1 for a warning too.")
def command(context: Context, file: Path | None, live: bool, in_force: bool, fail_on_warning: bool) -> None:
    """Check settings and the policy that they name, or a policy file alone. Exit 1 if anything is wrong."""
    if in_force:
        if file is not None or live:
            raise click.UsageError("--in-force takes no other option: it reads the store of the settings")
        _in_force(context)
        return
    path = file or context.config
    context.must_exist(path)
    checked = check(path, live=live)
    for problem in checked.problems:
        context.answer(problem.row(), str(problem), err=True)
    fine = not checked.fatal and not (fail_on_warning and checked.problems)
    if not checked.fatal and not context.json:
        for line in summary(path, checked):
            click.echo(line)
    policy = checked.found.policy if checked.found is not None else None
    if live and checked.settings is not None and policy is not None:  # a missing file does not hide an open way
        fine = asyncio.run(_live(context, checked.settings, policy)) and fine
    elif checked.settings is not None and not live:
        fine = _store_in_a_file(context, checked.settings, policy) and fine
    elif live and fine:
        raise click.UsageError("--live needs the settings, not only a policy: they name the relay")
    if not fine:
        raise click.exceptions.Exit(1)


def _in_force(context: Context) -> None:
    """Print the policy in force beside the file. Raises Exit if the policy in force cannot be read."""
    from smtpguard.app.policies import look_before_upgrade

    seen = look_before_upgrade(context.settings())
    if seen is None:
        raise CannotRun("no policy is in force yet: smtpguard serve puts the policy file in force")
    sha256, why = seen.current.sha256, seen.unreadable
    row = {"policy_sha256": sha256, "readable": not why, "text": why or None}
    fine = f"smtpguard {__version__} can read the policy in force, {sha256[:12]}."
    context.answer(row, f"smtpguard: {why}" if why else fine, err=bool(why))
    if why:
        raise click.exceptions.Exit(1)


def _store_in_a_file(context: Context, settings: Settings, policy: Policy | None) -> bool:
    """Check a store that is a file, which is always done. Returns whether the check may go on."""
    state = settings.state
    served = os.access(state / "checkpoints", os.F_OK) or (state.exists() and not os.access(state, os.X_OK))
    if not served:
        return True
    from smtpguard.app import storestatus  # imports a database driver, which nothing else here needs

    if not storestatus.is_usable_file(settings) and storestatus.unreadable(settings) is None:
        return True
    return asyncio.run(_store(context, settings, policy))


def summary(path: Path, checked: Checked) -> Iterator[str]:
    """Yield the settings and the policy in words."""
    yield f"{path} is fine."
    if checked.settings is not None:
        yield from _settings(checked.settings)
    if checked.found is not None:
        yield from _policy(checked.found, checked.settings)


def _settings(settings: Settings) -> Iterator[str]:
    listening = ", ".join(f"{listener.address} port {listener.port}" for listener in settings.listen.smtp)
    heard = f"Listens on {listening}; relays" if listening else "Releases what is held"
    yield f"{heard} to {settings.relay.host} port {settings.relay.port}, TLS {settings.relay.tls}."
    if settings.relay.fallbacks:
        yield f"If that cannot be used, mail goes to {_fallbacks(settings.relay)}."
    for route in settings.routes:
        mail = ", ".join(
            f"{kind} {' or '.join(names)}"
            for kind, names in (("listener", route.listeners), ("list", route.lists), ("domain", route.domains))
            if names
        )
        relay = route.relay
        other = f", then {_fallbacks(relay)}" if relay.fallbacks else ""
        yield f"Route {route.name} ({mail}) relays to {relay.host} port {relay.port}, TLS {relay.tls}{other}."
    for listener in settings.listen.smtp:
        limits = [
            f"a {whose} {limit.count:,} {unit} in {in_short(limit.window_seconds)}"
            for whose, of in (("client", listener.rates.client), ("login", listener.rates.login))
            for unit, limit in (("messages", of.messages), ("recipients", of.recipients))
            if limit is not None
        ]
        if limits:
            yield f"Takes on {listener.called} at most from {', '.join(limits)}."
    for each in settings.listen.milter:
        yield f"A milter on {each.unix or f'{each.address} port {each.port}'}."
    if (console := settings.console) is not None:
        yield f"The console on {console.address} port {console.port}" + (
            f", as {console.url}." if console.url else "; no url: notices do not link to it."
        )
    if (metrics := settings.metrics) is not None:
        yield f"Metrics on {metrics.address} port {metrics.port}."


def _fallbacks(relay: Relay) -> str:
    return ", then ".join(f"{each.host} port {each.port}" for each in relay.fallbacks)


def _policy(found: CheckedPolicy, settings: Settings | None) -> Iterator[str]:
    policy = found.policy
    yield f"Policy {policy.sha256[:12]} of {policy.organization.name}" + (
        "." if policy.enforce else ", observing only."
    )
    # Addresses that are list addresses only because they have a list's name, each with its list.
    namesakes = list(names(settings, policy).implied()) if settings is not None else []
    for name, model in policy.lists.items():
        people = many(found.people[name], "address", "addresses") if name in found.people else "nobody known"
        if any(isinstance(source, Remote | ListMembers) for source in model.members):
            people = f"{people}, more elsewhere" if name in found.people else "addresses elsewhere (see check --live)"
        if unread := found.unread.get(name):
            people += f" ({many(unread, 'row holds', 'rows hold')} none)"
        where = ", ".join(model.addresses) or "no address"
        yield f"  list {name}: {where}; {people}; {policy.rules.quorum_of(name)} to release"
        if also := [address for address, known in namesakes if known == name]:
            yield f"    by the same name also {some_of(also, 3)}"
        if model.writers:
            yield f"    written by {', '.join(model.writers)}{_origin(model.origin)}"
    for expands in policy.expansions:
        yield f"  expansions: {expands.source} {getattr(expands, expands.source)}"
    for name, stream in policy.streams.items():
        limits = [
            f", at most {limit.count:,} {whose}in {in_short(limit.window_seconds)}"
            for limit, whose in ((stream.max, ""), (stream.max_per_person, "to one person "))
            if limit is not None
        ]
        yield f"  stream {name}: from {', '.join(stream.from_)}{_origin(stream.origin)}{''.join(limits)}"
    yield from marks_in_words(policy)
    for rule in policy.rules.rules:
        yield f"  rule {rule.rule_id}: {rule_in_words(rule)}"


def _origin(origin: OriginModel | None) -> str:
    """Write an origin: ", proven by DKIM of shop.example.com and a client in 10.1.2.0/24"."""
    if origin is None:
        return ""
    told = [f"DKIM of {' or '.join(origin.dkim)}"] if origin.dkim else []
    told += [f"a client in {' or '.join(origin.clients)}"] if origin.clients else []
    told += [f"the login {' or '.join(origin.logins)}"] if origin.logins else []
    return f", proven by {' and '.join(told)}"


def marks_in_words(policy: Policy) -> Iterator[str]:
    """Write the policy's changes of marks: "mark reply-prefix: +1.5 instead of +2"."""
    sign = {Side.INTERNAL: "+", Side.MAILING: "-"}
    for name, weight in sorted(policy.marks.items()):
        kind = KINDS[name]
        told = kind.side is Side.NEITHER  # it is shown, and has no weight
        now = "switched off" if not weight else "shown, and weighs nothing" if told else f"{sign[kind.side]}{weight:g}"
        before = "" if told else f" instead of {sign[kind.side]}{kind.weight:g}"
        yield f"  mark {name}: {now}{before}; {kind.reason}"
    for own in policy.own_marks:
        where = f"the field {own.header}" if own.header else "the subject or the text"
        what = f'says "{own.term}"' if own.term else f"matches {own.pattern}" if own.pattern else "is there"
        yield f"  mark {own.name}, your own: {sign[own.side]}{own.weight:g} where {where} {what}"
    if policy.marks or policy.own_marks:
        yield f"  Marks of one group count once; from +{THRESHOLD:g} a message looks internal, from -{THRESHOLD:g} like a mailing."


def rule_in_words(rule: Rule) -> str:
    """Write a rule: "holds where message.looks is internal or unclear and recipients.list_addresses is any"."""
    asks, calls = ("ask", "asks"), ("alarm", "alarms")
    plain = rule.then.word, f"{rule.then.word}s"
    would, does = calls if rule.calls else asks if rule.then is Action.CONFIRM else plain
    does = does if rule.alarm or not rule.observes else f"would {would}"
    does += " its writer about" if rule.then is Action.CONFIRM else ""
    part = " the customers' part" if rule.scope is Scope.CUSTOMERS else ""
    part = part or (" it" if rule.then is Action.CONFIRM else "")
    said = [" and ".join(one.in_words() for one in conditions) for conditions in (rule.when, rule.unless)]
    rests = f"; the conversation then rests for {in_short(rule.stop_seconds)}" if rule.stop_seconds else ""
    return f"{does}{part} where {said[0]}" + (f", unless {said[1]}" if said[1] else "") + rests


_MARKS = {"fine": "ok", "wrong": "WRONG", "open": "OPEN", "accepted": "open", "unknown": "?", "odd": "odd"}
_COLOURS = {"fine": "green", "wrong": "red", "open": "red", "accepted": "yellow", "unknown": "yellow", "odd": "yellow"}


async def _live(context: Context, settings: Settings, policy: Policy) -> bool:
    """Print a line for each finding at once. Returns whether nothing is wrong, and every open way is accepted."""
    from smtpguard.app.probe import check_live  # imports DNS and SMTP, which nothing else here needs

    fine = await _store(context, settings, policy)
    async for finding in check_live(settings, policy):
        fine = _print_finding(context, finding) and fine
    return fine


async def _store(context: Context, settings: Settings, policy: Policy | None) -> bool:
    """Print a line for each finding on the store and on approvers. Returns whether the check may go on."""
    from smtpguard.app.storestatus import policy_findings, refused_clients, store_findings, unreadable

    found = [*await store_findings(settings, policy), *await asyncio.to_thread(policy_findings, settings)]
    if unreadable(settings) is None:
        found += await refused_clients(settings, datetime.now(UTC))
    well = [_print_finding(context, finding) for finding in found]
    return all(well)


def _print_finding(context: Context, finding: Finding) -> bool:
    """Print a finding. Returns whether it is well."""
    state = finding.state.value
    row = {"about": finding.about, "state": state, "text": finding.text}
    context.answer(row, click.style(f"{_MARKS[state]:<6}", fg=_COLOURS[state]) + finding.text)
    return finding.well


@click.command(cls=Command, json="On one line.")
@click.argument("which", type=click.Choice(["policy", "list", "settings"]), default="policy")
def schema(context: Context, which: str) -> None:
    """Print the JSON Schema of policy.yaml, of a list's file in lists.d, or of smtpguard.yaml (settings)."""
    made = {"policy": policy_schema, "list": list_schema, "settings": settings_schema}[which]()
    click.echo(json.dumps(made, ensure_ascii=False, indent=None if context.json else 2))
