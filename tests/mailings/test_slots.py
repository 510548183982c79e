"""Slots: learned from the copies that wait, and from nothing else; and how two texts are aligned."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.campaigns import templates
from bench.covers import measured
from smtpguard.holds.coverage import Coverage, sentences
from smtpguard.holds.effects import learned_from_tests
from smtpguard.mail.message import Message
from smtpguard.mailings import alignment, slotlearning, tokens
from smtpguard.mailings.alignment import opcodes, stretches
from smtpguard.mailings.differences import differences
from smtpguard.mailings.slotlearning import learn
from smtpguard.mailings.slots import Block, Item, Slot, Target, Template, is_block
from smtpguard.mailings.tokens import kind_of
from smtpguard.policy.stages import SHARE
from smtpguard.reading.shown import Shown, shown_by
from tests.every import every

NAMES = ["Anna", "Bo Ek", "Maria del Carmen", "Ida", "Åsa von Essen", "José", "Karl-Erik", "Li"]
TEXT = (
    "Dear {name},\r\n\r\nyour number is {n}, and {goods} waits for you at the harbour.\r\n\r\n{offer}\r\n\r\n"
    "See https://shop.example.com/spring/{n}?c={code}&x=1 for more.\r\n"
)
OFFERS = ["This week all roses cost a fifth less.", "Whoever brings a friend gets a bag of soil.", ""]


def copy(who: int, text: str = TEXT, **given: str) -> Shown:
    values = {
        "name": NAMES[who % len(NAMES)],
        "n": str(1000 + who * 37),
        "goods": ("a kettle", "a blanket")[who % 2],
        "offer": OFFERS[who % 3],
        "code": f"{who * 7919:08x}",
    }
    return shown(text.format(**(values | given)), subject=f"{values['name']}: spring")


def shown(body: str, *, subject: str = "Spring", head: str = "Content-Type: text/plain; charset=utf-8\r\n") -> Shown:
    text = f"From: Shop <shop@example.com>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n{head}\r\n{body}"
    return shown_by(Message.of(text.encode()))


@pytest.fixture(scope="module")
def template() -> Template:
    made = learn(copy(0), [copy(n) for n in range(1, 40)])
    assert Template.loads(made.dumps()) == made
    return made


def test_copies_for_other_people_are_covered(template: Template) -> None:
    assert all(template.matches(copy(n)) for n in range(40, 80))
    assert template.matches(copy(3, name="Fatima", n="77", code="00ff00ff"))


def test_slots_are_described(template: Template) -> None:
    assert [(before, slot.kind) for before, slot in template.slots] == [
        ("", "name"),
        ("Dear", "name"),
        ("your number is", "number"),
        ("and a", "words"),
    ]
    assert {slot.values for _, slot in template.slots if slot.kind == "words"} == {("kettle", "blanket")}
    assert template.choices == (
        ("This week all roses cost a fifth less .", "Whoever brings a friend gets a bag of soil .", ""),
    )


ALTERED = {
    "a word": {"text": TEXT.replace("harbour", "station")},
    "a word more": {"text": TEXT.replace("waits for", "still waits for")},
    "goods that nobody saw": {"goods": "a bottle"},
    "an offer that nobody saw": {"offer": "This week all whisky costs a fifth less."},
    "two offers at once": {"offer": f"{OFFERS[0]}\r\n\r\n{OFFERS[1]}"},
    "small words in the place of a name": {"name": "Bo, the boss drinks"},
    "a line in the place of a name": {"name": "Bo\r\nEk"},
    "too much of a name": {"name": " ".join(["Anna"] * 7)},
    "a sentence in one word": {"name": "TheBossIsDrunkAgainAndEverybodyHereKnowsAboutIt"},
    "words in the place of a number": {"n": "unknown"},
    "a link in the link": {"code": "https://elsewhere.example"},
    "a link in the link, written otherwise": {"code": "https%3A%2F%2Felsewhere.example"},
    "more in the link": {"code": "00ff/more"},
    "a site in the place of a name": {"name": "Evil.Com"},
    "a site beside a name": {"name": "Bo evil1.example"},
    "a page in the place of a number": {"n": "x1.co/p"},
    "a site in the link": {"code": "evil.example%2fpay"},
    "a site in the link, encoded twice": {"code": "%2f%2fevil%252eexample"},
    "an address in the link": {"code": "a%40evil.example,x"},
    "another host": {"text": TEXT.replace("shop.example.com", "shop.elsewhere.example")},
    "another path": {"text": TEXT.replace("/spring/", "/autumn/")},
    "another constant of the query": {"text": TEXT.replace("x=1", "x=2")},
    "a line at the end": {"text": f"{TEXT}\r\nPS. Say nothing to the boss.\r\n"},
    "a line less": {"text": TEXT.partition("See https")[0]},
}


@every("what", ALTERED)
def test_other_differences_are_not_covered(template: Template, what: str) -> None:
    assert not template.matches(copy(2, **ALTERED[what]))


def test_with_a_share_of_nothing_no_word_may_differ() -> None:
    none = learn(copy(0), (), 0.0)
    assert Template.loads(none.dumps()) == none
    assert none.words_at_most == 0
    assert none.matches(copy(0))
    assert not none.matches(copy(0, name="Fatima"))
    assert learn(copy(0), (), 0.001).matches(copy(0, name="Fatima"))


_copies = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from([{}, {"name": "Fatima"}, {"code": "00ff"}, *ALTERED.values()])), max_size=8
)  # fmt: skip


@cache
def _learned(*offer: str) -> str:
    always = {"offer": offer[0]} if offer else {}
    return learn(copy(0, **always), [copy(n, **always) for n in range(1, 40)]).dumps()


@given(_copies, st.booleans())
def test_a_copy_matches_whatever_came_before_it(copies: list[tuple[int, dict[str, str]]], choices: bool) -> None:
    offer = () if choices else (OFFERS[0],)
    made = Template.loads(_learned(*offer))
    assert bool(made.passed) is not choices
    for who, changes in copies:
        one = copy(who, **(({"offer": OFFERS[0]} if offer else {}) | changes))
        assert made.matches(one) is Template.loads(_learned(*offer)).matches(one)


MAILTO = "Dear {name},\r\n\r\nyour account is {account}. Leave: mailto:leave-{code}@lists.example.com\r\n"


def _account(who: int, account: str, name: str = "") -> Shown:
    return copy(who, MAILTO.replace("{account}", account), **({"name": name} if name else {}))


HTML = "Content-Type: text/html; charset=utf-8\r\n"
SHOP = "https://shop.example/a"
VALUES: dict[str, tuple[str, Callable[[int], str], Sequence[str], Sequence[str]]] = {
    "an amount with its currency": (
        "<p>You owe us {}.</p>",
        lambda n: f"€{n * 1234.56:,.2f}",
        ("€0.99", "−€12.50", "1.234,50€", "7"),
        ("€", "€Lisa", "Lisa€5,00", "EVIL5,00", "$7,000.00", "kr1.234,00", "FAT$5"),
    ),
    "a balance, some below zero": ("<p>It is {} today.</p>", lambda n: f"{'−' * (n % 2)}{n}.50", ("−7.50",), ("−", "−seven")),
    "a name as people write their own": (
        "<p>Hi {},</p>",
        lambda n: f"{'ANXKLM'[n % 6]}anna{chr(97 + n // 6)}",
        ("gus", "iZettle", "o'brien"),
        ("the boss", "gus is fired", "Gus is fired", ".", "evil.com"),
    ),
    "a name between marks of direction": (
        "<p>שלום {},</p>",
        lambda n: f"\u2068{'ANXKLM'[n % 6]}anna{chr(97 + n // 6)}\u2069",
        ("\u2068Nils Ek\u2069", "\u2068יעל\u2069", "Nils"),
        ("\u2068Nils", "nils\u2067", "\u2069Nils\u2067", "\u202eNils", "\u2068is fired\u2069", "\u2068Evil.Com\u2069"),
    ),
    "names in a link": (
        f'<p><a href="{SHOP}?n={{}}&x=1">Go</a></p>',
        lambda n: ("O'Brien", "Bo Ek", "Bo%20Ek", "Ida+Ek")[n % 4] + str(n),
        ("D’Arcy Ek", "Fatima"),
        ("Bo&y=2", "Bo evil.com", "https://evil.example"),
    ),
    "an address within a link": (
        '<p><a href="https://track.example/c?u=7&url={}">Go</a></p>',
        lambda n: quote(f"{SHOP}?c={n * 7919:06x}&x=1", safe=""),
        (quote(f"{SHOP}?c=00ff00&x=1", safe=""),),
        (
            quote("https://evil.example/a?c=00ff00&x=1", safe=""),
            quote("https://shop.example@evil.example/a?c=00ff00&x=1", safe=""),
            quote(f"{SHOP}?c=00ff00&x=2", safe=""),
            quote(f"{SHOP}/b?c=00ff00&x=1", safe=""),
            quote(f"{SHOP}?c=https://evil.example&x=1", safe=""),
            f"{SHOP}?c=00ff00%26x=1",
            "00ff00",
        ),
    ),
    "a picture for each person": (
        '<p><img src="https://news.example/campaign/{}/px.png" alt=""></p>',
        lambda n: f"{n * 7919:08x}-1c2d-4e5f-8a9b-{n:012x}",
        ("0a1b2c3d-0000-4000-8000-0123456789ab",),
        ("lisa-is-fired-2026", "0a1b2c3d", "0a1b2c3d-0000-4000-8000-0123456789ab.jpg", "a/b"),
    ),
    "Reply-To for each person": ("", lambda n: f"reply+{n:x}@in.example", ("reply+x9@in.example",), ("thief+1@in.example", "reply+1@evil.example", "reply@in.example", f"reply+{'a.thief.' * 9}@in.example")),
}  # fmt: skip


@every(("text", "value", "fit", "unfit"), list(VALUES.values()))
def test_values_that_tools_put_into_each_copy(
    text: str, value: Callable[[int], str], fit: Sequence[str], unfit: Sequence[str]
) -> None:
    def made(said: str) -> Shown:
        if text:
            return shown(f"{text.format(said)}<p>spring has come to all of our shops this week</p>", head=HTML)
        return shown("<p>spring has come</p>", head=f"{HTML}Reply-To: {said}\r\n")

    learned = learn(made(value(1)), [made(value(n)) for n in range(2, 40)])
    learned = Template.loads(learned.dumps())
    assert [one for one in (value(77), *fit) if not learned.matches(made(one))] == []
    assert [one for one in unfit if learned.matches(made(one))] == []


VIP = "As a member of our club, {name}, you have {n} points to spend in every shop until May."
VERSIONS = (
    f"<p>Hi {{name}},</p><p>spring has come to all of our shops this week.</p><p>{VIP}</p><p>See you there.</p>",
    "<p>Hi {name},</p><p>spring has come to all of our shops this week.</p><p>See you there.</p>",
    "<p>Hej {name},</p><p>våren har kommit till alla våra butiker den här veckan.</p><p>Din kod är {code} och den gäller till maj.</p>",
)


def _version(who: int, which: int, **given: str) -> Shown:
    values = {
        "name": f"{'ANXKLM'[who % 6]}anna{chr(97 + who // 6)}",
        "n": str(who * 37),
        "code": f"K{who * 7919:x}",
    } | given
    return shown(VERSIONS[which].format(**values), head=HTML)


@every("most", [3, 2, 1])
def test_paragraphs_of_some_copies_may_have_slots_of_their_own(most: int) -> None:
    """A paragraph for some, or another language, with names and numbers: each copy with one of them was held."""
    made = learn(_version(0, 1), [_version(n, n % most if most > 1 else 0) for n in range(1, 40)])
    made = Template.loads(made.dumps())
    assert all(made.matches(_version(who, which)) for who in range(40, 60) for which in range(min(most, 2)))
    assert made.matches(_version(50, 2)) is (most == 3)
    assert {slot.kind for _, slot in made.slots} == {"name", "number"} | ({"code"} if most == 3 else set())
    assert any("As a member of our club" in one for texts in made.choices for one in texts)
    for other in (
        _version(50, 0, n="whisky"),
        _version(50, 0, name="the boss is drunk"),
        shown(VERSIONS[0].replace("to spend", "to drink").format(name="Anna", n=7), head=HTML),
        shown(VERSIONS[0].replace(VIP, f"{VIP}</p><p>{VIP}").format(name="Anna", n=7), head=HTML),
    ):
        assert not made.matches(other)
        assert {one.kind for one in differences(made, other, exact=False)} & {"words", "paragraph", "order"}


def test_few_copies_make_no_slots_that_are_most_of_a_paragraph() -> None:
    """Three copies that one person sent before the approval let any words pass behind it."""
    page = "{} From Lund and {} At Oslo and {} Now"
    some = [shown(f"{VERSIONS[1].format(name=name)}", head=HTML) for name in NAMES]
    more = [
        shown(f"{VERSIONS[1].format(name='Ida')}<p>{page.format(*gifts)}</p>", head=HTML)
        for gifts in (
            ("Gift Ida", "Bo Ek", "Meet Us"),
            ("Card Li", "Ed Ho", "See Her"),
            ("Tea Dora", "Al Ny", "Ask Him"),
        )
    ]
    made = learn(some[0], [*some[1:], *more])
    assert all(map(made.matches, more))
    assert len(made.choices[0]) == 4
    other = page.format("Your Boss Steals", "All Of It", "Call Me")
    assert not made.matches(shown(f"{VERSIONS[1].format(name='Ida')}<p>{other}</p>", head=HTML))


OWN_LINK = f'{VERSIONS[1]}<p>This was sent to <a href="mailto:{{to}}">you</a>.</p>'


def _linked(who: int, link: str = "", *, to: str = "", text: str = OWN_LINK) -> Shown:
    to = to or f"p{who}@gmail.example"
    return replace(shown(text.format(name=NAMES[who % 8], to=link or to, own=to), head=HTML), recipient=to)


def test_a_link_to_another_recipient_is_seen_before_it_is_covered() -> None:
    """A copy that links to the address of somebody who gets another copy looked like one that links to its own."""
    mallory = "mallory@evil.example"
    made = learn(_linked(0), [*(_linked(n) for n in range(1, 20)), _linked(20, to=mallory)])
    assert made.matches(_linked(30))
    assert not made.matches(_linked(30, mallory))
    made = learn(_linked(0), [*(_linked(n) for n in range(1, 20)), _linked(20, to=mallory), _linked(21, mallory)])
    assert made.matches(_linked(30))
    assert any(mallory in text for texts in made.choices for text in texts)


@every(
    "text",
    [
        '{}<p>Write to <a href="mailto:{{to}}">us</a> about it.</p>',
        '{}<p>{{name}}, write to <a href="mailto:{{to}}">us</a> about it.</p>',
        '{}<p>Write to <a href="mailto:{{to}}">us</a>.</p><p>This was sent to <a href="mailto:{{own}}">you</a>.</p>',
    ],
)
def test_the_mailbox_that_copies_link_to_gets_one(text: str) -> None:
    """Also in a paragraph that only some copies have, with slots or without: the comparison never ended."""
    team = "team@shop.example"
    texts = (VERSIONS[1], text.format(VERSIONS[1]))
    made = learn(_linked(0, team, text=texts[1]), [_linked(n, team, text=texts[n % 3 != 1]) for n in range(1, 20)])
    assert all(made.matches(_linked(30, team, to=to, text=texts[1])) for to in ("", team))
    assert not made.matches(_linked(30, "thief@evil.example", text=texts[1]))


def test_an_approval_from_before_own_links_were_known_covers_them() -> None:
    """Of recipients with one domain, whose links differed in the name alone."""
    some = [replace(_linked(n), recipient="") for n in range(20)]
    assert learn(some[0], some[1:]).matches(_linked(30))


def test_a_paragraph_of_two_copies_has_no_slots() -> None:
    made = learn(_version(0, 1), [_version(n, n not in (7, 9)) for n in range(1, 40)])
    assert made.matches(_version(7, 0))
    assert not made.matches(_version(8, 0))


def test_people_see_what_one_copy_of_many_lets_pass() -> None:
    """One copy with other words beside its name: they passed in all, and no sentence had them."""
    page = '<p>Hi {},</p><p>spring has come to all of our shops this week</p><img src="https://img.example/{}.png">'
    names = [f"{'ANXKLM'[n % 6]}anna{chr(97 + n // 6)}" for n in range(40)]
    names += ["Bo your boss is drunk", "Bo Robs All Our Shops Now"]
    copies = [shown(page.format(name, f"{n:032x}"), head=HTML) for n, name in enumerate(names)]
    made = learn(copies[0], copies[1:])
    told = str(sentences(Coverage(template=made, copies=made.learned))[0])
    assert all(
        word in told for word in ("your, boss, is, drunk", "Bo Robs All Our Shops Now", "pictures from img.example")
    )
    copies[3] = shown(page.format('<a href="https://a.example">Bo</a>', "1"), head=HTML)
    assert not any("https" in one for _, slot in learn(copies[0], copies[1:]).slots for one in slot.known)


def test_people_see_each_currency_that_lets_other_amounts_pass() -> None:
    odd, text = ["$5", "£6", "7kr", "CHF8"], "Dear {name},\r\n\r\nyour balance is {n} today.\r\n"
    copies = [copy(n, text, n=odd[n - 8] if 8 <= n < 12 else f"€{n}") for n in range(30)]
    made = learn(copies[0], copies[1:])
    assert made.matches(copy(31, text, n="CHF99"))
    assert all(one in str(sentences(Coverage(template=made, copies=made.learned))[0]) for one in odd)


@every("odd", [{"code": "p5@x5.example"}, {"name": "Bo gladly"}, {"n": "£6"}])
def test_people_see_what_one_copy_lets_pass_after_many_that_differ(odd: dict[str, str]) -> None:
    rows = "".join(f"Row {c * 3} has {{{c * 3}}} in it.\r\n\r\n" for c in "bcdefghijklmo")
    text = f"{rows}Pay {{n}} with {{code}} today.\r\n\r\nWe thank {{name}} for it.\r\n"
    copies = [
        copy(n, text, **{c * 3: str(n * 37 + at) for at, c in enumerate("bcdefghijklmo")}
             | {"n": f"€{n}", "code": f"A{n}7B{n}", "name": NAMES[n % 8]} | (odd if n == 5 else {}))
        for n in range(30)
    ]  # fmt: skip
    made = learn(copies[0], copies[1:])
    shown = str(sentences(Coverage(template=made, copies=made.learned))[0])
    assert "more" in shown
    assert all(one.split()[-1] in shown for one in odd.values())


def test_a_long_word_that_was_seen_beside_names_stays_covered() -> None:
    copies = [copy(n, name=f"Bo {'x' * 65}" if n == 5 else NAMES[n % 8]) for n in range(30)]
    assert all(map(learn(copies[0], copies[1:]).matches, copies))


def test_versions_and_few_copies_are_no_pictures_for_each_person() -> None:
    page = '<p>Dear {},</p><img src="https://img.example/{}.png">'
    few = [shown(page.format(NAMES[n % 8], f"{n:032x}"), head=HTML) for n in range(9)]
    assert not learn(few[0], few[1:8]).matches(few[8])


def test_a_slot_takes_sites_or_addresses_only_if_some_were_seen() -> None:
    seen = ["u12345678901"] * 8 + ["anna@shop.example"]
    made = learn(_account(0, "u123456789"), [_account(n, f"{n}{one}") for n, one in enumerate(seen)])
    made = Template.loads(made.dumps())
    assert made.matches(_account(3, "bo@office.example"))
    assert not made.matches(_account(3, "1.office.example"))
    assert not made.matches(_account(3, "u77", name="a@b.example"))
    assert all(
        made.matches(_account(3, "u77", name=name))
        for name in ("J.Svensson", "St.John", "Dr.Ek-Berg", "A.B", "A.Ek", "Mr.Lee", "Herr.Ek")
    )
    assert not any(made.matches(_account(3, "u77", name=name)) for name in ("T.Co", "Dr.Com", "Anna.Se"))
    assert made.matches(copy(3, MAILTO.replace("leave-", "IjEi.ZxYaBc.-bCd,leave-"), account="u77")), "a signed token"
    assert not made.matches(copy(3, MAILTO.replace("leave-", "a.shop,leave-"), account="u77"))
    assert not made.matches(copy(3, MAILTO.replace("leave-", "a%40evil.example,leave-"), account="u77"))
    alone = learn(_account(0, "u12345678901"), ())
    assert alone.matches(_account(0, "u77"))
    assert not any(alone.matches(_account(0, one)) for one in ("evil1.example/pay", "a1@evil.example"))
    assert not learn(_account(0, "20%"), ()).matches(_account(0, "a1@evil.example"))
    unfilled = learn(_account(0, "{{account}}"), ())
    assert unfilled.matches(_account(0, "a1@shop.example"))
    assert not unfilled.matches(_account(0, "evil1.example"))


OFFICE = "office@shop.example"


def _footer(to: str, link: str = "", *, office: str = OFFICE, shown_to: str | None = None) -> Shown:
    """As some tools end a copy: it says to which address it was sent, with a link to it."""
    page = (
        '<p>Dear customer,</p><p>spring has come to all of our shops, and with it everything that makes a garden.</p><p>Ask <a href="mailto:{0}">'
        'our office</a>.</p><p>This was sent to <a href="mailto:{1}">{1}</a></p>'
    )
    made = shown(page.format(office, link or to), head="Content-Type: text/html; charset=utf-8\r\n")
    return replace(made, recipient=(to if shown_to is None else shown_to).lower())


PEOPLE = [f"reader{n}@office{n}.example" for n in range(30)]


@every(
    ("first", "others"),
    [(one, some) for one in (PEOPLE[0], OFFICE) for some in ([], PEOPLE[1:], [*PEOPLE[1:], OFFICE])],
)
def test_a_copy_may_link_to_the_address_of_its_own_recipient_alone(first: str, others: list[str]) -> None:
    """Also if its recipient is the one to whom all copies link."""
    made = learn(_footer(first), [_footer(one) for one in others])
    made = Template.loads(made.dumps())
    assert all(made.matches(_footer(to)) for to in ("Anna+News@elsewhere.example", OFFICE, PEOPLE[29], first))
    anna = "anna@elsewhere.example"
    for other in (
        _footer(anna, "mallory@evil.example"),
        _footer(anna, shown_to="mallory@evil.example"),
        _footer(anna, shown_to=""),
        _footer(anna, office="mallory@evil.example"),
        _footer(OFFICE, office="mallory@evil.example"),
        _footer(anna, f"{anna}?cc=mallory@evil.example"),
    ):
        assert not made.matches(other)
        assert {"link", "paragraph"} & {one.kind for one in differences(made, other, exact=False)}


def _login(who: int, login: str = "", *, to: str = "") -> Shown:
    made = copy(who, f"{TEXT}\r\nYou log in as {login or PEOPLE[who]}, from any of our shops.\r\n")
    return replace(made, recipient=to or PEOPLE[who].lower())


@every("seen", [0, 1, 20])
def test_the_address_of_its_recipient_in_the_text_is_replaced_by_no_other(seen: int) -> None:
    """As if a column of the table that the copies were made of were moved by a row."""
    made = learn(_login(0), [_login(n) for n in range(1, seen)])
    made = Template.loads(made.dumps())
    more = range(20, 30) if seen > 1 else [0]
    assert all(made.matches(_login(n)) and made.matches(_login(n, PEOPLE[n].title())) for n in more)
    for n in more:
        moved = _login(n, PEOPLE[(n + 1) % 30])
        assert not made.matches(moved)
        assert [(one.kind, one.what) for one in differences(made, moved, exact=False)] == [
            ("words", PEOPLE[(n + 1) % 30])
        ]
        assert not made.matches(_login(n, to="mallory@evil.example"))
    assert "address" not in str(sentences(Coverage(template=made, copies=seen - 1))[0])


def test_people_see_that_an_address_in_the_text_is_not_the_recipients() -> None:
    """Some have another address for their login, which is covered then, for their own address too."""
    made = learn(_login(0), [_login(n, f"old{n}@elsewhere.example" if n % 5 == 0 else "") for n in range(1, 20)])
    assert all(made.matches(_login(n, login)) for n in range(20, 30) for login in ("", "old@elsewhere.example"))
    assert "an address, not always the recipient's own after “log in as”" in str(
        sentences(Coverage(template=made, copies=19))[0]
    )


def test_an_approval_of_earlier_versions_covers_the_recipients_address_in_the_text() -> None:
    first, *others = (replace(_login(n), recipient="") for n in range(20))
    made = learn(first, others)
    assert all(made.matches(_login(n)) for n in range(30))


def test_a_link_to_a_placeholder_is_one_to_the_recipient() -> None:
    made = learn(_footer("test@shop.example", "*|EMAIL|*"), ())
    assert made.matches(_footer("anna@elsewhere.example"))
    assert not made.matches(_footer("anna@elsewhere.example", "mallory@evil.example"))


def test_without_copies_no_words_come_in_the_place_of_markup() -> None:
    page = "<p>this week we are open, and {} of you</b> can come to see the new shop by the harbour</p>"
    made = learn(shown(page.format("<b>all"), head="Content-Type: text/html\r\n"), ())
    assert not made.matches(shown(page.format("Lisa Is Drunk all"), head="Content-Type: text/html\r\n"))


def test_without_copies_few_words_may_differ() -> None:
    alone = learn(copy(0), ())
    assert alone.matches(copy(6, goods="a kettle", offer=OFFERS[0]))
    for values in ({"goods": "a blanket"}, {"offer": OFFERS[1]}, {"name": "Anna Bo Cilla Dan Eva"}, {"code": "x/y"}):
        assert not alone.matches(copy(0, **values))
    words = [f"A{n}" for n in range(80)]
    many = learn(shown(" ".join(words)), ())
    for n, fits in ((8, True), (9, False)):
        other = [f"B{at}" if at % 8 == 0 and at < 8 * n else word for at, word in enumerate(words)]
        assert many.matches(shown(" ".join(other))) is fits
    assert learn(shown(" ".join(words)), (), 0.2).matches(shown(" ".join(other))), "the policy may say more"


GERMAN = (
    "Guten Tag {name},\r\n\r\ndiese Woche können unsere Kunden die neue Teekanne in jeder Filiale abholen, und dazu eine Decke aus Wolle "
    "für den Garten. {first} ist die Werkstatt am Hafen geöffnet, und der Kaffee kostet vor dem Wochenende ein Drittel weniger.\r\n"
)
ENGLISH = (
    "Dear {name},\r\n\r\nthis week all of our guests can collect the new kettle in every store, and with it a blanket of wool "
    "for the garden. {first} should have to wait for the workshop by the harbour, and {name} has {n} points.\r\n"
)
CHINESE = "尊敬的{name}：\r\n\r\n本周所有的顾客都可以在每一家门店领取新的水壶，还有一条羊毛毯子。{first}的工坊在港口附近开放。\r\n"


@every(
    ("text", "name", "other", "first", "instead"),
    [
        (GERMAN, "Anna", "Bo Ek", "Heute", "Fleisch"),
        (ENGLISH, "Anna", "Bo", "Nobody", "Lisa"),
        (CHINESE, "张伟", "王芳", "早餐", "啤酒"),
    ],
)
def test_without_copies_a_capital_letter_alone_makes_no_name(
    text: str, name: str, other: str, first: str, instead: str
) -> None:
    alone = learn(shown(text.format(name=name, first=first, n=30)), ())
    assert alone.matches(shown(text.format(name=other, first=first, n=77)))
    assert not alone.matches(shown(text.format(name=name, first=instead, n=30)))
    if "Teekanne" in text:
        noun = text.replace("Teekanne", "Whiskyflasche")
        assert not alone.matches(shown(noun.format(name=name, first=first, n=30)))


def test_versions_are_learned_together() -> None:
    """Two versions for the same person are learned together with one version's own slots: the name may differ, although
    it does not here."""
    first, second = copy(0, name="Anna", n="1", code="0a"), copy(0, name="Anna", n="1", code="0a", goods="a blanket")
    together = learned_from_tests(first, [second], SHARE).template
    assert together is not None
    assert Template.loads(together.dumps()) == together
    assert together.matches(second)
    assert together.matches(copy(0, name="Bo", n="1", code="0a"))
    assert not together.matches(copy(0, name="Anna", n="1", code="0a", goods="a bottle"))
    assert learned_from_tests(first, [], SHARE).template == learn(first, ())
    assert learned_from_tests(None, [second], SHARE).template is None


def test_particles_do_not_lengthen_a_name() -> None:
    names = ("Anna Ek", "Bo de la Cruz", "Cilla Dahl", "Dan von Essen", "Eva Holm", "Fia Berg", "Gus Öberg", "Hans Ros")
    template = learn(shown(f"Dear {names[0]},"), [shown(f"Dear {names[n % 8]},") for n in range(1, 30)])
    assert template.matches(shown("Dear Maria del Carmen de la Cruz,"))
    assert not template.matches(shown("Dear Maria Carmen Cruz Lopez,"))
    assert not template.matches(shown("Dear The Boss Is Drunk Again,"))


def test_files_pictures_and_senders_are_no_slots() -> None:
    page = '<p>Dear {name}</p><img src="https://img.example.com/{picture}.png">'
    html = "Content-Type: text/html; charset=utf-8\r\n"

    def one(n: int, picture: str) -> Shown:
        return shown(page.format(name=NAMES[n % 8], picture=picture), head=html)

    template = learn(one(0, "spring0"), [one(n, f"spring{n % 3}") for n in range(1, 30)])
    assert template.matches(one(5, "spring2"))
    assert not template.matches(one(5, "story1"))


@every(
    ("words", "kind"),
    [
        (["Anna"], "name"),
        (["Åsa", "von", "Essen"], "name"),
        (["山", "田"], "name"),
        (["1", "234", ",50"], "number"),
        (["AB-12"], "code"),
        (["anna@example.com"], "code"),
        (["14", "mars", "2026"], "name"),
        (["boss"], ""),
        (["the", "Boss"], ""),
        (["Anna"] * 7, ""),
        (["<b>"], ""),
        ([], ""),
    ],
)
def test_kinds_of_slots(words: list[str], kind: str) -> None:
    assert kind_of(words) == kind


def test_a_number_slot_takes_no_name_and_a_list_no_new_word() -> None:
    number = Slot(kind="number", values=("1",), most=2)
    assert (number.matches(["7"]), number.matches(["Bo"]), number.matches([])) == (True, False, False)
    goods = Slot(kind="list", values=("3 x kettle",), most=6, known=("x", "kettle"))
    assert goods.matches(["2", "x", "kettle", "9", "x", "kettle"])
    assert not goods.matches(["2", "x", "whisky"])


def _fits(items: Sequence[Item], tokens: tuple[str, ...], begins: frozenset[int], at: int = 0) -> bool:
    """Whether some division of the tokens fits the items."""
    if not items:
        return at == len(tokens)
    one, rest = items[0], items[1:]
    if not isinstance(one, Slot):
        token = tokens[at : at + 1]
        there = bool(token) and (one.matches(token[0]) if isinstance(one, Target) else token[0] == one)
        return there and _fits(rest, tokens, begins, at + 1)
    return any(
        one.matches(tokens[at : at + n]) and _fits(rest, tokens, begins, at + n)
        for n in range(min(one.widest, len(tokens) - at) + 1)
        if one.kind == "words" or begins.isdisjoint(range(at + 1, at + n))
    )


WORDS = ("Anna", "Bo", "7", "12", "a", "b", "@link https://x.example/1", "@link https://x.example/b")
PLACES: tuple[Item, ...] = (
    *WORDS[:5],
    Slot(kind="number", values=("1",), most=2),
    Slot(kind="name", values=("Bo",), most=2, empty=True),
    Slot(kind="words", values=("a", "a b", ""), most=2, empty=True),
    Target(base="@link https://x.example", parts=("", "/", Slot(kind="code", values=("1",)))),
)
tokens_ = st.lists(st.sampled_from(WORDS), max_size=7).map(tuple)


@given(st.lists(st.sampled_from(PLACES), max_size=6), tokens_, st.frozensets(st.integers(0, 6), max_size=3))
def test_a_block_fits_if_any_division_of_its_words_does(
    items: list[Item], tokens: tuple[str, ...], begins: frozenset[int]
) -> None:
    block = Block(items=tuple(items))
    assert is_block(block, (tokens, begins)) == _fits(items, tokens, begins)


def test_generated_campaigns_in_eight_languages() -> None:
    """``python -m bench --mailings`` on a small scale: an approval covers all true copies, and no altered one."""
    few = [one for one in templates(1) if one.name.startswith(("short issue", "variants", "short letter"))]
    learned, beforehand = measured(few, copies=3, waiting=40, seed=1, altered=120)
    assert learned.true == 3 * len(few)
    assert learned.covered >= learned.true - 1
    assert learned.altered > 100
    assert (learned.passed, beforehand.passed) == (0, 0), (learned.which, beforehand.which)


some = st.lists(st.integers(0, 6), max_size=60)


@pytest.mark.parametrize("most", [0, 20, alignment.MOST])
@given(one=some, other=some)
def test_stretches_are_equal_and_in_order(most: int, one: list[int], other: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "MOST", most)
        found = stretches(one, other)
        codes = opcodes(one, other)
    i = j = 0
    for a, b, n in found:
        assert a >= i
        assert b >= j
        assert n > 0
        assert one[a : a + n] == other[b : b + n]
        i, j = a + n, b + n
    assert [code[1:] for code in codes][:1] == ([(0, *codes[0][2:3], 0, *codes[0][4:])] if codes else [])
    assert all(x[2] == y[1] and x[4] == y[3] for x, y in itertools.pairwise(codes)), "nothing is left out"
    assert (codes[-1][2], codes[-1][4]) == (len(one), len(other)) if codes else not one and not other
    for op, i1, i2, j1, j2 in codes:
        assert (op == "equal") == (one[i1:i2] == other[j1:j2])


@given(some)
def test_equal_sequences_are_one_stretch(one: list[int]) -> None:
    assert stretches(one, one) == ([(0, 0, len(one))] if one else [])


def test_single_differences_in_a_long_text_are_found() -> None:
    draw = random.Random(3)
    one = [draw.choice("abcdefghijklmnopqrstuvwxyz") + draw.choice("abcdef") for _ in range(20_000)]
    other = list(one)
    for at in range(500, 20_000, 1_000):
        other[at] = "!"
    assert [code[1:3] for code in opcodes(one, other) if code[0] != "equal"] == [
        (at, at + 1) for at in range(500, 20_000, 1_000)
    ]


@every("kind", ["of two", "of one", "of none"])
def test_time_grows_about_linearly(kind: str) -> None:
    """The time grows with the length: ten times the length takes less than 60 times the processor time, with room for a
    slow machine."""

    def taken(n: int) -> float:
        draw = random.Random(n)
        letters = {"of two": ("ab", "ab"), "of one": ("a", "a"), "of none": ("a", "b")}[kind]
        one, other = ([draw.choice(these) for _ in range(n)] for these in letters)
        one[0], other[0], one[-1], other[-1] = "x", "y", "x", "y"
        began = time.process_time()
        stretches(one, other)
        return time.process_time() - began

    taken(1_000)
    assert taken(40_000) < 60 * (taken(4_000) + 0.05)


def test_many_paragraphs_are_compared_in_linear_time() -> None:
    """Each of one text was compared with each of the other: 40 KB stopped a worker for seconds, 200 KB for minutes."""
    old, new = (
        shown("".join(f"<p>{word}{n} x y</p>" for n in range(8_000)), head="Content-Type: text/html\r\n")
        for word in ("a", "b")
    )
    approved = learn(old, ())
    began = time.process_time()
    assert {one.kind for one in differences(approved, new, exact=False)} >= {"words", "paragraph", "paragraph-missing"}
    assert time.process_time() - began < 10


def test_few_of_many_long_alternatives_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long paragraph of other words in many copies: to compare each with others took seconds."""
    draw, compared = random.Random(1), []
    texts = [" ".join(draw.choices(("alpha", "beta", "gamma", "delta"), k=3_000)) for _ in range(90)]
    copies = [
        shown(f"<p>Dear customer,</p>{f'<p>{one}</p>' * (n % 3 > 0)}<p>Bye</p>", head=HTML)
        for n, one in enumerate(texts)
    ]
    monkeypatch.setattr(slotlearning, "_alike", lambda *two: compared.append(two))
    assert learn(copies[0], copies[1:]).choices
    assert len(compared) < 200


def test_a_site_in_a_long_word_is_looked_for_in_linear_time() -> None:
    """At each hyphen all that follows it was read again: 100 KB without a space stopped a worker for half a minute."""
    began = time.process_time()
    assert tokens.links_in([f"{'a-' * 50_000}.", f"{'a_-.' * 50_000}"]) == frozenset()
    assert tokens.links_in([f"{'a-' * 50_000}.shop"]) == {"site"}
    assert time.process_time() - began < 10


def test_fewer_addresses_than_were_approved_are_no_other_sender() -> None:
    """A post to a list is compared with what was approved alone."""
    first = shown("One.", head=f"To: {', '.join(f'{n}@example.net' for n in range(9))}\r\n")
    coming = shown("Two.", head="To: 1@example.net\r\n")
    assert first.sender != coming.sender
    assert not {one.kind for one in differences(learn(first, ()), coming, exact=True)} & {"sender", "shown"}


@every(
    ("old", "new"),
    [
        (
            "".join(f"word{n} sees Anna then{n} " for n in range(6_000)),
            "".join(f"word{n} sees Maria then{n} " for n in range(6_000)),
        ),
        ("word and more " * 10_000, "word and more " * 5_000 + "".join(f"1,5 gamma{n}\r\n\r\n" for n in range(400))),
    ],
)
def test_long_paragraphs_are_compared_in_linear_time(old: str, new: str) -> None:
    """For each name that differs all of its paragraph was read, and for each new paragraph all of a long one: 160 KB
    stopped a worker for minutes."""
    first, coming = shown(old), shown(new)
    assert not coming.opaque
    began = time.process_time()
    approved = learn(first, ())
    assert not approved.matches(coming)
    assert differences(approved, coming, exact=False)
    assert time.process_time() - began < 10
