"""A read-only database file: detected as such, and never read while another process writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from smtpguard.database import engine as database
from smtpguard.database.engine import Database
from smtpguard.database.errors import Unavailable
from smtpguard.database.files import ReadOnlyCopy, only_readable
from smtpguard.database.migrate import migrate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "100% a #copy.db"
    migrate(f"sqlite:///{path}")
    return path


def test_a_writable_file_is_no_copy(file: Path, tmp_path: Path) -> None:
    assert not only_readable(file)
    assert not only_readable(tmp_path / "none.db"), "a missing file may be created"


def test_a_file_that_changes_while_read_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Database(f"sqlite:///{file}")
    monkeypatch.setattr(database, "only_readable", lambda path: True)
    reading = Database(f"sqlite:///{file}", reads=True)
    try:
        with reading.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM entry")).scalar() == 0
        with pytest.raises(Unavailable, match="can only be read"), reading.write():
            raise AssertionError("nothing is written")
        with writing.write() as connection:
            connection.execute(text("UPDATE head SET generation = 7"))
        with pytest.raises(Unavailable, match="is being written by another process: try again"), reading.read() as rest:
            rest.execute(text("SELECT generation FROM head"))
    finally:
        writing.close()
        reading.close()


def test_a_symbolic_link_is_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").symlink_to(file)
    copy = ReadOnlyCopy(tmp_path / "beside")
    copy.check()
    assert copy.uri.endswith("?mode=ro&immutable=1")
