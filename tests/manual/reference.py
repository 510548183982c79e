"""Reference pages in Markdown, generated from the program's help, key descriptions, replies and events."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from smtpguard.cli import COMMANDS, main
from smtpguard.config.schema import settings_schema
from smtpguard.console.journalwords import KIND_WORDS
from smtpguard.journal import event
from smtpguard.journal.event import Kind
from smtpguard.mail import reply
from smtpguard.policy.schema import policy_schema

_OF_EVERY_COMMAND = frozenset({"--config", "--help"})


def commands() -> str:
    """The generated part of docs/cli.md: a section for each command, with its arguments and options."""
    context = click.Context(main, info_name="smtpguard", **main.context_settings)
    parts = ["## Options of every command\n", _options(main, context, frozenset())]
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"    {context.command_path} {usage}\n"
    for paragraph in (command.help or "").replace("\b", "").strip().split("\n\n"):
        yield _text(" ".join(paragraph.split())) + "\n"
    table = _options(command, context, _OF_EVERY_COMMAND)
    if table:
        yield table
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _command(below, click.Context(below, info_name=name, parent=context))


def _options(command: click.Command, context: click.Context, without: frozenset[str]) -> str:
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        named = isinstance(parameter, click.Option) and without.isdisjoint(parameter.opts)
        if named and record is not None:
            options, says = record
            rows.append(f"| `{options.replace('|', ', ')}` | {_text(' '.join(says.split()))} |\n")
    return "".join(["| Option | |\n|---|---|\n", *rows]) if rows else ""


def settings() -> str:
    """The generated part of docs/settings.md: a section for each part of the file, a row for each key."""
    return "\n".join(_sections(settings_schema(), "the file"))


def policy_keys() -> str:
    """The generated part of docs/policy-keys.md."""
    return "\n".join(_sections(policy_schema(), "the file"))


def _sections(schema: Mapping[str, Any], top: str) -> Iterator[str]:
    """Each model once, at its first use. Facts have their own page."""
    waiting: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    seen: set[str] = set()
    while waiting:
        path, model = waiting.pop(0)
        rows = []
        below: list[tuple[str, Mapping[str, Any]]] = []
        for key, each in model.get("properties", {}).items():
            here = f"{path}.{key}" if path else key
            refs = [(where, name) for where, name in _refs(each, here) if name != "conditions"]
            inner = [(where, name) for where, name in refs if schema["$defs"][name].get("properties")]
            several = len({name for _, name in inner}) > 1
            for where, name in inner:
                if name not in seen:
                    seen.add(name)
                    found = schema["$defs"][name]
                    own = found.get("required", [])
                    below.append((f"{where}, {own[0]}" if several and own else where, found))
            default = each.get("default")
            shown = f"`{_value(default)}`" if default not in (None, "", [], {}) else ""
            shown = "required" if key in model.get("required", ()) else shown
            says = each.get("description") or ""
            rows.append(f"| `{key}` | {_cell(_kind(each))} | {_cell(shown)} | {_text(_cell(says))} |\n")
        if rows:
            yield f"## {_cell(path) or top.capitalize()}\n"
            yield "".join(["| Key | Is | Default | Says |\n|---|---|---|---|\n", *rows])
        waiting = below + waiting


def _refs(each: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if "$ref" in each:
        yield path, each["$ref"].rpartition("/")[2]
    for shape in (*each.get("anyOf", ()), *each.get("oneOf", ())):
        yield from _refs(shape, path)
    if isinstance(items := each.get("items"), Mapping):
        yield from _refs(items, f"{path}[]")
    if isinstance(values := each.get("additionalProperties"), Mapping):
        yield from _refs(values, f"{path}.NAME")


_WORDS = {"string": "text", "integer": "a number", "number": "a number", "boolean": "`true`, `false`"}


def _kind(each: Mapping[str, Any]) -> str:
    shapes = [*each.get("anyOf", ()), *each.get("oneOf", ())]
    if shapes:
        return " or ".join(dict.fromkeys(kind for shape in shapes if (kind := _kind(shape))))
    if "$ref" in each:
        return "facts" if each["$ref"].endswith("/conditions") else "a section"
    if "enum" in each:
        return ", ".join(f"`{_value(word)}`" for word in each["enum"])
    if "const" in each:
        return f"`{_value(each['const'])}`"
    match each.get("type"):
        case "null":
            return ""
        case "array":
            items = each.get("items")
            kind = _kind(items) if isinstance(items, Mapping) else "anything"
            return "a list of sections" if kind == "a section" else f"a list of {kind}"
        case "object":
            values = each.get("additionalProperties")
            return f"names, each with {_kind(values)}" if isinstance(values, Mapping) and values else "names"
        case "string" if each.get("examples"):
            return "like " + ", ".join(f"`{example}`" for example in each["examples"])
        case list(several):
            return " or ".join(_kind({**each, "type": word}) for word in several)
        case str(word):
            return _WORDS.get(word, word)
    return ""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else str(value)


def events() -> str:
    """The generated part of docs/events.md: a row for each kind, with the sentences of code and console."""
    source = Path(event.__file__).read_text()
    notes = dict(re.findall(r'^    [A-Z_]+ = (?:\(\s+)?"([a-z-]+)"(?:  # (.*))?$', source, re.M))
    rows = [f"| `{kind.value}` | {KIND_WORDS[kind.value].text} | {_note(notes[kind.value])} |\n" for kind in Kind]
    return "".join(["| Kind | In the console | |\n|---|---|---|\n", *rows])


def _note(note: str) -> str:
    return _text(_cell(note.removeprefix("... ")))


def replies() -> str:
    """The generated part of docs/replies.md: tables of positive, temporary and permanent replies."""
    made: dict[str, reply.Reply] = {
        **{name: each for name, each in vars(reply).items() if isinstance(each, reply.Reply)},
        "held": reply.held("ID"),
        "released": reply.released("ID"),
        "rejected": reply.rejected("the rule's description"),
        "deferred": reply.deferred("the rule's description, or what is not known now"),
        "no_such_list": reply.no_such_list("why"),
        "no_such_notice": reply.no_such_notice(),
        "counted": reply.counted("ID", "reject"),
    }
    heads = {"23": "## It goes on", "4": "## Try again later", "5": "## Refused"}
    parts = []
    for digits, head in heads.items():
        those = {str(each): each for each in made.values() if str(each.code)[0] in digits}
        rows = [
            f"| {each.code} | {each.enhanced or ''} | {_text(_said(each))} |\n" for _, each in sorted(those.items())
        ]
        parts += [head + "\n", "".join(["| Code | Status | Text |\n|---|---|---|\n", *rows])]
    return "\n".join(parts)


def _said(each: reply.Reply) -> str:
    return each.text.removeprefix(f"{each.enhanced} ")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(text: str) -> str:
    """Escape what Markdown would read as a tag, emphasis or code."""
    return re.sub(r"(?<!`)``(?!`)", "`", text).replace("<", "&lt;").replace("*", "\\*")
