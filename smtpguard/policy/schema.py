"""The JSON Schema of the policy file, for editors that complete and check while one types, with a description of each key, as in
config.schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smtpguard.config.schema import for_editors, titled
from smtpguard.policy.facts import FACTS, Fact, Type
from smtpguard.policy.models import ListModel, PolicyModel

POLICY: Mapping[str, str] = {
    ".version": "The version of the policy format: 1.",
    ".enforce": "false: every rule observes, and nothing is held or rejected. Rules with then: alarm still call a person.",
    ".organization": "The organization: its domains, languages, working hours, and people with several addresses.",
    ".groups": "Groups of approvers: a name, and the addresses.",
    "GroupModel.addresses": "Addresses of people in it.",
    "GroupModel.directory": "Whom a directory says are in it, as for members of a list: {ldap: ..., group: ...}.",
    "GroupModel.claim": "Groups at the provider of single sign-on; whoever signs in with one of them is in this group.",
    ".people": "Which approvers are away, and who decides for them; by address or local part.",
    "PersonModel.away": "The first and the last day, like 2026-12-20..2027-01-07; one period, or several.",
    "PersonModel.deputy": "Who decides for them meanwhile: an address or a local part. The two together have one vote.",
    ".previews": "How much of a held message each group may see.",
    ".approvals": "Which groups approve mail, for lists that do not say it themselves.",
    ".lists": "Customer lists, by name.",
    ".expansions": "Alias maps and list servers: addresses that expand at the relay and belong to no list.",
    ".streams": "Systems whose one-by-one mail needs no approval, by name.",
    ".marks": "Weights of the product's marks; 0 turns a mark off.",
    ".mailings": "What the approval of a personalised mailing covers.",
    "MailingsModel.slots": "The share of its words in which a copy may differ from the approved one, if no other copies were held to compare.",
    ".confirm": "How long, and how often, the rules with then: confirm ask a writer.",
    "ConfirmModel.within": "How long only the writer is asked. Then the message is an ordinary hold, or expires if the rule says so.",
    "ConfirmModel.a_person": 'The most questions to one person, like "3 in 7d"; further messages are held.',
    ".reply_votes": "Which messages may be approved by an answer to a notice (setting hold.reply_at). Without it an answer can only reject.",
    "ReplyVotesModel.people": "The most people that the message may reach.",
    "ReplyVotesModel.sensitivity": "none: no message to a list of a special category; special-category: these too.",
    "ReplyVotesModel.senders_verified": "Domains of the organization whose mail server lets nobody send as somebody else, so that their DKIM signature proves who wrote the answer. Without them only a login does.",
    ".breakers": "What comes back after a mailing and stops the rest of it.",
    "ListModel.breakers": "Breakers for mailings to this list, each in place of the policy's of the same name.",
    "*.complaints": 'So many people complain, like ">= 0.1% after 500": of the people who have it, once 500 have it.',
    "*.bounces": "So many bounce.",
    "*.replies": 'So many reply, like ">= 20 in 10m".',
    "*.unsubscribes": "So many unsubscribe.",
    "*.stops": "mailing: stop the rest of the mailing; lists: stop all mail to its lists.",
    ".own_marks": "Your own marks, by name.",
    ".rules": "The rules. Of all that hit, the strictest action wins.",
    "OrganizationModel.name": "The name in notices.",
    "OrganizationModel.domains": "The organization's domains: everyone who writes from them is a colleague. *.example.com is every name below example.com.",
    "OrganizationModel.customers_here": "Whether customers also have addresses in these domains; if false, a list member with such an address is a colleague.",
    "OrganizationModel.languages": "Languages of notices and pages, the first by default.",
    "OrganizationModel.hours": "Working hours, for deadlines and for out_of_hours.",
    "OrganizationModel.aliases": "Further addresses of one person. A person has one vote, and none on their own mail, under any of them.",
    "OrganizationModel.people": "Colleagues with an address outside; they count as colleagues among the recipients, and nowhere else.",
    "PeopleModel.addresses": "Their addresses.",
    "PeopleModel.members": "Sources of further addresses.",
    "OrganizationModel.shared": "Mailboxes from which several people answer customers.",
    "HoursModel.days": "Days of the week, like mon-fri.",
    "HoursModel.from": "The time at which work begins, like 08:00.",
    "HoursModel.to": "The time at which work ends.",
    "HoursModel.zone": "The time zone, like Europe/Stockholm.",
    "HoursModel.holidays": "Days on which nobody works: 2026-12-24, 2026-12-24..2027-01-06, or 12-25 of every year.",
    "*.each": "How many people of each group in from must approve.",
    "ApprovalsModel.from": "The groups that approve.",
    "ApprovalsModel.out_of_hours": "Another quorum outside working hours.",
    "ListApprovalsModel.from": "The groups that approve.",
    "ListApprovalsModel.out_of_hours": "Another quorum outside working hours.",
    "ListApprovalsModel.always": "true: the approval for another list does not cover people who are on both lists.",
    "OutOfHoursModel.from": "The groups that approve outside working hours.",
    "ListModel.title": "The name in notices and pages.",
    "ListModel.owner": "The owner, who is told of problems with the list and of mail held for it that has no sender to tell.",
    "ListModel.addresses": "Addresses that expand to its people.",
    "ListModel.addresses_elsewhere": "Addresses at other domains that have the list's local part and are not this list.",
    "ListModel.list_ids": "List-Ids of the list, by which copies that a list server expanded are recognized.",
    "ListModel.members": "Where the members come from: one source, or several.",
    "ListModel.audience": "What kind of people they are, for rules; colleagues, employees, internal and staff are no customers.",
    "ListModel.language": "The language that the members read.",
    "ListModel.sensitivity": "special-category: membership reveals something of a person (GDPR Art. 9).",
    "ListModel.category": "What membership reveals.",
    "ListModel.writers": "Who may write to it.",
    "ListModel.origin": "How mail to it proves where it comes from.",
    "ListModel.avoid": "Vocabularies of topics that its members should be spared.",
    "ListModel.approvals": "Which groups approve mail to it.",
    "ListModel.preview": "How much of a message held for it is shown.",
    "ListModel.stages": "An approved mailing goes out in stages: [50, 1%, rest].",
    "ListModel.release_delay": "How long an approval can be undone before mail to it that reaches more than 20 people is sent.",
    "ListModel.stages_by_address": "What to do with an approved message to its address, which cannot be sent in stages: refuse, or confirm.",
    "OriginModel.dkim": "Domains whose DKIM signature proves it.",
    "OriginModel.clients": "Networks that only the system sends from, and no person.",
    "OriginModel.logins": "Logins that only the system uses, and no person.",
    "StagesModel.steps": "Numbers of people, shares, and rest as the last.",
    "StagesModel.pause": "The pause between two stages: a time; or person: until somebody opens the next stage.",
    "StagesModel.refused": "The share of refused recipients that stops the release.",
    "StagesModel.reported": "The share of bounces and complaints that stops the release.",
    "StreamModel.from": "The addresses that write it.",
    "StreamModel.origin": "How its mail proves where it comes from.",
    "StreamModel.max": 'The limit, like "20000 in 1h"; above it mail is answered 451 and the owner is told.',
    "StreamModel.max_per_person": "The limit for one recipient.",
    "StreamModel.owner": "Who is told when it exceeds a limit.",
    "RuleModel.id": "The rule's name in verdicts and notices.",
    "RuleModel.description": "What the rule is for, in a sentence for senders: one text, or one for each language.",
    "RuleModel.when": "Facts and their conditions; all must be met.",
    "RuleModel.unless": "The exception: if all of these conditions are met, the rule does not hit.",
    "RuleModel.then": "confirm (ask the writer), hold, defer or reject; or alarm: alert a person, and hold nothing.",
    "RuleModel.mode": "observe: record what the rule would have done, and do nothing.",
    "RuleModel.scope": "customers: hold only the customers' part, and relay the colleagues' part.",
    "RuleModel.explain": "With reject: send an internal sender a notice with the reasons, beside the 550.",
    "RuleModel.stop": "How long replies in the conversation are stopped once the rule has taken effect.",
    "RuleModel.within": "With confirm: how long only the writer is asked. Default: within of confirm.",
    "RuleModel.after": "With confirm: what happens when the time is over: hold, or expire.",
    "MarkModel.side": "Whether the mark is a sign of internal mail, or of a mailing.",
    "MarkModel.weight": "The weight of the mark.",
    "MarkModel.header": "The header field to search. Empty: the text.",
    "MarkModel.pattern": "A regular expression (RE2).",
    "MarkModel.term": "A plain phrase.",
    "*.refresh": 'How often the source is read, like "15m".',
    "*.stale_after": "The age after which the index is stale: that an address is not in it no longer counts. Default: 24 hours, or three times refresh if that is longer.",
    "*.at_least": "The fewest members that are plausible; a source with fewer is not used.",
    "*.max_shrink": "The largest share of members that may disappear at once.",
    "*.max_bad": "The largest share of rows without an address.",
    "*.exclude": "Addresses of the map that are left out.",
    "*.addresses_elsewhere": "Addresses at other domains that have the local part of one that expands, and do not expand.",
    "*.timeout": "The timeout of one answer.",
    "*.time_limit": "The time limit of the whole reading.",
    "*.column": "The column of addresses: a name or a number. Default: found from the content.",
    "*.delimiter": "The delimiter of columns. Default: found from the content.",
    "*.header": "Whether the first row has the names of the columns. Default: found from the content.",
    "*.encoding": "The encoding. Default: found from the content.",
    "*.statuses": "mailed: only those to whom a list server would send; all: everyone.",
    "*.status_column": "The column with the status.",
    "*.csv": "A CSV file; TSV, gzip and Zstandard too. The path is relative to the policy file.",
    "*.text": "A text file with one address on each line.",
    "*.sql": "The URL of a database, without a password.",
    "SqlMembers.query": "The query.",
    "SqlMembers.version": "A cheap query; the members are read again only if its result has changed.",
    "SqlMembers.column": "The column of the result with the addresses. Default: the first.",
    "*.ldap": "A directory: ldaps://HOST, or ldap:// with STARTTLS.",
    "LdapMembers.group": "One group or several; groups within them are read too.",
    "LdapMembers.base": "The base of the search.",
    "LdapMembers.filter": "The filter of the search (RFC 4515).",
    "LdapMembers.attributes": "Attributes with addresses.",
    "LdapMembers.bind": "The DN to bind as.",
    "LdapMembers.starttls": "Whether to start TLS on ldap://.",
    "LdapMembers.page": "Entries on one page of the answer.",
    "*.mailman": "The REST API of a Mailman 3 core, like http://127.0.0.1:8001/3.1.",
    "MailmanMembers.list_id": "The List-Id of the list.",
    "*.user": "The user name.",
    "MailmanMembers.roles": "Roles of the people to read; posts go to members only.",
    "*.password_file": "A file with the password.",
    "*.token_file": "A file with the token.",
    "*.ca_file": "Certificate authorities in PEM that may sign the server's certificate.",
    "*.http": "The URL of a file on a web server.",
    "HttpMembers.format": "The format of the response: csv, json or text.",
    "HttpMembers.json": "The path to the addresses in JSON, like members[].email.",
    "HttpMembers.max_mb": "The most megabytes of an answer.",
    "*.aliases": "A Postfix map in the format of aliases(5), as text.",
    "*.virtual": "A Postfix map in the format of virtual(5), as text.",
    "*.name": "Names in the map whose members are read.",
    "*.domain": "The domain of names without one.",
    "*.domains": "Domains in which names of the map are addresses; the first is the domain of names without one.",
    "*.list": "Another list; all its members.",
}


_NUMBER = "[0-9][0-9_]*(\\.[0-9]+)?"


def policy_schema() -> dict[str, Any]:
    """Return the schema of policy.yaml. A condition's schema is made from the table of facts."""
    schema = for_editors(PolicyModel.model_json_schema(by_alias=True), POLICY)
    rule = schema["$defs"]["RuleModel"]["properties"]
    for key in ("when", "unless"):
        rule[key] = {"$ref": "#/$defs/conditions", "description": rule[key]["description"]}
    schema["$defs"]["conditions"] = {
        "type": "object",
        "description": "Facts and what is asked of them; all must be so.",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {name: {"description": fact.doc, **_SHAPES[fact.type](fact)} for name, fact in FACTS.items()},
    }
    return titled("smtpguard policy", schema)


def list_schema() -> dict[str, Any]:
    schema = for_editors(ListModel.model_json_schema(by_alias=True), POLICY)
    for key, each in schema["properties"].items():
        each["description"] = POLICY.get(f"ListModel.{key}", each.get("description", ""))
    return titled("smtpguard list", schema)


def _word(fact: Fact) -> dict[str, Any]:
    word: dict[str, Any] = {"type": "string"}
    if fact.words:
        word["enum"] = list(fact.words)
    either = [{"enum": ["any", "none"]}] if fact.words and fact.type is Type.WORDS else []
    shapes: list[dict[str, Any]] = [word, {"type": "array", "items": word, "minItems": 1}, *either]
    keys = [] if fact.words else ["matches"]
    if fact.name == "sender.address":
        keys.append("group")
    shapes += [
        {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}
        for key in keys
    ]
    return {"anyOf": shapes}


def _count(fact: Fact) -> dict[str, Any]:
    number = _NUMBER + ("\\s*%?" if fact.type is Type.SHARE else "")
    window = "\\s+in\\s+.+" if fact.windowed else ""
    comparison = f"^\\s*((>=|<=|==|=|>|<)\\s*{number}|between\\s+{number}\\s+and\\s+{number}){window}\\s*$"
    shapes: list[dict[str, Any]] = [{"type": "string", "pattern": comparison}]
    if fact.windowed:
        shapes.append(_bound(fact))
    else:
        shapes += [{"enum": ["any", "none"]}, {"type": "integer", "minimum": 0}]
    return {"anyOf": shapes}


def _bound(fact: Fact) -> dict[str, Any]:
    """``{at_least: 40, in: 1h, usual: x3}``."""
    share = fact.type is Type.SHARE
    names = {"type": "string"}
    properties: dict[str, Any] = {
        "at_least": {"type": ["number", "string"] if share else "integer", "description": "from so many on"},
        "in": {"type": "string", "description": "in a window of this length, like 1h or 7d"},
    }
    if fact.usual:
        properties["usual"] = {
            "type": "string",
            "pattern": "^x\\s*[0-9]+(\\.[0-9]+)?$",
            "description": "and only above so many times the most that was counted in any such window between 35 and 7 days ago, like x3",
        }
    if fact.by_list:
        properties["lists"] = {
            "anyOf": [names, {"type": "array", "items": names, "minItems": 1}],
            "description": "on one of these lists; special-category: on one that declares this sensitivity",
        }
    if fact.by_mailing:
        properties["mailing"] = {
            "const": "same",
            "description": "of them only those who were sent the same mailing as this message",
        }
    return {"type": "object", "properties": properties, "required": ["at_least", "in"], "additionalProperties": False}


_SHAPES = {
    Type.TRUTH: lambda fact: {"type": "boolean"},
    Type.WORD: _word,
    Type.WORDS: _word,
    Type.NETWORK: lambda fact: {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    },
    Type.COUNT: _count,
    Type.SHARE: _count,
}
