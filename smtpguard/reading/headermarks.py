"""Marks from the header block (RFC 5322; the own fields of Exchange, Outlook, Gmail, Apple and the platforms).

All of it can be forged, so no mark here is proof; verified origins come from elsewhere (origin).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

from smtpguard.locale.phrase import Phrase
from smtpguard.mail.decoding import header_text
from smtpguard.mail.fields import AuthResult, ListHeader, signed_by
from smtpguard.mail.message import first_text
from smtpguard.reading.marks import KINDS, Mark
from smtpguard.reading.parts import Index
from smtpguard.reading.people import People
from smtpguard.reading.request import PROVIDERS, Surroundings
from smtpguard.reading.thread import FORWARD, REPLY, prefix_of, reply_count

# Programs in which people write single mails, by a part of X-Mailer or User-Agent in lower case.
_PROGRAMS = re.compile(
    r"outlook|apple mail|iphone mail|ipad mail|thunderbird|lotus notes|hcl notes|ibm notes|evolution|kmail|mutt|gnus|alpine|claws"
    r"|sylpheed|roundcube|zimbra|squirrelmail|horde|the bat|eudora|pegasus|airmail|spark|yahoomailwebservice|yahoomailclassic"
    r"|webservice/.*ymail|ymail|k-9 mail|fairemail|bluemail|samsung|mailspring|postbox|emclient|em client|geary|rainloop|snappymail|sogo|open-xchange"
    r"|groupwise|entourage|exmh|mew version|mh-e|vm \d|pine|elm \[|balsa|internet mail service|novell|foxmail|coremail|qqmail|mozilla"
)
# Fields that only platforms for mailings or automatic mail write: by name, or a prefix of it.
_PLATFORM_FIELDS = {
    "x-mc-user": "Mailchimp", "x-mandrill-user": "Mandrill", "x-mailgun-sid": "Mailgun", "x-mailgun-sending-ip": "Mailgun",
    "x-mailgun-tag": "Mailgun", "x-mailgun-variables": "Mailgun", "x-sg-eid": "SendGrid", "x-sg-id": "SendGrid",
    "x-smtpapi": "SendGrid", "x-sfmc-stack": "Salesforce Marketing Cloud", "x-sfdc-lk": "Salesforce",
    "x-hs-cid": "HubSpot", "x-hubspot-message-id": "HubSpot", "x-ses-outgoing": "Amazon SES", "x-pm-message-id": "Postmark",
    "x-postmark-tag": "Postmark", "x-mailin-campaign": "Brevo", "x-mailin-client": "Brevo", "x-mailin-eid": "Brevo",
    "x-sib-id": "Brevo", "x-mj-mid": "Mailjet", "x-mj-campaignid": "Mailjet", "x-msys-api": "SparkPost",
    "x-sparkpost-message-id": "SparkPost", "x-klaviyo-message-id": "Klaviyo", "x-elasticemail-messageid": "Elastic Email",
    "x-campaignmonitor-id": "Campaign Monitor", "x-cmail-recipientid": "Campaign Monitor", "x-emarsys-identify": "Emarsys",
    "x-cheetahmail": "CheetahMail", "x-responsys": "Responsys", "x-marketoid": "Marketo", "x-mkt-domain": "Marketo",
    "x-silverpop": "Acoustic", "x-getresponse": "GetResponse", "x-aweber": "AWeber", "x-roving-id": "Constant Contact",
    "x-roving-campaignid": "Constant Contact", "x-ctct-id": "Constant Contact", "x-mailerlite": "MailerLite",
    "x-ml-id": "MailerLite", "x-acumbamail": "Acumbamail", "x-listmonk-campaign": "listmonk", "x-listmonk-subscriber": "listmonk",
    "x-phplist-version": "phpList", "x-messageid-phplist": "phpList", "x-mautic": "Mautic", "x-dotmailer": "Dotdigital",
    "x-sailthru-message-id": "Sailthru", "x-braze": "Braze", "x-iterable-message-id": "Iterable", "x-customerio": "Customer.io",
    "x-zcampaign": "Zoho Campaigns", "x-zcsender": "Zoho Campaigns", "x-substack": "Substack", "x-beehiiv-ids": "beehiiv",
    "x-convertkit": "Kit", "x-apsis": "Apsis", "x-rule-id": "Rule", "x-get-a-newsletter": "Get a Newsletter",
    "x-rm-sender": "rapidmail", "x-cleverreach": "CleverReach", "x-inxmail": "Inxmail", "x-optivo": "Optivo",
    "x-mailup": "MailUp", "x-mailingid": "a platform", "x-csa-complaints": "a certified bulk sender", "x-bulkmail": "a bulk mailer",
    "x-linkedin-class": "LinkedIn", "x-github-reason": "GitHub", "x-amazon-mail-relay-type": "Amazon",
    "x-lyris": "Lyris", "x-ebay-mailtracker": "eBay", "x-bfi": "a bulk mailer", "x-email-type-id": "PayPal",
}  # fmt: skip
_PLATFORM_BEGINS = (
    "x-mailgun-", "x-mandrill-", "x-sg-", "x-hs-", "x-mj-", "x-klaviyo", "x-emarsys", "x-marketo", "x-mautic", "x-listmonk",
    "x-braze", "x-iterable", "x-sailthru", "x-sendinblue", "x-sib-", "x-mailin-", "x-roving-", "x-cm-", "x-cmail", "x-aweber",
    "x-getresponse", "x-mailerlite", "x-dotdigital", "x-substack", "x-beehiiv", "x-phplist", "x-apsis", "x-facebook",
)  # fmt: skip
_CAMPAIGN_FIELD = re.compile(
    r"x-(?:.*-)?(?:campaign|campaignid|campaign-id|mailing|mailingid|mailing-id|newsletter|newsletterid|broadcast|subscriberid"
    r"|subscriber-id|recipient-id|recipientid|job|jobid|job-id|template|templateid|report-abuse|abuse-info|complaints-to|unsubscribe-web"
    r"|unsubscribe|listmember|list-member|mail-id|blastid|ems-id|tracking-id|messagetype)\Z"
)
_PLATFORM_MAILER = re.compile(
    r"mailchimp|campaign|newsletter|sendgrid|mailjet|phplist|listmonk|lyris|bulk|swiftmailer|phpmailer|framework::mail|mailer(?:lite|cloud)"
    r"|aweber|marketo|eloqua|inxmail|klaviyo|sendy|acymailing|mailup|emarsys|getresponse|interspire|cheetah|emailvision|smartfocus"
)
_PLATFORM_FEEDBACK = re.compile(
    r"(?:mc|mandrill|sendgrid|sg|ses|amazonses|aws|mailgun|sparkpost|postmark|hubspot|hs|klaviyo|brevo|sendinblue|sib|mailjet|mj|marketo"
    r"|braze|iterable|salesforce|sfmc|constantcontact|cc|campaignmonitor|cmail|mailerlite|getresponse|rm|rapidmail|cleverreach|emarsys"
    r"|substack|beehiiv|linkedin|facebook|none)\s*\Z",
    re.I,
)
_MACHINE_MAILER = re.compile(
    r"phpmailer|swiftmailer|symfony|javamail|nodemailer|mime::lite|perl|php|ruby|\.net|smtp\b|blat|sendmail", re.I
)
_NOREPLY = re.compile(r"(?:.*[._\-+])?(?:no|non|not|dont|donot|do[._-]not|ne[._-]?pas)[._\-]?(?:reply|replay|response|respond|answer|responder|repondre|svara|svar)(?:[._\-+\d].*)?\Z|(?:ikke-svar|inte-svara|ingen-svar|svara-inte|keine-?antwort|nicht-antworten|noresponda|mailer-daemon|eivastata|ala-vastaa)\Z", re.I)  # fmt: skip
_ROLE = re.compile(
    r"(?:.*[._\-])?(?:news|newsletters?|nyhetsbrev|nyheder|nyhedsbrev|nyhetsbrevet|uutiskirje|rundbrief|infolettre|boletin|marketing|campaigns?"
    r"|kampanj|offers?|erbjudande|deals|promo(?:tions?)?|updates?|digest|notifications?|notify|alerts?|mailings?|mailer|bounces?|e?mail"
    r"|announce(?:ments?)?|subscriptions?|members?|community|events?|hello|orders?|order-update|shop|store|auto-confirm|confirm(?:ation)?"
    r"|receipts?|billing|tracking|trackingupdates|delivery|shipment(?:-tracking)?|customer\.?service|kundtjanst|kundservice|kundeservice"
    r"|service|noreply|info|mcinfo|editor|pkginfo|support|contact|kontakt|bookings?|bokning|reservations?|survey|feedback|invoices?|faktura|welcome|team)\d*(?:[._\-].*)?\Z",
    re.I,
)
# Tools in which colleagues write to each other, by what begins the names of their fields, by the program that they name, and by the sender
# of those that run elsewhere.
_TOOL_FIELDS = (
    "x-jira-", "x-atlassian-", "x-confluence-", "x-gitlab-", "x-github-", "x-gitea-", "x-forgejo-", "x-gerrit-", "x-phabricator-",
    "x-redmine-", "x-bugzilla-", "x-trac-", "x-jenkins-", "x-sentry-", "x-asana-", "x-otrs-", "x-rt-", "x-servicenow-",
)  # fmt: skip
_TOOL_PROGRAM = re.compile(r'(?:\bvia |\A"?)(mattermost|otrs|youtrack|zammad|znuny|zulip)\b', re.I)
_TOOL_SENDER = re.compile(
    r".*[@.](?:teams\.microsoft\.com|sharepointonline\.com|planner\.office365\.com|yammer\.com|slack\.com|atlassian\.net|bitbucket\.org|gitlab\.com|github\.com"
    r"|docs\.google\.com|asana\.com|trello\.com|notion\.so|monday\.com|clickup\.com|basecamp\.com|basecamphq\.com|figma\.com|miro\.com|zoom\.us|webex\.com|getsentry\.com|linear\.app"
    r"|workplace\.com|wrike\.com|smartsheet\.com|airtable\.com|engage\.mail\.microsoft|mattermost\.com|myjetbrains\.com|service-now\.com|youtrack\.cloud"
    r"|zulipchat\.com)\Z|azuredevops@microsoft\.com\Z|(?:drive-shares|comments|chat|calendar)-[\w-]*@google\.com\Z"
)
VERP = re.compile(r"(?:bounces?|b|return|rts|msprvs\d*|prvs|btv\d)[+=_\-.].{6,}|.*[=+].+=.+|[0-9a-f]{8,}-.{10,}", re.I)
_SENSITIVE = re.compile(r"company-confidential|private|personal|confidential|internal", re.I)
_PUBLIC = re.compile(r"\b(?:public|offentlig|öppen|general public|öffentlich|publique|pública|julkinen)\b", re.I)
_INSIDE = re.compile(
    r"\bintern(?:al|t|a|e|en|ne|o)?\b|confiden|konfiden|sekret|secret|restrict|classified|förtrolig|hemlig|skyddad|fortrolig|luottamuk|sisäi|salai|vertraulich"
    r"|geheim|privat|personal|personlig|staff|employee|anställd|medarbetar",
    re.I,
)
_NOT_INSIDE = re.compile(r"\bun(?:restrict|classif)|\b(?:non|not|nicht|icke|ej|inte|ikke|no)[ \-]", re.I)
_LABEL_NAME = re.compile(r"MSIP_Label_[0-9a-fA-F\-]+_Name\s*=\s*([^;]{1,100})")
_CLASSIFICATIONS = (
    "x-classification", "x-protective-marking", "x-sensitivity", "x-titus-classification", "x-security-label", "siolabel",
)  # fmt: skip
LABELS = frozenset({"msip_labels", "sensitivity", *_CLASSIFICATIONS})
_PRIVATE_IP = re.compile(
    r"(?<![\d.])(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01])|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7]))\.\d{1,3}\.\d{1,3}(?![\d.])"
)
_INTERNAL_HOST = re.compile(
    r"\b[\w\-]+(?:\.[\w\-]+)*\.(?:local|lan|corp|internal|intranet|intern|intra|ad|domain|home\.arpa|office)\b", re.I
)
_X500 = re.compile(rb"/O=[^/\r\n]{1,100}/OU=|\bIMCEAEX-", re.I)
_PEOPLE_IDS = (
    (re.compile(r"<CA[A-Za-z0-9+_=\-]{20,}@mail\.gmail\.com>"), "Gmail"),
    (re.compile(r"<[A-Z0-9]{20,}@[A-Z0-9.]+\.prod\.(?:outlook|exchangelabs)\.com>", re.I), "Exchange Online"),
    (re.compile(r"<[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}@[^>]+>"), "Apple Mail"),
    (
        re.compile(
            r"<[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}@(?!.*(?:amazonses|sendgrid|mailgun))[^>]+\.[a-z]{2,}>"
        ),
        "Thunderbird",
    ),
    (re.compile(r"<[0-9a-f]{12,}\$[0-9a-f]+\$[0-9a-f]+\$@[^>]+>", re.I), "Outlook"),
    (re.compile(r"<[0-9A-F]{30,}@[^>]*>"), "Exchange"),
    (re.compile(r"<OF[0-9A-F]+\.[0-9A-F]+-ON[0-9A-F]+\.[0-9A-F]+@[^>]*>", re.I), "Notes"),
    (re.compile(r"<\d+\.\d+\.(?:JavaMail|YahooMail\w*)\.(?:yahoo|zimbra)[^>]*>", re.I), "Yahoo or Zimbra"),
)


def header_marks(
    fields: Index, lists: ListHeader, people: People, around: Surroundings, results: Sequence[AuthResult]
) -> Iterator[Mark]:
    """Yield all marks from the header alone. Whether list headers are a list server's is decided for the whole
    message (read)."""
    yield from _list_marks(lists, around)
    yield from _platform_marks(fields, lists)
    yield from _thread_marks(fields, around)
    yield from _client_marks(fields, around)
    yield from _label_marks(fields)
    yield from _sender_marks(fields, lists, people)
    yield from _tool_marks(fields, people, around)
    yield from _people_marks(people, around)
    yield from _host_marks(fields)
    yield from _authentication_marks(results)
    if "x-smtpguard" in fields:
        yield KINDS["claimed-pass"].mark("a header claims that it passed this guard before; that proves nothing")


def _list_marks(lists: ListHeader, around: Surroundings) -> Iterator[Mark]:
    if lists.unsubscribe:
        if lists.one_click and any(u.lower().startswith("http") for u in lists.unsubscribe):
            yield KINDS["one-click"].mark("List-Unsubscribe-Post offers to unsubscribe with one click")
        else:
            yield KINDS["list-unsubscribe"].mark("it has a List-Unsubscribe field")
    if lists.list_id:
        name = "list-id-ours" if lists.list_id in around.list_ids else "list-id"
        yield KINDS[name].mark("List-Id names the list {list_id}", list_id=lists.list_id[:80])
    if lists.precedence in ("bulk", "list", "junk"):
        yield KINDS["precedence"].mark("Precedence is {word}", word=lists.precedence)


def _platform_marks(fields: Index, lists: ListHeader) -> Iterator[Mark]:
    if lists.feedback_id:
        name = (
            "platform-feedback-id" if _PLATFORM_FEEDBACK.search(lists.feedback_id.rpartition(":")[2]) else "feedback-id"
        )
        yield KINDS[name].mark("it has a Feedback-ID for complaints about mailings")
    platform: Phrase | None = None
    campaign: Phrase | None = None
    for name in fields:
        if not name.startswith("x-"):
            continue
        if name in _PLATFORM_FIELDS:
            platform = platform or Phrase(
                "{platform} put a {field} field on it", platform=_PLATFORM_FIELDS[name], field=fields[name][0].name
            )
        elif name.startswith(_PLATFORM_BEGINS):
            platform = platform or Phrase("a platform put a {field} field on it", field=fields[name][0].name)
        elif not campaign and _CAMPAIGN_FIELD.match(name):
            campaign = Phrase("the field {field} numbers a campaign or mailing", field=fields[name][0].name)
    mailer = first_text(fields, "x-mailer")
    if mailer and _PLATFORM_MAILER.search(mailer.lower()):
        platform = platform or Phrase("it was made by {mailer}", mailer=mailer[:60])
    if platform:
        yield KINDS["platform"].mark(platform)
    if campaign:
        yield KINDS["campaign-header"].mark(campaign)
    if lists.auto_submitted == "auto-generated":
        yield KINDS["auto-generated"].mark("Auto-Submitted says that a machine generated it")
    elif mailer and not platform and not _PROGRAMS.search(mailer.lower()) and _MACHINE_MAILER.search(mailer):
        yield KINDS["auto-generated"].mark("it was made by a program, {mailer}", mailer=mailer[:60])


def _thread_marks(fields: Index, around: Surroundings) -> Iterator[Mark]:
    subject = first_text(fields, "subject")
    if found := prefix_of(subject):
        kind, spelled = found
        name = {REPLY: "reply-prefix", FORWARD: "forward-prefix"}[kind]
        yield KINDS[name].mark('the subject begins with "{spelled}"', spelled=spelled)
    answered = first_text(fields, "in-reply-to") or first_text(fields, "references")
    if answered:
        domain = answered.rpartition("@")[2].rstrip("> ").lower() if "@" in answered else ""
        if domain and around.is_ours(domain):
            yield KINDS["colleague-referenced"].mark("it answers a message made at {domain}", domain=domain[:80])
        else:
            yield KINDS["references"].mark("In-Reply-To or References says that it answers another message")
    if "thread-index" in fields:
        if reply_count(fields["thread-index"][0].raw):
            yield KINDS["outlook-thread"].mark("its Thread-Index belongs to an Outlook conversation with answers")
        else:
            yield KINDS["thread-index"].mark("Outlook or Exchange gave it a Thread-Index")
    elif "thread-topic" in fields:
        yield KINDS["thread-index"].mark("Outlook or Exchange gave it a Thread-Topic")


def _client_marks(fields: Index, around: Surroundings) -> Iterator[Mark]:
    originator = first_text(fields, "x-originatororg").strip().lower()
    if originator:
        name = "our-exchange" if around.is_ours(originator) else "originator-org"
        yield KINDS[name].mark("Exchange says it was sent from {domain}", domain=originator[:80])
    exchange = [
        n
        for n in fields
        if n.startswith(("x-ms-exchange-", "x-ms-has-attach", "x-ms-tnef", "acceptlanguage", "x-ms-office365"))
    ]
    if exchange:
        yield KINDS["exchange-headers"].mark(
            "Exchange put its fields on it, such as {field}", field=fields[exchange[0]][0].name
        )
    program = first_text(fields, "x-mailer") or first_text(fields, "user-agent")
    if program and _PROGRAMS.search(program.lower()) and not _PLATFORM_MAILER.search(program.lower()):
        yield KINDS["mail-program"].mark("it was written in {program}", program=program[:60])
        return
    message_id = first_text(fields, "message-id")
    for pattern, name in _PEOPLE_IDS:
        if pattern.match(message_id):
            yield KINDS["mail-program"].mark("its Message-ID is one that {name} makes", name=name)
            return


def _label_marks(fields: Index) -> Iterator[Mark]:
    for label in labels_of(fields):
        inside = _INSIDE.search(label) and not _NOT_INSIDE.search(label)
        name = "label-public" if _PUBLIC.search(label) else "label-inside" if inside else "label"
        yield KINDS[name].mark('it is labelled "{label}"', label=label)


def labels_of(fields: Index) -> frozenset[str]:
    """Return sensitivity labels (Microsoft's MSIP_Label, RFC 4021's Sensitivity, and classification fields), as
    spelled."""
    if LABELS.isdisjoint(fields):
        return frozenset()
    found: set[str] = set()
    for f in fields.get("msip_labels", ()):
        found.update(name.strip()[:80] for name in _LABEL_NAME.findall(f.text))
    sensitivity = first_text(fields, "sensitivity").strip()
    if sensitivity and _SENSITIVE.search(sensitivity):
        found.add(sensitivity[:80])
    for name in _CLASSIFICATIONS:
        if value := first_text(fields, name).strip():
            found.add(value[:80])
    return frozenset(found)


def _sender_marks(fields: Index, lists: ListHeader, people: People) -> Iterator[Mark]:
    if (by_address := _address_mark(people.sender, people.reply_to)) is not None:
        yield by_address
        if by_address.name == "noreply":
            return  # its return address says no more
    path = first_text(fields, "return-path").strip("<> ")
    local, _, domain = path.rpartition("@")
    if local and VERP.match(local) and not lists.post:
        yield KINDS["bounce-address"].mark(
            "its return address at {domain} was made for one recipient", domain=domain[:80]
        )


def _tool_marks(fields: Index, people: People, around: Surroundings) -> Iterator[Mark]:
    sender = people.sender
    host = sender.rpartition("@")[2]
    if _TOOL_SENDER.match(sender) and not around.is_ours(host):
        tool = host
    else:
        named = (_TOOL_PROGRAM.search(first_text(fields, name)) for name in ("x-mailer", "x-powered-by", "from"))
        by_field = (name.split("-")[1] for name in fields if name.startswith(_TOOL_FIELDS))
        tool = next(chain(by_field, (found[1] for found in named if found)), "").capitalize()
    if tool and not people.one_outside(around):  # to customers it writes one by one, as a help desk
        yield KINDS["tool-notice"].mark("{tool}, in which colleagues write, sent it", tool=tool[:80])


@lru_cache(maxsize=256)
def _address_mark(sender: str, reply_to: str) -> Mark | None:
    for address in (sender, reply_to):
        local = address.rpartition("@")[0]
        if local and _NOREPLY.match(local):
            return KINDS["noreply"].mark("it comes from {address}, which takes no answers", address=address[:80])
    local = sender.rpartition("@")[0]
    if local and _ROLE.match(local):
        return KINDS["role-sender"].mark("it comes from {address}, a mailbox for news or orders", address=sender[:80])
    return None


def _people_marks(people: People, around: Surroundings) -> Iterator[Mark]:
    others = [a for a in people.shown if a != people.sender]
    colleagues = [a for a in others if around.is_colleague(a)]
    if colleagues:
        first, more = colleagues[0], len(colleagues) - 1
        yield KINDS["colleagues-shown"].mark(
            Phrase("{address} is shown in To or Cc and is a colleague", address=first)
            if not more
            else Phrase("{address} and {more} more is shown in To or Cc and is a colleague", address=first, more=more)
        )
    house = people.sender.rpartition("@")[2]
    a_list = any(a in around.list_addresses for a in others)
    if others and house and house not in PROVIDERS and not a_list and {a.rpartition("@")[2] for a in others} == {house}:
        yield KINDS["one-house"].mark("it is from {house} to {house} and to nobody else", house=house)
    if not people.shown and people.sender:
        yield KINDS["nobody-shown"].mark("To names nobody")
    elif not others and people.sender:
        yield KINDS["nobody-shown"].mark("To names the sender alone")
    if len(people.shown) > 1 and others:
        yield KINDS["copies"].mark("it shows {n} recipients", n=len(people.shown))


def _host_marks(fields: Index) -> Iterator[Mark]:
    """Yield marks of hosts. Only the first hop, the last of the Received fields, says where it was written."""
    received = fields.get("received")
    if received:
        hop = header_text(received[-1].raw[:2000]).partition(" by ")[0]
        if found := _PRIVATE_IP.search(hop) or _INTERNAL_HOST.search(hop):
            yield KINDS["internal-host"].mark("it was first handed in by {host}, an internal host", host=found[0][:80])
    for name in ("to", "cc"):
        for f in fields.get(name, ()):
            if _X500.search(f.raw):
                yield KINDS["names-inside"].mark("its recipients are written as an internal address book has them")
                return


def _authentication_marks(results: Sequence[AuthResult]) -> Iterator[Mark]:
    """Yield marks of results of a trusted server (RFC 8601). They are no reason by themselves: a colleague's mail is
    signed as well."""
    if domains := sorted(signed_by(results)):
        yield KINDS["authenticated"].mark(
            "{server} says that {domains} signed it", server=results[0].authserv_id, domains=", ".join(domains[:3])
        )
    if any(r.method == "dmarc" and r.result == "fail" for r in results):
        yield KINDS["authenticated"].mark(
            "{server} says that From failed its checks (DMARC)", server=results[0].authserv_id
        )
