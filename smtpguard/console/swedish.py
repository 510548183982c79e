"""The console's texts in Swedish, by what they are in English. ``#`` is a number, ``{name}`` a value.

tests/console/test_speech.py walks every text that pages and templates say. Never here: sentences about rules and marks,
which are mail.swedish's.
"""

from __future__ import annotations

from collections.abc import Mapping

from smtpguard.console.people.swedish import TEXTS as _PEOPLE

_EVERYWHERE = {
    "Waiting": "Väntar",
    "less than a minute": "mindre än en minut",
    "# minute": "# minut",
    "# minutes": "# minuter",
    "# hour": "# timme",
    "# hours": "# timmar",
    "# day": "# dygn",
    "# days": "# dygn",
}

TEXTS: Mapping[str, str] = {**_PEOPLE, **_EVERYWHERE}
