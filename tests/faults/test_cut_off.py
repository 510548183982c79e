"""Commands that are killed between two changes to files: each can be run again, and nothing of it stays."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpguard.cli.init import _TRIAL
from tests import program
from tests.cli.test_another_store import Installation
from tests.faults.machine import ROOT
from tests.peers.chain import PATIENCE
from tests.peers.postfix import free_port


def cut(folder: Path, at: int, *argv: str) -> subprocess.CompletedProcess[str]:
    words = [str(folder), str(at), *argv]
    return program.run(words, timeout=PATIENCE, cwd=ROOT, env=dict(os.environ), module="tests.faults.cut")


def cuts(folder: Path, *argv: str) -> Iterator[int]:
    """Kill the command before each change, until it ends by itself."""
    for at in itertools.count(1):
        done = cut(folder, at, *argv)
        if done.returncode != -signal.SIGKILL:
            assert (at > 2, done.returncode) == (True, 0), done
            return
        yield at


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_init(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    argv = ["-c", str(etc / "smtpguard.yaml"), "init", "--yes", "--domain", "example.com", "--approver",
            "eva@example.com", "--relay", f"127.0.0.1:{free_port()}"]  # fmt: skip
    both = ["policy.yaml", "smtpguard.yaml"]
    for at in cuts(etc, *argv):
        done = program.run(argv, timeout=PATIENCE, cwd=ROOT)
        if done.returncode:
            assert "smtpguard.yaml exists, and is not overwritten" in done.stderr, (at, done)
        assert names(etc) == both, at
        for file in etc.iterdir():
            file.unlink()
    assert names(etc) == both


def test_init_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    """A policy that stands beside what a killed ``init`` has left, and is another file; a folder of the user's."""
    for folder in (f"{_TRIAL}abc", ".init-scripts"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "policy.yaml").write_text("# half\n")
    (tmp_path / "policy.yaml").write_text("# half\n")
    (tmp_path / f"{_TRIAL}link").symlink_to(tmp_path / ".init-scripts")
    done = program.run(["-c", str(tmp_path / "smtpguard.yaml"), "init"], timeout=PATIENCE, cwd=ROOT)
    assert (done.returncode, names(tmp_path)) == (2, [".init-scripts", f"{_TRIAL}link", "policy.yaml"]), done


def test_restore_puts_the_secret_on_another_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody else can read it at any time, and it is whole or not there; nothing of the backup stays beside."""
    home, safe, file = Installation(tmp_path, capsys), tmp_path / "safe", tmp_path / "guard.tar.zst"
    safe.mkdir()
    home.config.write_text(f"{home.config.read_text()}secret_file: {safe}/secret\n")
    home.start()
    secret = (safe / "secret").read_bytes()
    assert home.run("backup", str(file))[0] == 0
    argv = ["-c", str(home.config), "restore", "--yes", str(file)]

    def new() -> None:
        shutil.rmtree(home.state)
        for each in safe.iterdir():
            each.unlink()

    new()
    for at in cuts(safe, *argv):
        assert not (home.state / "guard.db").exists() or (safe / "secret").exists(), at
        assert [each.name for each in safe.iterdir() if each.stat().st_mode & 0o077] == [], at
        done = program.run(argv, timeout=PATIENCE, cwd=ROOT)
        assert (done.returncode, (safe / "secret").read_bytes()) == (0, secret), (at, done)
        assert (names(safe), [*home.state.glob(".smtpguard-*")]) == (["secret"], []), at
        new()
    assert names(safe) == ["secret"]
