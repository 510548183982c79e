"""Member files as list servers and spreadsheets write them, good and bad, and compressed."""

from __future__ import annotations

import gzip
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.lists.sources import SourceError, Tally, addresses
from smtpguard.lists.sources.files import CsvTable, FileSource, TextTable
from smtpguard.lists.sources.opening import opened
from tests.every import every
from tests.lists.declaring import source as declared

Read = Callable[..., tuple[list[str], Tally]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def of(content: str | bytes, **options: Any) -> tuple[list[str], Tally]:
        path = tmp_path / "members.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        tally = Tally()
        return [str(a) for a in addresses(FileSource(path, CsvTable(**options)), tally)], tally

    return of


TWO = ["lena@kund.se", "olle@kund.se"]

MAILCHIMP = (
    '\ufeff"Email Address","First Name","Last Name",MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,LATITUDE,'
    "LONGITUDE,GMTOFF,DSTOFF,TIMEZONE,CC,REGION,LAST_CHANGED,LEID,EUID,NOTES,TAGS\r\n"
    'lena@kund.se,Lena,"Ek, fil. dr",3,,,"2024-05-01 10:00:00",192.0.2.9,,,,,,,,"2024-05-01 10:00:00",1,a1,,"""Trogen"",""Lund"""\r\n'
    'olle@kund.se,,,2,,,"2024-06-01 10:00:00",,,,,,,,,"2024-06-01 10:00:00",2,b2,,\r\n'
)
LISTMONK = (
    "uuid,email,name,attributes,status,created_at,updated_at\n"
    'aaaa,lena@kund.se,Lena Ek,"{""city"": ""Lund""}",enabled,2024-01-02T03:04:05Z,2024-01-02T03:04:05Z\n'
    "bbbb,olle@kund.se,Olle,{},enabled,2024-01-02T03:04:05Z,2024-01-02T03:04:05Z\n"
    "cccc,gone@kund.se,Gone,{},blocklisted,2024-01-02T03:04:05Z,2024-01-02T03:04:05Z\n"
)


@every(
    ("content", "options"),
    [
        (MAILCHIMP, {}),
        (MAILCHIMP, {"column": "email address"}),
        (LISTMONK, {}),
        ("email\nlena@kund.se\nolle@kund.se\n", {}),
        ("lena@kund.se\nolle@kund.se", {}),
        ("lena@kund.se\rolle@kund.se\r", {}),
        ("\n\nemail\n\nlena@kund.se\n , \nolle@kund.se\n\n", {}),
        ("Namn;E-post;Ort\nEk, Lena;lena@kund.se;Lund\nOlle;olle@kund.se;Umeå\n", {}),
        ("name\temail\nEk, Lena\tlena@kund.se\nOlle\tolle@kund.se\n", {}),
        ("name|contact\nLena|lena@kund.se\nOlle|olle@kund.se\n", {"column": "Contact"}),
        ("name|contact\nLena|lena@kund.se\nOlle|olle@kund.se\n", {"column": 2}),
        ("Lena,lena@kund.se\nOlle,olle@kund.se\n", {"column": 2}),
        ("Lena,lena@kund.se\nOlle,olle@kund.se\n", {}),
        ("name,contact\nLena,lena@kund.se\nOlle,olle@kund.se\n", {"column": 2, "header": True}),
        ('email\n"Lena Ek <lena@kund.se>"\nmailto:olle@kund.se\n', {}),
        ("email\n lena@kund.se \n\u00a0olle@kund.se;\n", {}),
        ('email,note\nlena@kund.se,"two\nlines"\nolle@kund.se,x\n', {}),
    ],
)
def test_exports_of_common_programs_are_read(read: Read, content: str, options: dict[str, Any]) -> None:
    found, tally = read(content, **options)
    assert found == TWO
    assert tally.bad == 0
    assert tally.done == tally.size


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("namn;email\nÅsa;lena@kund.se\nBjörn;olle@kund.se\n".encode("cp1252"), {}),
        ("namn;email\nÅsa;lena@kund.se\nBjörn;olle@kund.se\n".encode("cp1252"), {"encoding": "cp1252"}),
        ("namn;email\nÅsa;lena@kund.se\nBjörn;olle@kund.se\n".encode("utf-16"), {}),
        ("namn;email\nÅsa;lena@kund.se\nBjörn;olle@kund.se\n".encode("utf-16-le"), {"encoding": "utf-16-le"}),
    ],
)
def test_encodings_are_read(read: Read, content: bytes, options: dict[str, Any]) -> None:
    assert read(content, **options)[0] == TWO


def test_an_address_in_another_encoding_is_a_bad_row(read: Read) -> None:
    content = "email\nåsa@kund.se\nlena@kund.se\nolle@kund.se\n".encode("latin-1")
    found, tally = read(content)
    assert found == TWO
    assert str(tally.shown[0]) == "line 2: characters in another encoding than expected"
    assert read(content, encoding="latin-1")[0] == ["åsa@kund.se", *TWO]


def test_unsubscribed_people_are_left_out_unless_all_count(read: Read) -> None:
    found, tally = read(LISTMONK)
    assert found == TWO
    assert (tally.rows, tally.unmailed, tally.bad) == (3, 1, 0)
    assert len(read(LISTMONK, statuses="all")[0]) == 3
    other = "email,state\nlena@kund.se,new word\nolle@kund.se,\nx@kund.se,Unsubscribed\n"
    assert read(other, status_column="STATE")[0] == TWO
    assert len(read(other)[0]) == 3


def test_bad_rows_are_reported_by_line_without_content(read: Read) -> None:
    found, tally = read('email,n\nlena@kund.se,1\nnot-an-address,2\n,3\n"lena"@x,4\nolle@kund.se,5\n', column="email")
    assert found == TWO
    assert [str(row) for row in tally.shown] == [
        "line 3: not a mailbox: expected local-part@domain",
        "line 4: no address",
        "line 5: quotes in the wrong place",
    ]
    found, tally = read("n,email\n1\n2,lena@kund.se\n3,olle@kund.se\n")
    assert found == TWO
    assert str(tally.shown[0]) == "line 2: 1 columns, and the address is in column 2"
    assert len(read("email\n" + "bad\n" * 100)[1].shown) == 20


@every(
    ("content", "options", "problem"),
    [
        ("", {}, "empty"),
        ("\ufeff\r\n", {}, "empty"),
        ("a,b\n1,2\n", {}, "declare column"),
        ("name,email\nLena,lena@kund.se\n", {"column": "mejl"}, 'no column "mejl": it has name, email'),
        ("lena@kund.se\n", {"column": "email"}, "no header"),
        ("\x1b[2Jname\nLena\n", {"column": "email"}, r"it has \?\[2Jname$"),
        ("name,email\nLena,lena@kund.se\n", {"column": 3}, "no column 3: the file has 2"),
        ("name,email\nLena,lena@kund.se\n", {"column": 0}, "no column 0"),
        ("email,x\nlena@kund.se,1\n", {"status_column": "state"}, 'no column "state"'),
        ('email,n\nlena@kund.se,"open\nolle@kund.se,x\n', {}, ":2: a quote that opens here never closes"),
        ('email,n\na@b.se,"' + "c@d.se,x\n" * 200 + '"\n', {}, ":2: a quote that opens here never closes"),
        ('email,n\na@b.se,"' + "x" * 200_000 + '"\n', {}, ":2: a quote"),
        ("email,n\na@b.se," + "x" * (1 << 18) + "\n", {}, ":2: .* a value is longer than 128 KB"),
        ("email\n" + "x" * (2 << 20), {}, "a line longer than 1 MB"),
        ("x" * (2 << 20), {}, "a line longer than 1 MB"),
        (b"PK\x03\x04\x00\x00", {}, "not text"),
        ("email\nx@y.se\n", {"encoding": "klingon"}, "no such encoding"),
        ("email\nåsa@y.se\n", {"encoding": "ascii"}, "declared encoding"),
    ],
)
def test_an_implausible_file_is_refused(
    read: Read, content: str | bytes, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SourceError, match=problem):
        read(content, **options)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = FileSource(tmp_path / "gone.csv", CsvTable())
    with pytest.raises(SourceError, match=r"gone\.csv: No such file"):
        list(source.cells(Tally()))
    with pytest.raises(SourceError, match="No such file"):
        source.fingerprint()
    with pytest.raises(SourceError, match="No such file"):
        FileSource(tmp_path / "gone.txt", TextTable()).fingerprint()


def test_text_files_are_read(tmp_path: Path) -> None:
    def found(content: str) -> list[str]:
        (tmp_path / "m.txt").write_text(content)
        return [str(a) for a in addresses(opened(declared({"text": "m.txt"}), tmp_path), Tally())]

    assert found('lena@kund.se\nOlle O <olle@kund.se>\n"Ek, Eva" <eva@kund.se>\n') == [*TWO, "eva@kund.se"]
    assert found("\ufeff# members\n\nlena@kund.se\r\nolle@kund.se") == TWO
    assert (
        found("email lena@kund.se\ngecos Lena Ek\nreception mail\n\nemail olle@kund.se\ngecos bo@else.where\ndate 1\n")
        == TWO
    )


def test_bad_lines_of_text_files_are_reported(tmp_path: Path) -> None:
    long = b"x" * 9000
    lines = [
        b"lena@kund.se",
        b"nobody",
        b"\xe5sa@kund.se",
        long + b" hidden@kund.se",
        b"#" + long,
        b"olle@kund.se",
        long,
    ]
    (tmp_path / "m.txt").write_bytes(b"\n".join(lines))
    tally = Tally()
    found = [str(one) for one in addresses(opened(declared({"text": "m.txt"}), tmp_path), tally)]
    assert found == ["lena@kund.se", "olle@kund.se"]
    assert (tally.rows, tally.bad) == (6, 4)
    assert [(row.line, "4 KB" in row.why) for row in tally.shown] == [(2, False), (3, False), (4, True), (7, True)]
    (tmp_path / "m.txt").write_bytes(b"email lena@kund.se\nattributes " + long + b"\nemail olle@kund.se\n")
    tally = Tally()
    assert len(list(addresses(opened(declared({"text": "m.txt"}), tmp_path), tally))) == 2
    assert (tally.rows, tally.bad) == (2, 0)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text('email,;"\n\r\t|@a.se <>', max_size=200).map(str.encode))
def test_any_content_raises_only_source_errors(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    for table in (CsvTable(), CsvTable(column=1), TextTable()):
        tally = Tally()
        try:
            found = list(addresses(FileSource(path, table), tally))
        except SourceError:
            continue
        assert len(found) + tally.bad + tally.unmailed == tally.rows


Pack = Callable[[bytes], bytes]

ROWS = b"email\n" + b"".join(b"k%d@kund.se\n" % n for n in range(3000))
PACKERS = pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress], ids=["gzip", "zstd"]
)


def read_packed(path: Path, table: CsvTable | TextTable | None = None) -> tuple[int, Tally]:
    tally = Tally()
    return sum(1 for _ in addresses(FileSource(path, table or CsvTable()), tally)), tally


@PACKERS
def test_compressed_files_are_read_like_others(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members.csv"  # the name does not matter
    path.write_bytes(pack(ROWS))
    found, tally = read_packed(path)
    assert (found, tally.bad) == (3000, 0)
    assert tally.done == tally.size == path.stat().st_size
    path.write_bytes(pack(b"lena@kund.se\nolle@kund.se\n"))
    assert read_packed(path, TextTable())[0] == 2


@PACKERS
def test_concatenated_members_are_read(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    path.write_bytes(pack(ROWS) + pack(b"one@kund.se\n") + pack(b"") + pack(b"two@kund.se\n"))
    assert read_packed(path)[0] == 3002


@PACKERS
def test_a_truncated_file_is_refused(tmp_path: Path, pack: Pack) -> None:
    whole = pack(ROWS[:2000])
    path = tmp_path / "members"
    for end in range(4, len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(SourceError, match="ends in the middle"):
            read_packed(path)


@PACKERS
def test_damage_and_trailing_data_are_refused(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    whole = bytearray(pack(ROWS))
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(SourceError, match=r"damaged|ends in the middle|a quote"):
        read_packed(path)
    path.write_bytes(pack(ROWS) + b"and more")
    with pytest.raises(SourceError, match="something else follows"):
        read_packed(path)


@PACKERS
def test_an_empty_compressed_file_is_empty(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    path.write_bytes(pack(b""))
    with pytest.raises(SourceError, match="empty"):
        read_packed(path)


def test_zstd_with_too_large_a_window_is_refused(tmp_path: Path) -> None:
    """zstd with too large a window is refused: its header alone claims the memory (RFC 8878 section 3.1.1.1.2)."""
    path = tmp_path / "members"
    last_block = b"\x01\x00\x00"
    for exponent, fine in ((17, True), (18, False)):
        path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes([0, exponent << 3]) + last_block)
        with pytest.raises(SourceError, match="empty" if fine else "damaged zstd data"):
            read_packed(path)


@PACKERS
def test_a_file_that_unpacks_to_much_takes_little_memory(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    line = b"x" * 60 + b"@kund.se\n"
    path.write_bytes(pack(line * 400_000))  # 28 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in FileSource(path, TextTable()).cells(Tally())) == 400_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([gzip.compress, zstandard.compress, bytes]), st.integers(0, 500))
def test_any_compressed_content_reads_like_plain_content(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pack: Pack, flip: int
) -> None:
    """Compressed content reads like plain content; a damaged file raises SourceError or is read, but raises nothing
    else."""
    path = tmp_path_factory.getbasetemp() / "packed"

    def outcome(octets: bytes) -> object:
        path.write_bytes(octets)
        try:
            return [text for _, text in FileSource(path, TextTable()).cells(Tally())]
        except SourceError:
            return SourceError

    if not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        assert outcome(pack(content)) == outcome(content)
    packed = bytearray(pack(content))
    if packed:
        packed[flip % len(packed)] ^= 1 << flip % 8
        outcome(bytes(packed))
