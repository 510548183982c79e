"""The campaign that a message says it is of. A header field that anybody can write: believed from a verified origin alone.

A field that numbers campaigns is enough by itself. Feedback-ID and List-Id (RFC 2919) often stay the same from one mailing to
the next, so they count together with the subject, digits and all. Fields that number recipients or messages are none of it.
Never here: whether the origin is verified (guard), or what follows from it (fingerprint).
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


def campaign_of(fields: Index, lists: ListHeader, subject: str) -> str:
    """What it says, "" where it says nothing. A field that stands twice says nothing either."""
    for name in _OF_CAMPAIGNS:
        given = fields.get(name, ())
        if len(given) == 1 and (value := " ".join(words(given[0].raw[:_MOST]).split())):
            return f"{name} {value}"
    constant = lists.feedback_id or lists.list_id
    about = " ".join(bare(subject).lower().split())
    return f"{constant} {about}"[: 2 * _MOST] if constant and about else ""
