"""Every benchmark imports, and prints its help."""

from __future__ import annotations

import runpy
import sys

import pytest


@pytest.mark.parametrize(
    "which",
    [
        "",
        "--mailings",
        "--journal",
        "--lists",
        "--flood",
        "--counted",
        "--month",
        "--milter",
        "--console",
        "--house",
        "--rest",
    ],
)
def test_each_benchmark_prints_its_help(
    which: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *filter(None, [which]), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("bench", run_name="__main__")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out
