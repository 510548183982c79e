"""What a reader is to know of the organisation, from the policy in force."""

from __future__ import annotations

from smtpguard.app.lists import names
from smtpguard.config.settings import Settings
from smtpguard.lists.declared import build
from smtpguard.lists.names import Names
from smtpguard.policy.parse import Policy
from smtpguard.reading.surroundings import Surroundings
from smtpguard.reading.topics import compile_vocabularies


def surroundings(settings: Settings, policy: Policy) -> Surroundings:
    """Whose mail this is, which vocabularies are looked for, and how marks are weighed."""
    lists, _ = build(*policy.sections(), delimiters=policy.delimiters)
    declared = {a.canonical(policy.delimiters) for info in lists.values() for a in info.addresses}
    implied = {
        address for address, _ in Names(lists, delimiters=policy.delimiters, **names(settings, policy)).implied()
    }
    return Surroundings(
        domains=policy.organization.domains,
        list_addresses=frozenset(declared | implied),
        list_ids=frozenset(list_id for info in lists.values() for list_id in info.list_ids),
        delimiters=policy.delimiters,
        vocabularies=compile_vocabularies(policy.vocabularies),
        authserv_ids=frozenset(settings.authserv_ids),
        weights=policy.marks,
        customs=policy.own_marks,
    )
