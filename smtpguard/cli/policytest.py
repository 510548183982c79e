"""smtpguard test: run a policy's own cases, of facts and of messages (policy.suite has their format)."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click

from smtpguard import __version__
from smtpguard.cli.context import CannotRun, Command, Context
from smtpguard.cli.explain import envelope_of, mails, why_unread
from smtpguard.cli.holdrow import plain
from smtpguard.config.documents import policy_documents
from smtpguard.config.problem import Broken, Problem, Undeclared
from smtpguard.config.settings import Settings, read_settings, settings_of
from smtpguard.config.yaml import Document, load_yaml
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.envelope import Session, client_address
from smtpguard.mail.message import Message
from smtpguard.policy.parse import Policy, parse
from smtpguard.policy.suite import Case, EnvelopeModel, cases, message_of
from smtpguard.policy.verdict import Verdict

if TYPE_CHECKING:
    from smtpguard.app.explaining import Explainer


FORMATS = ("text", "json", "github")
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """The result of a case. ``verdict``: None if it could not be run. ``failures``: a sentence for each
    thing that was not as expected, or for why the case could not be run."""

    file: Path
    case: Case
    verdict: Verdict | None = None
    failures: tuple[str, ...]

    @property
    def hits(self) -> list[str]:
        return [] if self.verdict is None else [hit.rule for hit in self.verdict.hits]


@click.command(cls=Command, json="As --format json.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--policy", "policy_file", metavar="FILE", type=click.Path(path_type=Path),
              help="The policy to test. Default: the one that the settings name.")  # fmt: skip
@click.option("--run", "pattern", metavar="PATTERN", default="",
              help="Only cases whose name matches: *, ? and [] as in file names, or a part of it.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS),
              help="text, json (one object a case), or github (annotations of a workflow).")  # fmt: skip
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the results to this file too, as JUnit XML.")  # fmt: skip
@click.option("--sarif", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the failures to this file too, as SARIF 2.1.0.")  # fmt: skip
@click.option("--coverage", is_flag=True, help="Say for each rule how many cases it hits.")
@click.option("-v", "--verbose", is_flag=True, help="Name the cases that pass as well.")
async def command(
    context: Context,
    files: Sequence[Path],
    policy_file: Path | None,
    pattern: str,
    form: str | None,
    junit: Path | None,
    sarif: Path | None,
    coverage: bool,
    verbose: bool,
) -> None:
    """Run a policy's test cases: FILEs, or all *.yaml of a folder. Exit 1 if any fails."""
    form = form or ("json" if context.json else "text")
    policy = context.policy() if policy_file is None else parse(policy_documents(policy_file), where=str(policy_file))
    results = await _run(context, list(_suites(files)), policy, policy_file, pattern)
    if not results:
        raise CannotRun(f'no case matches "{pattern}"' if pattern else "there is no case in these files")
    for one in results:
        if form == "json":
            context.print_json(_case_row(one))
        elif form == "github":
            for failure in one.failures:
                click.echo(
                    f"::error file={one.file},line={one.case.line},title={_escaped(one.case.name)}::{_escaped(failure)}"
                )
        else:
            _print_result(one, verbose)
    if form != "json":
        for line in _summary(results, policy, coverage=coverage):
            click.echo(line)
    for path, made in ((junit, _junit), (sarif, _sarif)):
        if path is not None:
            try:
                path.write_bytes(made(results))
            except OSError as error:
                raise CannotRun(f"{path}: {error.strerror}") from None
    if any(one.failures for one in results):
        raise click.exceptions.Exit(1)


async def _run(
    context: Context, files: Sequence[Path], policy: Policy, policy_file: Path | None, pattern: str
) -> list[_Result]:
    """Run the cases of these files. Raises Broken, with all mistakes in all files, if one is no suite."""
    results, problems = list[_Result](), list[Problem]()
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
        for file, case in ((file, case) for file, some in suites for case in some):
            name, wanted = case.name.casefold(), pattern.casefold()
            if wanted not in name and not fnmatch.fnmatch(name, wanted):
                continue
            if case.model.message is None:
                verdict = case.verdict(policy.rules)
                results.append(_Result(file=file, case=case, verdict=verdict, failures=case.failures(verdict)))
            else:
                # It imports lists and readers, which cases of facts do not need.
                from smtpguard.app.explaining import explainer

                settings = _case_settings(context, policy_file)
                if guard is None:
                    guard = await undo.enter_async_context(explainer(settings, policy))
                results.append(await _read(guard, file, case, settings))
    return results


async def _read(guard: Explainer, file: Path, case: Case, settings: Settings) -> _Result:
    """Run a case of a message, as explain does. Its mistakes fail it alone."""
    try:
        message = _message(case, file.parent)
        session, path, people = _envelope(case.model.envelope or EnvelopeModel.model_validate({}), message, settings)
        if not people:
            raise BadAddress("it has no recipient: To, Cc or envelope: {to: ...}")
        explained = await guard.explain(message, path, people, session, case.model.counted)
    except (BadAddress, CannotRun, Undeclared) as error:
        return _Result(file=file, case=case, failures=(str(error),))
    except Exception as error:  # an error of one message must not stop the others
        return _Result(file=file, case=case, failures=(why_unread(error),))
    found = {name: value for name in case.found if (value := explained.facts.values.get(name)) is not None}
    failures = case.failures(explained.verdict, found)
    return _Result(file=file, case=case, verdict=explained.verdict, failures=failures)


def _message(case: Case, folder: Path) -> Message:
    """Return the message of a case. Raises CannotRun."""
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
    """Return session, reverse-path and recipients of a case. Raises BadAddress, CannotRun and Undeclared."""
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


def _case_settings(context: Context, policy_file: Path | None) -> Settings:
    """Return the settings. With a given policy there need be none, and list files are found beside the policy."""
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


def _print_result(one: _Result, verbose: bool) -> None:
    name = f"{one.file}:{one.case.line}: {plain(one.case.name)}"
    if one.failures:
        click.echo(name)
        for failure in one.failures:
            click.echo(f"    {plain(failure)}")
    elif verbose and one.verdict is not None:
        click.echo(f"{name}: {one.verdict.action.word}")


def _summary(results: Sequence[_Result], policy: Policy, *, coverage: bool) -> Iterator[str]:
    count, failed = len(results), sum(bool(one.failures) for one in results)
    hits = Counter(rule for one in results for rule in one.hits)
    yield f"{count} cases, {failed} failed." if failed else f"{count} cases, all as expected."
    rules = [rule.rule_id for rule in policy.rules.rules]
    if coverage:
        for rule in rules:
            yield f"  {rule}: {many(hits[rule], 'case')}"
    if never := [rule for rule in rules if not hits[rule]]:
        yield f"{len(rules) - len(never)} of {len(rules)} rules are hit by a case; never: {', '.join(never)}."


def _case_row(one: _Result) -> dict[str, object]:
    return {
        "file": str(one.file),
        "line": one.case.line,
        "name": one.case.name,
        "ok": not one.failures,
        "action": None if one.verdict is None else one.verdict.action.word,
        "hits": one.hits,
        "failures": list(one.failures),
    }


def _escaped(text: str) -> str:
    """Escape a text for a workflow command of GitHub."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")


def _sarif(results: Sequence[_Result]) -> bytes:
    """Write SARIF, with a result for each thing that was not as expected."""
    rows = [
        {
            "ruleId": "policy-case",
            "level": "error",
            "message": {"text": f"{one.case.name}: {failure}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": one.file.as_posix()},
                        "region": {"startLine": one.case.line},
                    }
                }
            ],
        }
        for one in results
        for failure in one.failures
    ]
    rule = {"id": "policy-case", "shortDescription": {"text": "A test case of the policy fails"}}
    driver = {"name": "smtpguard test", "version": __version__, "rules": [rule]}
    runs = [{"tool": {"driver": driver}, "results": rows}]
    return json.dumps({"version": "2.1.0", "$schema": _SARIF, "runs": runs}, ensure_ascii=False, indent=2).encode()


def _junit(results: Sequence[_Result]) -> bytes:
    """Write JUnit XML, with a suite for each file."""
    root = ElementTree.Element("testsuites", _counts(results))
    for file in dict.fromkeys(one.file for one in results):
        some = [one for one in results if one.file == file]
        suite = ElementTree.SubElement(root, "testsuite", {"name": str(file), **_counts(some)})
        for one in some:
            case = ElementTree.SubElement(
                suite, "testcase", name=_printable(one.case.name), classname=str(file), line=str(one.case.line)
            )
            if one.failures:
                failure = ElementTree.SubElement(case, "failure", message=_printable(one.failures[0]))
                failure.text = _printable("\n".join(one.failures))
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _counts(results: Sequence[_Result]) -> dict[str, str]:
    return {"tests": str(len(results)), "failures": str(sum(bool(one.failures) for one in results))}


def _printable(text: str) -> str:
    """Replace control characters, which XML 1.0 does not allow."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
