"""Who is told of alarms according to the settings, and what the settings lack for anybody to be told.

Imports little, since ``smtpguard check`` uses it.
"""

from __future__ import annotations

from smtpguard.config.settings import Settings
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.compose import mailbox_of


def contact(settings: Settings) -> Address | None:
    """None if the contact is no mailbox, but a telephone number, say."""
    try:
        return mailbox_of(settings.notices.contact)[1]
    except BadAddress:
        return None


def second_way(settings: Settings) -> tuple[str, str]:
    """What is missing to tell a person of an alarm that the guarded relay cannot carry, and the settings key for it; ""
    if nothing is."""
    alarms = settings.alarms
    guarded = {(relay.host, relay.port) for relay in settings.relays.values()}
    if alarms.webhook is not None:
        return "", ""
    if contact(settings) is None:
        return "no one receives alarms: notices: contact is not a mailbox, and alarms has no webhook", "notices"
    if alarms.relay is not None and (alarms.relay.host, alarms.relay.port) not in guarded:
        return "", ""
    return (
        "no one receives alarms while the relay cannot be used: alarms has neither a relay of its own nor a webhook",
        "alarms",
    )
