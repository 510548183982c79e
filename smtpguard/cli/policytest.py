"""smtpguard test: run a policy's own cases (policy.suite says how they are written). Never here: judging a case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from smtpguard.cli.context import CannotRun, Context
from smtpguard.config.documents import policy_documents
from smtpguard.config.yaml import load_yaml
from smtpguard.policy.parse import Policy, parse
from smtpguard.policy.suite import Outcome, run


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--policy", "policy_file", metavar="FILE", type=click.Path(path_type=Path),
              help="The policy to test. Default: the one that the settings name.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Name the cases that hold as well.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a case.")
@click.pass_obj
def command(context: Context, files: Sequence[Path], policy_file: Path | None, verbose: bool, as_json: bool) -> None:
    """Run a policy's cases: FILEs, or all *.yaml of a folder. Exit 1 if any does not hold."""
    count = failed = 0
    policy = _policy(context, policy_file)
    for file in _suites(files):
        for outcome in run(load_yaml(file), policy.rules):
            count += 1
            failed += bool(outcome.failures)
            if as_json or context.json:
                context.say(_row(file, outcome))
            else:
                _tell(file, outcome, verbose)
    if not (as_json or context.json):
        click.echo(f"{count} cases, {failed} failed." if failed else f"{count} cases, all as expected.")
    if failed:
        raise click.exceptions.Exit(1)


def _policy(context: Context, file: Path | None) -> Policy:
    if file is None:
        return context.policy()
    return parse(policy_documents(file), where=str(file))


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


def _tell(file: Path, outcome: Outcome, verbose: bool) -> None:
    if outcome.failures:
        click.echo(f"{file}:{outcome.line}: {outcome.name}")
        for failure in outcome.failures:
            click.echo(f"    {failure}")
    elif verbose:
        click.echo(f"{file}:{outcome.line}: {outcome.name}: {outcome.verdict.action.word}")


def _row(file: Path, outcome: Outcome) -> dict[str, object]:
    return {
        "file": str(file),
        "line": outcome.line,
        "name": outcome.name,
        "ok": not outcome.failures,
        "action": outcome.verdict.action.word,
        "hits": [hit.rule for hit in outcome.verdict.hits],
        "failures": list(outcome.failures),
    }
