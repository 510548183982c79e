"""Building the index of a long list in a subprocess: the same index, and none after any failure."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smtpguard.lists import writing
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import Index
from smtpguard.lists.sources import SourceError
from smtpguard.lists.writing import build, serve

DIGESTER = Digester(b"k" * 32, "+ qmail.example=-")
AT = datetime(2026, 3, 2, tzinfo=UTC)
KEYS = [f"person{n}@kund.se" for n in range(1000)] + ["\u00e5sa o'neil@b\u00fccher.example"]


def built(path: Path, keys: Iterator[str]) -> Path:
    return build(path, keys, DIGESTER, built_at=AT, fingerprint=b"f" * 32)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "WORKER_FROM", 10)
    monkeypatch.setattr(writing, "KEYS", 64)


def test_the_subprocess_builds_the_same_index(tmp_path: Path, long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = built(tmp_path / "a.index", iter(KEYS))
    monkeypatch.setattr(writing, "WORKER_FROM", 10_000)
    here = built(tmp_path / "b.index", iter(KEYS))
    assert beside.read_bytes() == here.read_bytes()
    index = Index(beside, DIGESTER.key_id)
    assert (index.people, index.built_at, index.fingerprint) == (1001, AT, b"f" * 32)
    assert all(DIGESTER.of_canonical(key) in index for key in KEYS)


def test_a_source_that_fails_midway_leaves_no_file(tmp_path: Path, long: None) -> None:
    def failing() -> Iterator[str]:
        yield from KEYS[:500]
        raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        built(tmp_path / "a.index", failing())
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_folder_or_dead_process_leaves_no_index(
    tmp_path: Path, long: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        built(tmp_path / "file" / "a.index", iter(KEYS))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="has ended"):
        built(tmp_path / "a.index", iter(KEYS * 1000))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_truncated_input_builds_no_index(tmp_path: Path) -> None:
    task = {
        "path": str(tmp_path / "a.index"),
        "key": "6b" * 32,
        "delimiters": "+",
        "built_at": AT.isoformat(),
        "fingerprint": "66" * 32,
    }
    whole = json.dumps(task).encode() + b"\n" + b"\0\0\0\x07a@x\nb@x" + b"\0\0\0\0"
    for end in range(whole.index(b"\n") + 1, len(whole)):
        answer = io.BytesIO()
        assert serve(io.BytesIO(whole[:end]), answer) == 1
        assert not answer.getvalue()
        assert list(tmp_path.iterdir()) == []
    answer = io.BytesIO()
    assert serve(io.BytesIO(whole), answer) == 0
    assert Index(Path(answer.getvalue().decode().split()[1]), Digester(b"k" * 32, "+").key_id).people == 2


def test_the_key_is_not_in_the_command_line(tmp_path: Path, long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    popen = subprocess.Popen

    def watched(argv: list[str], **more: Any) -> object:
        seen.append(argv)
        return popen(argv, **more)

    monkeypatch.setattr("smtpguard.lists.writing.subprocess.Popen", watched)
    built(tmp_path / "a.index", iter(KEYS))
    assert seen == [[sys.executable, "-P", "-m", "smtpguard.lists"]]
