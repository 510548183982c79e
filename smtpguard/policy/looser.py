"""Report what a new policy may let pass that the one before would have stopped: one plain sentence a change, with its
place in the new file.

A change that cannot be shown to be equal or stricter is reported. Changes that can are not: a rule added, a bound
lowered, an exception removed, a description changed. A field of the policy that is not listed here is compared as a
whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from smtpguard.config.documents import POLICY, VOCABULARIES, folder_of, policy_document
from smtpguard.config.durations import Rate
from smtpguard.config.yaml import Document, Place
from smtpguard.lists.members import ListMembers, Members
from smtpguard.locale.phrase import some_of
from smtpguard.policy.condition import Condition, Empty, SomeWord, Word
from smtpguard.policy.facts import OF_LETTERS, OF_TOPICS, Type
from smtpguard.policy.implication import (
    FALL,
    added,
    excepted,
    rule_implies,
    stricter_by_doubt,
    stricter_by_list,
    stricter_by_proof,
    stricter_by_touch,
    stricter_if_higher,
    stricter_if_lower,
)
from smtpguard.policy.models import PREVIEWS, ListModel, OriginModel, StreamModel
from smtpguard.policy.parse import Policy
from smtpguard.policy.rule import Rule
from smtpguard.policy.stages import Breakers
from smtpguard.policy.verdict import Action, Mode, Quorum, Scope
from smtpguard.reading.fold import fold
from smtpguard.reading.marks import KINDS, Side
from smtpguard.reading.topics import Entry, entries_of, words_of

_MANY = 500
"""The most rules for which a removed rule is compared with all others, and not only with rules of its own conditions."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Looser:
    """``line`` and ``column`` in the new ``file``, 0 if the change has no place there."""

    text: str
    file: str = POLICY
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}" if self.line else f"{self.file}: {self.text}"

    def row(self) -> dict[str, str | int | None]:
        return {"file": self.file, "line": self.line or None, "column": self.column or None, "text": self.text}


_Found = Iterator[tuple[str, Place]]


def looser(old: Policy, new: Policy, *, where: str = POLICY) -> tuple[Looser, ...]:
    """Return the changes, in the order of the sections. ``where``: the name of the new policy's file."""
    compared = _Compared(old, new)
    found: list[Looser] = []
    document = policy_document(new.documents, where)
    for text, place in compared.all():
        if place:
            mark = document.mark(_written_place(place, document), key=True)
            found.append(Looser(text=text, file=mark.file or where, line=mark.line, column=mark.column))
        else:
            found.append(Looser(text=text, file=where))
    for text, name in compared.vocabularies():
        file = f"{folder_of(where)}{VOCABULARIES}/{name}.yaml"
        found.append(Looser(text=text, file=file))
    return tuple(dict.fromkeys(found))


def _written_place(place: Place, document: Document) -> Place:
    """Return the place, or the nearest enclosing one in the file."""
    while place and place not in document.values:
        place = place[:-1]
    return place


@dataclass(eq=False)
class _Compared:
    old: Policy
    new: Policy
    places: Mapping[str, Place] = field(init=False)
    """The place of each rule of the new policy."""

    def __post_init__(self) -> None:
        self.places = {rule.rule_id: ("rules", n) for n, rule in enumerate(self.new.rules.rules)}
        self.conditions = [(c, False) for r in self.new.rules.rules for c in r.when]
        self.conditions += [(c, True) for r in self.new.rules.rules for c in r.unless]
        self.touching = all(stricter_by_touch(c, unless) for c, unless in self.conditions)
        # A writer who is proven, and is no system, is asked instead of others.
        asking = any(rule.then is Action.CONFIRM and not rule.observes for rule in self.new.rules.rules)
        self.trusting = not asking and all(stricter_by_proof(c, unless) for c, unless in self.conditions)
        self.listing = all(stricter_by_list(c, unless) for c, unless in self.conditions)
        self.doubting = all(stricter_by_doubt(c, unless) for c, unless in self.conditions)
        self.streaming = self.doubting and not asking
        self.topics = all(
            not unless and not (isinstance(c, Empty) and c.wanted)
            for c, unless in self.conditions
            if c.fact.name in OF_TOPICS
        )

    def all(self) -> _Found:
        old, new = self.old, self.new
        if old.enforce and not new.enforce:
            yield "enforce: false: every rule only observes, and nothing is held", ("enforce",)
        if old.enforce and new.enforce:  # if either did not enforce, the rules make no difference to mail
            yield from self._rules()
            yield from self._organization()
            for name in sorted({*old.lists, *new.lists}):
                yield from self._list(name, old.lists.get(name), new.lists.get(name))
            yield from self._streams()
            yield from self._marks()
            yield from self._breakers()
            yield from self._reply_votes()
            if new.slots > old.slots:
                yield f"mailings.slots: {new.slots:.0%}, where it was {old.slots:.0%}", ("mailings", "slots")
            if old.expansions != new.expansions:
                yield "expansions changed", ("expansions",)
        yield from self._people()
        for each in fields(Policy):
            if each.name not in _KNOWN and getattr(old, each.name) != getattr(new, each.name):
                yield f"{each.name} changed", (each.name,)

    # rules

    def _rules(self) -> _Found:
        rules = self.new.rules.rules
        if any(rule.then is Action.CONFIRM for rule in self.old.rules.rules):
            before, after = self.old.rules.confirming, self.new.rules.confirming
            if after.within > before.within:
                yield "confirm.within: writers are asked for longer", ("confirm", "within")
            rate_before, rate_after = before.a_person, after.a_person
            if rate_after.count > rate_before.count or rate_after.window_seconds < rate_before.window_seconds:
                yield "confirm.a_person: one person may be asked more often", ("confirm", "a_person")
        by_id = {rule.rule_id: rule for rule in rules}
        of_sense: dict[object, list[Rule]] = {}
        for rule in rules:
            of_sense.setdefault(rule.sense, []).append(rule)
        for rule in self.old.rules.rules:
            if rule.observes:
                continue
            now = by_id.get(rule.rule_id)
            if now is not None and rule_implies(now, rule):
                continue
            others = rules if len(rules) <= _MANY else of_sense.get(rule.sense, ())
            if any(rule_implies(other, rule) for other in others):
                continue
            if now is None:
                yield f"rule {rule.rule_id}: removed", ()
            else:
                yield from self._rule(rule, now)

    def _rule(self, old: Rule, new: Rule) -> _Found:
        name, place = f"rule {old.rule_id}", self.places[old.rule_id]
        if new.calls:
            yield f"{name}: then: alarm, where it was {old.then.word}", (*place, "then")
        elif new.mode is Mode.OBSERVE:
            yield f"{name}: mode: observe", (*place, "mode")
        if new.then < old.then and not new.calls:
            yield f"{name}: then: {new.then.word}, where it was {old.then.word}", (*place, "then")
        if new.scope is Scope.CUSTOMERS and old.scope is Scope.ALL:
            yield f"{name}: scope: customers, where it was all", (*place, "scope")
        if new.stop_seconds < old.stop_seconds:
            yield f"{name}: stop is shorter, or removed", (*place, "stop")
        if old.then is Action.CONFIRM is new.then:
            if new.within_seconds != old.within_seconds and not 0 < new.within_seconds < old.within_seconds:
                yield f"{name}: its writer may be asked for longer", (*place, "within")
            if old.expires and not new.expires:
                yield f"{name}: after: hold, where it expired", (*place, "after")
        for c in added(old.when, new.when):
            before = next((b for b in old.when if b.fact.name == c.fact.name), None)
            if before is not None:
                text = f"{name}: {_in_words(before)} became {_in_words(c)}"
            else:
                text = f"{name}: hits only where {_in_words(c)} as well"
            yield text, (*place, "when", c.fact.name)
        if excepted(old.unless, new.unless):
            exception = " and ".join(map(_in_words, new.unless))
            another = "another exception" if old.unless else "an exception"
            yield f"{name}: has {another}: unless {exception}", (*place, "unless")

    def _breakers(self) -> _Found:
        """One that is new, or trips wherever the old one did, stops more; and a mailing is less than all that goes to its lists."""
        yield from _stops_less(self.old.breakers, self.new.breakers, "breakers", ("breakers",))
        for name, model in sorted(self.new.lists.items()):
            place = ("lists", name, "breakers") if model.breakers else ("lists", name)
            if model.breakers or (name in self.old.lists and self.old.lists[name].breakers):
                old, new = self.old.breakers_of([name]), self.new.breakers_of([name])
                yield from _stops_less(old, new, f"list {name}: breakers", place)

    def _reply_votes(self) -> _Found:
        old, new = self.old.reply_votes, self.new.reply_votes
        if new is None:
            return
        if old is None:
            yield f"reply_votes: messages to up to {new.people:,} people may be approved by mail", ("reply_votes",)
            return
        if new.people > old.people:
            text = f"reply_votes.people: {new.people:,}, where it was {old.people:,}"
            yield text, ("reply_votes", "people")
        if new.special and not old.special:
            yield "reply_votes.sensitivity: special-category, where it was none", ("reply_votes", "sensitivity")
        for domain in sorted(set(new.senders_verified) - set(old.senders_verified)):
            yield f"reply_votes.senders_verified: {domain} added", ("reply_votes", "senders_verified")

    # people and lists

    def _organization(self) -> _Found:
        old, new = self.old.organization, self.new.organization
        for domain in sorted(new.domains - old.domains):
            yield f"organization.domains: {domain} added", ("organization", "domains")
        for domain in sorted(old.domains - new.domains):
            yield f"organization.domains: {domain} removed", ("organization", "domains")
        if old.customers_here is not new.customers_here and not (new.customers_here and self.touching):
            yield f"organization.customers_here: {str(new.customers_here).lower()}", ("organization", "customers_here")
        strangers = self.touching and all(stricter_if_higher(c, u) for c, u in self.conditions if c.fact.name in FALL)
        answering = all(
            stricter_if_higher(c, u) for c, u in self.conditions if c.fact.name in OF_LETTERS and c.fact.number
        )
        for key, what, fewer in (
            ("people", "one of ours", strangers),
            ("shared", "a mailbox in which several answer", answering),
        ):
            before, after = getattr(old, key), getattr(new, key)
            for address in sorted(after - before):
                yield f"organization.{key}: {address} is {what}", ("organization", key)
            for address in sorted(before - after) if not fewer else ():
                yield f"organization.{key}: {address} is no longer {what}", ("organization", key)
        if new.members != old.members and (new.members or not strangers):
            yield "organization.people: its members changed", ("organization", "people", "members")

    def _list(self, name: str, old: ListModel | None, new: ListModel | None) -> _Found:
        place: Place = ("lists", name)
        if new is None:
            yield f"list {name}: removed", ()
            return
        if old is None:
            if trusted := [
                what
                for what in ("writers", "origin", "list_ids", "release_delay")
                if getattr(new, what) not in (None, [])
            ]:
                yield f"list {name}: added, with {' and '.join(trusted)}", place
            elif (touched := self._touched(new, new.addresses)) is not None:
                yield f"list {name}: added{touched}", place
            yield from self._list_approvals(name, None, new)
            return
        for each in type(new).model_fields:
            before, after = getattr(old, each), getattr(new, each)
            if before == after or each in _APART:
                continue
            at = (*place, each)
            if each in _SETS:
                yield from self._list_set(name, each, new, set(before), set(after), at)
            elif each == "stages_by_address" and (after == "refuse" or old.stages is None):
                continue
            elif each == "members":
                yield from self._members(name, old, new, at)
            elif not (each == "origin" and self.doubting and before and after and _narrower(after, before)):
                yield f"list {name}: {each} changed", at
        if old.stages is not None and old.stages != new.stages:
            yield f"list {name}: stages {'changed' if new.stages else 'removed'}", (*place, "stages")
        was, now = old.release_delay, new.release_delay
        if was != now and (was is None or now is None or now < was):  # the default is in the settings, unknown here
            yield (
                f"list {name}: release_delay {'changed' if new.release_delay is not None else 'removed'}",
                (*place, "release_delay"),
            )
        if PREVIEWS.index(new.preview or "full") > PREVIEWS.index(old.preview or "full"):
            yield f"list {name}: preview: {new.preview or 'full'}, where it was {old.preview}", (*place, "preview")
        yield from self._list_approvals(name, old, new)

    def _touched(self, model: ListModel, addresses: Iterable[str] = ()) -> str | None:
        """Return why a rule may get looser by mail to this list, to lists within it, or to some of these
        ``addresses``, that was none to it; None if none does."""
        if not self.touching:
            return ""
        if not self.listing and any(map(self.new.organization.has, addresses)):
            return ", with an address that was a colleague's"
        within = [self.new.lists[each.list] for each in model.members if isinstance(each, ListMembers)]
        if not self.trusting and model.origin is not None and (model.writers or model.origin.dkim):
            return ", for which its origin then is a proof"
        return next((why for each in within if (why := self._touched(each)) is not None), None)

    def _list_set(self, name: str, each: str, model: ListModel, before: set[str], after: set[str], at: Place) -> _Found:
        """Writers, addresses, ids and avoided topics of a list, as they are written."""
        more, fewer = sorted(after - before), sorted(before - after)
        word = _SETS[each]
        touched = self._touched(model, before ^ after) if each.startswith("addresses") else None
        safe_more = {"addresses": touched is None, "avoid": self.topics}.get(each, False)
        safe_fewer = {"addresses_elsewhere": touched is None, "writers": self.doubting}.get(each, False)
        if more and not safe_more:
            yield f"list {name}: {word} added: {some_of(more, _SHOWN)}{touched or ''}", at
        if fewer and not safe_fewer:
            yield f"list {name}: {word} removed: {some_of(fewer, _SHOWN)}", at

    def _members(self, name: str, old: ListModel, new: ListModel, at: Place) -> _Found:
        before, after = [m.what() for m in old.members], [m.what() for m in new.members]
        if gone := [what for what in before if what not in after]:
            yield (
                f"list {name}: members are read elsewhere, or otherwise ({len(gone)} of its sources changed or removed)",
                at,
            )
        if any(what not in before for what in after) and not gone:
            if (touched := self._touched(new)) is not None:
                yield f"list {name}: members: a source added{touched}", at
            elif not all(stricter_if_lower(c, u) for c, u in self.conditions if c.fact.type is Type.SHARE):
                yield f"list {name}: members: a source added, so that the same number of people is a smaller share", at
        for m in old.members:
            now = next((n for n in new.members if n.what() == m.what()), None)
            for each in _relied_on(m, now) if now is not None else ():
                yield f"list {name}: members: {each}", at

    def _list_approvals(self, name: str, old: ListModel | None, new: ListModel) -> _Found:
        before, after = self.old.rules.quorum_of(name), self.new.rules.quorum_of(name)
        written = new.approvals is not None or (old is not None and old.approvals is not None)
        if written and not as_strict(after, before):
            yield (
                f"list {name}: approvals: fewer or other people may release what is held",
                ("lists", name, "approvals"),
            )
        if old is not None and name in self.old.approved_always - self.new.approved_always:
            text = f"list {name}: approvals: no longer always, so that one for another list covers who is on both"
            yield text, ("lists", name, "approvals")

    def _streams(self) -> _Found:
        old, new = self.old.streams, self.new.streams
        for name in sorted({*old, *new}):
            before, after = old.get(name), new.get(name)
            if before is None or after is None:
                yield f"stream {name}: {'added' if before is None else 'removed'}", ("streams", name) if after else ()
                continue
            for each in StreamModel.model_fields:
                was, now = getattr(before, each), getattr(after, each)
                if was == now or each == "owner":
                    continue
                if each == "from_" and set(now) <= set(was) and self.streaming:
                    continue
                if each == "origin" and _narrower(now, was) and self.streaming:
                    continue
                if each in ("max", "max_per_person") and _lower(now, was):
                    continue
                yield f"stream {name}: {each.rstrip('_')} changed", ("streams", name, each.rstrip("_"))

    def _marks(self) -> _Found:
        """A higher weight of a mark for internal mail, or a lower one of a mark for mailings, is stricter if rules ask
        for internal mail."""
        plain = all(
            not unless and isinstance(c, Word) and "internal" in c.words and "mailing" not in c.words
            for c, unless in self.conditions
            if c.fact.name == "message.looks"
        )
        for name in sorted({*self.old.marks, *self.new.marks}):
            kind = KINDS[name]
            was, now = (each.marks.get(name, kind.weight) for each in (self.old, self.new))
            seen = self._gets_no_looser(name, found=now > was) or bool(was and now)
            if was == now or (plain and seen and kind.side is (Side.INTERNAL if now > was else Side.MAILING)):
                continue
            yield f"mark {name}: weight {now:g}, where it was {was:g}", ("marks", name)
        old, new = ({own.name: own for own in each.own_marks} for each in (self.old, self.new))
        for name in sorted({*old, *new}):
            before, after = old.get(name), new.get(name)
            if before == after:
                continue
            only = before or after if before is None or after is None else None
            more = Side.INTERNAL if before is None else Side.MAILING
            if only is not None and plain and only.side is more and self._gets_no_looser(name, found=before is None):
                continue
            done = "added" if before is None else "removed" if after is None else "changed"
            yield f"mark {name}, your own: {done}", ("own_marks", name) if after is not None else ()

    def _gets_no_looser(self, name: str, *, found: bool) -> bool:
        """Return whether no rule on marks gets looser if this one is found where it was not, or the other way round."""
        asked = [(c, unless) for c, unless in self.conditions if c.fact.name == "message.marks"]
        return all(
            isinstance(c, SomeWord) and not unless and "contradiction" not in c.words and (found or name not in c.words)
            for c, unless in asked
        )

    # approvers

    def _people(self) -> _Found:
        old, new = self.old, self.new
        for name in sorted({*old.groups, *new.groups}):
            if name not in old.groups:
                continue  # it decides on nothing until approvals name it, which is reported
            if more := sorted(new.groups.get(name, frozenset()) - old.groups[name]):
                yield f"group {name}: added: {some_of(more, _SHOWN)}", ("groups", name)
        for name in sorted((new.groups.elsewhere - old.groups.elsewhere) & set(old.groups)):
            yield f"group {name}: others than the policy say who is in it", ("groups", name)
        for what in ("directories", "claims"):
            was, now = getattr(old, what), getattr(new, what)
            for name in sorted(name for name in was if name in now and was[name] != now[name]):
                yield f"group {name}: {what} changed", ("groups", name)
        decided = {(a.person, a.deputy) for a in old.groups.absences}
        for absence in sorted({(a.person, a.deputy) for a in new.groups.absences if a.deputy} - decided):
            person, deputy = absence
            names = sorted(g for g in new.groups if person in new.groups[g] and deputy not in new.groups[g])
            if names:
                yield (
                    f"people: {deputy} decides for {person} while they are away, in {some_of(names, _SHOWN)}",
                    ("people",),
                )
        for address, everything in sorted(old.groups.aliases.items()):
            if not everything <= new.groups.aliases.get(address, frozenset()):
                yield f"organization.aliases: {address} is not the same person as before", ("organization", "aliases")
        if not as_strict(new.rules.approvals, old.rules.approvals):
            yield "approvals: fewer or other people may release what is held", ("approvals",)
        late = [
            q.out_of_hours for q in (new.rules.approvals, *new.rules.quorums.values()) if q.out_of_hours is not None
        ]
        if late and old.organization.hours != new.organization.hours:
            yield "organization.hours changed, and with them when out_of_hours applies", ("organization", "hours")
        for name in sorted({*old.previews, *new.previews}):
            was, now = old.previews.get(name, "full"), new.previews.get(name, "full")
            if PREVIEWS.index(now) > PREVIEWS.index(was):
                yield f"previews: {name} sees {now}, where it was {was}", ("previews",)

    # vocabularies

    def vocabularies(self) -> Iterator[tuple[str, str]]:
        """Yield each change as a sentence, with its vocabulary. A vocabulary that no list and no rule uses makes no
        difference."""
        old, new = self.old, self.new
        if not (old.enforce and new.enforce):
            return
        used = {topic for info in old.lists.values() for topic in info.avoid}
        if any(
            c.fact.name == "message.topics" for rule in (*old.rules.rules, *new.rules.rules) for c in rule.conditions
        ):
            used |= old.vocabularies.keys() | new.vocabularies.keys()
        for name in sorted(used):
            before, after = old.vocabularies.get(name), new.vocabularies.get(name)
            if before == after:
                continue
            if after is None or before is None:
                yield f"vocabulary {name}: {'removed' if after is None else 'added'}", name
                continue
            if lost := _lost_terms(before, after):
                yield f"vocabulary {name}: fewer words are found: {some_of(lost, _SHOWN)}", name
            elif not self.topics:
                yield f"vocabulary {name}: changed", name


def _stops_less(old: Breakers, new: Breakers, what: str, place: Place) -> _Found:
    now = {breaker.name: breaker.limit for breaker in new.each}
    for breaker in old.each:
        limit = now.get(breaker.name)
        if limit is None:
            yield f"{what}.{breaker.name}: removed", place
        elif not limit.covers(breaker.limit):
            yield f"{what}.{breaker.name}: {limit.text}, where it was {breaker.limit.text}", (*place, breaker.name)
    if old.each and old.lists and not new.lists:
        yield f"{what}.stops: mailing, where it was lists", (*place, "stops")


_APART = ("title", "owner", "category", "approvals", "stages", "preview", "release_delay", "breakers")
"""Keys of a list that let no mail pass, or are compared after the others."""
_KNOWN = frozenset(
    {"rules", "organization", "groups", "lists", "streams", "expansions", "marks", "own_marks", "enforce", "previews",
     "sha256", "documents", "warnings", "vocabularies", "slots", "approved_always", "breakers", "reply_votes", "delimiters",
     "directories", "claims", "declared_lists", "declared_streams", "words"}
)  # fmt: skip
"""The fields of a policy that have a comparison of their own, are also elsewhere, or make no difference to mail."""
_SETS = {
    "writers": "writer",
    "addresses": "address",
    "addresses_elsewhere": "address elsewhere",
    "list_ids": "list id",
    "avoid": "vocabulary to be spared",
}


def as_strict(new: Quorum, old: Quorum) -> bool:
    """Return whether votes that satisfy ``new`` satisfy ``old``, at any hour, with the groups as they are."""
    within = set(old.groups) <= set(new.groups) and new.each >= old.each
    before, after = old.out_of_hours, new.out_of_hours
    if before is None and after is None:
        return within
    return within and as_strict(after or _plain(new), before or _plain(old))


def _plain(quorum: Quorum) -> Quorum:
    return Quorum(groups=quorum.groups, each=quorum.each)


def _relied_on(old: Members, new: Members) -> Iterator[str]:
    """Yield changes that let an index stay in use that would not have."""
    if isinstance(new, ListMembers):
        return
    if new.at_least < old.at_least:
        yield f"at_least: {new.at_least}, where it was {old.at_least}"
    if new.max_shrink > old.max_shrink:
        yield f"max_shrink: {new.max_shrink:g}, where it was {old.max_shrink:g}"
    if new.max_bad > old.max_bad:
        yield f"max_bad: {new.max_bad:g}, where it was {old.max_bad:g}"
    if new.stale_after_seconds > old.stale_after_seconds:
        yield "an old index is relied on for longer"
    if new.refresh > old.refresh:
        yield "it is read less often"


def _narrower(new: OriginModel, old: OriginModel) -> bool:
    """Return whether a proof of the new origin proves the old one."""
    for before, after in ((old.dkim, new.dkim), (old.clients, new.clients), (old.logins, new.logins)):
        if before and not (after and set(after) <= set(before)):
            return False
    return True


def _lower(new: Rate | None, old: Rate | None) -> bool:
    """Return whether a rate is lower, or there was none."""
    if new is None or old is None:
        return old is None
    return new.window_seconds == old.window_seconds and new.count <= old.count


def _lost_terms(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Terms that are no longer found, or not in every word as before; and exceptions that exclude words from all of
    them."""
    now: dict[str, list[Entry]] = {}
    for entry in entries_of("", new):
        now.setdefault(entry.term, []).append(entry)
    lost = {e.term for e in entries_of("", old) if not any(each.covers(e) for each in now.get(e.term, ()))}
    before, after = (
        {fold(word) for group in each["groups"] for word in words_of(group, "except")} for each in (old, new)
    )
    return sorted(lost) + sorted(f"except {word}" for word in after - before)


def _in_words(condition: Condition) -> str:
    window = f" in {condition.window}" if condition.window and condition.window not in condition.limit else ""
    return f"{condition.in_words()}{window}"
