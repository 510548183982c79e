"""The mailboxes of people: every notice as it was sent to them, and what they answer by mail: as asked, late, again, in
another's name, with another's token, or as a program does."""

from __future__ import annotations

import email
import email.policy
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from random import Random
from typing import Any

from smtpguard.admission.mailvote import VotesByMail
from smtpguard.gathering.reader import BoundedReader
from smtpguard.holds.model import Hold, State
from smtpguard.holds.replying import Tokens
from smtpguard.journal.event import DECISIONS, Kind
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope
from smtpguard.mail.fields import DkimResult, Signature
from smtpguard.mail.message import Message
from smtpguard.notices.notice import Notice, NoticeHead, NoticeTemplates
from smtpguard.notices.noticedata import approvers
from smtpguard.notices.render import Renderer
from smtpguard.outbox.model import Intent
from smtpguard.policy.verdict import Rejected, Taken
from smtpguard.reading.request import Surroundings
from tests.guard.house import KEY, FakePassage, House

HOLD_ID = re.compile(r"\b[A-Z]\d{15}\b")
VOTES = Address.parse("votes@guard.example.com")
WORDS = {
    "held": "waiting",
    "confirm": "waiting",
    "approve": "waiting",
    "reminder": "waiting",
    "decided": "",
    "expired": "expired",
}
"""The notices that say what becomes of a message."""
_SENT = {"approved", "confirmed", "revoked", "leaving", "released", "releasing", "in-doubt", "undelivered"}
ENDED = {
    "released": _SENT, "undelivered": _SENT, "in-doubt": _SENT, "approved": _SENT, "releasing": _SENT, "stopped": {"stopped"},
    "rejected": {"rejected"}, "withdrawn": {"withdrawn"}, "expired": {"expired"}, "granted": {*_SENT, "granted"},
}  # fmt: skip
"""What is read last of a message, by its state."""
DECIDED = {kind.value for kind in DECISIONS}
ACTED = DECIDED | {"vote", "stopped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A notice in a mailbox. ``answers``: the address that its answer votes at, "" for none.
    ``said``: the data that it was made from."""

    to: str
    kind: str
    answers: str
    text: str
    said: Mapping[str, Any]

    @property
    def hold_id(self) -> str:
        return self.answers.partition("+")[2].partition(".")[0].upper()


@dataclass
class Signing:
    """A verifier that finds what it is told."""

    found: DkimResult = field(default_factory=DkimResult)

    async def origin(self, message: Message) -> DkimResult:
        return self.found


class Noted(NoticeTemplates):
    """``data``: what each notice was made from, by its Message-ID."""

    def __init__(self, head: NoticeHead) -> None:
        super().__init__(head)
        self.data: dict[str, Mapping[str, Any]] = {}

    def render(self, notice: Notice) -> bytes:
        made = super().render(notice)
        self.data[str(email.message_from_bytes(made)["Message-ID"])] = notice.data
        return made


class Mailboxes:
    """``said``: how often an answer got which reply."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.got: list[Letter] = []
        self.said: dict[str, int] = defaultdict(int)
        self._sent = set[tuple[str, str]]()
        self._used: set[str] = set()
        self._asked: list[tuple[str, str]] = []
        self._obsolete: set[tuple[str, str, str]] = set()

    def open(self, home: House) -> None:
        """As a process starts."""
        self.home, self.signing = home, Signing()
        self.reader = BoundedReader(lambda: ("p", Surroundings()))
        self.votes = VotesByMail(
            address=VOTES, tokens=Tokens(KEY), store=home.store, policies=home, reader=self.reader, verifier=self.signing,
            approvals=home.approvals(), notices=home.notices, clock=home.clock,
        )  # fmt: skip
        self.templates = head = Noted(NoticeHead(languages=("sv", "en"), organization="Example AB"))
        self.renderer = Renderer(
            store=home.store, in_force=home.current, templates=lambda: head, clock=home.clock,
            reporting_mta="guard.example.com", answers=(VOTES, self.votes.tokens),
        )  # fmt: skip

    def put(self, to: str, content: Message) -> None:
        """A notice has come, or a report on a delivery, which is not kept."""
        read = email.message_from_bytes(bytes(content.raw[:]), policy=email.policy.default)
        assert isinstance(read, EmailMessage)
        kind, plain = str(read["X-Smtpguard-Notice"] or ""), read.get_body(("plain",))
        if kind and plain is not None:
            answers, text = str(read["Reply-To"] or ""), plain.get_content()
            id = str(read["Message-ID"])
            assert (to, id) not in self._sent, "sent twice"
            self._sent.add((to, id))
            said = self.templates.data.get(id, {})
            self.got.append(Letter(to=to, kind=kind, answers=answers, text=text, said=said))

    def erased(self) -> None:
        """That a writer was told of a delay, or a person that their answer did not count, is forgotten with the person whose mail it
        was, so they may be told again."""
        self._sent = {
            (to, id) for to, id in self._sent if not id.endswith("-delayed.dsn@localhost>") and "-voted-" not in id
        }

    async def held(self, hold_id: str) -> None:
        """A message is held now: its approvers are to be asked."""
        hold, now = await self.home.hold(hold_id), self.home.clock.now()
        if not (hold.primary or hold.asks_writer):
            self._asked += [(hold_id, one) for one in approvers(hold, self.home.in_force, now)]

    async def render(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        """As the renderer does. What it drops asks for nothing that is still to be decided."""
        made = await self.renderer.render(intent)
        kind, to = intent.data.get("notice"), str(intent.recipients[0].address)
        if made or kind not in ("held", "confirm", "approve", "reminder", "question", "answer", "plea"):
            return made
        hold = await self.home.hold(intent.data["hold_id"])
        hold = await self.home.hold(hold.primary) if hold.primary else hold
        if kind in ("question", "answer", "plea"):
            assert hold.state is not State.WAITING, (intent, hold)
            return made
        voted = {vote.approver for vote in hold.votes}
        assert hold.shown_state != "waiting" or (to in voted if kind != "confirm" else not hold.asks_writer), (
            intent,
            hold,
        )
        self._obsolete.add((kind, intent.data["hold_id"], to))
        return made

    async def nobody_was_left_out(self, people: Collection[str]) -> None:
        """Each of these, whom all policies name, was asked in a notice of its own, or in the digest of those minutes, unless there was
        nothing left to decide for them. A writer who was not told that it waits was told what became of it. What was erased
        is in no digest."""
        kept = {hold.hold_id: hold.primary or hold.hold_id for hold in await self.home.holds()}
        told = {(hold_id, letter.to) for letter in self.got for hold_id in HOLD_ID.findall(letter.text)}
        for hold_id, person in self._asked:
            spared = ("approve", hold_id, person) in self._obsolete or hold_id not in kept
            assert spared or (hold_id, person) in told or person not in people, (hold_id, person)
        for kind, hold_id, writer in self._obsolete:
            owed = kind in ("held", "confirm") and hold_id in kept
            of = {(hold_id, writer), (kept.get(hold_id, ""), writer)}  # a void hold's copy may stand for it
            assert not owed or not of.isdisjoint(told), (kind, hold_id, writer)

    async def all_know_what_became(self, people: Collection[str]) -> None:
        """Who wrote a message, or was asked about it, read last what became of it; unless they did that themselves, or it
        expired, which only its writers are told. ``people``: those who are asked by every policy."""
        last, short = dict[tuple[str, str], str](), set[str]()
        for letter in self.got:
            said = letter.said
            if letter.kind == "digest":
                last |= {(row["hold_id"], letter.to): str(row["state"]) for row in said["messages"]}
                short |= {letter.to} if said["total"] > len(said["messages"]) else set()
            elif letter.kind in WORDS and said.get("hold_id"):
                word = "waiting" if said.get("asked") else said.get("outcome", WORDS[letter.kind])
                last[said["hold_id"], letter.to] = word
        there = await self.home.holds()
        for hold in there:
            if hold.primary or hold.state is State.VOID or not hold.acknowledged:
                continue
            id, ends = hold.hold_id, ENDED[hold.shown_state] | ({"stopped"} if hold.stopped else set())
            mine = [copy.sender for copy in there if copy.primary == id and copy.acknowledged]
            for who in {one for one in (hold.sender, *hold.told, *mine) if one} - short:
                assert last.get((id, who)) in ends, (id, who, last.get((id, who)), hold.state)
            history = await self.home.store.journal.history(id)
            acted = [clear["actor"][0] for one, clear in history if one.kind in ACTED and clear and clear.get("actor")]
            for who in (
                {*people} - short - {*acted[-1:]} - hold.senders
            ):  # who wrote a copy that their client tries again
                left = {"waiting", "reopened", "lapsed"} if hold.state is State.EXPIRED else set()
                assert last.get((id, who)) in {None, *ends, *left}, (id, who, last[id, who], hold.state)

    async def answer(self) -> None:
        chance, asked = self.chance, [letter for letter in self.got if letter.answers]
        there = {hold.hold_id: hold.state for hold in await self.home.holds()}
        states = {State.WAITING} if chance.random() < 0.8 else {*State}
        asked = [letter for letter in asked if there.get(letter.hold_id) in states]
        if not asked:
            return
        letter = chance.choice(asked)
        hold = await self.home.hold(letter.hold_id)
        confirms = letter.kind == "confirm"
        word = chance.choice(
            [f"CONFIRM {hold.reach}"] * 4 + [f"CONFIRM {hold.reach + 1}", "OK"] if confirms
            else ["APPROVE"] * 5 + ["GODKÄNN", "REJECT\nwrong", "AVSLÅ", "REJECT\nAPPROVE", "I shall look", "CONFIRM 3"]
        )  # fmt: skip
        await self._give(letter, hold, word)

    async def _give(self, letter: Letter, hold: Hold, word: str) -> None:
        """Checks what is done with it: what was not written by the reader of the notice, or not now, changes nothing."""
        chance, home = self.chance, self.home
        honest = chance.random() < 0.6
        writer = letter.to if honest else chance.choice([letter.to, letter.to, "bo@example.com", "omar@example.com"])
        login = (
            chance.choice([letter.to, letter.to, ""])
            if honest
            else chance.choice(["", writer, "bo@example.com", letter.to])
        )
        token = letter.answers if honest else chance.choice([letter.answers, self._another(letter)])
        program = {"Auto_Submitted": "auto-replied"} if not honest and chance.random() < 0.2 else {}
        signed = chance.random() < 0.3
        self.signing.found = self._signature() if signed else DkimResult()
        to = token if honest or chance.random() < 0.8 else letter.answers  # signed for another notice
        answer = home.transaction(
            token, sender=writer, body=f"{word}\n\n> {hold.subject}", session={"auth_user": login or None},
            reverse_path=writer, To=to, Message_ID="<answer>", **program,
        )  # fmt: skip
        way = FakePassage()
        intake = home.intake()
        intake.own = [self.votes]
        before, _, asks = await home.hold(letter.hold_id), await home.settled(letter.hold_id), hold.asks_writer
        votes = await self._votes(letter.hold_id)
        done = await intake(answer, way)
        assert way.sent == [], "an answer is never sent on"
        after = await home.hold(letter.hold_id)
        assert isinstance(done, Taken | Rejected), done
        self.said[str(done.reply) if isinstance(done, Rejected) else f"250 {word.split()[0]}"] += 1
        if isinstance(done, Rejected):
            if "people by now" in str(done.reply):  # it is looked at again, for the lists that it reaches
                before = replace(before, lists=after.lists, reach=after.reach, verdict=after.verdict, votes=())
            assert after == before, (str(done.reply), before, after)
            assert await self._votes(letter.hold_id) == votes
        else:
            assert (token, program) == (letter.answers, {}), "counted with a forged token, or of a program"
            assert home.in_force.groups.person(writer) == home.in_force.groups.person(letter.to), "in another's name"
            assert token not in self._used or asks, "counted twice"
            proven = login == letter.to or (signed and self._vouched() and to == token)
            assert proven or word.startswith(("REJECT", "AVSLÅ")), "without a proof"
            assert not (asks and login != letter.to), "confirmed without a login"
            assert letter.to not in before.senders or asks, "on their own message"
            if before.state is State.WAITING:  # else it stops the copies that are left, of which another one leads then
                assert len(await self._votes(letter.hold_id)) == len(votes) + 1
            assert home.in_force.reply_votes is not None or not word.startswith(("APPROVE", "GODKÄNN")), "not allowed"
            self._used.add(token)

    async def _votes(self, hold_id: str) -> list[dict[str, Any]]:
        kinds = {Kind.VOTE.value, Kind.CONFIRMED.value}
        return [data for kind, data in await self.home.settled(hold_id) if kind in kinds]

    def _another(self, letter: Letter) -> str:
        """A token that was not made for this reader and notice: of another person, another notice, or invented."""
        local, _, domain = letter.answers.partition("@")
        hold_id, tag, code = local.partition("+")[2].split(".")
        codes = [other.answers.partition("@")[0].rpartition(".")[2] for other in self.got if other.answers]
        code = self.chance.choice([*(one for one in codes if one != code), code[::-1]])
        return f"{VOTES.local}+{hold_id}.{tag}.{code}@{domain}"

    def _signature(self) -> DkimResult:
        fields = frozenset({"from", "to", "subject"})
        made = Signature(domain="example.com", fields=fields, at=self.home.clock.now())
        return DkimResult(domains=frozenset({"example.com"}), signatures=(made,))

    def _vouched(self) -> bool:
        allowed = self.home.in_force.reply_votes
        return allowed is not None and "example.com" in allowed.senders_verified
