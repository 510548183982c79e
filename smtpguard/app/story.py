"""Play the README's story against a policy, and say what would pass.

Each customer list of the policy (one for each group that the rules treat alike) gets five messages: a letter between
colleagues to its address, a thread of colleagues with the list in Cc, the letter to its people in Bcc, the letter to them
one by one, and a campaign without a proven origin. No member is needed: each list has as many invented people as it has
members.
"""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

from smtpguard.app.clock import SystemClock
from smtpguard.app.explaining import Explainer, built, session_at
from smtpguard.app.files import indexes
from smtpguard.config.settings import Settings, settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import KEY_OCTETS, Digester
from smtpguard.lists.index import index_path
from smtpguard.lists.writing import write_temporary
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session
from smtpguard.mail.message import Message
from smtpguard.policy.condition import Condition
from smtpguard.policy.facts import FACTS, Type
from smtpguard.policy.parse import Policy
from smtpguard.policy.verdict import Action

CROWD = 60
"""The most people that the letter goes to in Bcc, and one by one."""
SECONDS = 20.0
"""The time after which no further list is begun."""
_UNKNOWN_SIZE = 1_000
"""The people of a list whose size nobody says."""
_MOST = 20_000
"""The most people that are invented for one list."""
_MANY = 5_000
"""The size from which lists count as equal in size."""
_STRANGER = "198.51.100.7"  # RFC 5737: a client that no policy names
_NEW_THREAD, _GROWN_THREAD = (base64.b64encode(b"\x01" + bytes(n)).decode() for n in (21, 26))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """A message of the story. ``shape``: its description in the report. ``counted``: the value of every count when it comes, 0
    for no counts. ``client``: the address that it comes from, "" for every way in which a colleague can send."""

    shape: str
    message: Message
    to: Sequence[Address]
    sender: Address
    counted: int = 0
    client: str = ""


Played = tuple[Mapping[str, Sequence[str]], Sequence[str]]
"""The shapes of the messages that would pass, by list; and the lists for which there was no time."""


def play(policy: Policy, settings: Settings | None, people: Mapping[str, int]) -> Played:
    """Play the story against a policy. ``people``: the number of addresses in each list's sources, as far as it is known.
    Blocks for some milliseconds a list."""
    return asyncio.run(_play(policy, settings, people))


async def _play(policy: Policy, settings: Settings | None, people: Mapping[str, int]) -> Played:
    lists = policy.declared_lists
    through: dict[str, list[str]] = {}
    unplayed: list[str] = []
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="smtpguard-check-")))
        known = settings or settings_of(load_yaml(b"{}", "settings"), folder, {})
        passing = known.model_copy(update={"state": folder, "secret_file": folder / "secret"})
        indexes(passing).mkdir(mode=0o700, parents=True)
        digester = Digester(os.urandom(KEY_OCTETS), policy.delimiters)
        conditions = [c for rule in policy.rules.rules for c in (*rule.when, *rule.unless)]
        alike: dict[object, list[ListInfo]] = {}
        for info in lists.values():
            if info.of_customers:
                alike.setdefault(_likeness(info, conditions, people.get(info.name, 0)), []).append(info)
        for info, *_ in alike.values():
            _fill(passing, info, digester, people.get(info.name, 0))
        explainer = built(passing, digester, policy, undo)
        statuses = explainer.in_force.registry.statuses
        colleague = Address("kim.ek", policy.organization.a_domain)  # a person whom the policy does not name
        began = loop.time()
        for info, *others in alike.values():
            if loop.time() - began > SECONDS:
                unplayed += [each.name for each in (info, *others)]
                continue
            scenes = _scenes(info, colleague, statuses[info.name].people or 0)
            shapes = [
                scene.shape
                for scene in scenes
                if await _passes(explainer, scene, _sessions(settings, scene, colleague))
            ]
            if shapes:
                through |= {each.name: shapes for each in (info, *others)}
    return through, unplayed


def _likeness(info: ListInfo, conditions: Sequence[Condition], people: int) -> object:
    """Return all of a list that makes a difference to the rules. One list is played for all lists with the same likeness."""
    size = people if people < _MANY else _MANY
    named = tuple(info.name in c.lists for c in conditions if c.lists is not None)
    name = info.name if any(c.fact.name == "recipients.lists" for c in conditions) else ""
    return (
        name, named, size, info.audience, info.sensitivity, info.avoid, info.origin, bool(info.writers), bool(info.addresses),
        bool(info.members), info.includes,
    )  # fmt: skip


async def _passes(explainer: Explainer, scene: _Scene, sessions: Sequence[Session]) -> bool:
    """Return whether a message passes in any of the sessions."""
    counted = _counts(scene.counted)
    for session in sessions:
        explained = await explainer.explain(scene.message, scene.sender, scene.to, session, counted)
        if explained.verdict.action is Action.RELAY:
            return True
    return False


def _counts(n: int) -> Mapping[str, int]:
    """Return ``n`` for every count of people that a rule may ask for; nothing for 0."""
    if not n:
        return {}
    counts = (fact.name for fact in FACTS.values() if fact.type in (Type.COUNT, Type.SHARE))
    return {name: n for name in counts if not name.startswith(("recipients.", "thread."))}


def _sessions(settings: Settings | None, scene: _Scene, colleague: Address) -> list[Session]:
    """Return the sessions in which a message of the story comes in: for a colleague's mail one for each listener of the
    settings, or without listeners one with a proven sender and one without."""
    if scene.client:
        return [Session(client_ip=scene.client)]
    if settings is None or not any(settings.listen.each()):
        return [Session(), Session(senders_verified=True, proves_senders=True)]
    found: list[Session] = []
    for _, _, each in settings.listen.each():
        network = next(iter(each.admitted or ()), None) or ip_network("127.0.0.1/32")
        client = str(network[1] if network.num_addresses > 2 else network[0])
        login = str(colleague) if getattr(each, "auth", None) else None
        found.append(replace(session_at(settings, each.called, client, login=login), expander=False))
    return list(dict.fromkeys(found))


def _fill(settings: Settings, info: ListInfo, digester: Digester, size: int) -> None:
    """Make an index of invented people, as many as the list has."""
    if not info.members:
        return
    size = min(size or max(info.at_least, _UNKNOWN_SIZE), _MOST)
    addressed = [int.from_bytes(digester.of(person), "big") for person in _people(info.name, min(CROWD, size))]
    others = array("Q", os.urandom(8 * (size - len(addressed))))
    write_temporary(
        index_path(indexes(settings), info.name),
        [*addressed, *others],
        key_id=digester.key_id,
        built_at=SystemClock().now(),
    )


def _people(name: str, n: int) -> Iterator[Address]:
    """Return ``n`` addresses that do not exist, in a reserved domain (RFC 6761)."""
    return (Address(f"{number}.{name}", "customers.invalid") for number in range(n))


def _scenes(info: ListInfo, colleague: Address, size: int) -> Iterator[_Scene]:
    some = list(_people(info.name, min(CROWD, size)))
    address = next(iter(info.addresses), None)
    if address is not None:
        yield _Scene(
            shape="a letter between colleagues to its address",
            message=_letter(colleague, [address]),
            to=[address],
            sender=colleague,
        )
        yield _Scene(
            shape="a thread of colleagues with its address in Cc", message=_thread(colleague, address), sender=colleague,
            to=[Address("alva.berg", colleague.domain), address],
        )  # fmt: skip
    if some:
        yield _Scene(
            shape=f"the letter to {len(some)} of its people in Bcc",
            message=_letter(colleague, [colleague]),
            to=some,
            sender=colleague,
        )
        yield _Scene(
            shape=f"the letter to {len(some)} of its people one by one", message=_letter(colleague, some[-1:]), to=some[-1:], sender=colleague,
            counted=len(some),
        )  # fmt: skip
    if address is not None or some:
        writer = Address.parse(min(info.writers)) if info.writers else Address("nyheter", colleague.domain)
        to = address or some[-1]
        yield _Scene(
            shape="a campaign that proves no origin", message=_campaign(writer, to), to=[to], sender=writer, client=_STRANGER,
            counted=0 if address is not None else size,
        )  # fmt: skip


_TEXT = """Hej alla,

vi ses i lunchrummet på fredag klockan tre, när cheferna har åkt, och går igenom vem av oss som kan ta över passen under sommaren.
Säg till Alva om du inte kan komma. Ta gärna med egna förslag till schemat, men visa dem inte för någon utanför avdelningen ännu.
Det som sades på mötet i går stannar mellan oss tills beslutet är fattat.

Hälsningar
Kim
"""
_ADVERT = """Kära kund!

Höstens nyheter är här. Den här veckan får du tjugo procent på hela sortimentet i alla våra butiker, och fri frakt på allt som du
beställer före söndag. Läs mer och handla på https://shop.example.com/host?utm_source=brev

Du får detta brev eftersom du är kund hos oss. Avregistrera dig: https://shop.example.com/u/1
"""


def _letter(colleague: Address, to: Sequence[Address]) -> Message:
    return _message(colleague, to, "Fredag", _TEXT, _outlook("Fredag", _NEW_THREAD, colleague))


def _thread(colleague: Address, address: Address) -> Message:
    quoted = (
        f"\n________________________________\nFrån: Alva Berg <alva.berg@{colleague.domain}>\nSkickat: den 3 mars 2026 09:12\n"
        f"Till: Kim Ek <{colleague}>\nÄmne: Fredag\n\nHur gör vi med passen?\n"
    )
    to = [Address("alva.berg", colleague.domain), address]
    return _message(colleague, to, "SV: Fredag", _TEXT + quoted, _outlook("Fredag", _GROWN_THREAD, colleague))


def _campaign(writer: Address, to: Address) -> Message:
    more = ["List-Unsubscribe: <https://shop.example.com/u/1>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            "Precedence: bulk", "Feedback-ID: 1:2:3:example"]  # fmt: skip
    return _message(writer, [to], "Nyheter", _ADVERT, more)


def _outlook(topic: str, index: str, colleague: Address) -> list[str]:
    return [
        f"Thread-Topic: {topic}",
        f"Thread-Index: {index}",
        f"X-OriginatorOrg: {colleague.domain}",
        "Accept-Language: sv-SE, en-US",
    ]


def _message(writer: Address, to: Sequence[Address], subject: str, body: str, more: Sequence[str]) -> Message:
    at = SystemClock().now() - timedelta(seconds=1)
    head = [
        f"From: {writer}",
        f"To: {', '.join(map(str, to))}",
        f"Subject: {subject}",
        f"Date: {at:%a, %d %b %Y %H:%M:%S +0000}",
        f"Message-ID: <{at:%H%M%S%f}@{writer.ascii_domain}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        *more,
    ]
    return Message.of(("\n".join(head) + "\n\n" + body).replace("\n", "\r\n").encode())
