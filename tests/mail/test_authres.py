"""Authentication-Results, read from trusted servers only (RFC 8601)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.fields import MOST, AuthResult, auth_results, signed_by
from smtpguard.mail.message import Field, parse_header
from tests.every import every

MX = frozenset({"mx.example.com"})


def read(text: str, trusted: frozenset[str] = MX) -> tuple[AuthResult, ...]:
    return auth_results(parse_header(text.replace("\n", "\r\n").encode() + b"\r\n\r\n").fields, trusted)


def test_results_with_properties_comments_and_versions() -> None:
    spf, dkim, dmarc = read(
        "Authentication-Results: MX.example.com 1;\n spf=pass (sender (ok)) smtp.mailfrom=a@news.example.net;\n"
        " dkim/1=pass (2048-bit) header.d=News.Example.net header.s=k1; dmarc=fail header.from=example.net"
    )
    assert (spf.method, spf.result, spf.get("smtp.mailfrom")) == ("spf", "pass", "a@news.example.net")
    assert (dkim.method, dkim.get("header.d"), dkim.get("header.s")) == ("dkim", "News.Example.net", "k1")
    assert (dmarc.result, dmarc.get("nothing")) == ("fail", "")
    assert signed_by((spf, dkim, dmarc)) == {"news.example.net"}


def test_only_results_of_trusted_servers_count() -> None:
    forged = "Authentication-Results: mx.example.org; dkim=pass header.d=example.com"
    assert read(forged) == ()
    assert read(forged.replace("mx.example.org", "mx.example.com"), frozenset()) == ()
    assert read(forged.replace("mx.example.org", "mx.example.com.evil.example")) == ()
    assert read("X-Authentication-Results: mx.example.com; dkim=pass header.d=x.example") == ()


def test_none_failures_and_quoted_strings() -> None:
    assert read("Authentication-Results: mx.example.com; none") == ()
    (one,) = read('Authentication-Results: "mx.example.com"; dkim=fail reason="bad sig" header.d="x.example"')
    assert one.get("header.d") == "x.example"
    assert signed_by([one]) == frozenset()


def test_comments_nest_at_any_depth_and_are_none_in_quotes() -> None:
    deep = f"{'(' * 20}header.d=evil.example{')' * 20}"
    (one,) = read(f'Authentication-Results: mx.example.com; dkim=pass {deep} header.s="a(b)" header.d=x.example')
    assert one.properties == (("header.s", "a(b)"), ("header.d", "x.example"))


@every(
    ("value", "signed"),
    [
        ('spf=pass smtp.mailfrom="x; dkim=pass header.d=example.com; "@evil.example', set()),
        ('spf=pass smtp.mailfrom="x\\"; dkim=pass header.d=example.com; \\""@evil.example', set()),
        ('dkim=pass reason="header.d=example.com" header.d=evil.example', {"evil.example"}),
        ('dkim=pass reason="a\\" header.d=example.com" header.d=evil.example', {"evil.example"}),
        ('dkim=fail reason="x; dkim=pass header.d=example.com', set()),
        ("dkim=fail (x; dkim=pass header.d=example.com", set()),
        ("( dkim=pass header.d=example.com", set()),
        ("spf=pass smtp.mailfrom==?utf-8?q?=3Bdkim=3Dpass_header.d=3Dexample.com=3B?=@evil.example", set()),
        ("spf=pass\n smtp.mailfrom=a@example.org;\n\tdkim=pass\n header.d=example.com", {"example.com"}),
        ('spf=pass smtp.mailfrom="x; y"@example.org; dkim=pass header.d=example.com', {"example.com"}),
        (f"dkim=pass header.s={'k' * (MOST - 50)}; dkim=pass header.d=example.com.evil.example", set()),
    ],
)
def test_what_a_sender_chose_is_no_result(value: str, signed: set[str]) -> None:
    """The reverse-path and a reason may hold any text, in quotes, a comment or an encoded word; a result may be too long."""
    assert signed_by(read(f"Authentication-Results: mx.example.com; {value}")) == signed


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_value_is_parsed(raw: bytes) -> None:
    auth_results([Field("Authentication-Results", b"mx.example.com;" + raw)], MX)
