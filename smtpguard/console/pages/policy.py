"""The Policy page: rules in words, lists with sizes and ages, and a form to try a message; and the guide for people who write mail.

Trying a message sends, keeps, counts and journals nothing. The guide is for everyone who is signed in, and without an account if the
settings allow it.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console.evidence import evidence
from smtpguard.console.pages.message import reasons_in_words
from smtpguard.console.rendering import WrongField, form, page, services_of, speech, uploaded
from smtpguard.console.rulewords import ACTIONS, guide_values, rule_in_words
from smtpguard.console.services import NotSignedIn, Routes
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.fields import mailboxes
from smtpguard.mail.message import Message, with_crlf
from smtpguard.notices.noticedata import enforced_reasons
from smtpguard.reading.topics import topic_name

_MOST_OCTETS = 10 << 20  # of a message to try
_MOST_RECIPIENTS = 1000

ROUTES = Routes()


@ROUTES.get("/policy", *Role)
async def policy(request: Request) -> Response:
    in_force, said = services_of(request).in_force, speech(request)
    registry = in_force.registry
    lists = [
        (
            info,
            registry.statuses[name],
            sorted(said.say(topic_name(word)) for word in info.avoid),
            in_force.rules.quorums.get(name),
        )
        for name, info in sorted(registry.lists.items(), key=lambda item: item[1].title or item[0])
    ]
    return await page(
        request,
        "policy.html",
        rules=[rule_in_words(rule, said) for rule in in_force.rules.rules],
        lists=lists,
        groups=sorted((name, sorted(people)) for name, people in in_force.groups.items()),
        enforce=in_force.enforce,
        sha256=in_force.sha256,
        file=await services_of(request).policy_file(),
    )


@ROUTES.post("/policy/try", *Role)
async def try_message(request: Request) -> Response:
    here, said, sent = services_of(request), speech(request), form(request)
    raw = await uploaded(sent, "file", _MOST_OCTETS + 1) or str(sent.get("text", "")).encode()
    if not raw.strip():
        return await try_page(request, 422, wrong={"text": said("Paste a message, or choose a file.")})
    if len(raw) > _MOST_OCTETS:
        return await try_page(request, 422, wrong={"text": said("It is larger than 10 MB.")})
    message = Message.of(with_crlf(raw))
    try:
        path, recipients = _envelope(message, str(sent.get("from", "")), str(sent.get("to", "")))
    except WrongField as bad:
        return await try_page(request, 422, wrong={bad.field: said(bad.why)})
    if not recipients:
        return await try_page(request, 422, wrong={"to": said("There are no recipients: write them.")})
    found = await here.explain(message, path, recipients)
    avoid = {topic for name in found.recipients.lists for topic in here.in_force.registry.lists[name].avoid}
    return await try_page(
        request,
        verdict=found.verdict,
        outcome=said(ACTIONS[found.verdict.action]),
        reasons=reasons_in_words(enforced_reasons(found.verdict, here.in_force), said),
        found=evidence(found.reading, said, avoid),
        reach=int(found.recipients.reach.low),
        lists=sorted(found.recipients.lists),
        misses=[miss.rule for miss in found.verdict.misses],
        recipients=len(recipients),
    )


@ROUTES.get("/policy/try", *Role)
async def try_page(
    request: Request, status: int = 200, *, wrong: Mapping[str, str] | None = None, **values: object
) -> Response:
    given = {name: str(form(request).get(name, "")) for name in ("from", "to", "text")}
    blank = dict.fromkeys(("verdict", "outcome", "reasons", "found", "reach", "lists", "misses", "recipients"))
    return await page(request, "try.html", status, given=given, wrong=wrong, **(blank | values))


def _envelope(message: Message, sender: str, to: str) -> tuple[Address | None, list[Address]]:
    """Return the reverse-path and the recipients that were given, else those of the header. Raises WrongField."""
    header = message.header
    given = [_address("to", word) for word in to.replace(",", " ").replace(";", " ").split() if word]
    people = (given or mailboxes(header, "To", "Cc"))[:_MOST_RECIPIENTS]
    if sender.strip():
        return _address("from", sender.strip()), people
    return next(iter(mailboxes(header, "From")), None), people


def _address(field: str, text: str) -> Address:
    try:
        return Address.parse(text.strip("<>"))
    except BadAddress:
        raise WrongField(field, Phrase("Not an address: {address}", address=text[:100])) from None


@ROUTES.get("/guide", anyone=True)
async def guide(request: Request) -> Response:
    here, said = services_of(request), speech(request)
    web, hold = here.settings.console, here.settings.hold
    if (web is None or web.guide != "open") and getattr(request.state, "person", None) is None:
        raise NotSignedIn
    values = guide_values(
        here.policy(),
        said,
        here.clock.now(),
        approve_at=hold.approve_at,
        waits=hold.expires,
        groups=here.in_force.groups,
    )
    return await page(request, "staff.html", **values)
