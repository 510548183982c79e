"""The files of the manual with their expected text. ``make generated`` writes them, and a test fails where a file
differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from smtpguard import __version__
from smtpguard.cli import main
from tests.manual import reference
from tests.manual.roff import page

ROOT = Path(__file__).parents[2]
PAGES = {
    "cli": reference.commands,
    "settings": reference.settings,
    "policy-keys": reference.policy_keys,
    "events": reference.events,
    "replies": reference.replies,
}
"""Pages of docs/ that are written by hand up to MADE, and generated after it."""
MADE = "<!-- From here on: make generated -->\n"
SHELLS: Mapping[str, tuple[type[ShellComplete], str]] = {
    "smtpguard.bash": (BashComplete, "# Completes the commands and options of smtpguard in bash.\n"),
    "_smtpguard": (ZshComplete, ""),  # its first line must be #compdef
    "smtpguard.fish": (FishComplete, "# Completes the commands and options of smtpguard in fish.\n"),
}


def manual(policy: str) -> Mapping[Path, str]:
    """File -> text, of the pages, man pages and completion files. ``policy``: the text of docs/policy.md, with its tables."""
    pages = {ROOT / f"docs/{name}.md": _beginning(name) + MADE + "\n" + made() for name, made in PAGES.items()}
    text = {path.stem: _below_title(text) for path, text in pages.items()}
    men = {
        "smtpguard.1": page(
            "smtpguard", 1, "hold internal-looking mail to customer lists", text["cli"],
            version=__version__, see=("smtpguard.yaml(5)", "smtpguard-policy(5)"),
        ),
        "smtpguard.yaml.5": page(
            "smtpguard.yaml", 5, "settings of smtpguard", text["settings"],
            version=__version__, see=("smtpguard(1)", "smtpguard-policy(5)"),
        ),
        "smtpguard-policy.5": page(
            "smtpguard-policy", 5, "who may write to whom, and what is held until people have decided",
            f"{_below_title(policy)}\n## All keys\n\n{_deeper(text['policy-keys'])}",
            version=__version__, see=("smtpguard(1)", "smtpguard.yaml(5)"),
        ),
    }  # fmt: skip
    shells = {
        ROOT / "completions" / name: head + shell(main, {}, "smtpguard", "_SMTPGUARD_COMPLETE").source().strip() + "\n"
        for name, (shell, head) in SHELLS.items()
    }
    return {**pages, **{ROOT / "man" / name: text for name, text in men.items()}, **shells}


def _beginning(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text().partition(MADE)[0]


def _below_title(text: str) -> str:
    return text.replace(MADE, "").partition("\n")[2]


def _deeper(text: str) -> str:
    return "\n".join(f"#{line}" if line.startswith("##") else line for line in text.split("\n"))
