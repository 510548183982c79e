"""The catalogues have every message of the code, with the same placeholders; a third language is one file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from babel.messages.catalog import Message

from smtpguard.locale import file_of, languages
from smtpguard.locale.phrase import Phrase, places
from smtpguard.locale.speech import Catalogue, Speech, catalogue, choose, read
from smtpguard.mail.address import Address
from smtpguard.notices.notice import SAMPLE, Notice, NoticeHead, NoticeTemplates
from smtpguard.policy.facts import FACTS
from smtpguard.policy.models import OrganizationModel
from tests.every import every
from tests.locale.madeup import MadeUp
from tests.messages import MARKS, PACKAGE, Used, parsed, updated, used

TRANSLATED = [language for language in languages() if language != "en"]


def forms(said: Any) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said)


def messages(language: str) -> Iterator[Message]:
    yield from (message for message in parsed(file_of(language)) if message.id)


def test_swedish_and_english_exist() -> None:
    assert {"en", "sv"} <= {*languages()}


@every("language", TRANSLATED)
def test_every_message_is_translated_and_none_is_unused(language: str) -> None:
    """``make generated`` updates a catalogue, and leaves new messages empty for translation."""
    assert file_of(language).read_text() == updated(file_of(language)), "make generated"
    found = parsed(file_of(language))
    there: dict[Used, Message] = {m.id if isinstance(m.id, str) else (m.id[0], m.id[1]): m for m in found if m.id}
    assert {message for _, message, _ in used()} == set(there)
    assert len(there) > 1_000
    assert [m.id for m in there.values() if not all(forms(m.string))] == []
    assert [m.id for m in found if m.id and m.fuzzy] == []
    assert list(found.obsolete) == []


def test_every_message_of_the_code_is_found() -> None:
    """Babel overlooks a message inside an f-string (before Python 3.12), or in an argument of another's function."""
    found = {(file, message) for file, message, _ in used()}
    marks = {
        (str(path.relative_to(PACKAGE)), message)
        for path in PACKAGE.rglob("*.py")
        for message in marked(ast.parse(path.read_text()))
    }
    assert marks - found == set(), "take it out of the call or the f-string"


def marked(code: ast.AST) -> Iterator[Used]:
    """The messages in calls of functions that mark them."""
    for call in ast.walk(code):
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            places = [n - 1 for n in MARKS[name] or (1,) if isinstance(n, int)] if name in MARKS else []
            given = [call.args[n] for n in places if n < len(call.args)]
            texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if texts and len(texts) == len(given):
                yield texts[0] if len(texts) == 1 else (texts[0], texts[1])


@every("language", TRANSLATED)
def test_translations_have_the_placeholders_of_their_messages(language: str) -> None:
    for message in messages(language):
        wanted = frozenset().union(*map(places, forms(message.id)))
        for said in forms(message.string):
            had, many = places(said), len(forms(message.id)) > 1
            assert had <= wanted, message.id
            assert wanted - had <= ({"n"} if many else set()), message.id
            assert said.strip() == said, message.id


@every("language", languages())
def test_a_catalogue_has_a_form_for_every_number(language: str) -> None:
    known = catalogue(language)
    count = parsed(file_of(language)).num_plurals
    assert {known.form(n) for n in range(200)} == set(range(count))


def test_the_words_of_every_fact_are_in_the_catalogue() -> None:
    known = {form for _, message, _ in used() for form in forms(message)}
    for fact in FACTS.values():
        for text in (fact.label, *fact.called.values(), *fact.says.values()):
            assert set(forms(text)) <= known, fact.name


def test_text_is_only_in_the_catalogues() -> None:
    """Swedish text is in the catalogue only; terms to find in mail are in reading, and the demo's mail is in demo."""
    swedish = re.compile("[åäöÅÄÖ]")
    apart = {PACKAGE / "mailings" / "tokens.py", PACKAGE / "app" / "story.py"}
    found = [
        str(file.relative_to(PACKAGE))
        for file in sorted(PACKAGE.rglob("*"))
        if file.suffix in (".py", ".j2", ".html")
        and file not in apart
        and not {"reading", "demo"} & set(file.relative_to(PACKAGE).parts[:1])
        and swedish.search(file.read_text())
    ]
    assert found == []


def test_no_code_branches_on_the_language() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if "reading" in file.parts:
            continue
        text = file.read_text()
        if '"sv"' not in text and '"en"' not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare) and any(
                isinstance(each, ast.Constant) and each.value in ("sv", "en") for each in (node.left, *node.comparators)
            ):
                found.append(f"{file.name}:{node.lineno}")
    assert found == []


def upside_down(text: str) -> str:
    """Every word reversed, except placeholders."""
    return re.sub(r"\{\w+\}|[^\W\d_]+", lambda m: m[0] if m[0].startswith("{") else m[0][::-1], text)


def test_a_third_language_is_one_file(made_up: MadeUp) -> None:
    made_up("et", "et_EE", upside_down)
    assert "et" in languages()
    assert choose("", "et-EE, en;q=0.5") == "et"
    assert (
        OrganizationModel.model_validate({"domains": ["example.com"], "languages": ["et", "sv"]}).languages[0] == "et"
    )
    speech = Speech("et")
    assert speech("Waiting") == "gnitiaW"
    assert speech.ngettext("{n} person", "{n} people", 412_318) == "412\u00a0318 elpoep"
    assert (
        speech.say(Phrase.counted("It reaches one person", "It reaches {n} people", 2_000))
        == "tI sehcaer 2\u00a0000 elpoep"
    )
    at = datetime(2026, 3, 2, tzinfo=UTC)
    notice = Notice(
        id="x", to=Address.parse("eva@example.com"), data={**SAMPLE, "notice": "held"}, language="et", at=at
    )
    raw = NoticeTemplates(NoticeHead(languages=("et",))).render(notice).decode()
    assert "Content-Language: et" in raw
    assert "ruoY egassem" in raw


def test_untranslated_messages_are_in_english(tmp_path: Path) -> None:
    file = tmp_path / "x.po"
    file.write_text(
        'msgid ""\nmsgstr ""\n"Language: sv_SE\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n\n'
        '#, fuzzy\nmsgid "Waiting"\nmsgstr "Kanske"\n\nmsgid "Rules"\nmsgstr ""\n\nmsgctxt "state"\nmsgid "held"\nmsgstr "kvar"\n\n'
        'msgid "one"\nmsgid_plural "{n}"\nmsgstr[0] "en"\nmsgstr[1] ""\n'
    )
    made: Catalogue = read(file, "sv")
    assert (made.gettext("Waiting"), made.gettext("Rules"), made.gettext("nothing")) == ("Waiting", "Rules", "nothing")
    assert (made.pgettext("state", "held"), made.pgettext("other", "held")) == ("kvar", "held")
    assert (made.ngettext("one", "{n}", 1), made.ngettext("one", "{n}", 2)) == ("one", "{n}")
