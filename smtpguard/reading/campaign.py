"""The campaign that a message says it is of. Header fields that anybody can write: believed from a verified origin alone.

A field that numbers campaigns names one by itself; some tools number each copy in it. Feedback-ID and List-Id (RFC 2919) often
stay the same from one mailing to the next, so they name one together with the subject, digits and all. A message that says
it is of a campaign is of one with all that bear its subject, too. Any name in common joins two. Fields that number recipients
or messages name nothing.
"""

from __future__ import annotations

from smtpguard.mail.listheader import ListHeader
from smtpguard.reading.decode import words
from smtpguard.reading.prefixes import bare
from smtpguard.reading.walk import Index

_OF_CAMPAIGNS = (
    "x-campaign", "x-campaign-id", "x-campaignid", "x-mailing-id", "x-mailingid", "x-newsletter-id", "x-newsletterid", "x-broadcast-id",
    "x-blast-id", "x-mailin-campaign", "x-mailgun-campaign-id", "x-listmonk-campaign", "x-mass-mailing-id", "x-job-id", "x-jobid",
)  # fmt: skip
_MOST = 200


def campaign_of(fields: Index, lists: ListHeader, subject: str) -> tuple[str, ...]:
    """Its names, the most telling first; none where it says nothing. A field that stands twice says nothing either."""
    found = []
    for name in _OF_CAMPAIGNS:
        given = fields.get(name, ())
        if len(given) == 1 and (value := " ".join(words(given[0].raw[:_MOST]).split())):
            found.append(f"{name} {value}")
    about = " ".join(bare(subject).lower().split())
    if not about:
        return tuple(found)
    constant = [value for value in (lists.feedback_id, lists.list_id) if value]
    if found and not constant:
        return (*found, f"subject {about}"[: 2 * _MOST])
    return (*found, *(f"{value} {about}"[: 2 * _MOST] for value in constant))
