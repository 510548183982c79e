"""The reader's findings are translated: the evidence of every mark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from smtpguard.locale.speech import Speech
from smtpguard.reading.looks import Reading, from_declared_origin, without_list_headers
from smtpguard.reading.marks import KINDS
from tests.reading import specimens
from tests.reading.letters import PLATFORM, around, letter, look, parts
from tests.reading.test_marks import EXAMPLES, HTML, ICS


def readings() -> Iterator[Reading]:
    trusting = replace(around(), authserv_ids=frozenset({"mx.example.com"}))
    for _, headers, body in EXAMPLES:
        yield look(letter(body, headers))
    for _, html in HTML:
        yield look(letter(html, kind="text/html"))
    for made in (specimens.people(), specimens.mailings(), specimens.small_newsletters(), specimens.posts()):
        yield from (look(s.message, trusting) for s in made)
    results = "mx.example.com; dkim=pass header.d=news.example; dmarc=fail header.from=news.example"
    yield look(letter("x", {"Authentication-Results": results}), trusting)
    yield from_declared_origin(look(letter("x")), "campaigns.example.com")
    yield from_declared_origin(look(letter("x")), "example.com", shared=True)
    yield without_list_headers(look(letter("x", PLATFORM)))
    one = "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf"
    yield look(parts(("Content-Type: text/plain", "Priser: b.pdf"), (one, "x")))
    docx = "Content-Type: application/msword\nContent-Disposition: attachment; filename=utkast.docx"
    for head, body in ((docx, "x"), ("Content-Type: text/calendar; method=REQUEST", ICS),
                       ("Content-Type: message/rfc822", "From: k@x.example\nSubject: s\n\nx"),
                       ("Content-Type: message/rfc822", "From: bo@example.com\nSubject: s\n\nx")):  # fmt: skip
        yield look(parts(("Content-Type: text/plain", "x"), (head, body)))
    post = {
        "X-Mailman-Version": "3",
        "List-Post": "<mailto:l@x.example>",
        "From": "root@x.example",
        "To": "l@x.example",
    }
    yield look(letter(".", {**post, "Message-ID": "-"}))
    yield look(letter("x", {"Return-Path": "<>"}))
    yield look(letter("hej", {"To": "bo@example.com, ulf@example.com"}))


def test_all_evidence_is_translated() -> None:
    swedish = Speech("sv")
    told: set[str] = set()
    left: set[str] = set()
    for reading in readings():
        for mark in reading.marks:
            told.add(mark.name)
            if swedish.say(mark.evidence) == mark.evidence:
                left.add(f"{mark.name}: {mark.evidence}")
    assert left == set()
    assert told == set(KINDS)
