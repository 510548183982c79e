"""Every benchmark can be asked what it does: its names are those of the program that it measures."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "which", ["", "--mailings", "--journal", "--lists", "--flood", "--month", "--milter", "--console", "--house"]
)
def test_a_benchmark_says_what_it_does(which: str) -> None:
    argv = [sys.executable, "-m", "bench", *filter(None, [which]), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
