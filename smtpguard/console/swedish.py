"""The console's texts in Swedish, by what they are in English. ``#`` is a number, ``{name}`` a value.

tests/console/test_i18n.py walks every text that pages and templates say.
"""

from __future__ import annotations

from collections.abc import Mapping

from smtpguard.console.pages.swedish import TEXTS as _PAGES
from smtpguard.console.pages.swedish_incident import TEXTS as _INCIDENT
from smtpguard.console.pages.swedish_record import TEXTS as _RECORD
from smtpguard.console.people.swedish import TEXTS as _PEOPLE
from smtpguard.policy.facts import FACTS

_FACTS = dict(texts for fact in FACTS.values() for texts in (fact.label, *fact.called.values()))
TEXTS: Mapping[str, str] = {**_FACTS, **_INCIDENT, **_PEOPLE, **_PAGES, **_RECORD}
