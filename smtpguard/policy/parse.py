"""Parse the documents of a policy into a Policy, or report every problem in them at once, each with its position.

Models check each section. The checks here need the whole file: names that are used must be declared, an address belongs
to one list, a quorum can be met.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from smtpguard.config.documents import POLICY, digest, folder_of, policy_document, vocabulary_names
from smtpguard.config.problem import Broken, Invalid, Problem, Undeclared, did_you_mean, ordered
from smtpguard.config.validation import Findings, validate_rest
from smtpguard.config.yaml import Document, Place, load_yaml
from smtpguard.lists.declared import PEOPLE, ListInfo, Stream
from smtpguard.lists.members import Expands, LdapMembers, ListMembers, Members, canonical
from smtpguard.mail.address import Address, is_among
from smtpguard.policy import warnings
from smtpguard.policy.approvals import Absence, Groups
from smtpguard.policy.compiling import left_out, list_info, rules, stream, ways
from smtpguard.policy.engine import RuleSet
from smtpguard.policy.facts import FACTS
from smtpguard.policy.grammar import ConditionNames
from smtpguard.policy.hours import Hours
from smtpguard.policy.models import (
    ApprovalsModel,
    ListModel,
    OutOfHoursModel,
    PersonModel,
    PolicyModel,
    ReplyVotesModel,
    StreamModel,
    lacking,
)
from smtpguard.policy.stages import Breakers, Stages
from smtpguard.policy.verdict import Action, Quorum
from smtpguard.reading.marks import KINDS, Side
from smtpguard.reading.request import Custom
from smtpguard.reading.topics import BadVocabulary, compile_vocabularies


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """``customers_here``: whether customers, too, have addresses in the domains. ``shared``: canonical addresses of
    mailboxes in which several answer. ``people``: canonical addresses outside of people who are ours, beside those of
    ``members``."""

    name: str
    domains: frozenset[str]
    customers_here: bool
    languages: tuple[str, ...]
    hours: Hours
    shared: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    members: tuple[Members, ...] = ()

    @property
    def a_domain(self) -> str:
        """One of ours: of patterns alone, a name that one of them covers."""
        return min(self.domains, key=lambda name: (name.startswith("*."), name)).replace("*.", "mail.")

    def has(self, address: str) -> bool:
        return is_among(Address.parse(address).ascii_domain, self.domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy. ``groups``: canonical addresses, and absences; ``directories``, ``claims``: of groups whose members others name; ``vocabularies``: the plain values of their files; ``marks``: the weights that the policy
    sets, ``own_marks``: those that it adds. ``sha256`` is over ``documents``. ``warnings`` do not keep it from force."""

    sha256: str
    documents: Mapping[str, bytes] = field(repr=False)
    rules: RuleSet
    organization: Organization
    groups: Groups
    directories: Mapping[str, LdapMembers]
    claims: Mapping[str, frozenset[str]]
    lists: Mapping[str, ListModel]
    streams: Mapping[str, StreamModel]
    expansions: tuple[Expands, ...]
    vocabularies: Mapping[str, Any] = field(repr=False)
    marks: Mapping[str, float]
    own_marks: tuple[Custom, ...]
    declared_lists: Mapping[str, ListInfo] = field(repr=False)
    """The same lists, and the sources of people of ours among them, for mail to be compared with."""
    declared_streams: Mapping[str, Stream] = field(repr=False)
    enforce: bool
    delimiters: str
    previews: Mapping[str, str]
    slots: float
    approved_always: frozenset[str]
    breakers: Breakers
    reply_votes: ReplyVotesModel | None
    words: Mapping[str, Collection[str]] = field(default_factory=dict, repr=False)
    """Fact -> the words that this policy declares for it."""
    warnings: tuple[Problem, ...] = ()

    def staged(self, lists: Iterable[str]) -> dict[str, Stages]:
        """Return the stages of each of these lists that declares some."""
        known = self.lists
        return {n: model.stages() for n in lists if n in known and (model := known[n].stages) is not None}

    def breakers_of(self, lists: Iterable[str]) -> Breakers:
        """Return the breakers of a mailing to these lists: those of each list, or the policy's for a list without its own."""
        own = [self.lists[name].breakers if name in self.lists else None for name in lists] or [None]
        return Breakers.merged(self.breakers if each is None else each.breakers(self.breakers) for each in own)


def parse(
    documents: Mapping[str, bytes],
    *,
    delimiters: str = "+",
    freeze_answer: Action = Action.HOLD,
    where: str = POLICY,
) -> Policy:
    """``where``: the name of the policy's file in error messages. Raises Broken, with warnings among its problems.

    Cached: the same documents give the same rules, as long as they are among the last few, whatever the file's name. So
    the parts of ``serve``, which are forked from the supervisor, share the policy that it has parsed.
    """
    try:
        policy = _remembered(frozenset(documents.items()), delimiters, freeze_answer)
    except Broken:
        if where == POLICY:
            raise
        return _parsed(documents, delimiters, freeze_answer, where)  # raises again, with the name of the file
    if where == POLICY or not policy.warnings:
        return policy
    folder = folder_of(where)
    named = (replace(w, file=where if w.file == POLICY else folder + w.file) for w in policy.warnings)
    return replace(policy, warnings=ordered(named))


@lru_cache(maxsize=2)
def _remembered(files: frozenset[tuple[str, bytes]], delimiters: str, freeze_answer: Action) -> Policy:
    return _parsed(dict(sorted(files)), delimiters, freeze_answer, POLICY)


def _parsed(documents: Mapping[str, bytes], delimiters: str, freeze_answer: Action, where: str) -> Policy:
    folder = folder_of(where)
    vocabularies: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, file in vocabulary_names(documents).items():
        vocabularies[name], mistakes = _vocabulary(name, documents[file])
        problems += (replace(problem, file=folder + file) for problem in mistakes)
    try:
        document = policy_document(documents, where)
    except Broken as e:
        raise Broken([*problems, *e.problems]) from None
    model, rest, wrong = validate_rest(document, PolicyModel)
    if model is None:
        raise Broken([*problems, *wrong])
    findings = Findings(document=rest, sound=_declared(rest) == _declared(document))
    sections = _Sections(findings, model, frozenset(vocabularies), delimiters, _with_members(document))
    policy = sections.policy(documents, freeze_answer, vocabularies)
    if wrong:
        left_out(document, sections.known(), findings)
    problems += wrong + [p for p in findings.problems if p.fatal or not wrong]
    if any(p.fatal for p in problems):
        raise Broken(problems)
    warnings.warn_of_policy(model, policy.rules, policy.groups, delimiters, findings)
    return replace(policy, warnings=ordered(findings.problems))


@lru_cache(maxsize=32)
def _vocabulary(name: str, text: bytes) -> tuple[Any, tuple[Problem, ...]]:
    """Return the plain value of a vocabulary, None if it is not YAML. Cached, since successive policies mostly have
    the same."""
    try:
        document = load_yaml(text, name)
    except Broken as e:
        return None, tuple(e.problems)  # it exists and is invalid: do not report it as unknown too
    try:
        compile_vocabularies({name: document.value})
    except BadVocabulary as e:
        return document.value, (document.problem(e.path, e.text, e.expected),)
    return document.value, ()


def _declared(document: Document) -> Any:
    """All that declares names: if some of it was dropped, unknown names are not reported."""
    value = document.value
    named = ("lists", "streams", "own_marks")
    lists, *others = (section if isinstance(section := value.get(k), dict) else {} for k in named)
    audiences = {name: info.get("audience") if isinstance(info, dict) else info for name, info in lists.items()}
    return value.keys(), value.get("groups"), audiences, [section.keys() for section in others]


def _with_members(document: Document) -> frozenset[str]:
    """Lists with members in the file, valid or not."""
    lists = document.value.get("lists")
    named = lists.items() if isinstance(lists, dict) else ()
    return frozenset(name for name, info in named if isinstance(info, dict) and info.get("members"))


OURS = "colleagues"


class _Sections:
    """One pass over sections that are each valid; ``findings`` collects contradictions between them."""

    def __init__(
        self,
        findings: Findings,
        model: PolicyModel,
        vocabularies: frozenset[str],
        delimiters: str,
        with_members: frozenset[str],
    ) -> None:
        self.findings = findings
        self.with_members = with_members
        self.model = model
        self.vocabularies = vocabularies
        self.delimiters = delimiters
        self.groups = Groups(
            people={name: frozenset(map(self._canonical, each.addresses)) for name, each in model.groups.items()},
            elsewhere=frozenset(name for name, each in model.groups.items() if each.kept_elsewhere),
            aliases=self._aliases(),
            zone=model.organization.hours.zone,
        )
        self._persons = {name: frozenset(map(self.groups.person, people)) for name, people in self.groups.items()}
        """The groups with one address for each person."""

    def policy(self, documents: Mapping[str, bytes], freeze_answer: Action, vocabularies: Mapping[str, Any]) -> Policy:
        model = self.model
        for name, people in self.groups.items():
            if not people and name not in self.groups.elsewhere and self.findings.sound:
                self.findings.problem(("groups", name), f"group {name} is empty", "at least one address")
        for name in model.previews:
            if name not in self.groups:
                self.findings.invalid(Undeclared("group", name, self.groups), ("previews", name), key=True)
        approvals = self._quorum(model.approvals, ("approvals",))
        quorums = {
            name: self._quorum(own, ("lists", name, "approvals"), name)
            for name, info in model.lists.items()
            if info.approvals is not None and (own := info.approvals.own) is not None
        }
        self._lists()
        self._ours()
        self._reply_votes()
        sha256 = digest(documents)
        organization = model.organization
        away = _absences(model.people, self.groups, self.delimiters, self.findings)
        known = self.known()
        return Policy(
            sha256=sha256,
            documents=documents,
            rules=RuleSet(
                rules=tuple(rules(model, known, self.findings)), sha256=sha256, quorums=quorums, approvals=approvals, freeze_answer=freeze_answer,
                confirming=model.confirm,
            ),
            organization=Organization(
                name=organization.name or organization.domains[0],
                domains=frozenset(organization.domains),
                customers_here=organization.customers_here,
                languages=tuple(organization.languages),
                hours=organization.hours.hours(),
                shared=frozenset(map(self._canonical, organization.shared)),
                people=frozenset(map(self._canonical, organization.people.addresses)) if organization.people else frozenset(),
                members=tuple(organization.people.members) if organization.people else (),
            ),
            groups=replace(self.groups, absences=tuple(away)),
            directories={n: g.directory for n, g in model.groups.items() if g.directory is not None},
            claims={n: frozenset(g.claim) for n, g in model.groups.items() if g.claim},
            lists=model.lists,
            streams=model.streams,
            declared_lists=self._declared_lists(),
            declared_streams={name: stream(name, each, self.delimiters) for name, each in model.streams.items()},
            words=known.words,
            expansions=tuple(model.expansions),
            vocabularies=vocabularies,
            marks=model.marks,
            own_marks=tuple(self._own_marks()),
            enforce=model.enforce,
            delimiters=self.delimiters,
            slots=model.mailings.slots,
            breakers=model.breakers.breakers(Breakers()),
            reply_votes=model.reply_votes,
            approved_always=frozenset(n for n, info in model.lists.items() if info.approvals is not None and info.approvals.always),
            previews=model.previews,
        )  # fmt: skip

    def _declared_lists(self) -> Mapping[str, ListInfo]:
        lists = dict(self.model.lists)
        if (people := self.model.organization.people) is not None and people.members:
            lists[PEOPLE] = ListModel.model_construct(
                title="People of ours outside", audience=OURS, members=people.members
            )
        return {name: list_info(name, lists, self.delimiters) for name in lists}

    def _reply_votes(self) -> None:
        ours = self.model.organization.domains
        for n, domain in enumerate(self.model.reply_votes.senders_verified if self.model.reply_votes else ()):
            place: Place = ("reply_votes", "senders_verified", n)
            if domain.startswith("*."):  # no error, since such a policy may be in force
                self.findings.warn(place, f"{domain} proves no sender: no address has it", "each domain by its name")
            elif not is_among(domain, ours):
                text = f"{domain} is no domain of the organization, so that none of its people writes from it"
                self.findings.problem(place, text, "one of organization.domains")

    def _aliases(self) -> dict[str, frozenset[str]]:
        """Return all addresses of a person by each of them, and report an address of two people."""
        found: dict[str, frozenset[str]] = {}
        for address, others in self.model.organization.aliases.items():
            everything = frozenset(map(self._canonical, (address, *others)))
            for one in sorted(everything & found.keys()):
                self.findings.problem(
                    ("organization", "aliases", address),
                    f"{one} already belongs to another person",
                    "all addresses of a person under one of them",
                )
            found |= dict.fromkeys(everything, everything)
        return found

    def _own_marks(self) -> Iterator[Custom]:
        for name, weight in self.model.marks.items():
            if name not in KINDS:
                self.findings.problem(
                    ("marks", name), f'unknown mark "{name}"', hint=did_you_mean(name, KINDS), key=True
                )
            elif weight and KINDS[name].side is Side.NEITHER:
                self.findings.warn(("marks", name), f"{name} is shown and weighs nothing", "0 switches it off")
        for name, own in self.model.own_marks.items():
            if name in KINDS:
                self.findings.problem(("own_marks", name), f"{name} is a mark of the product", "another name", key=True)
            yield Custom(
                name=name,
                side=Side(own.side),
                weight=own.weight,
                header=own.header,
                pattern=own.pattern,
                term=own.term,
            )

    def _quorum(self, model: ApprovalsModel, place: Place, name: str | None = None) -> Quorum:
        late = model.out_of_hours
        self._can_be_met(model, place)
        if late is not None:
            self._can_be_met(late, (*place, "out_of_hours"))
        return Quorum(
            groups=tuple(model.from_),
            each=model.each,
            out_of_hours=Quorum(groups=tuple(late.from_), each=late.each, list=name) if late is not None else None,
            list=name,
        )

    def _can_be_met(self, model: OutOfHoursModel, place: Place) -> None:
        """Check that every group is known, and that distinct people can fill all seats."""
        place = (*place, "from")
        unknown = False
        for n, group in enumerate(model.from_):
            if group not in self.groups:
                unknown = True
                self.findings.invalid(Undeclared("group", group, self.groups), (*place, n))
            elif model.from_.index(group) != n:
                unknown = True
                self.findings.problem((*place, n), f"duplicate group {group}", "each group once; the number is in each")
        elsewhere = unknown or not self.groups.elsewhere.isdisjoint(model.from_)  # the members are not in the policy
        if elsewhere or not self.findings.sound or not all(self.groups[group] for group in model.from_):
            return
        if lacks := lacking(model.from_, model.each, self._persons):
            self.findings.problem(place, f"a quorum that cannot be met: it {lacks}")

    def _ours(self) -> None:
        """Lists that are sources of people of ours are declared, and have members."""
        people = self.model.organization.people
        for n, source in enumerate(people.members if people is not None else ()):
            if isinstance(source, ListMembers):
                self._source_of(source.list, self._place_of(("organization", "people", "members"), n))
        if PEOPLE in self.model.lists:
            text = f"the name {PEOPLE} is reserved for organization: {{people}}"
            self.findings.problem(("lists", PEOPLE), text, "another name", key=True)

    def _place_of(self, members: Place, n: int) -> Place:
        """A single source is written without a list around it."""
        place = (*members, n, "list")
        return place if place in self.findings.document.values else (*members, "list")

    def _source_of(self, name: str, place: Place) -> None:
        if name not in self.model.lists:
            self.findings.invalid(Undeclared("list", name, self.model.lists), place)
        elif name not in self.with_members:
            self.findings.problem(place, f"list {name} has no members to include", "a list with members")

    def _lists(self) -> None:
        addresses: dict[str, str] = {}
        ids: dict[str, str] = {}
        for name, info in self.model.lists.items():
            place: Place = ("lists", name)
            for n, address in enumerate(info.addresses):
                self._claim(addresses, self._canonical(address), address, name, (*place, "addresses", n))
            own = set(map(self._canonical, info.addresses))
            for n, address in enumerate(info.addresses_elsewhere):
                if self._canonical(address) in own:
                    self.findings.problem(
                        (*place, "addresses_elsewhere", n),
                        f"{address} is an address of this list",
                        "an address that is not this list",
                    )
            for n, list_id in enumerate(info.list_ids):
                self._claim(ids, list_id.strip("<> ").lower(), list_id, name, (*place, "list_ids", n))
            for n, vocabulary in enumerate(info.avoid):
                if vocabulary not in self.vocabularies:
                    self.findings.invalid(Undeclared("vocabulary", vocabulary, self.vocabularies), (*place, "avoid", n))
            self._within(name, info)
            if name in self.with_members:
                continue
            if not info.addresses:
                self.findings.problem(
                    place,
                    f"list {name} has neither addresses nor members: no mail can reach it",
                    "addresses, members, or both",
                    key=True,
                )
            else:
                self.findings.warn(place, f"list {name} has no members: its size and its members are unknown")

    def _within(self, name: str, info: ListModel) -> None:
        """Check that the lists that this one includes are declared, have members, and do not include it in turn."""
        lists = self.model.lists
        for n, source in enumerate(info.members):
            if not isinstance(source, ListMembers):
                continue
            place = self._place_of(("lists", name, "members"), n)
            if source.list in lists and (way := ways(source.list, lists).get(name)):
                circle = ", ".join((name, *way))
                self.findings.problem(place, f"list {name} would include itself: {circle}", "lists that end in sources")
            else:
                self._source_of(source.list, place)

    def _claim(self, owners: dict[str, str], key: str, written: str, name: str, place: Place) -> None:
        first = owners.setdefault(key, name)
        if first != name:
            self.findings.problem(
                place, f"{written} belongs to list {first} already", "an address or id of one list alone"
            )

    def known(self) -> ConditionNames:
        lists = self.model.lists
        by_noun = {
            "vocabulary": self.vocabularies,
            "list": frozenset(lists),
            "audience": frozenset(info.audience for info in lists.values()),
            "sensitivity": frozenset(FACTS["recipients.sensitivity"].called),
            "mark": frozenset(KINDS).union(self.model.own_marks),
            "stream": frozenset(self.model.streams),
        }
        return ConditionNames(
            words={fact.name: by_noun[fact.noun] for fact in FACTS.values() if fact.noun},
            groups=self.groups,
            delimiters=self.delimiters,
            special=frozenset(name for name, info in lists.items() if info.special),
        )

    def _canonical(self, text: str) -> str:
        return Address.parse(text).canonical(self.delimiters)


def _absences(
    people: Mapping[str, PersonModel], groups: Groups, delimiters: str, findings: Findings
) -> Iterator[Absence]:
    """Return every valid absence. A deputy that the policy names need not be in the person's groups."""
    known = frozenset().union(*groups.values())
    first: dict[str, str] = {}
    for key, model in people.items():
        place: Place = ("people", key)
        person = _named(key, known, delimiters, place, findings, key=True, anybody=bool(groups.elsewhere))
        if person and first.setdefault(groups.person(person), key) != key:
            findings.problem(place, f"{key} is also {first[groups.person(person)]}", "each person once", key=True)
        deputy = ""
        if model.deputy is not None:
            deputy = _named(model.deputy, known, delimiters, (*place, "deputy"), findings, anybody=True)
        if person and deputy in groups.addresses(person):
            findings.problem((*place, "deputy"), f"{key} decides for {key}", "somebody else")
        last = None
        for n, span in enumerate(model.away):
            here: Place = (*place, "away", n) if (*place, "away", n) in findings.document.values else (*place, "away")
            if last is not None and span.since <= last:
                findings.problem(here, f"the absences of {key} overlap, or are not in order", "one after the other")
            last = span.until
            if person:
                yield Absence(person=person, since=span.since, until=span.until, deputy=deputy, confirmed=bool(deputy))


def _named(
    text: str,
    known: Set[str],
    delimiters: str,
    place: Place,
    findings: Findings,
    *,
    key: bool = False,
    anybody: bool = False,
) -> str:
    """Return the canonical address of a member of a group, by address or local part; "" if there is none.
    ``anybody``: any address is accepted."""
    if "@" not in text:
        called = sorted(person for person in known if person.rpartition("@")[0] == text.lower())
        if len(called) == 1:
            return called[0]
        if called:
            findings.problem(place, f"{text} may be {' or '.join(called)}", "the full address", key=key)
        else:
            findings.invalid(Undeclared("person", text, {p.rpartition("@")[0] for p in known}), place, key=key)
        return ""
    try:
        address = canonical(text, delimiters)
    except Invalid as error:
        findings.invalid(error, place, key=key)
        return ""
    if address not in known and not anybody and findings.sound:
        findings.problem(place, f"{text} is in no group, so cannot decide on anything", "a member of a group", key=key)
        return ""
    return address
