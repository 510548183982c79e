"""Votes by an answer, and signed links of writers: what each attack comes to."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.accounts.model import Account, Role
from smtpguard.holds.model import Choice
from smtpguard.holds.replying import (
    LOCAL_OCTETS,
    Answer,
    Proof,
    Tokens,
    Uncounted,
    binding_digest,
    decide,
    full_signatures,
    read_vote,
    sent_by_program,
    why_barred,
)
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.fields import Signature
from smtpguard.mail.message import parse_header
from smtpguard.notices.links import Link, Links
from smtpguard.notices.notice import SAMPLE, NoticeHead, NoticeTemplates
from smtpguard.notices.render import MOST_LINK, Renderer
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.policy.models import ReplyVotesModel
from tests.every import every
from tests.guard.house import RAMADAN, House, house
from tests.holds.test_model import COMMS, NOON, hold

EVA, OMAR = "eva@example.com", "omar@example.com"
SIGNED = Signature(domain="example.com", fields=frozenset({"from", "to", "subject"}), at=NOON - timedelta(minutes=1))
ALLOWED = ReplyVotesModel(people=1, senders_verified=["example.com"])
BY_LOGIN, BY_SIGNATURE = (Choice.APPROVE, Proof.LOGIN), (Choice.APPROVE, Proof.SIGNATURE)
REJECTED = (Choice.REJECT, Proof.TOKEN)
TOKENS = Tokens(b"k" * 32)


@every(
    ("answer", "more", "becomes"),
    [
        ({"login": EVA}, {}, BY_LOGIN),
        ({"signed": (SIGNED,)}, {}, BY_SIGNATURE),
        ({}, {}, Uncounted.UNPROVEN),  # a forged From
        ({"login": OMAR}, {}, Uncounted.UNPROVEN),
        ({"claimed": OMAR, "login": OMAR}, {}, Uncounted.OTHER),  # forwarded to somebody else
        ({"claimed": None, "login": EVA}, {}, Uncounted.OTHER),
        ({"login": EVA}, {"used": True}, Uncounted.USED),
        ({"login": EVA, "automatic": True}, {}, Uncounted.AUTOMATIC),
        ({"login": EVA, "word": None}, {}, Uncounted.WORDLESS),
        ({"login": EVA}, {"barred": Uncounted.FACTOR}, Uncounted.FACTOR),
        ({"login": EVA}, {"special": True}, Uncounted.OFF),
        ({"login": EVA}, {"allowed": None}, Uncounted.OFF),
        ({"login": EVA}, {"allowed": ReplyVotesModel.model_construct(people=0)}, Uncounted.OFF),
        ({"login": EVA}, {"person": ""}, Uncounted.TOKEN),
        ({"signed": (replace(SIGNED, domain="mail.example.com"),)}, {}, Uncounted.UNPROVEN),
        (
            {"signed": (SIGNED,)},
            {"allowed": ReplyVotesModel(people=1)},
            Uncounted.UNPROVEN,
        ),  # its server vouches for nobody
        ({"signed": (replace(SIGNED, at=NOON - timedelta(hours=1)),)}, {}, Uncounted.UNPROVEN),
        ({"signed": (replace(SIGNED, at=None),)}, {}, Uncounted.UNPROVEN),
        ({"signed": (replace(SIGNED, at=NOON + timedelta(hours=1)),)}, {}, Uncounted.UNPROVEN),
        ({"word": Choice.REJECT}, {}, REJECTED),
        ({"word": Choice.REJECT, "login": EVA}, {}, (Choice.REJECT, Proof.LOGIN)),
        ({"word": Choice.REJECT}, {"allowed": None, "barred": Uncounted.FACTOR, "special": True}, REJECTED),
        ({"word": Choice.REJECT, "automatic": True}, {}, Uncounted.AUTOMATIC),
        ({"word": Choice.REJECT, "claimed": OMAR}, {}, Uncounted.OTHER),
    ],
)
def test_decisions_by_answers(
    answer: dict[str, Any], more: dict[str, Any], becomes: tuple[Choice, Proof] | Uncounted
) -> None:
    told = Answer(**{"claimed": EVA, "word": Choice.APPROVE, **answer})
    usual: dict[str, Any] = {"person": EVA, "addresses": frozenset({EVA}), "used": False, "barred": None, "special": False,
                             "allowed": ALLOWED, "now": NOON}  # fmt: skip
    assert decide(told, hold(COMMS), **{**usual, **more}) == becomes
    own = hold(COMMS, senders=frozenset({EVA}))
    assert isinstance(decide(told, own, **{**usual, **more}), Uncounted), "no one decides on their own message"


def test_a_token_is_bound_to_person_notice_and_message() -> None:
    one = replace(hold(COMMS), hold_id="01KFAAAAAAAAAAAA")
    made = TOKENS.local(one.hold_id, binding_digest(one), EVA, "H-approve-1")
    people = (OMAR, EVA)
    assert len(made) == LOCAL_OCTETS
    assert TOKENS.person(made, one, people) == EVA
    assert TOKENS.person(made.upper(), one, people) == EVA, "servers may change the case"
    assert made != TOKENS.local(one.hold_id, binding_digest(one), EVA, "H-reminder-1")
    for other in (
        replace(one, content_sha256="d" * 64),
        replace(one, envelope=replace(one.envelope, recipients=(*one.envelope.recipients, *one.envelope.recipients))),
        replace(one, lists=("news",)),
        replace(one, hold_id="01KFAAAAAAAAAAAB"),
    ):
        assert TOKENS.person(made, other, people) == ""
    assert TOKENS.person(made, one, (OMAR,)) == "", "a person no longer asked"
    assert Tokens(b"o" * 32).person(made, one, people) == ""
    for bad in ("", ".", "..", made[:-1], made + "a", f"{made}é", "x" * 10_000):
        assert TOKENS.person(bad, one, people) == ""


@every(
    ("text", "word", "comment"),
    [
        ("Reject", Choice.REJECT, ""),
        ("Reject\nWrong list,\nsorry\n\nBest, Eva", Choice.REJECT, "Wrong list, sorry"),
        ("Reject\n\nWrong list\n\nBest, Eva", Choice.REJECT, "Wrong list"),
        ("\n\n  approve.\n\n-- \nEva", Choice.APPROVE, ""),
        ("Godkänn!", Choice.APPROVE, ""),
        ("", None, ""),
        ("I cannot approve this", None, ""),
        ("approve\nreject", None, ""),
        ("Thanks!\n\napprove", None, ""),
        ("> approve", None, ""),
        ("On Mon, 2 Mar 2026, Omar wrote:\n> approve\n> more", None, ""),
        ("Out of office until Monday\n\nOn Mon Eva wrote:\n> approve\n", None, ""),
        (
            "reject\n\nOn Mon, 2 Mar 2026 at 10:00, Guard <guard@example.com> wrote:\n> approve\n> reject",
            Choice.REJECT,
            "",
        ),
        ("x" * 5000 + "\napprove", None, ""),
        ("reject\n" + "x" * 5000, Choice.REJECT, "x" * 500),
    ],
)
def test_only_the_first_word_of_the_answer_counts(text: str, word: Choice | None, comment: str) -> None:
    assert read_vote(text) == (word, comment)


@every(
    ("fields", "signature", "counts"),
    [
        (b"", SIGNED, True),
        (b"", replace(SIGNED, limited=True), False),  # l=, even over all of it
        (b"", replace(SIGNED, fields=frozenset({"from", "to"})), False),
        (
            b"",
            replace(SIGNED, fields=frozenset({"from", "subject"})),
            False,
        ),  # it could be sent again to another notice
        (b"Subject: another\r\n", SIGNED, False),
        (b"To: other@example.com\r\n", SIGNED, False),
    ],
)
def test_a_signature_must_cover_all_used_fields(fields: bytes, signature: Signature, counts: bool) -> None:
    header = parse_header(
        b"From: eva@example.com\r\nTo: <Votes+T@guard.example.com>\r\nSubject: Re\r\n" + fields + b"\r\n"
    )
    assert bool(full_signatures(header, (signature,), Address.parse("votes+t@guard.example.com"))) is counts
    assert full_signatures(header, (signature,), Address.parse("votes+u@guard.example.com")) == ()


@every(
    ("account", "why"),
    [
        (None, None),
        ({"roles": (Role.APPROVER,)}, None),
        ({"roles": (Role.APPROVER,), "disabled": True}, Uncounted.BARRED),
        ({"roles": (Role.VIEWER,)}, Uncounted.BARRED),
        ({"roles": (Role.APPROVER, Role.ADMIN)}, Uncounted.FACTOR),
        ({"roles": (Role.APPROVER, Role.ADMIN), "subject": "1"}, Uncounted.FACTOR),  # single sign-on asks for it
        ({"roles": (Role.APPROVER,), "totp": "sealed"}, Uncounted.FACTOR),
    ],
)
def test_accounts_that_cannot_approve_by_mail(account: dict[str, Any] | None, why: Uncounted | None) -> None:
    known = [] if account is None else [Account(account_id="1", address=EVA, created_at=NOON, **account)]
    assert why_barred(known, frozenset({Role.ADMIN})) is why


@every(
    ("fields", "null_sender", "is_automatic"),
    [
        (b"Subject: Re\r\n", False, False),
        (b"Auto-Submitted: no\r\n", False, False),
        (b"Auto-Submitted: no (a person; really)\r\n", False, False),
        (b"Auto-Submitted: auto-replied\r\n", False, True),
        (b"Precedence: bulk\r\n", False, True),
        (b"Precedence: list (discussion)\r\n", False, True),
        (b"Precedence: auto_reply\r\n", False, True),
        (b"X-Autoreply: yes\r\n", False, True),
        (b"X-Autoreply-From: eva@example.com\r\n", False, True),
        (b"List-Id: <a.b>\r\n", False, True),
        (b"X-Smtpguard-Notice: voted\r\n", False, True),
        (b"Subject: Re\r\n", True, True),
    ],
)
def test_automatic_answers_are_recognized(fields: bytes, null_sender: bool, is_automatic: bool) -> None:
    assert sent_by_program(parse_header(fields + b"\r\n"), null_sender=null_sender) is is_automatic


NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LINKS = Links(b"k" * 32)
LINK = Link(hold_id="T000000000000001", address="anna@example.com", until=NOW + timedelta(days=1))


@settings(max_examples=100, deadline=None)
@given(
    hold_id=st.text("0123456789ABCDEF", min_size=1, max_size=16),
    address=st.text(min_size=1, max_size=80).filter(lambda t: t.isprintable()),
)
def test_a_signed_link_is_read(hold_id: str, address: str) -> None:
    link = Link(hold_id=hold_id, address=address, until=NOW + timedelta(days=1))
    text = LINKS.sign(link)
    assert LINKS.read(text, NOW) == link
    assert all(c.isalnum() or c in "-_" for c in text)


def test_a_link_expires() -> None:
    assert LINKS.read(LINKS.sign(LINK), LINK.until - timedelta(seconds=1)) == LINK
    assert LINKS.read(LINKS.sign(LINK), LINK.until) is None


def test_a_link_of_another_installation_is_refused() -> None:
    assert Links(b"j" * 32).read(LINKS.sign(LINK), NOW) is None


def test_one_changed_character_invalidates_a_link() -> None:
    text = LINKS.sign(LINK)
    for n, letter in enumerate(text):
        other = text[:n] + ("A" if letter != "A" else "B") + text[n + 1 :]
        assert LINKS.read(other, NOW) is None, n


@every("text", ["", "A", "====", "å" * 40, "A" * 5000, LINKS.sign(LINK) + "=", LINKS.sign(LINK)[:-4], "A" * 22])
def test_other_text_is_no_link(text: str) -> None:
    assert LINKS.read(text, NOW) is None


@pytest.mark.parametrize(
    ("kind", "linked"), [("held", True), ("question", True), ("approve", False), ("decided", False)]
)
async def test_the_writers_notices_have_a_link(tmp_path: Path, kind: str, linked: bool) -> None:
    async with house(tmp_path) as home:
        raw = await rendered(home, "Anna+x@Example.com", kind)
    found = [line for line in raw.splitlines() if "https://guard.example.com/mine/" in line]
    assert bool(found) is linked
    if linked:
        text = found[0].split("/mine/")[1].split('"')[0].strip()
        assert LINKS.read(text, datetime(2026, 1, 8, tzinfo=UTC)) == Link(
            hold_id="T000000000000001", address="anna@example.com", until=datetime(2026, 1, 9, tzinfo=UTC)
        )


async def test_with_a_too_long_address_the_notice_has_the_sign_in_page(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        raw = await rendered(home, f"{'a' * 60}@{'.'.join(['b' * 60] * 3)}.example.com", "held")
    assert "/mine/" not in raw
    assert "https://guard.example.com/held/T000000000000001" in raw
    assert MOST_LINK == 300


async def test_only_the_writers_notices_have_a_link(home: House) -> None:
    for kind in ("decided", "expired"):
        assert "/mine/" in await rendered(home, "anna@example.com", kind, writer=True, asked=False)
        assert "/mine/" not in await rendered(home, "eva@example.com", kind, writer=False, asked=False)
    await home.send(RAMADAN)
    window = {"since": "2020-01-01T00:00:00Z", "until": "2036-01-01T00:00:01Z", "person": "anna@example.com"}
    text = await rendered(home, "anna@example.com", "digest", **window, role="sender", hold_id=None)
    assert text.count("https://guard.example.com/mine/") == 1
    other = await rendered(
        home, "eva@example.com", "digest", **window | {"person": "eva@example.com"}, role="approver", hold_id=None
    )
    assert "/mine/" not in other
    assert "https://guard.example.com/held/T" in other


async def rendered(home: House, to: str, kind: str, **more: Any) -> str:
    templates = NoticeTemplates(
        NoticeHead(sender="smtpguard@example.com", languages=("en",), console_url="https://guard.example.com")
    )
    renderer = Renderer(
        store=home.store,
        in_force=home.current,
        templates=lambda: templates,
        clock=home.clock,
        reporting_mta="guard.example.com",
        links=LINKS,
    )
    data = {**SAMPLE, "notice": kind, "hold_id": "T000000000000001", "said_at": "2026-01-01T00:00:00Z", **more}
    intent = Intent(
        intent_id="i-1", kind=IntentKind.NOTICE, reverse_path=None, data=data,
        recipients=(Recipient(address=Address.parse(to)),),
    )  # fmt: skip
    [made] = await renderer.render(intent)
    message = email.message_from_bytes(made[1], policy=email.policy.default)
    text = message.get_body(("plain",))
    assert text is not None
    return str(text.get_content())
