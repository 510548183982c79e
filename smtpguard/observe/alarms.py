"""Alarms: what a person must hear of within minutes. The table of their conditions, each with its severity, its delay and
its texts. Pure.

A condition that cannot be evaluated (the store does not answer) is neither true nor false: its alarm stays as it was.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from smtpguard.journal.bypass import Bypass
from smtpguard.locale.phrase import N_, Listed, Moment, Phrase, Value
from smtpguard.locale.phrase import Said as Text
from smtpguard.policy.freezing import PUT_BACK, Freeze
from smtpguard.returns.model import REASONS


class Severity(enum.Enum):
    CRITICAL = "critical"  # a person is called now
    WARNING = "warning"  # a person looks today


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCall:
    """A call of a rule of the policy. ``list``: the one that it is about, "" for none. ``people``: the people of the list who
    had been written to, as counted at the hit with the most. ``senders``: the number of people whom each sender wrote to
    in the last hour, the most first, as far as names are kept; personal data."""

    rule: str
    list: str
    people: int
    senders: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A breaker stopped the rest of a mailing, or with ``observed`` would have: of ``people`` who have it so many were ``counted``."""

    mailing: str
    breaker: str
    limit: str
    counted: int
    people: int
    observed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The observations of one round. None: it could not be observed, or was not.

    ``store``, ``relay``: "" if it answers, else why it cannot be used. ``spool``: the same of the folder for large
    messages. ``put_back``: the sentence for a store that was restored to an earlier state, "" otherwise.
    ``unreadable``, ``differs``: what is wrong with the policy in force, and with its file. ``frozen``: freezes of
    everything that are in force; who made one, and why, is a person's, and only for mail to ``contact``; so is it of
    ``bypass``, that of this host. ``certificates``: when each expires, by its name in the settings; None if it cannot
    be used. ``answered``, ``deferred``, ``slow``: messages of the last ``MINUTES``, all of them, those answered 4xx, also
    without a verdict, and those whose verdict took more than SLOW_SECONDS. ``called``: rules that call a person;
    ``purposes``: of the policy's rules. ``absent``: kinds of parts without a ready process.
    ``starts``: why ``serve`` does not start, "" if it has. ``behind``: webhooks to how many seconds they are behind.
    ``refusing``: receivers of checkpoints to how many seconds they have taken none that was sent. ``clock_ahead``: by how many
    seconds the clock jumped forward, while it is not believed, else 0.
    """

    at: datetime
    store: Text | None = None
    relay: str | None = None
    frozen: tuple[Freeze, ...] | None = None
    put_back: str | None = None
    enforced: bool | None = None
    unreadable: str | None = None
    differs: str | None = None
    stale: tuple[str, ...] | None = None
    certificates: Mapping[str, datetime | None] | None = None
    answered: int | None = None
    deferred: int | None = None
    slow: int | None = None
    absent: tuple[str, ...] | None = None
    starts: str | None = None
    behind: Mapping[str, float] | None = None
    refusing: Mapping[str, float] | None = None
    spool: str | None = None
    called: tuple[RuleCall, ...] | None = None
    purposes: Mapping[str, str] = field(default_factory=dict)
    stopped: tuple[Stopped, ...] | None = None
    bypass: tuple[Bypass, ...] | None = None
    clock_ahead: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``about``: the list or file for which the condition is true, if there may be several. ``words``: values in the
    sentences. ``private``: those that name a person or are a person's words, which are not sent to webhooks.
    ``unclear``: about this it is neither true nor over."""

    about: str = ""
    unclear: bool = False
    words: Mapping[str, Value] = field(default_factory=dict)
    private: Phrase | None = None


def _away(said: str, _: Seen) -> Iterator[Found]:
    if said:
        yield Found(words={"said": said})


@dataclass(frozen=True, slots=True)
class Condition:
    """``of``: the value of ``Seen`` that it looks at; ``found``: where it is true, by that and by what else was seen.
    ``after_seconds``: how long it must last before the alarm is sent. ``shared``: of the whole installation, so that
    one of several nodes sends it; else of this host. ``again``: how often it is sent while it lasts, whoever takes it;
    None: as its severity says."""

    name: str
    severity: Severity
    title: str
    says: str
    does: str
    of: str
    found: Callable[[Any, Seen], Iterator[Found]] = _away
    after_seconds: float = 0
    shared: bool = False
    again: timedelta | None = None

    def look(self, seen: Seen) -> Iterator[Found]:
        value = getattr(seen, self.of)
        return iter(()) if value is None else self.found(value, seen)

    def key(self, about: str) -> str:
        return f"{self.name} {about}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A condition that is true now. ``key``: the same for as long as it is."""

    condition: Condition
    found: Found

    @property
    def key(self) -> str:
        return self.condition.key(self.found.about)

    @property
    def title(self) -> Phrase:
        return Phrase(self.condition.title, **self.found.words)

    @property
    def says(self) -> Phrase:
        return Phrase(self.condition.says, **self.found.words)

    @property
    def does(self) -> Phrase:
        return Phrase(self.condition.does, **self.found.words)

    def line(self, since: str = "") -> str:
        """What it says, ``since`` when, and what to do."""
        says = f"{self.says}{since}"
        return f"{says}{'' if says.endswith(('.', ')')) else '.'} {self.does}"


MINUTES = 10
"""The minutes over which answers are counted."""
FEWEST, SHARE = 5, 0.5  # of the messages answered then
SLOW_SECONDS = 2.5
"""The alarm names it. A bound of the histogram of admissions."""
BEHIND_SECONDS = 900.0
ENDS_SOON, ENDS_NOW = timedelta(days=30), timedelta(days=7)


def _freeze(freezes: Sequence[Freeze], seen: Seen, *, put_back: bool) -> Iterator[Found]:
    frozen = [each for each in freezes if (each.reason == PUT_BACK) is put_back]
    if put_back and not frozen and seen.put_back:  # nothing was written yet, so it is not frozen yet
        yield Found(words={"said": seen.put_back})
    if not frozen:
        return
    first = min(frozen, key=lambda each: each.at)
    words: dict[str, Value] = {"since": Moment(first.at), "said": seen.put_back or first.reason}
    who = (
        Phrase("By {who}: {reason}", who=first.by, reason=first.reason)
        if first.reason
        else Phrase("By {who}", who=first.by)
    )
    yield Found(words=words, private=None if put_back else who)


def _many(some: int, seen: Seen) -> Iterator[Found]:
    answered = seen.answered or 0
    some = min(some, answered)  # a verdict comes before the answer
    if some >= max(FEWEST, SHARE * answered):
        yield Found(words={"some": some, "answered": answered, "minutes": MINUTES})


def _not_enforced(enforced: bool, _: Seen) -> Iterator[Found]:
    if not enforced:
        yield Found()


def _ending(certificates: Mapping[str, datetime | None], seen: Seen, *, now: bool) -> Iterator[Found]:
    """``now``: within a week, or ended; else within a month. A certificate within a week has one alarm; one that cannot be used
    keeps what it had."""
    for what, at in certificates.items():
        if at is None or (not now and at < seen.at + ENDS_NOW):
            yield Found(about=what, unclear=True)
        elif at < seen.at + (ENDS_NOW if now else ENDS_SOON):
            yield Found(about=what, words={"what": what, "at": Moment(at)})


def _unusable(certificates: Mapping[str, datetime | None], _: Seen) -> Iterator[Found]:
    for what, at in certificates.items():
        if at is None:
            yield Found(about=what, words={"what": what})


def _each(names: Sequence[str], _: Seen) -> Iterator[Found]:
    for name in names:
        yield Found(about=name, words={"what": name})


def _late(seconds: Mapping[str, float], _: Seen) -> Iterator[Found]:
    for name, late in sorted(seconds.items()):
        if late > BEHIND_SECONDS:
            yield Found(about=name, words={"what": name, "minutes": int(late // 60)})


_MOST_NAMED = 40


def _called(calls: Sequence[RuleCall], seen: Seen) -> Iterator[Found]:
    for one in calls:
        about = f"{one.rule} ({one.list})" if one.list else one.rule
        lists = Phrase("{name} ({n})", name=one.list, n=one.people) if one.list else Phrase("none")
        purpose = seen.purposes.get(one.rule, "").rstrip(".")
        words = {"what": about, "purpose": purpose or one.rule, "lists": lists}
        named = (Phrase("{name} ({n})", name=name, n=n) for name, n in one.senders[:_MOST_NAMED])
        who, rest = Listed(tuple(named)), len(one.senders) - _MOST_NAMED
        senders = who if rest <= 0 else Phrase("{some} and {n} more", some=who, n=rest)
        private = Phrase(
            "Who wrote, in {minutes} minutes, and to how many of them: {senders}", minutes=60, senders=senders
        )
        yield Found(about=about, words=words, private=private if one.senders else None)


def _stopped(stopped: Sequence[Stopped], _: Seen, *, observed: bool) -> Iterator[Found]:
    for one in stopped:
        if one.observed is observed:
            why = Phrase(REASONS[one.breaker], n=one.counted, people=one.people, limit=one.limit)
            yield Found(about=one.mailing, words={"what": one.mailing, "why": why})


def _bypass(bypasses: Sequence[Bypass], _: Seen) -> Iterator[Found]:
    for one in bypasses:
        private = Phrase("By {who}: {reason}", who=" + ".join(one.people), reason=one.reason)
        yield Found(words={"until": Moment(one.ends)}, private=private)


def _ahead(seconds: int, seen: Seen) -> Iterator[Found]:
    if seconds:
        yield Found(words={"at": Moment(seen.at), "known": Moment(seen.at - timedelta(seconds=seconds))})


BYPASS = "bypass"
CONDITIONS: tuple[Condition, ...] = (
    Condition("store-put-back", Severity.CRITICAL, of="frozen", found=partial(_freeze, put_back=True), shared=True,
              title=N_("the store was put back, all mail waits"),
              says=N_("The store was put back to an earlier state, so that everything stands still: mail is answered "
                      "451 and waits at its clients. {said}"),
              does=N_("Put the newest copy in its place if there is one. Else look what was sent and decided since "
                      "(docs/operations.md, Restore), and let mail go again: smtpguard thaw --all")),
    Condition("frozen", Severity.CRITICAL, of="frozen", found=partial(_freeze, put_back=False), shared=True,
              title=N_("all mail is frozen"),
              says=N_("All mail has been frozen since {since}: nothing goes out, and what comes is held or waits at "
                      "its clients."),
              does=N_("When it is over: smtpguard thaw --all, by two people if freeze: thaw in smtpguard.yaml says two")),
    Condition("store-away", Severity.CRITICAL, of="store", after_seconds=60,
              title=N_("the database cannot be used"),
              says=N_("The database cannot be used: mail that cannot be recorded is answered 4xx and waits at its "
                      "clients. Why: {said}"),
              does=N_("Do what the reason asks for. smtpguard then goes on by itself; after a change of smtpguard.yaml "
                      "restart it.")),
    Condition("state-full", Severity.CRITICAL, of="spool", after_seconds=60,
              title=N_("the state folder takes no large message"),
              says=N_("The state folder takes no large message: mail of more than 1 MiB is answered 4xx and waits at "
                      "its clients, and lists may not be read again. Why: {said}"),
              does=N_("As the reason says: make room there (octets, inodes or quota), mount it for writing, or make "
                      "the folder again with its owner. No restart is needed.")),
    Condition(BYPASS, Severity.CRITICAL, of="bypass", found=_bypass, again=timedelta(minutes=5),
              title=N_("an emergency bypass is in force"),
              says=N_("Until {until} mail to no list and to at most three customers goes out whenever the database "
                      "cannot be used, if nothing in the database could stop it."),
              does=N_("If it is not meant, or is no longer needed: smtpguard bypass --end")),
    Condition("start-fails", Severity.CRITICAL, of="starts", after_seconds=60,
              title=N_("smtpguard does not start"),
              says=N_("smtpguard does not start, or ends soon after: mail waits at its clients. Why: {said}"),
              does=N_("Mend what it says. The service manager tries again every few seconds, unless it has given up: "
                      "systemctl status smtpguard")),
    Condition("clock-jumped", Severity.CRITICAL, of="clock_ahead", found=_ahead, after_seconds=120,
              title=N_("the clock may be wrong"),
              says=N_("The clock says {at}, and by the last known entry and the time that passed it is {known}. For "
                      "a day no hold expires by it, and nothing is erased; then it counts."),
              does=N_("If the clock is wrong, correct it today, and nothing is lost. If it is right, as after a long "
                      "time switched off, there is nothing to do.")),
    Condition("relay-away", Severity.CRITICAL, of="relay", after_seconds=90,
              title=N_("the relay cannot be used"),
              says=N_("The relay cannot be used: mail is answered 4xx and waits at its clients. Why: {said}"),
              does=N_("See its answer: smtpguard check --live")),
    Condition("deferring", Severity.CRITICAL, of="deferred", found=_many, after_seconds=60,
              title=N_("much of the mail is deferred"),
              says=N_("Of {answered} messages in {minutes} minutes {some} were answered 4xx or turned away for now, "
                      "and wait at their clients."),
              does=N_("Look why: smtpguard status, and the log")),
    Condition("slow", Severity.WARNING, of="slow", found=_many, after_seconds=60,
              title=N_("mail is slow"),
              says=N_("Of {answered} messages in {minutes} minutes {some} waited more than 2.5 seconds for their "
                      "verdict: a commit or a sync of the disk takes long, or reading them does."),
              does=N_("Look at the disk, the database and the load of this machine")),
    Condition("not-enforced", Severity.CRITICAL, of="enforced", found=_not_enforced, after_seconds=60, shared=True,
              title=N_("the policy holds nothing"),
              says=N_("The policy in force says enforce: false: everything goes out, and what would have been held "
                      "is only noted."),
              does=N_("If it is not meant: enforce: true in the policy, and smtpguard reload")),
    Condition("policy-unreadable", Severity.CRITICAL, of="unreadable", after_seconds=30,
              title=N_("the policy in force cannot be read"),
              says=N_("The policy in force cannot be read, so that nothing is decided: mail is answered 451. It "
                      "says: {said}"),
              does=N_("smtpguard reload puts a policy in force that can be read.")),
    Condition("policy-differs", Severity.WARNING, of="differs", after_seconds=900,
              title=N_("the policy file is not what is in force"),
              says=N_("The policy file of this host is not what is in force: {said}."),
              does=N_("smtpguard check; then smtpguard reload, or put the file back")),
    Condition("part-away", Severity.CRITICAL, of="absent", found=_each, after_seconds=60,
              title=N_("no {what} process runs"),
              says=N_("No process of the part {what} is ready: its work is not done."),
              does=N_("The log says why it dies.")),
    Condition("certificate-ends-now", Severity.CRITICAL, of="certificates", found=partial(_ending, now=True),
              title=N_("the certificate {what} ends within a week, or has ended"),
              says=N_("The certificate {what} is valid until {at}. Whoever verifies it refuses it after that."),
              does=N_("Renew it. A renewed file is in use within a minute.")),
    Condition("certificate-ends", Severity.WARNING, of="certificates", found=partial(_ending, now=False),
              title=N_("the certificate {what} ends within a month"),
              says=N_("The certificate {what} is valid until {at}."),
              does=N_("Renew it. A renewed file is in use within a minute.")),
    Condition("certificate-unusable", Severity.CRITICAL, of="certificates", found=_unusable, after_seconds=600,
              title=N_("the files of the certificate {what} cannot be used"),
              says=N_("The files of the certificate {what} cannot be used: the one before stays in use, and a "
                      "restart would fail."),
              does=N_("smtpguard check says what is wrong with them. Do not restart before.")),
    Condition("list-stale", Severity.CRITICAL, of="stale", found=_each, after_seconds=900,
              title=N_("the list {what} is stale"),
              says=N_("What is known of the list {what} is too old, or was never read: ordinary mail may be held."),
              does=N_("smtpguard lists show says what is wrong.")),
    Condition("webhook-behind", Severity.WARNING, of="behind", found=_late, after_seconds=300, shared=True,
              title=N_("the webhook {what} is behind"),
              says=N_("The webhook {what} is {minutes} minutes behind: its receiver does not accept what is sent."),
              does=N_("The log has its answer.")),
    Condition("checkpoints-refused", Severity.WARNING, of="refusing", found=_late, shared=True,
              title=N_("checkpoints do not reach audit: {what}"),
              says=N_("The receiver of checkpoints audit: {what} has taken none for {minutes} minutes: only this "
                      "host vouches for what the journal says since then."),
              does=N_("The log has its answer; smtpguard status says up to when it has checkpoints. smtpguard goes "
                      "on trying.")),
    Condition("rule-calls", Severity.CRITICAL, of="called", found=_called, shared=True,
              title=N_("the rule {what} calls you"),
              says=N_("A rule of the policy calls a person: {purpose}. Lists, and how many people of each were "
                      "written to: {lists}."),
              does=N_("Look who writes what. To stop it: smtpguard freeze --reason TEXT --sender ADDRESS, or --list "
                      "NAME")),
    Condition("breaker", Severity.CRITICAL, of="stopped", found=partial(_stopped, observed=False), shared=True,
              title=N_("what came back has stopped the mailing {what}"),
              says=N_("So much of the mailing {what} came back that the rest of it is stopped. {why}."),
              does=N_("Look what comes back: smtpguard returns show {what}. To let the rest go: smtpguard thaw, and "
                      "what was held waits for a decision")),
    Condition("breaker-observed", Severity.WARNING, of="stopped", found=partial(_stopped, observed=True), shared=True,
              title=N_("much of the mailing {what} comes back"),
              says=N_("So much of the mailing {what} came back that a breaker would have stopped it, but the policy "
                      "only observes. {why}."),
              does=N_("Look what comes back: smtpguard returns show {what}. To stop it: smtpguard freeze --reason "
                      "TEXT --mailing {what}")),
)  # fmt: skip
BY_NAME = {condition.name: condition for condition in CONDITIONS}


def raised(seen: Seen) -> Iterator[Alarm]:
    """The conditions that are true, for however short a time."""
    for condition in CONDITIONS:
        for found in condition.look(seen):
            if not found.unclear:
                yield Alarm(condition=condition, found=found)


def unknown(seen: Seen) -> frozenset[str]:
    """The names of the conditions that cannot be evaluated, and the keys of alarms that are neither true nor over."""
    names = frozenset(each.name for each in CONDITIONS if getattr(seen, each.of) is None)
    return names.union(each.key(found.about) for each in CONDITIONS for found in each.look(seen) if found.unclear)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaisedAlarm:
    """An alarm that was raised and is not known to be over. ``told``: when it was last sent, None: never.
    ``claimed_until``: a process is sending it. ``taken_by``: who takes care of it, "" while nobody does."""

    key: str
    began: datetime
    told: datetime | None = None
    claimed_until: datetime | None = None
    taken_by: str = ""
    taken_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.key.partition(" ")[0]

    @property
    def alarm(self) -> Alarm | None:
        """As its key says, enough for its title. None: another version's, which handles it."""
        name, _, about = self.key.partition(" ")
        found = Found(about=about, words={"what": about})
        return Alarm(condition=BY_NAME[name], found=found) if name in BY_NAME else None

    @property
    def title(self) -> Text:
        return self.alarm.title if self.alarm is not None else self.key
