"""What docs/stability.md promises, as lists: one line for each option, key, route and kind.

``make generated`` adds new lines to tests/stable and never removes one. Remove a line by hand, in the commit that
removes the feature, in a major version.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from smtpguard.cli import COMMANDS, main
from smtpguard.config.schema import settings_schema
from smtpguard.console.api.entry import document
from smtpguard.console.app import OPERATIONS
from smtpguard.journal.event import Kind
from smtpguard.policy.facts import FACTS
from smtpguard.policy.schema import policy_schema

ROOT = Path(__file__).parent.parent
LISTS = ROOT / "tests" / "stable"
_EVERYWHERE = frozenset({"--help", "--config"})


def commands() -> Iterator[str]:
    """Commands, their arguments and options, and the choices of an option."""
    context = click.Context(main, info_name="smtpguard")
    yield from _parameters("smtpguard", main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        yield from _command(f"smtpguard {name}", command)


def _command(path: str, command: click.Command) -> Iterator[str]:
    yield path
    yield from _parameters(path, command)
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _command(f"{path} {name}", below)


def _parameters(path: str, command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not _EVERYWHERE.isdisjoint(parameter.opts):
            continue
        for option in (*parameter.opts, *parameter.secondary_opts):
            yield f"{path} {option if isinstance(parameter, click.Option) else '<argument>'}"
            if isinstance(parameter.type, click.Choice):
                yield from (f"{path} {option} {choice}" for choice in parameter.type.choices)


def json_keys() -> Iterator[str]:
    """Keys of the JSON objects that commands print, by the file of the command, or of the noun's ``row``."""
    package = ROOT / "smtpguard"
    for file in sorted([*(package / "cli").glob("*.py"), package / "config" / "problem.py"]):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from (f"{file.stem} {key}" for key in _keys(node))
    for name in ("model", "effects", "sending"):
        for node in ast.walk(ast.parse((package / "holds" / f"{name}.py").read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in ("row", "confirm_row"):
                yield from (f"holdrow {key}" for key in _keys(node))


def _keys(function: ast.AST) -> Iterator[str]:
    """The keys of its dicts, without those of an Event."""
    events = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.keyword) and node.arg == "private"}
    for node in ast.walk(function):
        if isinstance(node, ast.Dict) and id(node) not in events:
            for key in node.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier():
                    yield key.value


def api() -> Iterator[str]:
    """Routes with their query parameters, and the fields of requests and answers."""
    described = document(OPERATIONS)
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} /api/v1{path}"
            yield route
            yield from (f"{route} ?{parameter['name']}" for parameter in operation["parameters"])
    yield from _properties(described["components"]["schemas"])


def kinds() -> Iterator[str]:
    """The kinds of journal entries."""
    yield from (kind.value for kind in Kind)


def policy() -> Iterator[str]:
    """Keys of the policy, and the facts that rules use."""
    yield from _schema("policy", policy_schema())
    yield from (f"fact {name}" for name in FACTS)


def settings() -> Iterator[str]:
    yield from _schema("settings", settings_schema())


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from _properties({name: schema, **schema.get("$defs", {})})


def _properties(schemas: Mapping[str, Any]) -> Iterator[str]:
    """The keys of each named schema, and the values of its enumerations."""
    for name, schema in schemas.items():
        yield from (f"{name} = {word}" for word in schema.get("enum", ()))
        for key, value in schema.get("properties", {}).items():
            yield f"{name}.{key}"
            yield from (f"{name}.{key} = {word}" for word in _words(value))


def _words(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from map(str, schema.get("enum", ()))
        for key in ("anyOf", "oneOf", "allOf"):
            for each in schema.get(key, ()):
                yield from _words(each)
        yield from _words(schema.get("items"))


PROMISED: Mapping[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "json": json_keys,
    "api": api,
    "journal": kinds,
    "policy": policy,
    "settings": settings,
}


def kept(name: str) -> set[str]:
    """The lines of a stored list."""
    file = LISTS / f"{name}.txt"
    return set(file.read_text().splitlines()) if file.exists() else set()


def extend() -> None:
    """Add new lines to each list."""
    LISTS.mkdir(exist_ok=True)
    for each, found in PROMISED.items():
        (LISTS / f"{each}.txt").write_text("".join(f"{line}\n" for line in sorted(kept(each) | set(found()))))
