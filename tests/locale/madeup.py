"""A made-up language: a catalogue in its own folder, beside the shipped ones."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import write_po

from smtpguard import locale as catalogues
from smtpguard.locale import speech
from tests.messages import template

MadeUp = Callable[[str, str, Callable[[str], str]], None]
"""(language, CLDR locale, translation of each message)"""


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeUp]:
    folder = tmp_path / "catalogues"

    def forget() -> None:
        catalogues.languages.cache_clear()
        speech.catalogue.cache_clear()

    def make(language: str, locale: str, say: Callable[[str], str]) -> None:
        for shipped in catalogues.languages():
            shutil.copytree(catalogues.FOLDER / shipped, folder / shipped)
        made = template()
        made.locale = locale
        for message in made:
            if isinstance(message.id, tuple):
                message.string = tuple(say(form) for form in message.id)
            elif message.id:
                message.string = say(str(message.id))
        out = io.BytesIO()
        write_po(out, made, no_location=True)
        file = folder / language / "LC_MESSAGES" / "smtpguard.po"
        file.parent.mkdir(parents=True)
        file.write_bytes(out.getvalue())
        monkeypatch.setattr(catalogues, "FOLDER", folder)
        forget()

    yield make
    monkeypatch.undo()
    forget()
