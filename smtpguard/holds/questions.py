"""Questions and answers about a held message: an approver asks the writer; the writer answers, or asks for the release.

Each is one journal entry and one notice to each reader, in one commit. None of them decides anything. An answer and a
plea (a request for release) are separate: a writer who answers "the wrong list, reject it" has not asked for the
release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds.model import Change, Conflict, Hold, NotEntitled, Refused, State, entitled, event_on
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Kind
from smtpguard.notices.intents import Notices

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

JUDGEMENTS = ("right", "mistake")
MOST = 2_000
"""The most characters of a question or an answer; longer text is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question of an approver. ``by``: the approver's address."""

    by: str
    words: str


@dataclass(eq=False)
class Questions:
    """The service for questions. ``ask``, ``answer``, ``plead`` and ``judge`` raise NoSuch, NotEntitled, Conflict and
    StoreError, as votes do."""

    store: Store
    policies: PolicyInForce
    clock: Clock
    new_id: Callable[[], str]
    notices: Notices = field(default_factory=Notices)

    async def ask(self, hold_id: str, question: str, *, approver: str, by: str) -> None:
        in_force, now = self.policies.current(), self.clock.now()

        def step(hold: Hold) -> Change:
            if hold.sender is None:
                raise Refused("its writer is not known, so no one can be asked")
            if not entitled(hold, approver, in_force.groups, at=now, open_now=in_force.hours.open_at(now)):
                raise NotEntitled(f"{approver} is not an approver of it")
            return self._speak(hold, Kind.ASKED, "question", question, approver, by)

        await self.store.holds.change(hold_id, step)

    async def answer(self, hold_id: str, words: str, *, sender: str, by: str) -> None:
        """Answer the last question as the writer, or tell the approvers something without one."""
        asked = await self.open_question(hold_id)
        question = {"question": asked.words, "asked_by": asked.by} if asked is not None else {}
        await self._speak_as_writer(hold_id, Kind.ANSWERED, "answer", words, sender, by, **question)

    async def plead(self, hold_id: str, words: str, *, sender: str, by: str) -> None:
        await self._speak_as_writer(hold_id, Kind.PLEADED, "plea", words, sender, by)

    async def judge(self, hold_id: str, said: str, *, sender: str, by: str) -> None:
        """Record the writer's judgement afterwards: it was ``right`` to stop the message, or a ``mistake``. The last
        counts."""
        if said not in JUDGEMENTS:
            raise ValueError(said)

        def step(hold: Hold) -> Change:
            if sender not in hold.senders:
                raise NotEntitled(f"{sender} did not write it")
            if hold.shown_state == State.WAITING.value:
                raise Conflict("it waits for a decision")
            event = event_on(hold, Kind.JUDGED, self.clock.now(), actors=(sender, by), said=said)
            return Change(hold=hold, events=(event,))

        await self.store.holds.change(hold_id, step)

    async def judgement(self, hold_id: str) -> str:
        """Return the writer's last judgement, "" for none. Raises StoreError."""
        entries = await self.store.journal.history(hold_id, Kind.JUDGED)
        return str(entries[-1][0].data.get("said")) if entries else ""

    async def open_question(self, hold_id: str) -> Question | None:
        """Return the last question if it has no answer yet. Its words are "" if the journal has erased them. Raises
        StoreError."""
        entries = await self.store.journal.history(hold_id, Kind.ASKED, Kind.ANSWERED)
        if not entries or entries[-1][0].kind == Kind.ANSWERED.value:
            return None
        asked = entries[-1][1] or {}
        return Question(by="".join(asked.get("actor", ())[:1]), words=" ".join(asked.get("comment", ())))

    async def _speak_as_writer(
        self, hold_id: str, kind: Kind, notice: str, words: str, sender: str, by: str, **more: str
    ) -> None:
        def step(hold: Hold) -> Change:
            if sender not in hold.senders:
                raise NotEntitled(f"{sender} did not write it")
            return self._speak(hold, kind, notice, words, sender, by, **more)

        await self.store.holds.change(hold_id, step)

    def _speak(self, hold: Hold, kind: Kind, notice: str, words: str, who: str, by: str, **more: str) -> Change:
        """Return the change that journals the words of ``who``, and sends them as a notice. ``by``: the caller's login;
        ``more``: further data of the notice."""
        if hold.state is not State.WAITING:
            raise Conflict(f"it is already {hold.state.value}")
        now, words = self.clock.now(), words.strip()[:MOST]
        said = {"by": who, "comment": words, **more}
        return Change(
            hold=hold,
            events=(event_on(hold, kind, now, actors=(who, by), comment=words),),
            intents=self.notices.at(self.policies.current(), now).words(hold, notice, said, self.new_id()),
        )
