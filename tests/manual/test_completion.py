"""The shipped completion files complete commands, options, and values of options in each shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.manual.made import ROOT
from tests.program import Door

ASKED = {
    "smtpguard hel": {"held"},
    "smtpguard held app": {"approve"},
    "smtpguard held approve --a": {"--as", "--all-at-once"},
    "smtpguard held list --state rel": {"releasing", "released"},
    "smtpguard -c smtpguard.yaml freeze --th": {"--thread"},
}
FOUND = {
    "bash": """
compopt() { :; }
source "$FILE"
COMP_WORDS=($LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_smtpguard_completion smtpguard
printf '%s\\n' "${COMPREPLY[@]}"
""",
    # compsys needs a terminal, so the stubs print what the function would pass to it
    "zsh": """
compdef() { :; }
compadd() { print -l -- "${(@)completions}"; }
_describe() { print -l -- "${(@)completions_with_descriptions%%:*}"; }
source "$FILE"
words=(${=LINE}); CURRENT=${#words}
_smtpguard_completion
""",
    "fish": """
source "$FILE"
complete -C "$LINE"
""",
}
FILES = {"bash": "smtpguard.bash", "zsh": "_smtpguard", "fish": "smtpguard.fish"}
BARE = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}


@pytest.mark.parametrize("line", ASKED)
@pytest.mark.parametrize("shell", FOUND)
def test_each_shell_completes(shell: str, line: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    command = tmp_path / "smtpguard"
    command.write_text(f'#!/bin/sh\nexec "{tmp_path}/python" -P -m smtpguard "$@"\n')
    command.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "LINE": line, "LC_ALL": "C.UTF-8",
        "FILE": str(ROOT / "completions" / FILES[shell])
    }  # fmt: skip
    with closing(Door(tmp_path / "python")):
        done = subprocess.run(
            [program, *BARE[shell], "-c", FOUND[shell]],
            capture_output=True, text=True, timeout=600, check=False, env=environment, cwd=tmp_path,
        )  # fmt: skip
    assert {found.split("\t")[0] for found in done.stdout.split("\n")} - {""} == ASKED[line], done.stderr
