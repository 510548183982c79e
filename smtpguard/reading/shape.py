"""Marks from the structure of a message: what mail programs write around typed text, and what templates have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from smtpguard.locale.phrase import Phrase
from smtpguard.reading.marks import KINDS, Mark
from smtpguard.reading.text import Text

# Signs of mail programs in the markup of typed mail.
_TYPED = (
    ("msonormal", "Word or Outlook"), ("wordsection1", "Word or Outlook"), ("elementtoproof", "Outlook on the web"),
    ("divtagdefaultwrapper", "Outlook on the web"), ("ms-outlook-mobile", "Outlook on a telephone"), ("exchange server", "Exchange"),
    ("gmail_default", "Gmail"), ("gmail_signature", "Gmail"), ("gmail_quote", "Gmail"), ("applemailsignature", "Apple Mail"),
    ("-webkit-line-break: after-white-space", "Apple Mail"), ("line-break: after-white-space", "Apple Mail"),
    ("apple-content-edited", "Apple Mail"), ("moz-signature", "Thunderbird"), ("moz-cite-prefix", "Thunderbird"),
    ("moz-txt", "Thunderbird"), ("yahoo-style-wrap", "Yahoo"), ("ydp", "Yahoo"), ("protonmail_signature", "Proton"), ("bloop_sign", "Airmail"),
    ("zmail_", "Zoho"), ("tutanota", "Tuta"), ("id=\"signature\"", "a mail program"),
)  # fmt: skip
_GMAIL = re.compile(r'\A\s*<div dir="(?:ltr|auto)">')
_BOUNDARIES = (
    (re.compile(r"Apple-Mail[=_\-]"), "Apple Mail"),
    (re.compile(r"_?_\d{3}_[0-9A-Za-z]{20,}.*_\Z"), "Exchange or Outlook"),
    (re.compile(r"----=_NextPart_\d{3}_[0-9A-F]{4}_[0-9A-F]{8}\.[0-9A-F]{8}\Z"), "Outlook"),
    (re.compile(r"0000000000[0-9a-f]{16,20}\Z"), "Gmail"),
    (re.compile(r"[0-9a-f]{2,12}001a[0-9a-f]{12,24}\Z"), "Gmail"),
    (re.compile(r"-{12}[0-9A-Za-z]{24}\Z"), "Thunderbird"),
    (re.compile(r"=_[0-9a-f]{32}\Z"), "Roundcube"),
)
# Signs of templates, each in its spellings.
_TEMPLATE = (
    ('name="viewport', "name=viewport", "name='viewport"), ('role="presentation"', "role=presentation"), ("@media only screen", "@media screen"),
    ("mj-column",), ('class="mcn',), ("x-apple-disable-message-reformatting",), ("bgcolor=",), ('background="http', "background='http"),
)  # fmt: skip
# Signs of templates that Word also writes, into every letter from Outlook.
_WORDS_TOO = (
    ("<!--[if mso", "<!--[if gte mso"), ("<!--[if !mso",), ('xmlns:v="urn:schemas-microsoft-com:vml',),
    ('cellpadding="0', "cellpadding='0", "cellpadding=0"),
)  # fmt: skip


def shape_marks(text: Text) -> Iterator[Mark]:
    """Marks of a mail program, of templates, and of hidden text."""
    typed = ""
    for boundary in text.boundaries[:3]:
        typed = typed or next((name for pattern, name in _BOUNDARIES if pattern.match(boundary)), "")
    markup = text.markup
    if markup:
        source = markup.source
        typed = next((name for sign, name in _TYPED if sign in source), "") or typed
        if not typed and _GMAIL.match(source):
            typed = "Gmail"
        looked_for = _TEMPLATE if "msonormal" in source else (*_TEMPLATE, *_WORDS_TOO)
        signs = sum(1 for spellings in looked_for if any(spelled in source for spelled in spellings))
        if markup.tables >= 6 or (markup.tables >= 2 and signs >= 2) or signs >= 3:
            yield KINDS["template"].mark(
                Phrase(
                    "it is made from a template ({tables} tables, {pictures} pictures)",
                    tables=markup.tables,
                    pictures=markup.images,
                )
            )
        if markup.pixels:
            yield KINDS["tracking-pixel"].mark(
                Phrase("it holds a picture of one pixel, as those who count readers use")
            )
        hidden = " ".join(markup.hidden.split())
        if len(hidden) > 12:
            if markup.tables and len(hidden) < 600:
                yield KINDS["preheader"].mark(Phrase('a hidden line for previews: "{words}"', words=hidden[:50]))
            yield KINDS["hidden-text"].mark(Phrase('it holds text that nobody sees: "{words}"', words=hidden[:50]))
    if typed:
        yield KINDS["composition"].mark(Phrase("it is put together as {typed} does it", typed=typed))
