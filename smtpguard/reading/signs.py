"""Signs in the source of HTML: of quoting, of mail programs, of templates, of styles that show other words.

One pass finds all that a source has: ten times faster than a search for each.
"""

from __future__ import annotations

import re2

QUOTING = (
    "gmail_quote", "gmail_extra", "type=cite", 'type="cite"', "type='cite'", "yahoo_quoted", "protonmail_quote", "messagereplysection",
    "reference-message-container", "tutanota_quote", "zmail_extra", "divrplyfwdmsg", "appendonsend", "outlookmessageheader", "moz-cite",
    "moz-forward", "isforwardcontent",
)  # fmt: skip
# Signs of mail programs in the markup of typed mail.
TYPED = (
    ("msonormal", "Word or Outlook"), ("wordsection1", "Word or Outlook"), ("elementtoproof", "Outlook on the web"),
    ("divtagdefaultwrapper", "Outlook on the web"), ("ms-outlook-mobile", "Outlook on a telephone"), ("exchange server", "Exchange"),
    ("gmail_default", "Gmail"), ("gmail_signature", "Gmail"), ("gmail_quote", "Gmail"), ("applemailsignature", "Apple Mail"),
    ("-webkit-line-break: after-white-space", "Apple Mail"), ("line-break: after-white-space", "Apple Mail"),
    ("apple-content-edited", "Apple Mail"), ("moz-signature", "Thunderbird"), ("moz-cite-prefix", "Thunderbird"),
    ("moz-txt", "Thunderbird"), ("yahoo-style-wrap", "Yahoo"), ("ydp", "Yahoo"), ("protonmail_signature", "Proton"), ("bloop_sign", "Airmail"),
    ("zmail_", "Zoho"), ("tutanota", "Tuta"), ("id=\"signature\"", "a mail program"),
)  # fmt: skip
# Signs of templates, each in its spellings.
TEMPLATE = (
    ('name="viewport', "name=viewport", "name='viewport"), ('role="presentation"', "role=presentation"), ("@media only screen", "@media screen"),
    ("mj-column",), ('class="mcn',), ("x-apple-disable-message-reformatting",), ("bgcolor=",), ('background="http', "background='http"),
)  # fmt: skip
# Signs of templates that Word also writes, into every letter from Outlook.
WORDS_TOO = (
    ("<!--[if mso", "<!--[if gte mso"), ("<!--[if !mso",), ('xmlns:v="urn:schemas-microsoft-com:vml',),
    ('cellpadding="0', "cellpadding='0", "cellpadding=0"),
)  # fmt: skip
# Signs of tracked changes and comments of a word processor.
TRACKED = (
    "msocommentreference",
    'class="msodel',
    "class=msodel",
    "<del ",
    "msocommentanchor",
    'class="msoins',
    "msocomtxt",
)
BACKWARDS = ("<bdo", "bidi-override", "isolate-override")
WRITTEN = ("list-style", "quotes", "symbols")
"""Properties of a style that write text, but for ``content``, which is in nearly every source."""

ALL = tuple(
    dict.fromkeys(
        (
            *QUOTING,
            *(sign for sign, _ in TYPED),
            *(spelled for spellings in (*TEMPLATE, *WORDS_TOO) for spelled in spellings),
            *TRACKED,
            *BACKWARDS,
            *WRITTEN,
        )
    )
)


def _finder() -> re2.Set:
    options = re2.Options()
    options.literal = True
    options.encoding = re2.Options.Encoding.LATIN1  # octets
    made = re2.Set.SearchSet(options)
    for sign in ALL:
        made.Add(sign)
    made.Compile()
    return made


_FINDER = _finder()


def signs_in(source: str) -> frozenset[str]:
    """``source``: in lower case."""
    found = _FINDER.Match(source.encode("utf-8", "surrogatepass"))
    return frozenset(map(ALL.__getitem__, found or ()))
