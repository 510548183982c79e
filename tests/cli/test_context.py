"""The context of every command."""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from smtpguard.cli import COMMANDS, main
from smtpguard.cli.context import CannotRun, Context, as_line, write_new
from smtpguard.config.documents import shipped
from smtpguard.config.statefiles import replace_file
from tests import program
from tests.every import every

ME = pwd.getpwuid(os.getuid()).pw_name


def test_environment_variables_do_not_change_the_journalled_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "eva")
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert Context(config=Path("smtpguard.yaml")).user == ME


def test_root_through_sudo_is_the_calling_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", str(2**31 - 7))  # a user id without a name
    assert Context(config=Path("smtpguard.yaml")).user == f"root (sudo by {2**31 - 7})"
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 9)
    assert Context(config=Path("smtpguard.yaml")).user == str(2**31 - 9), "SUDO_UID counts for root only"


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "FILE", "lists", "show"],
        ["lists", "-c", "FILE", "show"],
        ["lists", "show", "-c", "FILE"],
        ["check", "--config", "FILE"],
        ["check", "--config=FILE"],
    ],
)
def test_the_settings_option_may_follow_the_command(tmp_path: Path, words: list[str]) -> None:
    file = str(tmp_path / "none.yaml")
    done = program.run([word.replace("FILE", file) for word in words], timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"smtpguard: {file}: no such file\n")


@every("word", ["schema settings", "--help", "--version", "held --help"])
def test_a_reader_that_closes_the_output_is_told_no_result(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as ended:
            main(word.split())
    assert ended.value.code == 141


@every(
    ("charset", "typed", "shown"),
    [
        ("utf-8", "räksmörgås", "räksmörgås"), ("latin-1", "räks — 🎉", "räks \\u2014 \\ud83c\\udf89"),
        ("utf-8", "räks".encode().decode("ascii", "surrogateescape"), "räks"),  # the locale C
        ("utf-8", "räks".encode("latin-1").decode("ascii", "surrogateescape"), "räks"),  # a terminal with another encoding
    ],
)  # fmt: skip
def test_words_of_any_encoding_are_taken_and_shown(charset: str, typed: str, shown: str) -> None:
    done = CliRunner(charset=charset).invoke(main, ["-c", f"/nowhere/{typed}", "check"])
    assert done.stderr == f"smtpguard: /nowhere/{shown}: no such file\n"


def test_a_name_in_no_encoding_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "r\udce4ks.yaml"
    file.write_text("relay: 5")
    done = CliRunner().invoke(main, ["--json", "-c", str(file), "check"])
    assert done.exit_code == 1, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["file"] == str(file)


def test_json_controls_no_terminal() -> None:
    row = {"subject": "\x9b31m\u202eevil\x7f \x1b[2J\nB\u00e5de \U0001f600"}
    line = as_line(row)
    assert line.isprintable()
    assert "B\u00e5de" in line
    assert json.loads(line) == row


def test_another_broken_pipe_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("smtpguard.cli.check.policy_schema", broken)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as ended:
            main(["schema"])
    assert (ended.value.code, capsys.readouterr().err) == (2, "smtpguard: Broken pipe\n")


def test_a_question_without_an_answer_says_what_is_needed() -> None:
    """The answer no is one, and needs no words."""
    done = [CliRunner().invoke(main, ["privacy", "erase", "a@example.com"], input=answer) for answer in ("", "n\n")]
    assert [one.exit_code for one in done] == [130, 130]
    assert ["smtpguard: nobody has answered" in one.stderr for one in done] == [True, False]


def test_no_color_leaves_colours_out(tmp_path: Path) -> None:
    (tmp_path / "smtpguard.yaml").write_text("policy: policy.yaml\n")
    words = ["-c", str(tmp_path / "smtpguard.yaml"), "status"]
    shown = [CliRunner().invoke(main, words, color=True, env={"NO_COLOR": value}).output for value in ("", "1")]
    assert ["\x1b[31m" in output for output in shown] == [True, False]


def numbers(command: click.Command) -> Iterator[click.Parameter]:
    """Every parameter of a command and those below it that takes a whole number."""
    for each in command.params:
        if isinstance(each.type, click.types.IntParamType):
            yield each
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                if (below := command.get_command(context, name)) is not None:
                    yield from numbers(below)


@every("given", ["9" * 13, "9" * 20, "9" * 5000])
def test_numbers_that_no_database_takes_are_refused(given: str) -> None:
    found = list(numbers(main))
    assert len(found) > 10
    for each in found:
        with pytest.raises(click.BadParameter):
            each.type.convert(given, each, None)
    done = CliRunner().invoke(main, ["mailings", "list", "--limit", "9" * 20])
    assert done.exit_code == 2
    assert f"Invalid value for '--limit': {'9' * 20} is too large; expected at most 1000000000000" in done.output


def test_the_help_of_a_group_has_the_whole_first_sentence_of_each_command() -> None:
    held, incident = (program.run([name, "--help"], timeout=120).stdout for name in ("held", "incident"))
    assert "Export a message, byte for byte as it came, and all that is known of it." in " ".join(held.split())
    assert "the 72 hours of GDPR Art. 33(1) run from then." in " ".join(incident.split())


@every("name", ["held", "lists", "mailings", "returns", "tokens", "users"])
def test_the_help_names_each_command_of_a_group(name: str) -> None:
    group = main.get_command(click.Context(main), name)
    assert isinstance(group, click.Group)
    assert set(group.commands) <= set(re.split("[:;,. ]+", COMMANDS[name][1]))


SLOW_MODULES = frozenset(
    {
        "sqlalchemy",
        "alembic",
        "starlette",
        "uvicorn",
        "joserfc",
        "httpx2",
        "prometheus_client",
        "cryptography",
        "jinja2",
        "segno",
        "zstandard",
    }
)
LOADED = """
import sys
from smtpguard.cli import COMMANDS, main
try:
    main(sys.argv[1:])
finally:
    print(*sorted({module.partition(".")[0] for module in sys.modules}))
"""


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ("check", set()),
        ("explain none.eml", set()),
        ("users list", {"sqlalchemy"}),
        ("status", {"sqlalchemy"}),
        ("held list", {"sqlalchemy"}),
    ],
)
def test_a_command_imports_only_what_it_uses(tmp_path: Path, words: str, needs: set[str]) -> None:
    """A command without a store loads no database, and one without pages no console, since imports delay it."""
    config = shutil.copytree(shipped(), tmp_path / "etc") / "smtpguard.yaml"
    command = [sys.executable, "-c", LOADED, "-c", str(config), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    assert "smtpguard" in loaded
    assert SLOW_MODULES.intersection(loaded) == needs


@contextmanager
def room(octets: int) -> Iterator[None]:
    """No file can be larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_cannot_be_written_whole_are_not_there(tmp_path: Path) -> None:
    first, path = tmp_path / "held.eml", tmp_path / "held.json"
    with room(8), pytest.raises(CannotRun, match=f"^{path}: File too large$"):
        write_new({first: b"whole", path: bytes(9)})
    assert not list(tmp_path.iterdir()), "else they could not be written again"
    write_new({first: b"whole", path: b"whole"})


def test_a_file_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with room(8), pytest.raises(OSError, match="File too large") as refused:
        replace_file(path, bytes(9), durable=True)
    assert refused.value.filename == str(path)


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR])
def test_files_are_written_where_all_files_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    opened = os.open

    def refused(path: Any, flags: int, *more: Any, **and_more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(error, os.strerror(error))
        return opened(path, flags, *more, **and_more)

    monkeypatch.setattr(os, "open", refused)
    path = tmp_path / "held.eml"
    write_new({path: b"whole"})
    with pytest.raises(CannotRun, match=f"^{path}: File exists$"):
        write_new({path: b"other"})
    assert (path.read_bytes(), [*tmp_path.iterdir()]) == (b"whole", [path])


def test_of_several_files_none_is_new_if_one_is_there(tmp_path: Path) -> None:
    first, second = tmp_path / "held.eml", tmp_path / "held.json"
    first.write_text("mine")
    with pytest.raises(CannotRun, match=f"^{first}: File exists$"):
        write_new({first: b"whole", second: b"whole"})
    assert (first.read_text(), [*tmp_path.iterdir()]) == ("mine", [first])


KILLED_AT_A_NAME = """
import os, signal, sys
from pathlib import Path
from smtpguard.cli.context import write_new
link, names = os.link, int(sys.argv[2])
def killed(*given, **more):
    global names
    if not names:
        os.kill(os.getpid(), signal.SIGKILL)
    names -= 1
    link(*given, **more)
os.link = killed
first = Path(sys.argv[1])
write_new({first: b"whole", first.with_suffix(".json"): b"whole"})
"""


@pytest.mark.parametrize("names", [0, 1])
def test_a_killed_export_leaves_no_draft_and_no_message_alone(tmp_path: Path, names: int) -> None:
    argv = [sys.executable, "-c", KILLED_AT_A_NAME, str(tmp_path / "held.eml"), str(names)]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["held.json"][:names]


KILLED = """
import resource, signal, sys
from pathlib import Path
from smtpguard.cli.context import write_new
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))
write_new({Path(sys.argv[1]): bytes(9)})
"""


def test_a_file_whose_writer_was_killed_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "held.eml"
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGXFSZ, "the kernel kills it after 8 octets"
    assert not path.exists()
    write_new({path: b"whole"})
    assert path.read_bytes() == b"whole"
    with pytest.raises(CannotRun, match=f"^{path}: File exists$"):
        write_new({path: b"other"})
    assert path.read_bytes() == b"whole"
