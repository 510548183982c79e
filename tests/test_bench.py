"""Every benchmark imports, and prints its help."""

from __future__ import annotations

import runpy
import sys

import pytest

OTHERS = (
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
)


@pytest.mark.parametrize("which", ["", *OTHERS])
def test_each_benchmark_prints_its_help(
    which: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *filter(None, [which]), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("bench", run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "usage:" in said
    assert which or [other for other in OTHERS if other not in said] == []
