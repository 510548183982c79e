"""The manual is complete: every command, option, key, reply and kind of entry. Man pages are well formed and agree with
the docs."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from smtpguard.cli import COMMANDS, main
from smtpguard.config.schema import settings_schema
from smtpguard.journal.event import Kind
from smtpguard.policy.facts import FACTS
from tests.manual.made import ROOT
from tests.manual.roff import page
from tests.messages import template

MEN = sorted((ROOT / "man").iterdir())


def every(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from every(below, f"{path} {name}")


COMMANDS_THERE = dict(every(main, "smtpguard"))


def read(man: Path) -> str:
    """The text of a man page without formatting."""
    text = re.sub(r"\\f[BIR]|\\&", "", man.read_text()).replace("\\-", "-").replace("\\(ti", "~").replace("\\(ha", "^")
    return " ".join(text.replace("\\(ga", "`").replace("\\e", "\\").split())


def test_listing_the_commands_keeps_garbage_collection_on() -> None:
    """Only a command that runs turns it off, and ``main`` turns it on again."""
    assert len(dict(every(main, "smtpguard"))) == len(COMMANDS_THERE)
    assert gc.isenabled()


def test_the_links_leave_out_the_pages_of_dependencies(tmp_path: Path) -> None:
    """``dkimsign.1`` of a dependency would hide the machine's own."""
    opt, local = tmp_path / "opt/share", tmp_path / "local/share"
    ours = {
        "man/man1/smtpguard.1",
        "bash-completion/completions/smtpguard",
        "zsh/site-functions/_smtpguard",
        "fish/smtpguard.fish",
    }
    for name in (*ours, "man/man1/dkimsign.1"):
        (opt / name).parent.mkdir(parents=True, exist_ok=True)
        (opt / name).touch()
    [_, said] = (ROOT / "docs/install.md").read_text().split("### Man pages and completion\n")
    typed = "".join(
        line[4:] for line in said.partition("\n## ")[0].splitlines(keepends=True) if line.startswith("    ")
    )
    typed = typed.replace("/opt/smtpguard/share", str(opt)).replace("/usr/local/share", str(local))
    subprocess.run(["bash", "-eu", "-c", typed], check=True, timeout=120)
    assert {str(file.relative_to(local)) for file in local.rglob("*") if file.is_symlink()} == ours


def test_the_manual_has_every_command_and_option() -> None:
    page, man = (ROOT / "docs/cli.md").read_text(), read(ROOT / "man/smtpguard.1")
    assert len(COMMANDS_THERE) > len(COMMANDS)
    for path, command in COMMANDS_THERE.items():
        section = page if path == "smtpguard" else page.split(f"\n## {path}\n")[1].split("\n## ")[0]
        assert path == "smtpguard" or f".SH {path.upper()}" in man
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name != "config":
                assert all(opt in section for opt in parameter.opts), (path, parameter.opts)
                assert all(opt in man for opt in parameter.opts)


def test_the_manual_has_every_key_with_its_description() -> None:
    page, man = (ROOT / "docs/settings.md").read_text(), read(ROOT / "man/smtpguard.yaml.5")
    schema = settings_schema()
    for model in (schema, *schema["$defs"].values()):
        for key, each in model.get("properties", {}).items():
            assert f"| `{key}` |" in page
            assert each["description"].replace("*", "\\*") in page
            assert " ".join(each["description"].replace("`", "").split()) in man  # keys are bold in a man page


def test_the_manual_has_every_fact_and_kind_of_entry() -> None:
    policy, events = read(ROOT / "man/smtpguard-policy.5"), (ROOT / "docs/events.md").read_text()
    assert [fact for fact in FACTS if f" {fact} " not in policy] == []
    rows = re.findall(r"^\| `([a-z-]+)` \|", events, re.M)
    assert rows == [kind.value for kind in Kind]


@pytest.mark.parametrize("man", MEN, ids=lambda man: man.name)
@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_mandoc_has_no_complaints(man: Path) -> None:
    """mandoc reports nothing but the missing date: the pages name the version instead."""
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", man], capture_output=True, text=True, timeout=120, check=False
    )
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


@pytest.mark.parametrize("man", MEN, ids=lambda man: man.name)
@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
def test_man_shows_pages_without_a_warning(man: Path) -> None:
    environment = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(
        ["man", "--warnings", "-l", man], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout
    assert "SEE ALSO" in done.stdout


def test_markdown_is_converted_to_roff() -> None:
    text = r"""A `code` and **bold** and *weak* [link](https://example.com/a_b), [page](x.md).

## Head

    .begins with a point
    'and a quote \ ~ ^

- one
  goes on
- two

1. first

| Key | Is | Says |
|---|---|---|
| `a` | text | b \| c &lt;d> |
| | | |

'quoted' text
"""
    lines = page("some-thing", 5, "what it is", text, version="9", see=("other(1)", "third(5)")).splitlines()
    assert lines == [
        '.TH "SOME\\-THING" 5 "" "smtpguard 9" "smtpguard"',
        ".SH NAME",
        "some\\-thing \\- what it is",
        ".SH DESCRIPTION",
        "A \\fBcode\\fR and \\fBbold\\fR and \\fIweak\\fR link (https://example.com/a_b), page.",
        ".SH HEAD", ".in +4n", ".EX", "\\&.begins with a point", "\\&'and a quote \\e \\(ti \\(ha", ".EE", ".in",
        ".IP \\(bu 3", "one goes on", ".IP \\(bu 3", "two", ".IP 1. 3", "first",
        ".TP", "\\fBa\\fR", "Is: text", ".br", "b | c <d>", ".TP", "\\&", "\\&",
        ".PP", "\\&'quoted' text",
        ".SH SEE ALSO", ".BR other (1),", ".BR third (5)",
    ]  # fmt: skip


def test_the_wheel_installs_the_pages(tmp_path: Path) -> None:
    """The wheel contains man pages and completion, and the commands of install.md link to them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        shared = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert set(shared) == {f"man/{man.name}" for man in MEN} | {
        f"completions/{each.name}" for each in (ROOT / "completions").iterdir()
    }
    for source, target in shared.items():
        (tmp_path / "opt/smtpguard" / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, tmp_path / "opt/smtpguard" / target)
    section = (ROOT / "docs/install.md").read_text().split("### Man pages and completion\n")[1].split("\n## ")[0]
    script = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    script = script.replace("/opt/", f"{tmp_path}/opt/").replace("/usr/local/", f"{tmp_path}/usr/local/")
    subprocess.run(["sh", "-euc", script], check=True, timeout=60)
    for target in shared.values():
        assert (tmp_path / "usr/local" / target).read_text() == (tmp_path / "opt/smtpguard" / target).read_text()


def test_the_findings_of_audit_verify_are_in_its_words() -> None:
    """Each that the page quotes is a text of the program, with ``...`` for what differs."""
    part = (ROOT / "docs" / "audit.md").read_text().split("## What `audit verify` says")[1].split("\n## ")[0]
    quoted = [
        text
        for line in part.splitlines()
        if line.startswith("| `")
        for text in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert len(quoted) > 15
    texts = [str(part) for one in template() for part in (one.id if isinstance(one.id, tuple) else (one.id,))]
    texts.append((ROOT / "smtpguard" / "cli" / "audit.py").read_text())
    for text in quoted:
        pieces = [piece.strip(" :") for piece in text.split("...") if piece.strip(" :")]
        for piece in pieces:  # a line may be put together from several
            assert any(re.search(rf"(?:^|\W){re.escape(piece)}", each) for each in texts), text


def test_what_the_page_on_the_console_quotes_is_on_its_pages() -> None:
    text = " ".join((ROOT / "docs" / "console.md").read_text().split())
    quoted = set(re.findall(r"(?<![\w*])\*([A-Z][^*|]{3,80}?)\*(?![\w*])", text))
    assert len(quoted) > 15
    texts = [str(part) for one in template() for part in (one.id if isinstance(one.id, tuple) else (one.id,))]
    for each in quoted:
        words = re.sub(r"\d[\d,:]*", ".*", re.escape(each.rstrip(".")).replace("\\ ", " "))
        assert any(re.search(words, one) for one in texts), each
