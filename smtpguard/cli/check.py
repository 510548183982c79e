"""Before a policy is in force. smtpguard check: every mistake in settings and policy at once, one a line; without mistakes
a summary in words. smtpguard test: run a policy's own cases, of facts and of messages (policy.suite has their format).
And smtpguard schema: the JSON Schema of a configuration file, for an editor.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click

from smtpguard import __version__
from smtpguard.app.lists import names
from smtpguard.app.policycheck import CheckedPolicy
from smtpguard.cli.context import CannotRun, Command, Context
from smtpguard.cli.explain import envelope_of, mails, why_unread
from smtpguard.cli.holdrow import plain
from smtpguard.cli.offline import Checked, check
from smtpguard.config.documents import policy_documents
from smtpguard.config.durations import in_short
from smtpguard.config.problem import Broken, Problem, Undeclared
from smtpguard.config.schema import settings_schema
from smtpguard.config.settings import Relay, Settings, read_settings, settings_of
from smtpguard.config.yaml import Document, load_yaml
from smtpguard.lists.members import ListMembers, Remote
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.envelope import Session, client_address
from smtpguard.mail.message import Message
from smtpguard.policy.condition import Condition, SetMatches, WordMatches
from smtpguard.policy.models import OriginModel
from smtpguard.policy.parse import Policy, parse
from smtpguard.policy.rule import Rule
from smtpguard.policy.schema import list_schema, policy_schema
from smtpguard.policy.suite import Case, CaseResult, EnvelopeModel, cases, message_of
from smtpguard.policy.verdict import Action, Scope
from smtpguard.reading.looks import THRESHOLD
from smtpguard.reading.marks import KINDS, Side

if TYPE_CHECKING:
    from smtpguard.app.explaining import Explainer
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
    checked = check(path)
    for problem in checked.problems:
        context.answer(problem.row(), str(problem), err=True)
    fine = checked.fine and not (fail_on_warning and checked.problems)
    if checked.fine and not context.json:
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
    """Raises Exit if the policy in force cannot be read, and CannotRun if the store cannot."""
    from sqlalchemy.exc import SQLAlchemyError

    from smtpguard.app.policies import look_before_upgrade

    settings = context.settings()
    try:
        seen = look_before_upgrade(settings)
    except SQLAlchemyError as e:
        raise CannotRun(f"the store: {str(e).splitlines()[0]}") from None
    if seen is None:
        raise CannotRun("no policy is in force yet: smtpguard serve puts the policy file in force")
    sha256, why = seen.current.sha256, seen.unreadable
    row = {"policy_sha256": sha256, "readable": not why, "text": why or None}
    fine = f"smtpguard {__version__} can read the policy in force, {sha256[:12]}."
    context.answer(row, f"smtpguard: {why}" if why else fine, err=bool(why))
    if why:
        raise click.exceptions.Exit(1)


def _store_in_a_file(context: Context, settings: Settings, policy: Policy | None) -> bool:
    """It is always checked. Returns whether the check may go on."""
    state = settings.state
    served = os.access(state / "checkpoints", os.F_OK) or (state.exists() and not os.access(state, os.X_OK))
    if not served:
        return True
    from smtpguard.app import storestatus  # imports a database driver, which nothing else here needs

    if not storestatus.is_usable_file(settings) and storestatus.unreadable(settings) is None:
        return True
    return asyncio.run(_store(context, settings, policy))


def summary(path: Path, checked: Checked) -> Iterator[str]:
    """The settings and the policy in words."""
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
        yield f"  list {name}: {where}; {people}; {policy.rules.quorums.get(name, policy.approvals)} to release"
        if also := [address for address, known in namesakes if known == name]:
            yield f"    by the same name also {_some(also)}"
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


def _some(addresses: Sequence[str]) -> str:
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return ", ".join(addresses[:3]) + more


def _origin(origin: OriginModel | None) -> str:
    """ ", proven by DKIM of shop.example.com and a client in 10.1.2.0/24"."""
    if origin is None:
        return ""
    told = [f"DKIM of {' or '.join(origin.dkim)}"] if origin.dkim else []
    told += [f"a client in {' or '.join(origin.clients)}"] if origin.clients else []
    told += [f"the login {' or '.join(origin.logins)}"] if origin.logins else []
    return f", proven by {' and '.join(told)}"


def marks_in_words(policy: Policy) -> Iterator[str]:
    """The policy's changes of marks: "mark reply-prefix: +1.5 instead of +2"."""
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
    """ "holds where message.looks is internal or unclear and recipients.list_addresses is any"."""
    asks, calls = ("ask", "asks"), ("alarm", "alarms")
    plain = rule.then.word, f"{rule.then.word}s"
    would, does = calls if rule.calls else asks if rule.then is Action.CONFIRM else plain
    does = does if rule.alarm or not rule.observes else f"would {would}"
    does += " its writer about" if rule.then is Action.CONFIRM else ""
    part = " the customers' part" if rule.scope is Scope.CUSTOMERS else ""
    part = part or (" it" if rule.then is Action.CONFIRM else "")
    said = [" and ".join(map(_asked, conditions)) for conditions in (rule.when, rule.unless)]
    rests = f"; the conversation then rests for {in_short(rule.stop_seconds)}" if rule.stop_seconds else ""
    return f"{does}{part} where {said[0]}" + (f", unless {said[1]}" if said[1] else "") + rests


def _asked(one: Condition) -> str:
    """ "recipients.list_addresses is any"."""
    is_word = one.limit[:1].isalnum() and not isinstance(one, WordMatches | SetMatches)
    return f"{one.fact.name} {'is ' if is_word else ''}{one.limit}"


# ``check --live``: the state of the store, the answers of the real relay and the list sources, and open ways around the
# guard.


_MARKS = {"fine": "ok", "wrong": "WRONG", "open": "OPEN", "accepted": "open", "unknown": "?", "odd": "odd"}
_COLOURS = {"fine": "green", "wrong": "red", "open": "red", "accepted": "yellow", "unknown": "yellow", "odd": "yellow"}


async def _live(context: Context, settings: Settings, policy: Policy) -> bool:
    """Print a line for each finding at once. Returns whether nothing is wrong, and every open way is accepted."""
    from smtpguard.app.probe import check_live  # imports DNS and SMTP, which nothing else here needs

    fine = await _store(context, settings, policy)
    async for finding in check_live(settings, policy):
        fine = _said(context, finding) and fine
    return fine


async def _store(context: Context, settings: Settings, policy: Policy | None) -> bool:
    """Print a line for each finding on the store and on approvers. Returns whether the check may go on."""
    from smtpguard.app.storestatus import policy_findings, refused_clients, store_findings, unreadable

    found = [*await store_findings(settings, policy), *await asyncio.to_thread(policy_findings, settings)]
    if unreadable(settings) is None:
        found += await refused_clients(settings, datetime.now(UTC))
    well = [_said(context, finding) for finding in found]
    return all(well)


def _said(context: Context, finding: Finding) -> bool:
    """Returns whether it is well."""
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


FORMATS = ("text", "json", "github")
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """One case. ``failures``: a sentence for each thing that was not as expected, or for why the case could not be run."""

    file: Path
    name: str
    line: int
    action: str = ""
    hits: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@click.command(cls=Command, json="As --format json.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--policy", "policy_file", metavar="FILE", type=click.Path(path_type=Path),
              help="The policy to test. Default: the one that the settings name.")  # fmt: skip
@click.option("--run", "pattern", metavar="PATTERN",
              help="Only cases whose name matches: *, ? and [] as in file names, or a part of it.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS),
              help="text, json (one object a case), or github (annotations of a workflow).")  # fmt: skip
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the results to this file too, as JUnit XML.")  # fmt: skip
@click.option("--sarif", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the failures to this file too, as SARIF 2.1.0.")  # fmt: skip
@click.option("--coverage", is_flag=True, help="Say for each rule how many cases it hits.")
@click.option("-v", "--verbose", is_flag=True, help="Name the cases that pass as well.")
async def test(
    context: Context,
    files: Sequence[Path],
    policy_file: Path | None,
    pattern: str | None,
    form: str | None,
    junit: Path | None,
    sarif: Path | None,
    coverage: bool,
    verbose: bool,
) -> None:
    """Run a policy's test cases: FILEs, or all *.yaml of a folder. Exit 1 if any fails."""
    form = form or ("json" if context.json else "text")
    policy = _case_policy(context, policy_file)
    told = await _run(context, list(_suites(files)), policy, policy_file, pattern)
    if not told:
        raise CannotRun(f'no case matches "{pattern}"' if pattern else "there is no case in these files")
    for one in told:
        if form == "json":
            context.say(_case_row(one))
        elif form == "github":
            for failure in one.failures:
                click.echo(f"::error file={one.file},line={one.line},title={_escaped(one.name)}::{_escaped(failure)}")
        else:
            _tell(one, verbose)
    if form != "json":
        for line in _summary(told, policy, coverage=coverage):
            click.echo(line)
    for path, made in ((junit, _junit), (sarif, _sarif)):
        if path is not None:
            try:
                path.write_bytes(made(told))
            except OSError as error:
                raise CannotRun(f"{path}: {error.strerror}") from None
    if any(one.failures for one in told):
        raise click.exceptions.Exit(1)


async def _run(
    context: Context, files: Sequence[Path], policy: Policy, policy_file: Path | None, pattern: str | None
) -> list[_Told]:
    """Raises Broken, with all mistakes in all files, if one is no suite."""
    told, problems = list[_Told](), list[Problem]()
    suites: list[tuple[Path, list[Case]]] = []
    for file in files:
        try:
            document: Document = load_yaml(file)
            suites.append((file, cases(document, policy.rules, policy.words)))
        except Broken as e:
            problems += e.problems
    if problems:
        raise Broken(problems)
    async with AsyncExitStack() as undo:
        guard: Explainer | None = None
        for file, case in ((file, case) for file, some in suites for case in some if _fits(case.name, pattern)):
            if case.model.message is None:
                told.append(_told(file, case.run(policy.rules)))
            else:
                # It imports lists and readers, which cases of facts do not need.
                from smtpguard.app.explaining import explainer

                settings = _case_settings(context, policy_file)
                if guard is None:
                    guard = await undo.enter_async_context(explainer(settings, policy))
                told.append(await _read(guard, file, case, settings))
    return told


async def _read(guard: Explainer, file: Path, case: Case, settings: Settings) -> _Told:
    """Run a case of a message, as explain does. Its mistakes fail it alone."""
    try:
        message = _message(case, file.parent)
        session, path, people = _envelope(case.model.envelope or EnvelopeModel.model_validate({}), message, settings)
        if not people:
            raise BadAddress("it has no recipient: To, Cc or envelope: {to: ...}")
        told = await guard.explain(message, path, people, session, case.model.counted)
    except (BadAddress, CannotRun, Undeclared) as error:
        return _Told(file=file, name=case.name, line=case.line, failures=(str(error),))
    except Exception as error:  # an error of one message must not stop the others
        return _Told(file=file, name=case.name, line=case.line, failures=(why_unread(error),))
    values = {name: told.facts.get(name) for name in case.found}
    return _told(file, case.judged(told.verdict, {k: v for k, v in values.items() if v is not None}))


def _told(file: Path, one: CaseResult) -> _Told:
    hits = tuple(hit.rule for hit in one.verdict.hits)
    return _Told(
        file=file, name=one.name, line=one.line, action=one.verdict.action.word, hits=hits, failures=one.failures
    )


def _message(case: Case, folder: Path) -> Message:
    """Raises CannotRun."""
    written = case.model.message
    if not isinstance(written, str):
        assert written is not None
        return message_of(written)
    found = list(mails([str(folder / written)]))
    if len(found) != 1:
        raise CannotRun(f"{written} contains {len(found)} messages: a case has one")
    if found[0].unread:
        raise CannotRun(f"{written}: {found[0].unread}")
    return found[0].message


def _envelope(
    given: EnvelopeModel, message: Message, settings: Settings
) -> tuple[Session, Address | None, list[Address]]:
    """Raises BadAddress, CannotRun and Undeclared."""
    path, people = envelope_of(message.header)
    if given.from_ is not None:
        path = None if given.from_ in ("", "<>") else Address.parse(given.from_)
    if client_address(given.client) is None:
        raise CannotRun(f'client: "{given.client}" is no address')
    from smtpguard.app.explaining import session_at

    session = session_at(settings, given.listener, given.client, login=given.login)
    if given.senders_verified is not None:
        proves = given.senders_verified or (session.proves_senders and not session.senders_verified)
        session = replace(session, senders_verified=given.senders_verified, proves_senders=proves)
    return session, path, [Address.parse(each) for each in given.to] or people


def _fits(name: str, pattern: str | None) -> bool:
    return (
        pattern is None or pattern.casefold() in name.casefold() or fnmatch.fnmatch(name.casefold(), pattern.casefold())
    )


def _case_policy(context: Context, file: Path | None) -> Policy:
    if file is None:
        return context.policy()
    return parse(policy_documents(file), where=str(file))


def _case_settings(context: Context, policy_file: Path | None) -> Settings:
    """The settings. With a given policy there need be none. List files are found beside the policy."""
    if policy_file is None:
        return context.settings()
    if context.config.exists():
        return read_settings(context.config).model_copy(update={"policy": policy_file.absolute()})
    base = policy_file.absolute().parent
    return settings_of(load_yaml(b"{}", "settings"), base, {}).model_copy(update={"policy": policy_file.absolute()})


def _suites(files: Sequence[Path]) -> Iterator[Path]:
    for file in files:
        if not file.exists():
            raise CannotRun(f"{file}: no such file")
        if file.is_dir():
            found = sorted(file.glob("*.yaml"))
            if not found:
                raise CannotRun(f"{file}: no *.yaml in this folder")
            yield from found
        else:
            yield file


def _tell(one: _Told, verbose: bool) -> None:
    if one.failures:
        click.echo(f"{one.file}:{one.line}: {plain(one.name)}")
        for failure in one.failures:
            click.echo(f"    {plain(failure)}")
    elif verbose:
        click.echo(f"{one.file}:{one.line}: {plain(one.name)}: {one.action}")


def _summary(told: Sequence[_Told], policy: Policy, *, coverage: bool) -> Iterator[str]:
    count, failed = len(told), sum(bool(one.failures) for one in told)
    hits = Counter(rule for one in told for rule in one.hits)
    yield f"{count} cases, {failed} failed." if failed else f"{count} cases, all as expected."
    rules = [rule.rule_id for rule in policy.rules.rules]
    if coverage:
        for rule in rules:
            yield f"  {rule}: {many(hits[rule], 'case')}"
    if never := [rule for rule in rules if not hits[rule]]:
        yield f"{len(rules) - len(never)} of {len(rules)} rules are hit by a case; never: {', '.join(never)}."


def _case_row(one: _Told) -> dict[str, object]:
    return {
        "file": str(one.file),
        "line": one.line,
        "name": one.name,
        "ok": not one.failures,
        "action": one.action or None,
        "hits": list(one.hits),
        "failures": list(one.failures),
    }


def _escaped(text: str) -> str:
    """Escaped for a workflow command of GitHub."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")


def _sarif(told: Sequence[_Told]) -> bytes:
    """SARIF: a result for each thing that was not as expected."""
    results = [
        {
            "ruleId": "policy-case",
            "level": "error",
            "message": {"text": f"{one.name}: {failure}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": one.file.as_posix()},
                        "region": {"startLine": one.line},
                    }
                }
            ],
        }
        for one in told
        for failure in one.failures
    ]
    rule = {"id": "policy-case", "shortDescription": {"text": "A test case of the policy fails"}}
    driver = {"name": "smtpguard test", "version": __version__, "rules": [rule]}
    runs = [{"tool": {"driver": driver}, "results": results}]
    return json.dumps({"version": "2.1.0", "$schema": _SARIF, "runs": runs}, ensure_ascii=False, indent=2).encode()


def _junit(told: Sequence[_Told]) -> bytes:
    """JUnit XML: a suite for each file."""
    root = ElementTree.Element("testsuites", _counts(told))
    for file in dict.fromkeys(one.file for one in told):
        some = [one for one in told if one.file == file]
        suite = ElementTree.SubElement(root, "testsuite", {"name": str(file), **_counts(some)})
        for one in some:
            case = ElementTree.SubElement(
                suite, "testcase", name=_printable(one.name), classname=str(file), line=str(one.line)
            )
            if one.failures:
                failure = ElementTree.SubElement(case, "failure", message=_printable(one.failures[0]))
                failure.text = _printable("\n".join(one.failures))
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _counts(told: Sequence[_Told]) -> dict[str, str]:
    return {"tests": str(len(told)), "failures": str(sum(bool(one.failures) for one in told))}


def _printable(text: str) -> str:
    """XML 1.0 does not allow control characters."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
