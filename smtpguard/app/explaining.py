"""Build what reads a message, verifies its signature and gathers its facts, for real mail, the console and ``explain``
alike; and explain what would happen to a message, with the same gathering and planning but without a store.

To explain, nothing is relayed, counted or written; counts are those of this message alone. List indexes on disk are
used. For a list without an index a temporary one is built and deleted afterwards. Signatures are verified with pinned
keys or keys in DNS.

``play`` explains the README's story: each customer list of the policy (one for each group that the rules treat alike)
gets five messages: a letter between colleagues to its address, a thread of colleagues with the list in Cc, the letter to
its people in Bcc, the letter to them one by one, and a campaign without a proven origin. It says what would pass. No
member is needed: each list has as many invented people as it has members.
"""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import dns.asyncresolver

from smtpguard.admission.builtinrules import or_held, with_fixed
from smtpguard.admission.model import Explained
from smtpguard.admission.preapproval import alone
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import indexes, installation_secret, read_policy
from smtpguard.app.lists import built_expander, built_refresher, built_registry
from smtpguard.app.policies import surroundings
from smtpguard.config.documents import policy_document
from smtpguard.config.problem import Undeclared
from smtpguard.config.settings import Settings, settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.gathering.gather import Gather
from smtpguard.gathering.reader import Around, BoundedReader
from smtpguard.gathering.streams import watched
from smtpguard.guard.inforce import InForce
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import KEY_OCTETS, Digester
from smtpguard.lists.index import expansions_path, index_path
from smtpguard.lists.writing import write_passing
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session, Transaction, within
from smtpguard.mail.message import Message
from smtpguard.policy.condition import Condition
from smtpguard.policy.facts import FACTS, Type
from smtpguard.policy.parse import Policy
from smtpguard.policy.verdict import Action
from smtpguard.reading.looks import Reading
from smtpguard.reading.read import read
from smtpguard.reading.request import Surroundings
from smtpguard.wire.dkim import DkimVerifier, Resolver


@dataclass(frozen=True, slots=True)
class Explainer:
    """Made by ``explainer``. ``places``: file and line of each rule."""

    in_force: InForce
    gather: Gather
    around: Surroundings
    places: Mapping[str, str] = field(default_factory=dict)

    async def explain(
        self,
        message: Message,
        reverse_path: Address | None,
        recipients: Sequence[Address],
        session: Session,
        counted: Mapping[str, int] | None = None,
    ) -> Explained:
        """``counted``: counts by fact, used where this message alone has less."""
        envelope = Envelope(reverse_path=reverse_path, recipients=tuple(Recipient(address=a) for a in recipients))
        transaction = Transaction(id=ids()(), session=session, envelope=envelope, message=message)
        gathered, plan = await self.gather.planned(transaction, self.in_force, text=True)
        streams = watched(gathered)
        asks = (*plan.asks, *(one.ask for one in streams))
        known = counted or {}
        live = alone(asks, gathered, SystemClock().now(), lambda ask: known.get(ask.fact, 0))
        verdict = or_held(with_fixed(plan.close(live, misses=True), gathered, live, streams), gathered)
        reading = gathered.text if isinstance(gathered.text, Reading) else read(message, self.around)
        return Explained(
            verdict=verdict,
            reading=reading,
            recipients=gathered.everyone,
            facts=gathered.facts,
            purposes=self.in_force.rules.purposes(),
            places=self.places,
        )


@asynccontextmanager
async def explainer(settings: Settings, policy: Policy | None = None) -> AsyncIterator[Explainer]:
    """With the policy in the file now. Raises Broken, CannotStart."""
    policy = policy or read_policy(settings)
    async with AsyncExitStack() as undo:
        made = built(*indexed(settings, policy, undo), policy, undo)
        yield replace(made, places=rule_places(policy, str(settings.policy)))


def built(settings: Settings, digester: Digester, policy: Policy, undo: AsyncExitStack) -> Explainer:
    """``digester``: of the indexes in the state folder of ``settings``. ``undo`` closes it."""
    around = surroundings(settings, policy)
    in_force = InForce.of(policy, built_registry(settings, policy, digester, SystemClock()))
    key = None if settings.secret_file.is_file() else os.urandom(32)
    return Explainer(in_force, gathering(settings, lambda: (policy.sha256, around), undo, key=key), around)


def session_at(settings: Settings, name: str | None, client: str, *, login: str | None = None) -> Session:
    """A client's session at the listener of this name or place; by default at the first. Raises Undeclared."""
    known = {each.called: each for _, _, each in settings.listen.each()}
    if name is not None and name not in known:
        raise Undeclared("listener", name, known)
    listener = known[name] if name is not None else next(iter(known.values()), None)
    return Session(
        client_ip=client,
        listener=listener.called if listener is not None else "",
        auth_user=login,
        senders_verified=listener is not None and listener.senders_verified,
        proves_senders=listener is not None and listener.proves_senders,
        expander=within(client, settings.expanders),
    )


def rule_places(policy: Policy, where: str) -> Mapping[str, str]:
    """Rule -> "policy.yaml:61". ``where``: the name of the policy's own file."""
    document = policy_document(policy.documents, where)
    marks = {rule["id"]: document.mark(("rules", n)) for n, rule in enumerate(document.value.get("rules") or ())}
    return {rule: f"{mark.file or where}:{mark.line}" for rule, mark in marks.items()}


def indexed(settings: Settings, policy: Policy, undo: AsyncExitStack) -> tuple[Settings, Digester]:
    """The settings and digester for indexes: those in use. A list, or what expands at the relay, that has none yet gets a
    temporary one beside them, deleted when ``undo`` is closed."""
    lists, _ = policy.declared
    known = settings.secret_file.is_file()
    digester = Digester(installation_secret(settings) if known else os.urandom(32), settings.delimiters)
    in_use = {file.name: file.absolute() for file in indexes(settings).glob("*") if file.is_file()} if known else {}
    new = [info for info in lists.values() if info.members and index_path(Path(), info.name).name not in in_use]
    expands = bool(policy.expansions) and expansions_path(Path()).name not in in_use
    if known and not new and not expands:
        return settings, digester
    folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="smtpguard-explain-")))
    passing = settings.model_copy(update={"state": folder})
    indexes(passing).mkdir(mode=0o700)
    for name, file in in_use.items():
        (indexes(passing) / name).symlink_to(file)
    refresher = built_refresher(passing, policy, digester)
    for info in new:  # a list that cannot be read has no index, and is unknown, as for real mail
        refresher.sync(info, SystemClock().now())
    if expands:
        expander = built_expander(passing, policy, built_registry(passing, policy, digester, SystemClock()))
        expander.sync(expander.info, SystemClock().now())
    return passing, digester


def gathering(settings: Settings, around: Around, undo: AsyncExitStack, *, key: bytes | None = None) -> Gather:
    """``undo`` closes its reader and verifier. ``key``: of traces, instead of the installation's secret."""
    reader, verifier = BoundedReader(around), _verifier(settings)
    undo.push_async_callback(reader.close)
    undo.push_async_callback(verifier.close)
    return Gather(reader=reader, verifier=verifier, trace_key=key or installation_secret(settings))


def _verifier(settings: Settings) -> DkimVerifier:
    resolver = None
    if settings.resolver.nameservers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = list(settings.resolver.nameservers)
    lookup = Resolver(resolver, seconds=settings.resolver.timeout_seconds).txt
    return DkimVerifier(lookup, pinned=settings.dkim_keys)


CROWD = 60
"""People that the letter goes to in Bcc, and one by one."""
SECONDS = 20.0
"""After this no further list is begun."""
_UNKNOWN_SIZE, _MOST = 1_000, 20_000
_MANY = 5_000
"""Larger lists count as equal in size."""
_STRANGER = "198.51.100.7"  # RFC 5737: a client that no policy names
_NEW_THREAD, _GROWN_THREAD = (base64.b64encode(b"\x01" + bytes(n)).decode() for n in (21, 26))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    shape: str
    message: Message
    to: Sequence[Address]
    sender: Address
    counted: int = 0
    client: str = ""


Played = tuple[Mapping[str, Sequence[str]], Sequence[str]]


def play(policy: Policy, settings: Settings | None, people: Mapping[str, int]) -> Played:
    """What would pass, by list: "a letter between colleagues to its address"; and the lists for which there was no
    time. ``people``: number of addresses in each list's sources, as far as it is known. Blocks for some milliseconds a
    list."""
    return asyncio.run(_play(policy, settings, people))


async def _play(policy: Policy, settings: Settings | None, people: Mapping[str, int]) -> Played:
    lists, _ = policy.declared
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
                alike.setdefault(_sense(info, conditions, people.get(info.name, 0)), []).append(info)
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


def _sense(info: ListInfo, conditions: Sequence[Condition], people: int) -> object:
    """What makes a difference to the rules. One list is played for all that are equal in it."""
    size = people if people < _MANY else _MANY
    named = tuple(info.name in c.lists for c in conditions if c.lists is not None)
    name = info.name if any(c.fact.name == "recipients.lists" for c in conditions) else ""
    return (
        name, named, size, info.audience, info.sensitivity, info.avoid, info.origin, bool(info.writers), bool(info.addresses),
        bool(info.members), info.includes,
    )  # fmt: skip


async def _passes(explainer: Explainer, scene: _Scene, sessions: Sequence[Session]) -> bool:
    """Whether it passes by any of the ways that mail comes in."""
    counted = _counted(scene.counted)
    for session in sessions:
        told = await explainer.explain(scene.message, scene.sender, scene.to, session, counted)
        if told.verdict.action is Action.RELAY:
            return True
    return False


def _counted(n: int) -> Mapping[str, int]:
    """The counts at the last message of a scene, for every count of people that a rule may ask for."""
    if not n:
        return {}
    counts = (fact.name for fact in FACTS.values() if fact.type in (Type.COUNT, Type.SHARE))
    return {name: n for name in counts if not name.startswith(("recipients.", "thread."))}


def _sessions(settings: Settings | None, scene: _Scene, colleague: Address) -> list[Session]:
    """The ways in which a colleague's mail comes in under the settings, with the sender proven or not."""
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
    write_passing(
        index_path(indexes(settings), info.name),
        [*addressed, *others],
        key_id=digester.key_id,
        built_at=SystemClock().now(),
    )


def _people(name: str, n: int) -> Iterator[Address]:
    """Addresses that do not exist, in a reserved domain (RFC 6761)."""
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
