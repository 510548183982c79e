"""smtpguard policy: list the policies that were in force, show or compare them, and put one in force again; and
smtpguard reload: check the policy's files and put them in force. Every process follows within 250 ms."""

from __future__ import annotations

import difflib
import os
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import AtLeast, CannotRun, Command, Context, Group, NotFine, terminal, write_new
from smtpguard.config.documents import VOCABULARIES, digest, policy_documents, shipped
from smtpguard.config.problem import Broken

if TYPE_CHECKING:
    from smtpguard.app.policycheck import Proposal
    from smtpguard.store.store import Store

IN_FORCE, FILE = "in-force", "file"
yes = click.option("--yes", is_flag=True, help="Put it in force without asking, even if it holds less.")
fail_on_warning = click.option("--fail-on-warning", is_flag=True, help="Change nothing if there is a warning: exit 1.")


command = Group(help="Policies: history, show, diff, restore; and guide, a hand-out for staff.")


@command.command()
@click.option("--limit", type=AtLeast(1), default=20, show_default=True, help="At most so many, newest first.")
async def history(context: Context, limit: int) -> None:
    """List the policies that were put in force, newest first: when, by whom, how, and what may have become looser."""
    async with context.store(reads=True) as store:
        found = await store.policies.history(limit)
    for put in found:
        row = {
            "at": put.at,
            "entry": put.seq,
            "sha256": put.sha256,
            "before": put.before or None,
            "by": put.by or None,
            "how": put.how or None,
            "host": put.data.get("host"),
            "rules": put.data.get("rules"),
            "enforce": put.data.get("enforce"),
            "looser": put.data.get("looser"),
            "changes": list(put.looser),
            "warnings": put.data.get("warnings"),
        }
        by = put.by or "a person whose name is erased"
        how = (f" ({put.how})" if put.how else "") + ("" if put.data.get("enforce", True) else "; observing only")
        text = [f"{put.at:%Y-%m-%d %H:%M} UTC  {put.sha256[:12]}  {put.data.get('rules')} rules, by {by}{how}"]
        text += [f"    {change}" for change in put.looser]
        if more := int(put.data.get("looser") or 0) - len(put.looser):
            text.append(f"    {more}{' more' if put.looser else ''} that may be looser")
        context.answer(row, text)
    if not found and not context.json:
        click.echo("the journal has no entry of a policy put in force")


@command.command()
@click.argument("sha256", metavar="SHA")
@click.option("--all", "whole", is_flag=True, help="Show its vocabularies too.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Write its files to this folder.")
async def show(context: Context, sha256: str, whole: bool, output: Path | None) -> None:
    """Show a policy as it was put in force. SHA is a beginning of its SHA-256, in-force, or file.

    With --output its files are written to DIR, without the product's vocabularies; existing files are not overwritten.
    """
    name, documents = await documents_of(context, sha256)
    if output is not None:
        written = list(map(str, _write(output, documents)))
        context.answer({"sha256": name, "written": written}, written)
        return
    tell_documents(context, name, documents, whole=whole)


@command.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B", default=IN_FORCE)
async def diff(context: Context, a: str, b: str) -> None:
    """Show how B differs from A, and what B may let pass that A would stop. Each is a beginning of a SHA-256, in-force, or file."""
    from smtpguard.app.files import parse_policy
    from smtpguard.policy.looser import looser

    settings = context.settings()
    first, before = await documents_of(context, a)
    second, after = await documents_of(context, b)
    texts = {}
    for name in sorted({*before, *after}):
        one, other = (
            each.get(name, b"").decode("utf-8", "replace").splitlines(keepends=True) for each in (before, after)
        )
        lines = list(difflib.unified_diff(one, other, f"{name} of {first[:12]}", f"{name} of {second[:12]}"))
        if lines:
            texts[name] = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    unread = ""
    try:
        found = looser(parse_policy(settings, before), parse_policy(settings, after))
    except Broken as e:
        found, unread = (), str(e.problems[0])
    if context.json:
        context.print_json(
            {
                "a": first,
                "b": second,
                "documents": [{"name": name, "diff": text} for name, text in texts.items()],
                "looser": [each.row() for each in found] if not unread else None,
            }
        )
        return
    for text in texts.values():
        click.echo(text, nl=False)
    if not texts:
        click.echo("they are the same")
    if unread:
        click.echo(f"what may be looser is unknown: {unread}", err=True)
    for each in found:
        click.echo(f"may let more pass: {each}")


@command.command(json=None)
@click.argument("which", metavar="SHA|in-force|file", default=FILE)
@click.option("--language", metavar="LANGUAGE", default="",
              help="The language. Default: the first of the organization's.")  # fmt: skip
async def guide(context: Context, which: str, language: str) -> None:
    """Write the policy as a hand-out for staff, in HTML: for each list who may write and who decides, what to avoid, and what is stopped."""
    from smtpguard.app.files import parse_policy
    from smtpguard.console.rulewords import guide as written
    from smtpguard.locale import languages

    settings = context.settings()
    _, documents = await documents_of(context, which)
    policy = parse_policy(settings, documents)
    spoken = language or next((each for each in policy.organization.languages if each in languages()), "en")
    if spoken not in languages():
        raise CannotRun(f"--language: {spoken} is not a language of smtpguard: {', '.join(sorted(languages()))}")
    hold = settings.hold
    click.echo(written(policy, spoken, datetime.now(UTC), approve_at=hold.approve_at, waits=hold.expires))


@command.command()
@click.argument("sha256", metavar="SHA")
@yes
@fail_on_warning
async def restore(context: Context, sha256: str, yes: bool, fail_on_warning: bool) -> None:
    """Put an earlier policy in force again. As with reload, it is checked, and you are asked about what may become looser.

    The policy file on disk is not changed, and differs from then on; policy show SHA --output DIR writes the policy in force.
    """
    from smtpguard.app.policies import compare_file
    from smtpguard.app.policycheck import propose

    settings = context.settings()
    name, documents = await documents_of(context, sha256, words=False)
    async with context.opened() as (store, digester):
        proposing = propose(settings, store, digester, documents, where=f"policy.yaml of {name[:12]}")
        again = f"smtpguard policy restore {sha256} --yes"
        await putting(context, store, proposing, "restore", yes=yes, fail_on_warning=fail_on_warning, again=again)
    if compare_file(settings, documents).differs:
        click.echo(
            f"{settings.policy} is not the policy in force: the next smtpguard reload would put the file in force. "
            f"smtpguard policy show {name[:12]} --output DIR writes what is",
            err=True,
        )


def tell_documents(context: Context, sha256: str, documents: Mapping[str, bytes], *, whole: bool) -> None:
    """Print the policy's own files; with ``whole`` its vocabularies too."""
    texts = {
        name: data.decode("utf-8", "replace")
        for name, data in documents.items()
        if whole or not name.startswith(f"{VOCABULARIES}/")
    }
    if context.json:
        context.print_json({"sha256": sha256, "documents": texts})
        return
    for name, text in texts.items():
        if len(texts) > 1:
            click.echo(f"# {name}")
        click.echo(text, nl=not text.endswith("\n"))


async def documents_of(context: Context, given: str, *, words: bool = True) -> tuple[str, Mapping[str, bytes]]:
    """Return SHA-256 and documents of the kept policy with this beginning of a SHA-256, or of ``in-force``; with ``words`` also of
    ``file``. Raises NotFine if there is none, or several."""
    if given == FILE and words:
        documents = policy_documents(context.settings().policy)
        return digest(documents), documents
    async with context.store(reads=True) as store:
        if given == IN_FORCE:
            name = (await store.gate.read()).policy_sha256
            if not name:
                raise NotFine("no policy is in force yet")
            found: Sequence[str] = [name]
        else:
            found = await store.policies.named(given) if given.isalnum() else ()
        if len(found) != 1:
            none = f"no policy is kept under {given}: smtpguard policy history lists those that are"
            raise NotFine(f"several policies begin with {given}" if found else none)
        documents = await store.policies.documents(found[0])
    if not documents:
        raise NotFine(f"the text of policy {found[0][:12]} is not in the store")
    return found[0], documents


def _write(folder: Path, documents: Mapping[str, bytes]) -> list[Path]:
    """Write the documents of a policy to a folder, save shipped vocabularies. Returns the files. Raises CannotRun if one exists."""
    ours = {f"{VOCABULARIES}/{file.name}": file.read_bytes() for file in (shipped() / VOCABULARIES).glob("*.yaml")}
    wanted = {folder / name: data for name, data in documents.items() if ours.get(name) != data}
    there = [path for path in wanted if path.exists()]
    if there:
        raise CannotRun(f"{there[0]} exists, and is not overwritten")
    for path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
    os.umask(umask := os.umask(0))
    write_new(wanted, mode=0o666 & ~umask)
    return list(wanted)


@click.command(cls=Command, json="One JSON object.")
@yes
@fail_on_warning
async def reload(context: Context, yes: bool, fail_on_warning: bool) -> None:
    """Put the policy file in force. A file with mistakes changes nothing: exit 1.

    If anything may become looser, it is shown and you are asked; without a terminal, --yes is required.
    """
    from smtpguard.app.policycheck import propose_file

    also = f"; {context.config.name} is read when serve starts"  # for people who have changed the settings instead
    async with context.opened() as (store, digester):
        proposing = propose_file(context.settings(), store, digester)
        await putting(
            context,
            store,
            proposing,
            "reload",
            yes=yes,
            fail_on_warning=fail_on_warning,
            again="smtpguard reload --yes",
            also=also,
        )


async def putting(
    context: Context,
    store: Store,
    proposing: Awaitable[Proposal],
    how: str,
    *,
    yes: bool,
    fail_on_warning: bool,
    again: str,
    also: str = "",
) -> None:
    """Put a policy in force, and report it. A person is asked if it may let more pass. ``again``: the command to type if nobody could
    be asked. ``also``: what to add if it was in force already. Raises Exit if the policy is not in force."""
    from smtpguard.app.policycheck import put
    from smtpguard.database.errors import PolicyMoved

    try:
        proposal = await proposing
    except Broken as e:
        for problem in e.problems:
            context.answer(problem.row(), str(problem), err=True)
        click.echo("smtpguard: the policy in force stays", err=True)
        raise click.exceptions.Exit(1) from None
    asks, why = not context.json and terminal(), ""
    if fail_on_warning and proposal.warnings:
        why = "there are warnings"
    elif proposal.changed:
        if proposal.looser and not context.json:
            click.echo(f"Against the policy in force, {proposal.before[:12]}, this may let more pass:", err=True)
            for each in proposal.looser:
                click.echo(f"  {each}", err=True)
        if not proposal.looser or yes or (asks and click.confirm("Put it in force?", default=False)):
            try:
                await put(store, proposal, by=context.user, how=how)
            except PolicyMoved:
                text = "somebody else put another policy in force meanwhile: look at it, and try again"
                raise NotFine(text) from None
        else:
            why = "the policy may become looser, and that was not confirmed"
            why += "" if asks else f". To put it in force: {again}"
    for warning in proposal.warnings:
        click.echo(str(warning), err=True)
    if why:
        if context.json:
            context.print_json(_row(proposal, changed=False))
        click.echo(f"smtpguard: the policy in force stays: {why}", err=True)
        raise click.exceptions.Exit(1)
    before = f", before it {proposal.before[:12]}" if proposal.before else ""
    done = f"is in force{before}" if proposal.changed else f"was in force already{also}"
    context.answer(_row(proposal, changed=proposal.changed), f"policy {proposal.sha256[:12]} {done}")


def _row(proposal: Proposal, *, changed: bool) -> dict[str, Any]:
    return {
        "policy_sha256": proposal.sha256 if changed or not proposal.changed else proposal.before or None,
        "before": proposal.before or None,
        "changed": changed,
        "looser": [each.row() for each in proposal.looser],
        "warnings": [warning.row() for warning in proposal.warnings],
    }
