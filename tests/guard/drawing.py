"""Random changes of a policy, and random days of mail, for twins."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

from smtpguard.holds.model import Choice
from smtpguard.policy.facts import FACTS, Type
from smtpguard.policy.freezing import Freeze, Selector
from tests.app.twoguards import NEWS, STAFF, Plain, TwoGuards, sample
from tests.guard.house import MEMBERS, RAMADAN

COLLEAGUES = [f"colleague{n}@example.com" for n in range(40)]
OUTSIDERS = [f"x{n}@example.org" for n in range(6)]
SENDERS = [
    "anna@example.com",
    "bo@example.com",
    "eva@example.com",
    "campaigns@example.com",
    "noreply@example.com",
    "otto@example.org",
]
_WORDS = {
    "message.topics": ["pork", "wine"],
    "message.unsuitable_topics": ["pork", "wine"],
    "message.unfinished": ["draft", "test"],
    "message.labels": ["contract", "secret"],
    "recipients.lists": ["ramadan", "news", "staff"],
    "recipients.audience": ["customers", "staff"],
    "recipients.sensitivity": ["special-category"],
    "stream": ["receipts"],
    "login": ["anna@example.com"],
    "list.language": ["sv", "en"],
    "message.marks": ["reply-prefix", "short-and-plain"],
    "recipients.domains": ["example.com", "customers.example"],
}


def condition(chance: random.Random, name: str) -> Any:
    fact = FACTS[name]
    match fact.type:
        case Type.TRUTH:
            return chance.random() < 0.5
        case Type.NETWORK:
            return chance.choice(["127.0.0.1", "192.0.2.0/24", ["10.0.0.0/8", "127.0.0.0/8"]])
        case Type.WORD:
            return chance.choice(list(fact.words) or SENDERS)
        case Type.WORDS:
            return chance.choice(["any", "none", chance.choice(_WORDS[name])])
        case Type.SHARE:
            over = " in 1d" if fact.windowed else ""
            return chance.choice([">= 0.05", ">= 0.2", "< 0.5", "== 1"]) + over
    window = chance.choice([" in 10m", " in 1h", " in 1d"]) if fact.windowed else ""
    n = chance.choice([1, 2, 3, 5, 8, 20, 25])
    return f"{chance.choice(['>=', '>=', '>', '<', '<=', '=='])} {n}{window}"


def rule(chance: random.Random, name: str) -> Plain:
    facts = chance.sample(sorted(FACTS), chance.choice([1, 2, 2, 3]))
    made: Plain = {
        "id": name,
        "when": {f: condition(chance, f) for f in facts},
        "then": chance.choice(["hold", "hold", "reject", "defer"]),
    }
    if chance.random() < 0.3:
        f = chance.choice(sorted(FACTS))
        made["unless"] = {f: condition(chance, f)}
        if made["unless"] == {k: v for k, v in made["when"].items() if k == f}:
            del made["unless"]
    if chance.random() < 0.2:
        made["mode"] = "observe"
    return made


def changed(chance: random.Random, policy: Plain) -> str:
    """Change the policy in place in one way; the name of the change."""
    rules, lists = policy["rules"], policy["lists"]
    what = chance.choice(
        ["remove", "remove", "add", "add", "then", "mode", "limit", "limit", "rename", "enforce", "list", "members", "writers", "avoid",
         "audience", "drop-list", "stream", "stream-from", "domain", "unless"]
    )  # fmt: skip
    some = chance.choice(rules) if rules else None
    match what:
        case "remove" if some:
            rules.remove(some)
            what += f" {some['id']}"
        case "add":
            made = rule(chance, f"new-{len(rules)}-{chance.randrange(1000)}")
            rules.append(made)
            what += f" {made}"
        case "then" if some:
            some["then"] = chance.choice(["hold", "reject", "defer"])
            if some["then"] != "hold":
                some.pop("scope", None)
            what += f" {some['id']} {some['then']}"
        case "mode" if some:
            some["mode"] = "enforce" if some.get("mode") == "observe" else "observe"
            what += f" {some['id']} {some['mode']}"
        case "limit" if some:
            name = chance.choice(sorted(some["when"]))
            some["when"][name] = condition(chance, name)
            what += f" {some['id']} {name} {some['when'][name]}"
            if "stop" in some and "thread.replies" not in some["when"]:
                some.pop("stop")
        case "rename" if some:
            some["id"] = f"renamed-{chance.randrange(1000)}"
        case "enforce":
            policy["enforce"] = not policy["enforce"]
        case "list":
            lists["offers"] = {
                "addresses": ["offers@lists.example.com"],
                "members": {"csv": "news.csv", "column": "email"},
            }
        case "members" if "news" in lists:
            lists["news"]["members"] = {"csv": "others.csv", "column": "email"}
        case "writers":
            lists["ramadan"]["writers"] = chance.choice(
                [["anna@example.com"], ["campaigns@example.com", "bo@example.com"]]
            )
        case "avoid":
            lists["ramadan"]["avoid"] = chance.choice([[], ["wine"], ["pork", "wine"]])
        case "audience":
            lists["ramadan"]["audience"] = chance.choice(["staff", "members"])
        case "drop-list":
            lists.pop(chance.choice(["news", "staff"]), None)
        case "stream":
            policy["streams"]["receipts"]["max"] = chance.choice(["1 in 1h", "10 in 1h"])
        case "stream-from":
            policy["streams"]["receipts"]["from"] = ["noreply@example.com", "anna@example.com"]
        case "domain":
            policy["organization"]["domains"] = ["example.com", "example.org"]
        case "unless" if some:
            some["unless"] = {"message.labels": "secret"}
            what += f" {some['id']}"
    known = set(lists)
    for r in rules:  # names that no longer exist
        for part in ("when", "unless"):
            value = r.get(part, {}).get("recipients.lists")
            if isinstance(value, str) and value not in ("any", "none") and value not in known:
                r[part]["recipients.lists"] = "any"
            value = r.get(part, {}).get("recipients.audience")
            audiences = {info.get("audience", "customers") for info in lists.values()}
            if isinstance(value, str) and value not in ("any", "none") and value not in audiences:
                r[part]["recipients.audience"] = "any"
            value = r.get(part, {}).get("recipients.sensitivity")
    return what


def drawn_policies(chance: random.Random) -> tuple[Plain, Plain, str]:
    before = sample()
    for _ in range(chance.choice([0, 0, 1, 2])):
        changed(chance, before)
    after = deepcopy(before)
    what = "; ".join(changed(chance, after) for _ in range(chance.choice([1, 1, 1, 2, 3])))
    return before, after, what


async def play(both: TwoGuards, chance: random.Random, messages: int = 40) -> None:
    """Play a few days: letters, copies of mailings, replies, retries, freezes, decisions, and sometimes another policy."""
    frozen: list[str] = []
    sent: list[tuple[tuple[str, ...], Plain]] = []
    reloads = {chance.randrange(messages)} if chance.random() < 0.2 else set()
    for n in range(messages):
        if n in reloads:
            again = deepcopy(both.before)
            changed(chance, again)
            await both.reload(again)
        if chance.random() < 0.3:
            both.pass_(seconds=chance.choice([1, 60, 700, 4000, 90_000]))
        act = chance.random()
        if act < 0.04 and not frozen:
            selector, value = chance.choice(
                [(Selector.ALL, ""), (Selector.LIST, "ramadan"), (Selector.SENDER, "anna@example.com")]
            )
            frozen.append(f"F{n}")
            await both.freeze(
                Freeze(
                    freeze_id=f"F{n}",
                    selector=selector,
                    value=value,
                    reason="a fire",
                    by="omar",
                    at=both.first.clock.now(),
                )
            )
        elif act < 0.12 and frozen:
            await both.thaw(frozen.pop())
        elif act < 0.24:
            waiting = [h for h in await both.first.store.holds.newest() if not h.primary]
            if waiting:
                await both.decide(
                    chance.choice(waiting).hold_id, chance.choice([Choice.APPROVE, Choice.APPROVE, Choice.REJECT])
                )
        if sent and chance.random() < 0.08:
            to, more = chance.choice(sent)
        else:
            to, more = letter(chance, n)
            sent.append((to, more))
        await both.send(*to, lost=chance.random() < 0.05, **{**more, "id": f"T{n:015d}"})


def letter(chance: random.Random, n: int) -> tuple[tuple[str, ...], Plain]:
    kind = chance.choice(
        ["one", "one", "few", "copy", "copy", "copy", "many", "list", "colleagues", "crowd", "outside", "mixed"]
    )
    match kind:
        case "one":
            to = [chance.choice(MEMBERS)]
        case "few":
            to = chance.sample(MEMBERS, chance.choice([2, 3, 4]))
        case "copy":
            to = [chance.choice(MEMBERS), *(chance.sample(COLLEAGUES, 1) if chance.random() < 0.1 else [])]
        case "many":
            to = chance.sample(MEMBERS, chance.choice([5, 8, 13, 25]))
        case "list":
            to = [chance.choice([RAMADAN, NEWS, STAFF])]
        case "colleagues":
            to = chance.sample(COLLEAGUES, chance.choice([1, 2, 3]))
        case "crowd":
            to = chance.sample(COLLEAGUES, 25)
        case "outside":
            to = chance.sample(OUTSIDERS, chance.choice([1, 2]))
        case _:
            to = [
                *chance.sample(COLLEAGUES, 2),
                *chance.sample(MEMBERS, 2),
                *chance.sample([RAMADAN, NEWS, "x@example.org"], 1),
            ]
    more: Plain = {
        "sender": chance.choice([*SENDERS, "anna@example.com", "anna@example.com"]),
        "X_Looks": chance.choice(["internal", "internal", "mailing", "unclear"]),
        "X_Readable": chance.choice(["yes"] * 12 + ["unreadable"]),
        "X_Topics": chance.choice(["", "", "", "pork", "wine", "pork wine"]),
        "Message_ID": f"<{n}@example.com>",
        "Subject": f"SV: lunch {n}",
        "body": f"Bacon {n}?",
        "To": ", ".join(to if chance.random() < 0.6 else to[: len(to) // 2] or ["nobody@example.com"]),
        "session": {"auth_user": "anna@example.com"} if chance.random() < 0.4 else {"client_ip": chance.choice(["192.0.2.1", "10.1.2.3"])},
    }  # fmt: skip
    if kind == "copy":
        more["X_Mailing"] = chance.choice(["wine", "garden"])
        if chance.random() < 0.7:
            more["X_Looks"] = "mailing"
    if chance.random() < 0.08:
        more["X_Labels"] = chance.choice(["contract", "secret"])
    if chance.random() < 0.08:
        more["Auto_Submitted"] = "auto-replied"
    if chance.random() < 0.05:
        more["reverse_path"] = ""
    if (own := random.Random(repr((n, to)))).random() < 0.08:
        more["reverse_path"] = own.choice([RAMADAN, "ramadan+x=example.net@lists.example.com", NEWS, STAFF])
    if chance.random() < 0.05:
        more["sender"] = "a@example.com, b@example.com"
    if chance.random() < 0.3:
        more["References"] = chance.choice(["<storm@example.com>", "<talk@example.com>"])
    return tuple(to), more
