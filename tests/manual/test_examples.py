"""Examples in the docs are valid: commands and options exist, YAML matches the schemas, shell and jq code parses."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import click
import jsonschema
import pytest
import yaml

from smtpguard.cli import main
from smtpguard.config.documents import policy_documents, shipped
from smtpguard.config.schema import settings_schema
from smtpguard.policy.parse import parse
from smtpguard.policy.schema import policy_schema
from tests.cli.installing import running
from tests.every import every
from tests.manual.made import ROOT
from tests.reading.letters import OUTLOOK, STORY, letter

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
by_page = every("page", PAGES)
SHELL = re.compile(
    r"(apt-get|cat|cd|chmod|chown|cp|curl|df|for|grep|install|journalctl|jq|ln|make|mkdir|mv|promtool|python3?|rm|runuser|sed|smtpguard|"
    r"source|sudo|systemctl|systemd-sysusers|touch|umask)\s|\w+=\$\("
)
"""First words of shell examples."""
_BEFORE = frozenset({";", "|", "&&", "||", "(", "--", "do", "then", "sudo"})
"""Words that a command may follow; ``--``: of runuser."""
OTHERS = ("livenessProbe", "scrape_configs", "rules", "services", "title")
"""First keys of YAML examples that are for other programs, or are a test case or a vocabulary."""


class Block(NamedTuple):
    """``language``: of a fence; "" for a fence without one, and for an indented block."""

    language: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
    yield from (Block(*found) for found in fence.findall(text))
    for found in re.findall(r"(?:^|\n\n)((?:    [^\n]*\n|\n(?=    ))+)", fence.sub("", text)):
        yield Block("", "".join(line[4:] if line.strip() else "\n" for line in found.splitlines(keepends=True)))


def is_shell(block: Block) -> bool:
    return block.language in ("sh", "bash") or (not block.language and SHELL.match(block.text) is not None)


def commands(text: str) -> Iterator[str]:
    """Commands in examples and in sentences, as typed."""
    for block in blocks(text):
        if is_shell(block):
            joined = block.text.replace("\\\n", " ")
            yield from (line.strip() for line in joined.splitlines() if re.search(r"(^|[\s(])smtpguard ", line))
    for code in re.findall(r"(?<!`)`(smtpguard [^`]+)`", text):
        yield " ".join(code.split())


def words(line: str) -> Iterator[list[str]]:
    """The arguments of each smtpguard call in a shell line."""
    line = re.sub(r"\$\([^)]*\)", "VALUE", line).replace("...", "")
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    call: list[str] | None = None
    before = ";"
    for word in [*lexer, ";"]:
        if word.endswith(("|", ";", "&", "<", ">", ")", "(")):
            if call is not None:
                yield call
            call = None
        elif call is not None:
            call.append(word)
        elif (word == "smtpguard" or word.endswith("/bin/smtpguard")) and before in _BEFORE:
            call = []
        before = word


def wrong(arguments: Sequence[str]) -> str | None:
    """click's error message, or None. Placeholders (NAME, ID) are accepted."""
    command, context = main, click.Context(main, info_name="smtpguard", **main.context_settings)
    rest = list(arguments)
    current: click.Command = command
    while True:
        try:
            values, rest, _ = current.make_parser(context).parse_args(rest)
        except click.UsageError as e:
            return f"{context.command_path}: {e.format_message()}"
        for parameter in current.params:
            given = values.get(parameter.name or "")
            if isinstance(parameter.type, click.Choice) and isinstance(parameter, click.Option) and given:
                for value in [given] if isinstance(given, str) else given:
                    if isinstance(value, str) and value not in parameter.type.choices and not value.isupper():
                        return f"{context.command_path}: {value} is no {parameter.opts}"
        if not isinstance(current, click.Group) or not rest:
            return None
        name, *rest = rest
        below = current.get_command(context, name)
        if below is None:
            return None if name.isupper() or name == "COMMAND" else f"{context.command_path}: no command {name}"
        current, context = below, click.Context(below, info_name=name, parent=context)


@by_page
def test_every_command_and_option_in_the_docs_exists(page: Path) -> None:
    found = [(line, fault) for line in commands(page.read_text()) for call in words(line) if (fault := wrong(call))]
    assert found == []


def test_a_wrong_command_is_found() -> None:
    assert [wrong(shlex.split(line)) is None for line in (
        "held approve ID --as eva@example.com", "-c FILE freeze --all --reason x", "held list --state waiting",
        "held aprove ID", "thaw --everything", "held list --state gone",
    )] == [True, True, True, False, False, False]  # fmt: skip
    assert list(words("smtpguard --json held list | jq -r .state > x; smtpguard thaw --all   # why")) == [
        ["--json", "held", "list"], ["thaw", "--all"],
    ]  # fmt: skip


@by_page
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_shell_examples_parse(page: Path) -> None:
    for block in blocks(page.read_text()):
        if is_shell(block):
            text = re.sub(r"\[[^\]]*\]\.\.\.", "", block.text)
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr + block.text


@by_page
@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_jq_programs_compile(page: Path) -> None:
    for block in blocks(page.read_text()):
        for program in re.findall(r"\bjq (?:-[\w]+ )*'([^']+)'", block.text):
            done = subprocess.run(["jq", f"empty, ({program})"], input="", capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr + program


@cache
def known() -> dict[str, dict[str, Any]]:
    return {"smtpguard.yaml": settings_schema(), "policy.yaml": policy_schema()}


def faults(text: str, schema: dict[str, Any]) -> list[str]:
    """Errors in part of a file. Each key is checked by itself, since examples leave out others."""
    part = yaml.safe_load(text)
    found = []
    for key, value in part.items():
        if key not in schema["properties"]:
            found.append(f"no key {key}")
            continue
        own = {"$defs": schema["$defs"], **schema["properties"][key]}
        validator = jsonschema.Draft202012Validator(own)
        found += [f"{key}: {error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    return found


@by_page
def test_yaml_examples_match_a_schema(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language != "yaml":
            continue
        texts = re.split(r"(?m)^(?=# \w+\.yaml)", block.text)
        for text in filter(str.strip, texts):
            part = yaml.safe_load(text)
            if not isinstance(part, dict) or next(iter(part)) in OTHERS:
                continue
            named = re.match(r"# (\w+\.yaml)", text)
            schemas = [known()[named[1]]] if named and named[1] in known() else list(known().values())
            best = min((faults(text, schema) for schema in schemas), key=len)
            assert best == [], text


AROUND = {
    "organization": "{domains: [example.com]}",
    "groups": "{communications: [eva@example.com, omar@example.com], compliance: [dpo@example.com]}",
    "approvals": "{from: [communications]}",
    "lists": "{newsletter: {addresses: [newsletter@lists.example.com]}}",
}
"""What an example of a policy takes for granted."""


def whole(text: str) -> bytes | None:
    """A policy with this example as it is pasted; None if it is none."""
    try:
        part = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        return None
    if isinstance(part, list) and all(isinstance(rule, dict) and "when" in rule for rule in part):
        part, text = {"rules": part}, f"rules:\n{text}"
    if not isinstance(part, dict) or not part.keys() <= known()["policy.yaml"]["properties"].keys():
        return None
    return "".join([*(f"{key}: {value}\n" for key, value in AROUND.items() if key not in part), text]).encode()


@by_page
def test_examples_of_a_policy_can_be_pasted(page: Path) -> None:
    for block in blocks(page.read_text()):
        for text in re.split(r"(?m)^(?=# \w+\.yaml)", dedent(block.text)) if block.language in ("", "yaml") else ():
            if not text.startswith("# smtpguard.yaml") and (policy := whole(text)) is not None:
                parse(policy_documents(shipped() / "policy.yaml") | {"policy.yaml": policy})


def test_the_cases_in_the_docs_are_those_of_the_sample(tmp_path: Path) -> None:
    [text] = (b.text for b in blocks((ROOT / "docs/policy.md").read_text()) if b.text.startswith("facts:"))
    etc = shutil.copytree(shipped(), tmp_path / "etc")
    (etc / "cases.yaml").write_text(text)
    (etc / "mail").mkdir()
    story = letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", "To": "ramadan@lists.example.com"})
    (etc / "mail/story.eml").write_bytes(story.raw[:])
    done = running("test")(etc, str(etc / "cases.yaml"))
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    assert "3 cases, all as expected." in done.output


def test_a_wrong_key_is_found() -> None:
    assert faults("relay: {host: a.example.com, prot: 25}\n", settings_schema()) != []
    assert faults("relays: 3\n", settings_schema()) == ["no key relays"]
    assert faults("relay: {host: a.example.com, port: 25}\n", settings_schema()) == []


@by_page
def test_json_and_python_examples_parse(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "json":
            json.loads(block.text)
        if block.language == "python":
            compile(block.text, page.name, "exec")
