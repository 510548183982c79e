"""Members behind Postfix aliases, in the syntax of aliases(5) and virtual(5)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.lists.sources import SourceError, Tally
from smtpguard.lists.sources.maps import aliases, map_path, virtual
from smtpguard.lists.sources.opening import opened
from tests.every import every
from tests.lists.declaring import source as declared
from tests.lists.sources.conftest import Members

ALIASES = """
# who is told
customers: lena@kund.se, Olle Ek <olle@kund.se>,
    buyers,
  # a comment within does not end it
\t"eva ek"@kund.se
Buyers:  bo@kund.se, "|/usr/bin/archive --all, really", /var/mail/archive,
 loyal
loyal: customers@example.com, :include:loyal.txt, \\\\customers
postmaster: root
"odd: name": one@kund.se
empty:
"""
LOYAL = """# loyal since 1999
agda@kund.se
"Ek, Åke" <ake@kund.se>, :include:more.txt
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "aliases").write_text(ALIASES.replace("\\\\", "\\"))
    (tmp_path / "loyal.txt").write_text(LOYAL)
    (tmp_path / "more.txt").write_text("more@kund.se\n buyers\n|/bin/false\n")
    return tmp_path


EVERYBODY = {
    "lena@kund.se",
    "olle@kund.se",
    "eva ek@kund.se",
    "bo@kund.se",
    "agda@kund.se",
    "ake@kund.se",
    "more@kund.se",
}


def test_nested_aliases_includes_and_loops_are_resolved(etc: Path, members: Members) -> None:
    found, tally = members({"aliases": "aliases", "name": ["customers"], "domain": "example.com"})
    assert {address.replace('"', "") for address in found} == {*EVERYBODY, "customers@example.com"}
    assert (tally.ignored, tally.bad) == (3, 0)
    assert members({"aliases": "hash:aliases", "name": "CUSTOMERS@example.com", "domain": "example.com"})[0] == found


def test_a_bare_name_is_a_mailbox_of_the_declared_domain(etc: Path, members: Members) -> None:
    assert members({"aliases": "aliases", "name": "postmaster", "domain": "example.com"})[0] == ["root@example.com"]
    found, tally = members({"aliases": "aliases", "name": "postmaster"})
    assert found == []
    assert [str(row) for row in tally.shown] == ["line 10: a name without a domain (declare domain)"]


def test_quoted_names_and_empty_aliases(etc: Path, members: Members) -> None:
    assert members({"aliases": "aliases", "name": "odd: name"})[0] == ["one@kund.se"]
    assert members({"aliases": "aliases", "name": "empty"})[0] == []


def test_virtual_maps_are_read(tmp_path: Path, members: Members) -> None:
    (tmp_path / "virtual").write_text(
        "# domains\n"
        "kund.example anything\n"
        "customers@example.com lena@kund.se olle@kund.se,bo@kund.se\n"
        "   \tbuyers@example.com\n"
        "Buyers@Example.com\tbo@kund.se, customers@example.com, \"Ek, Eva\" <eva@kund.se>\n"
        "@old.example @new.example\n"
        "info   local\n"
        "nothing@example.com\n"
    )  # fmt: skip
    found, tally = members({"virtual": "texthash:virtual", "name": "customers@example.com"})
    assert found == ["lena@kund.se", "olle@kund.se", "bo@kund.se", "bo@kund.se", "eva@kund.se"]
    assert [str(row) for row in tally.shown] == ["line 8: nothing after the address"]
    assert members({"virtual": "virtual", "name": "info", "domain": "example.com"})[0] == ["local@example.com"]
    assert members({"virtual": "virtual", "name": "info@example.com", "domain": "example.com"})[0] == [
        "local@example.com"
    ]


def test_an_invalid_line_is_reported(tmp_path: Path, members: Members) -> None:
    (tmp_path / "aliases").write_text("customers: lena@kund.se\nno colon here\n")
    found, tally = members({"aliases": "aliases", "name": "customers"})
    assert found == ["lena@kund.se"]
    assert [str(row) for row in tally.shown] == ["line 2: no colon after the alias"]


@every(
    ("name", "content", "why"),
    [
        ("aliases", "/^customers@/ lena@kund.se\n", ":1: a map of patterns"),
        ("virtual", "a@b.se c@d.se\n!/^x/ y@z.se\n", ":2: a map of patterns"),
        ("virtual", "if /example/\nendif\n", ":1: a map of patterns"),
        ("aliases", "customers: \0\1\n", "a compiled map: expected its text"),
        ("aliases", "others: lena@kund.se\n", "no customers is in it"),
        ("aliases", "customers: :include:gone.txt\n", r"gone\.txt: No such file"),
        ("aliases", "customers: a@b.se,\n" + (" " + "c" * 100_000 + ",\n") * 200, "a line longer than 16 MB"),
    ],
)
def test_an_implausible_map_is_refused(tmp_path: Path, members: Members, name: str, content: str, why: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=why):
        members({name: name, "name": "customers"})


def test_each_included_file_is_read_once(tmp_path: Path, members: Members) -> None:
    """Files that include one another end, and so do those of which each includes the next one twice."""
    (tmp_path / "aliases").write_text("customers: :include:0, :include:circle\n")
    (tmp_path / "circle").write_text("eva@kund.se\n:include:./circle\n")
    for n in range(40):
        (tmp_path / str(n)).write_text(f":include:{n + 1}\n" * 2)
    (tmp_path / "40").write_text("lena@kund.se\n")
    assert sorted(members({"aliases": "aliases", "name": "customers"})[0]) == ["eva@kund.se", "lena@kund.se"]


@pytest.mark.parametrize(
    "source",
    [{"csv": "pipe"}, {"text": "pipe"}, *({"aliases": path, "name": "customers"} for path in ("pipe", "aliases"))],
)
def test_a_pipe_is_refused(tmp_path: Path, members: Members, source: dict[str, str]) -> None:
    """Nobody may ever write into it; reading it would not end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "aliases").write_text("customers: :include:pipe\n")
    with pytest.raises(SourceError, match="pipe: Not a regular file"):
        members(source)


def test_an_alias_on_one_long_line_is_read_whole(tmp_path: Path, members: Members) -> None:
    everybody = [f"a.customer.of.ours{n}@customers.kund.example" for n in range(30_000)]
    line = ", ".join(everybody)
    assert len(line) > 1 << 20
    for name, sign in (("aliases", ":"), ("virtual", "")):
        (tmp_path / name).write_text(f"customers{sign} {line}\n")
        assert members({name: name, "name": "customers"})[0] == everybody


def test_lines_without_a_colon_or_a_closing_quote_take_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    path.write_text("a" + " " * 1_000_000 + "b\n" + 'b: "' + '\\"' * 20_000)
    wrong, other = aliases(path)
    assert (wrong.wrong, other.name) == ("no colon after the alias", "b")


def test_a_missing_or_unsupported_map_is_an_error(tmp_path: Path, members: Members) -> None:
    with pytest.raises(SourceError, match="No such file"):
        members({"aliases": "gone", "name": "customers"})
    with pytest.raises(SourceError, match="cannot be read by its text"):
        map_path("mysql:/etc/postfix/aliases.cf", tmp_path)
    assert map_path("lmdb:/etc/aliases", tmp_path) == Path("/etc/aliases")


def test_the_fingerprint_includes_included_files(etc: Path) -> None:
    def fingerprint() -> bytes:
        return opened(declared({"aliases": "aliases", "name": "customers", "domain": "example.com"}), etc).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    (etc / "more.txt").write_text("other@kund.se\n")
    assert fingerprint() != before


@settings(max_examples=150, deadline=None)
@given(st.text('a@b.c:, \t\n"\\|/#<>', max_size=120))
def test_any_text_of_a_map_raises_only_source_errors(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-map"
    path.write_text(content)
    for kind, read in (("aliases", aliases), ("virtual", virtual)):
        try:
            names = [entry.name for entry in read(path) if not entry.wrong]
        except SourceError:
            continue
        for name in names[:3]:
            try:
                list(opened(declared({kind: str(path), "name": name}), path.parent).cells(Tally()))
            except SourceError as error:
                assert "include" in content or "is in it" in str(error)  # noqa: PT017
