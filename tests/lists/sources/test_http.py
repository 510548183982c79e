"""Members from a web server: formats, paths in JSON, conditional requests, redirects, secrets, limits and failures."""

from __future__ import annotations

import gzip
import io
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.lists.sources import Source, SourceError, Tally, addresses
from smtpguard.lists.sources import jsontable as source_json
from smtpguard.lists.sources.jsontable import JsonTable
from smtpguard.lists.sources.opening import opened
from tests.every import every
from tests.lists.declaring import source as declared
from tests.lists.sources.conftest import Members
from tests.lists.sources.website import Website, say

CSV = b"email,name\nlena@kund.se,Lena\nolle@kund.se,Olle\n"
TWO = ["lena@kund.se", "olle@kund.se"]
LONG = b"email,note\n" + (b"k@kund.se," + b"x" * 1000 + b"\n") * 1100
TOKEN = "a token of tests"
Open = Callable[..., Source]


@pytest.fixture
def site() -> Iterator[Website]:
    with Website() as running:
        yield running


@pytest.fixture
def open_(site: Website, tmp_path: Path) -> Iterator[Open]:
    """A function that opens sources for one page, with a state folder; they are closed at the end."""
    left: list[Source] = []

    def of(**options: Any) -> Source:
        left.append(opened(declared({"http": f"{site.url}/members", **options}), tmp_path, state=tmp_path / "state"))
        return left[-1]

    yield of
    for source in left:
        source.close()


def found(source: Source) -> list[str]:
    return [str(a) for a in addresses(source, Tally())]


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (CSV, {}),
        (b"lena@kund.se\nolle@kund.se\n", {}),
        (b"name;mejl\nLena;lena@kund.se\nOlle;olle@kund.se\n", {"column": "mejl"}),
        (b"# two\nLena <lena@kund.se>\nolle@kund.se\n", {"format": "text"}),
        (b'{"members": [{"email": "lena@kund.se"}, {"email": "olle@kund.se"}]}', {"json": "members[].email"}),
        (gzip.compress(CSV), {}),
    ],
    ids=["csv", "one a line", "semicolons", "text", "json", "a file that is packed"],
)
def test_tables_are_read(site: Website, members: Members, body: bytes, options: dict[str, Any]) -> None:
    site.answer = lambda request: say(request, body)
    found, tally = members({"http": f"{site.url}/members?of=all", **options})
    assert found == TWO
    assert (tally.rows, tally.bad, tally.done) == (2, 0, len(body))
    assert site.asked[0]["path"] == "/members?of=all"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/members?key=9f8e7d6c", "/members"),
        ("/hooks/9f8e7d6c5b4a39281706f5e4d3c2b1a0/members.csv", "/hooks/9f8e…/members.csv"),
        ("/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/export", "/d/1Bxi…/export"),
        ("/8f14e45f-ceea-467f-9a0b-5f2d7c1e3b6a", "/8f14…"),
        ("/api/v2/customers-2026-newsletter-export.csv", "/api/v2/customers-2026-newsletter-export.csv"),
    ],
)
def test_what_may_be_a_secret_in_the_url_is_not_shown(site: Website, members: Members, path: str, shown: str) -> None:
    """In errors and the names of sources, which pages, commands and the log show."""
    site.answer = lambda request: say(request, b"", status=404)
    with pytest.raises(SourceError, match="there is no such resource") as told:
        members({"http": f"{site.url}{path}"})
    assert str(told.value).startswith(f"{site.url}{shown}: ")


def test_a_compressed_answer_is_read(site: Website, open_: Open) -> None:
    site.answer = lambda request: say(request, gzip.compress(CSV), Content_Encoding="gzip")
    assert found(open_()) == TWO


@pytest.mark.parametrize(
    ("header", "asked", "value"),
    [("ETag", "if-none-match", 'W/"v1"'), ("Last-Modified", "if-modified-since", "Tue, 24 Nov 2026 10:00:00 GMT")],
)
def test_an_unchanged_answer_is_not_fetched_again(
    site: Website, open_: Open, header: str, asked: str, value: str
) -> None:
    version, body = [value], [CSV]

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get(asked) == version[0]:
            say(request, b"", 304)
        else:
            say(request, body[0], **{header.replace("-", "_"): version[0]})  # type: ignore[arg-type]

    site.answer = answer
    first = open_()
    before = first.fingerprint()
    assert found(first) == TWO
    assert first.fingerprint() == before
    assert len(site.asked) == 1, "the answer with the version is the one that is read"
    assert asked not in site.asked[0]

    second = open_()
    assert second.fingerprint() == before
    assert site.asked[1][asked] == value
    assert found(second) == TWO, "forced, it is fetched"
    assert asked not in site.asked[2]

    version[0], body[0] = value.replace("v1", "v2").replace("10:00", "11:00"), b"email\neva@kund.se\n"
    third = open_()
    assert third.fingerprint() != before
    assert found(third) == ["eva@kund.se"]
    assert len(site.asked) == 4


def test_an_answer_not_read_to_its_end_is_not_remembered(site: Website, open_: Open) -> None:
    site.answer = lambda request: say(request, CSV, ETag='"v1"')
    first = open_()
    first.fingerprint()
    next(first.cells(Tally()))
    first.close()
    open_().fingerprint()
    assert "if-none-match" not in site.asked[1]


def test_without_a_version_every_fetch_is_new(site: Website, open_: Open) -> None:
    site.answer = lambda request: say(request, CSV)
    first, second = open_(), open_()
    assert found(first) == TWO
    assert first.fingerprint() == first.fingerprint() != second.fingerprint()


def test_an_unusable_cache_costs_a_fetch(site: Website, open_: Open, tmp_path: Path) -> None:
    site.answer = lambda request: say(request, CSV, ETag='"v1"')
    assert found(open_()) == TWO
    (memo,) = (tmp_path / "state").iterdir()
    for damaged in ('{"ETag": 7}', "[]", "{", ""):
        memo.write_text(damaged)
        open_().fingerprint()
        assert "if-none-match" not in site.asked[-1]
    memo.unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("no folder")
    assert found(open_()) == TWO


def test_the_token_is_sent_only_to_its_server(site: Website, tmp_path: Path, open_: Open) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with Website(answer=lambda request: say(request, CSV)) as other:

        def answer(request: BaseHTTPRequestHandler) -> None:
            if request.path == "/members":
                say(request, b"", 302, Location="/here")
            else:
                say(request, b"", 307, Location=f"{other.url}/there")

        site.answer = answer
        assert found(open_(token_file="token")) == TWO
        assert [asked.get("authorization") for asked in site.asked] == [f"Bearer {TOKEN}"] * 2
        assert "authorization" not in other.asked[0]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def safe(authority: trustme.CA, tmp_path: Path) -> Iterator[Website]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Website(context=context, answer=lambda request: say(request, CSV)) as running:
        yield running


def test_https_is_verified(safe: Website, members: Members) -> None:
    assert members({"http": f"{safe.url}/members", "ca_file": "ca.pem"})[0] == TWO
    with pytest.raises(SourceError, match=r"its certificate is not trusted: .*\(see ca_file\)"):
        members({"http": f"{safe.url}/members"})
    with pytest.raises(SourceError, match=r"its certificate is not trusted: .*IP address mismatch"):
        members({"http": f"{safe.url.replace('localhost', '127.0.0.1')}/members", "ca_file": "ca.pem"})


def test_a_redirect_from_https_to_http_is_refused(safe: Website, site: Website, members: Members) -> None:
    safe.answer = lambda request: say(request, b"", 301, Location=f"{site.url}/members")
    with pytest.raises(SourceError, match="redirects from https to http, which is not followed"):
        members({"http": f"{safe.url}/members", "ca_file": "ca.pem"})
    assert not site.asked


def _cut(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(CSV)))
    request.end_headers()
    request.wfile.write(CSV[:30])
    request.close_connection = True


def _drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    for _ in range(200):
        request.wfile.write(b"k@kund.se\n")
        time.sleep(0.01)


def _mail(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"220 mail.example.com ESMTP\r\n")
    request.close_connection = True


@every(
    ("answer", "options", "why"),
    [
        (lambda r: say(r, b"", 401), {"token_file": "token"}, r"answers 401 .*the credentials are not accepted \(see token_file\)"),
        (lambda r: say(r, b"", 403), {}, r"answers 403 .*access is denied"),
        (lambda r: say(r, b"", 404), {}, "there is no such resource"),
        (lambda r: say(r, b"", 503), {}, "answers 503"),
        (lambda r: say(r, b"", 204), {}, "answers 204"),
        (lambda r: say(r, b"", 304), {}, "answers 304 to an unconditional request"),
        (lambda r: say(r, b"", 302), {}, "answers 302"),
        (lambda r: say(r, b"", 302, Location="/members"), {}, "more than 5 redirects"),
        (lambda r: say(r, b"", 302, Location="file:///etc/passwd"), {}, "redirects from http to file, which is not followed"),
        (lambda r: say(r, b"<p>Log in", Content_Type="text/html; charset=utf-8"), {}, "a web page, perhaps to log in: expected csv"),
        (lambda r: say(r, b""), {}, "empty"),
        (lambda r: say(r, b"a,b\n1,2\n"), {}, "declare column"),
        (lambda r: say(r, CSV), {"column": "mejl"}, 'no column "mejl": it has email, name'),
        (lambda r: say(r, CSV), {"json": "[]"}, "not JSON"),
        (lambda r: say(r, b'["lena@kund.se", '), {"json": "[]"}, "truncated JSON"),
        (lambda r: say(r, gzip.compress(CSV)[:-9]), {}, "gzip data ends in the middle"),
        (lambda r: say(r, LONG), {"max_mb": 1}, r"larger than 1 MB \(max_mb\)"),
        (lambda r: say(r, gzip.compress(LONG)), {"max_mb": 1}, r"larger than 1 MB \(max_mb\)"),
        (_cut, {}, "the response is incomplete"),
        (lambda r: time.sleep(1.5), {"timeout": 1}, r"no answer within 1 s \(timeout\)"),
        (_drip, {"time_limit": 0.3}, r"no end within 0.3 s \(time_limit\)"),
        (_mail, {}, "not HTTP"),
    ],
)  # fmt: skip
def test_failures_are_reported_without_secrets(
    site: Website, members: Members, tmp_path: Path, answer: Any, options: dict[str, Any], why: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    site.answer = answer
    with pytest.raises(SourceError, match=why) as told:
        members({"http": f"{site.url}/members?key=hunter2", **options})
    assert "127.0.0.1" in str(told.value)
    assert TOKEN not in str(told.value)
    assert "hunter2" not in str(told.value)


def test_an_unreachable_server_is_an_error(members: Members) -> None:
    with pytest.raises(SourceError, match="cannot be reached"):
        members({"http": "http://127.0.0.1:1/members"})
    with pytest.raises(SourceError, match="cannot be reached"):
        members({"http": "http://nowhere.invalid/members"})


def test_a_read_from_a_silent_server_can_be_stopped(safe: Website, site: Website, members: Members) -> None:
    """A read that is stopped ends long before its own timeout."""
    going = threading.Event()
    for server in (safe, site):
        stop = threading.Event()

        def silent(request: BaseHTTPRequestHandler, stop: threading.Event = stop) -> None:
            stop.set()
            going.wait(120)

        server.answer = silent
        with pytest.raises(SourceError, match="stopped before its end"):
            members({"http": f"{server.url}/members", "ca_file": "ca.pem", "timeout": 600}, stop=stop.is_set)
    going.set()


def test_a_slow_read_stops_when_asked_to(site: Website, members: Members) -> None:
    site.answer = _drip
    asked = iter([False, False, False])
    with pytest.raises(SourceError, match="stopped before its end"):
        members({"http": f"{site.url}/members"}, stop=lambda: next(asked, True))


def read(text: str | bytes, path: str) -> tuple[list[str], Tally]:
    tally = Tally(unit="element")
    raw = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    return [cell for _, cell in JsonTable(path).cells(raw, "crm", tally)], tally


@every(
    ("text", "path"),
    [
        ('["a@b.se", "c@d.se"]', "[]"),
        ('{"members": [{"email": "a@b.se"}, {"n": 1, "email": "c@d.se", "x": {"email": "no"}}]}', "members[].email"),
        ('{"a": {"b": [{"c": ["a@b.se"]}, {"c": ["c@d.se"]}]}}', "a.b[].c[]"),
        ('[[{"e": "a@b.se"}], [{"e": "c@d.se"}]]', "[][].e"),
        ('\ufeff {"x": null, "e": "a@b.se" , "y": [1.5e3, true, false, -0, []], "e": "c\\u0040d.se"}\n', "e"),
    ],
)
def test_paths_select_addresses(text: str, path: str) -> None:
    found, tally = read(text, path)
    assert found == ["a@b.se", "c@d.se"]
    assert (tally.rows, tally.bad) == (2, 0)


def test_elements_without_an_address_are_reported() -> None:
    found, tally = read('{"m": [{"e": "a@b.se"}, {"f": 1}, {"e": null}, {"e": ["x"]}, "x", {"e": "c@d.se"}]}', "m[].e")
    assert found == ["a@b.se", "c@d.se"]
    assert (tally.rows, tally.bad) == (6, 4)
    assert [str(row) for row in tally.shown] == [f"element {n}: no address" for n in (2, 3, 4, 5)]
    found, tally = read('[{"e": ["a@b.se", 1]}, {"e": []}, {"e": ["c@d.se"]}]', "[].e[]")
    assert found == ["a@b.se", "c@d.se"]
    assert [str(row) for row in tally.shown] == ["element 2: no address", "element 3: no address"]


def test_an_empty_array_is_accepted_and_a_missing_one_refused() -> None:
    assert read('{"members": []}', "members[].email")[0] == []
    for text in ('{"member": []}', "[]", "{}", '"a@b.se"', "7", '{"members": {"email": "a@b.se"}}'):
        with pytest.raises(SourceError, match=r"the JSON has no value at members\[\]\.email"):
            read(text, "members[].email")


@every(
    "text",
    [
        "", " ", "[", '["a@b.se"', '["a@b.se",', '["a@b.se",]', '{"a"}', '{"a":}', '{"a":1,}', "{1: 2}", "[1 2]", '{"a":1 "b":2}',
        "tru", "[01]", "[+1]", "[.5]", "[NaN]", "['a']", '["\\x"]', '["\n"]', '["a]', "[}", "{]", ",", "[] []", "]", '{"a": 1]',
        "<html>", b"[\"\xff\"]", "[" * 200, '{"a":' * 200,
    ],
)  # fmt: skip
def test_invalid_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(SourceError):
        read(text, "[]")


def test_a_too_long_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_json, "LONGEST", 1000)
    monkeypatch.setattr(source_json, "CHUNK", 100)
    assert read(f'["{"x" * 500}"]', "[]")[0] == ["x" * 500]
    with pytest.raises(SourceError, match="a value longer than 1000 characters"):
        read(f'["{"x" * 5000}"]', "[]")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc") | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def expected(value: Any, steps: list[str]) -> list[str]:
    if not steps:
        return [value] if isinstance(value, str) else []
    if steps[0] == "[]":
        return [found for element in value for found in expected(element, steps[1:])] if isinstance(value, list) else []
    return expected(value[steps[0]], steps[1:]) if isinstance(value, dict) and steps[0] in value else []


@settings(max_examples=200, deadline=None)
@given(values, st.lists(st.sampled_from(["[]", "a", "b"]), min_size=1, max_size=3), st.integers(1, 40), st.data())
def test_values_equal_those_of_the_json_module(value: Any, steps: list[str], chunk: int, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
    path = "".join(step if step == "[]" else f".{step}" for step in steps).removeprefix(".")
    before, source_json.CHUNK = source_json.CHUNK, chunk
    try:
        try:
            found, tally = read(text, path)
        except SourceError:  # no address at the path
            assert expected(value, steps) == []
        else:
            assert found == expected(value, steps)
            assert tally.rows == len(found) + tally.bad
        cut = data.draw(st.integers(0, max(len(text) - 1, 0)))
        if isinstance(value, dict | list | str):
            with pytest.raises(SourceError):
                read(text[:cut], path)
    finally:
        source_json.CHUNK = before
