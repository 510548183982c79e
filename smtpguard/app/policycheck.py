"""Check a policy before it is in force: mistakes in its documents, and list sources that cannot be read. And put it in
force: compare it with the one in force, ask where it may let more pass, and journal the change.

``check`` loads no store, so what opens one is imported late.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import exposed_file, parse_policy
from smtpguard.app.lists import built_registry
from smtpguard.config.documents import (
    LISTS,
    PARTS,
    POLICY,
    VOCABULARIES,
    digest,
    folder_of,
    policy_document,
    policy_documents,
    shipped,
    vocabulary_names,
)
from smtpguard.config.fields import is_this_machine
from smtpguard.config.problem import Broken, Problem, did_you_mean, one_of, ordered
from smtpguard.config.settings import Settings
from smtpguard.config.yaml import Document, Mark, Place, load_yaml
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.declared import COLLEAGUES, PEOPLE
from smtpguard.lists.digest import KEY_OCTETS, Digester, person
from smtpguard.lists.expanding import Expander
from smtpguard.lists.members import Expands, ExpandsMailman, ListMembers, Members, Remote
from smtpguard.lists.names import Names
from smtpguard.lists.registry import Registry
from smtpguard.lists.sources import SourceError, Tally, addresses, why_implausible
from smtpguard.lists.sources.opening import opened
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address, is_among
from smtpguard.policy.condition import Range, Word
from smtpguard.policy.grammar import SPECIAL
from smtpguard.policy.looser import Looser, looser
from smtpguard.policy.parse import Policy, parse
from smtpguard.policy.stages import Breakers
from smtpguard.policy.verdict import Action, Quorum
from smtpguard.policy.warnings import unfilled_quorums
from smtpguard.reading.fold import fold
from smtpguard.reading.topics import compile_vocabularies, words_of

if TYPE_CHECKING:
    from smtpguard.store.store import Store

MOST_TOLD = 100
"""The most changes that the journal records in full."""
EXPANSIONS = "(expansions)"
"""The name of the expansions among names of lists. No list can have this name."""
_FAR = 10
"""How many times as large as all lists a limit is that can never be reached; lists grow."""
_SEVERAL = 20
"""The fewest rows or people that are reported; fewer may be accidents."""
_MOST_ROWS = 200_000
"""The most rows of a source that are checked one by one."""
_OURS = 0.05
"""The share of all customers in a domain of ours from which on it is reported; fewer may be colleagues, board members and the
like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPolicy:
    """A policy with the problems that were found. ``people``: the number of addresses in each list's sources; ``unread``: the number of
    their rows without an address."""

    policy: Policy
    problems: tuple[Problem, ...]
    people: Mapping[str, int]
    unread: Mapping[str, int]

    @property
    def fatal(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.fatal)


def check_policy(
    documents: Mapping[str, bytes],
    base: Path,
    settings: Settings | None,
    *,
    where: str,
    indexed_in: Callable[[Policy], frozenset[str]] = lambda _: frozenset(),
) -> CheckedPolicy:
    """Check the documents of a policy, and read its sources. ``base``: the folder that paths of sources are relative to. ``where``: the
    name of the policy's file in problems. ``indexed_in``: returns the lists of the policy with unchanged sources and an index in use; for
    these an unreadable source is a warning. Raises Broken for documents that are no policy."""
    policy = parse(documents, where=where) if settings is None else parse_policy(settings, documents, where)
    document, indexed = policy_document(documents, where), indexed_in(policy)
    people: dict[str, int] = {}
    unread: dict[str, int] = {}
    ours: Counter[str] = Counter()
    problems = [*policy.warnings, *_cut_off(documents, where), *_not_read(base, where)]
    customers = {name for name, model in policy.lists.items() if model.audience not in COLLEAGUES}
    sources: list[tuple[str, Place, tuple[Members, ...]]] = [
        (name, ("lists", name, "members"), tuple(model.members)) for name, model in policy.lists.items()
    ]
    sources.append((PEOPLE, ("organization", "people", "members"), policy.organization.members))
    for name, place, several in sources:
        found: list[Problem] = []
        for n, members in enumerate(several):
            here = (*place, n) if (*place, n) in document.values else place
            found += _no_domains(document, here, members)
            found += _credentials(document, here, members, base)
            if isinstance(members, Remote | ListMembers):  # check --live asks and counts these
                continue
            held = read_source(members, base, policy)
            if name != PEOPLE:
                people[name] = people.get(name, 0) + held.people
                unread[name] = unread.get(name, 0) + held.bad
            if held.wrong:
                key = held.key if (*here, held.key) in document.values else members.source
                found.append(document.problem((*here, key), held.wrong))
            if held.again:
                found.append(warning(document, (*here, members.source), held.again))
            if name in customers:
                ours.update(held.ours)
        problems += _borne(found) if name in indexed else found
    problems += _own_domains(document, ours, sum(people.values()))
    problems += _terms(documents, where)
    expansions = list(_expansions(document, policy, base))
    problems += _borne(expansions) if EXPANSIONS in indexed else expansions
    problems += _no_list_ids(document, policy)
    problems += _no_names(documents, document, policy, where)
    problems += _no_bounds(document, policy)
    problems += _out_of_reach(document, policy, people)
    problems += unfilled_quorums(document, policy.groups, _quorums(policy), SystemClock().now())
    if settings is not None:
        problems += _never_proven(document, policy, settings)
        problems += _one_client(document, policy, settings)
        problems += _no_listener(document, policy, settings)
        problems += _no_page(document, policy, settings)
    return CheckedPolicy(policy=policy, problems=ordered(problems), people=people, unread=unread)


def _borne(problems: list[Problem]) -> list[Problem]:
    """Turn problems with sources into warnings, since an index of earlier content is in use."""
    return [replace(p, text=f"{p.text}; the members last read stay in use", fatal=False) for p in problems]


def _cut_off(documents: Mapping[str, bytes], where: str) -> Iterator[Problem]:
    folder = folder_of(where)
    for name, data in documents.items():
        if name.startswith(f"{VOCABULARIES}/") or not data or data.endswith(b"\n"):
            continue
        line = data.count(b"\n") + 1
        column = len(data.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        text = "the last line has no line end: the file may be truncated"
        yield Problem(where if name == POLICY else folder + name, line, column, text, fatal=False)


def _not_read(base: Path, where: str) -> Iterator[Problem]:
    """Find files beside the policy that look like parts of it, and are none. An earlier policy has no files."""
    if not Path(where).exists():
        return
    folder = folder_of(where)
    for part in (PARTS, LISTS, VOCABULARIES):
        for file in sorted((base / part).glob("*")):
            if file.suffix.lower() in (".yml", ".yaml") and file.suffix != ".yaml":
                text = "this file is not read: its name does not end in .yaml"
                yield Problem(f"{folder}{part}/{file.name}", 1, 1, text, fatal=False)


def _out_of_reach(document: Document, policy: Policy, people: Mapping[str, int]) -> Iterator[Problem]:
    """Find limits that all lists together are too small to reach. With unknown counts of people nothing can be said."""
    elsewhere = any(
        not m.members or any(isinstance(s, Remote | ListMembers) for s in m.members) for m in policy.lists.values()
    )
    if elsewhere or policy.expansions or not policy.lists or not all(people.get(name) for name in policy.lists):
        return
    everybody = sum(people.values())
    for n, rule in enumerate(policy.rules.rules):
        for condition in rule.when:
            name = condition.fact.name
            if condition.fact.of_customers and isinstance(condition, Range) and condition.least > _FAR * everybody:
                text = (
                    f"rule {rule.rule_id} can never hit: all lists together have {many(everybody, 'person', 'people')}"
                )
                yield warning(document, ("rules", n, "when", name), text)


def _no_list_ids(document: Document, policy: Policy) -> Iterator[Problem]:
    """Find List-Ids that no message can have: RFC 2919 allows neither space nor angle brackets in one."""
    for name, info in policy.lists.items():
        for n, list_id in enumerate(info.list_ids):
            if not re.fullmatch(r"[^\s<>]+", list_id.strip("<> ")):
                expected = "what a List-Id has between < and >, like newsletter.lists.example.com"
                yield document.problem(("lists", name, "list_ids", n), f'invalid List-Id "{list_id}"', expected)


def _no_names(documents: Mapping[str, bytes], document: Document, policy: Policy, where: str) -> Iterator[Problem]:
    """Find names that are words of conditions: ``recipients.lists: none`` does not name a list called none."""
    named: list[tuple[str, Place]] = [(name, ("lists", name)) for name in policy.lists]
    named += [(info.audience, ("lists", name, "audience")) for name, info in policy.lists.items()]
    named += [(name, ("streams", name)) for name in policy.streams]
    named += [(own.name, ("own_marks", own.name)) for own in policy.own_marks]
    found = [(name, document.mark(place, key=name == place[-1]), place == ("lists", SPECIAL)) for name, place in named]
    folder = folder_of(where)
    found += [(name, Mark(1, 1, folder + file), False) for name, file in vocabulary_names(documents).items()]
    for name, mark, special in found:
        if special or name in ("any", "none"):
            text = f"the name {name} is reserved: in conditions it means something else"
            yield Problem(mark.file or document.file, mark.line, mark.column, text, "another name")


def _no_bounds(document: Document, policy: Policy) -> Iterator[Problem]:
    """Find ``stops`` of breakers without a bound. The policy's own also stands for lists that have bounds and no ``stops``."""
    with_own = [name for name, model in policy.lists.items() if model.breakers is not None]
    own: dict[Place, Breakers] = {("lists", name, "breakers"): policy.breakers_of([name]) for name in with_own}
    usual = [each for place, each in own.items() if (*place, "stops") not in document.values]
    for place, breakers in ((("breakers",), Breakers.merged((policy.breakers, *usual))), *own.items()):
        if (*place, "stops") in document.values and not breakers.each:
            expected = 'a bound beside it, like complaints: ">= 0.1% after 500"'
            yield document.problem((*place, "stops"), "stops without a bound stops nothing", expected, key=True)


def _quorums(policy: Policy) -> Mapping[Place, Quorum]:
    found: dict[Place, Quorum] = {("approvals",): policy.rules.approvals}
    found |= {("lists", name, "approvals"): quorum for name, quorum in policy.rules.quorums.items()}
    late = {(*place, "out_of_hours"): quorum.out_of_hours for place, quorum in found.items()}
    return found | {place: quorum for place, quorum in late.items() if quorum is not None}


def _never_proven(document: Document, policy: Policy, settings: Settings) -> Iterator[Problem]:
    """Find writers who can never be proven: those of a list without an origin must log in, or use a listener that verifies
    senders."""
    listening = settings.listen
    if listening.milter or settings.trust or any(each.proves_senders for each in listening.smtp):
        return
    for place, rule in _asking(policy) if not any(info.origin is not None for info in policy.lists.values()) else ():
        text = f"rule {rule} cannot ask any writer, so it holds every message that it hits: no listener has auth or senders_verified, and no list has an origin"
        yield warning(document, place, text)
    for name, info in policy.lists.items():
        if info.writers and info.origin is None:
            text = f"no sender can be verified as a writer of {name}: it has no origin, and no listener has auth or senders_verified"
            yield warning(document, ("lists", name, "writers"), text)


def _one_client(document: Document, policy: Policy, settings: Settings) -> Iterator[Problem]:
    """Find origins by clients that prove nothing: if only this machine can connect, and no MTA on it may name its client, all mail has
    the client 127.0.0.1 or ::1."""
    listening = settings.listen
    if listening.milter or settings.trust or not all(is_this_machine(each.address) for each in listening.smtp):
        return
    for section, declared in (("lists", policy.lists), ("streams", policy.streams)):
        for name, model in declared.items():
            for n, network in enumerate(model.origin.clients if model.origin is not None else ()):
                if ip_network(network).is_loopback:
                    text = f"all mail has the client {network}: only this machine can connect, and trust names no MTA on it"
                    place: Place = (section, name, "origin", "clients", n)
                    yield warning(document, place, text, "trust: [127.0.0.1], if an MTA on it names its clients")


def _no_listener(document: Document, policy: Policy, settings: Settings) -> Iterator[Problem]:
    """Find rules that name a listener which the settings do not have."""
    known = {each.called for _, _, each in settings.listen.each()}
    for n, rule in enumerate(policy.rules.rules):
        for section, conditions in (("when", rule.when), ("unless", rule.unless)):
            for one in conditions:
                for name in sorted(one.words - known) if isinstance(one, Word) and one.fact.name == "listener" else ():
                    text = f"the settings have no listener {name}"
                    found = warning(document, ("rules", n, section, "listener"), text, one_of(sorted(known)))
                    yield replace(found, hint=did_you_mean(name, known))


def _no_page(document: Document, policy: Policy, settings: Settings) -> Iterator[Problem]:
    """Find rules that ask writers to confirm, if the console has no page for their answer."""
    if settings.console_url:
        return
    for place, rule in _asking(policy):
        text = f"rule {rule} asks writers, but they have no page to answer on: console has no url"
        yield warning(document, place, text, "console: {url: https://...} in the settings")


def _asking(policy: Policy) -> Iterator[tuple[Place, str]]:
    """Yield the rules that ask writers to confirm, each with the place of its action."""
    for n, rule in enumerate(policy.rules.rules):
        if rule.then is Action.CONFIRM and not rule.observes:
            yield ("rules", n, "then"), rule.rule_id


def warning(document: Document, place: Place, text: str, expected: str = "") -> Problem:
    return document.problem(place, text, expected, fatal=False)


def _expansions(document: Document, policy: Policy, base: Path) -> Iterator[Problem]:
    """Check what expands at the relay. Files of maps are read as a sync reads them; ``check --live`` asks servers."""
    names = Names(policy.declared_lists, domains=policy.organization.domains, delimiters=policy.delimiters)
    digester = Digester(os.urandom(KEY_OCTETS), policy.delimiters)
    registry = Registry(
        names=names, lists={}, streams={}, digester=digester, folder=base, now=SystemClock().now, expanders=()
    )
    for n, model in enumerate(policy.expansions):
        place: Place = ("expansions", n) if ("expansions", n) in document.values else ("expansions",)
        yield from _no_domains(document, place, model)
        yield from _credentials(document, place, model, base)
        if not isinstance(model, ExpandsMailman):
            for _, _, wrong in Expander((model,), registry, folder=base, base=base).trial():
                if wrong:
                    yield document.problem((*place, model.source), wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContent:
    """The content of a source, which people know by ``label``: ``people``, its addresses, and ``bad``, its rows without one. ``wrong``: why a sync would refuse it, and
    ``key``, the policy key that would allow it ("" for none). ``again``: that it repeats the same people. ``ours``: the number of
    addresses in each of the organization's own domains."""

    label: str = ""
    people: int = 0
    bad: int = 0
    wrong: str
    key: str = ""
    again: str = ""
    ours: Mapping[str, int] = field(default_factory=dict)


def read_source(members: Members, base: Path, policy: Policy) -> SourceContent:
    """Read a source to its end, as a sync does, and keep nothing. Blocks."""
    tally, people, ours = Tally(), 0, Counter[str]()
    once: set[int] = set()
    own = sorted(policy.organization.domains)
    try:
        with closing(opened(members, base)) as source:
            label = members.label_for(source.label)
            for address in addresses(source, tally):
                people += 1
                if people <= _MOST_ROWS:
                    once.add(hash(person(address.canonical(policy.delimiters))))
                    domain = next((each for each in own if is_among(address.ascii_domain, (each,))), None)
                    if domain is not None:
                        ours[domain] += 1
    except SourceError as e:
        return SourceContent(bad=tally.bad, wrong=str(e))
    looked = min(people, _MOST_ROWS)
    distinct = people - looked + len(once)  # as an index has them; of a long source it is the most
    wrong, key = why_implausible(label, distinct, tally, members) or ("", "")
    again = ""
    if looked >= _SEVERAL and 2 * len(once) < looked:
        again = f"{label}: {looked:,} rows name {many(len(once), 'person', 'people')} in all: is this the column of addresses?"
    return SourceContent(label=label, people=people, bad=tally.bad, wrong=wrong, key=key, again=again, ours=ours)


def _own_domains(document: Document, ours: Mapping[str, int], everybody: int) -> Iterator[Problem]:
    """Find domains of the organization in which many customers have addresses: it is probably not the organization's, and its users
    would count as colleagues. A few are fine."""
    for domain, n in sorted(ours.items()):
        if n >= _SEVERAL and n > _OURS * everybody and document.value["organization"].get("customers_here") is None:
            text = (
                f"{domain} is one of the organization's domains, and {many(n, 'address', 'addresses')} on lists of customers "
                f"{'is' if n == 1 else 'are'} in it: senders from it count as colleagues (if customers have addresses in it: customers_here: true)"
            )
            yield warning(document, ("organization", "domains"), text)


def _terms(documents: Mapping[str, bytes], where: str) -> Iterator[Problem]:
    """Find vocabulary terms that no text can contain as texts are read: signs between letters are removed there, for example. Shipped
    vocabularies are not checked: they are tested, and checking takes as long as all the rest."""
    folder = folder_of(where)
    for name, file in vocabulary_names(documents).items():
        if not _is_shipped(file, documents[file]):
            yield from never_found(name, load_yaml(documents[file], folder + file))


def never_found(name: str, document: Document) -> Iterator[Problem]:
    """Find the terms of one vocabulary that no text can contain."""
    compiled = compile_vocabularies({name: document.value})
    for n, group in enumerate(document.value["groups"]):
        written, endings = words_of(group, "terms"), ("", *words_of(group, "inflect"))
        for place, term in enumerate(written):
            starred, folded = "*" in term, " ".join(fold(term).split())
            tries = (f"x {term}{ending} x" for ending in (*endings, *(("xxxx",) if group.get("compound") else ())))
            if not starred and any(folded in compiled.terms_in(text) for text in tries):
                continue
            at: Place = ("groups", n, "terms", place)
            at = at if at in document.values else ("groups", n, "terms")
            said = ": * stands for itself here, and compound: both finds it in longer words" if starred else ""
            yield warning(document, at, f'the term "{term}" can never be found in a text{said}')


def _is_shipped(file: str, text: bytes) -> bool:
    try:
        return (shipped() / file).read_bytes() == text
    except OSError:
        return False


def _no_domains(document: Document, place: Place, model: Members | Expands) -> Iterator[Problem]:
    """Find what stands for the domain of a map's names, and is no domain: no name of the map would be an address."""
    for key in ("domain", "domains"):
        written = getattr(model, key, None) or ()
        for n, domain in enumerate([written] if isinstance(written, str) else written):
            if Address.parse_any(f"x@{domain}") is None:
                expected = 'a name like "example.com", without *'
                yield document.problem((*place, key, n), f'invalid domain name "{domain}"', expected)


def _credentials(document: Document, place: Place, members: Members | Expands, base: Path) -> Iterator[Problem]:
    """Check the other files of a source: secrets and CA certificates."""
    for key in ("password_file", "token_file", "ca_file"):
        written = getattr(members, key, None)
        if written is None:
            continue
        from smtpguard.lists.sources import file_of  # with a client for HTTP, 5 MB

        try:
            file = file_of(written, base)
        except SourceError as e:
            yield document.problem((*place, key), str(e))
            continue
        if (problem := file_problem(document, (*place, key), file)) is not None:
            yield problem
        elif key != "ca_file" and (sentence := exposed_file(file)):
            yield warning(document, (*place, key), sentence)


def file_problem(document: Document, place: Place, path: Path) -> Problem | None:
    """Return the problem of a file that is named at this place, None if it can be read."""
    if not path.is_file():
        return document.problem(place, f"there is no file {display_path(path)}", "a file that is there")
    return None if readable(path) else document.problem(place, f"{display_path(path)} cannot be read by this user")


def readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def display_path(path: Path) -> str:
    """Return a path as people at this folder would write it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A valid policy that could be put in force. ``before``: the SHA-256 of the one in force, "" for none. ``warnings``: what is
    probably not meant, or cannot be read now. ``looser``: what it may let pass that the one in force would have stopped."""

    policy: Policy
    before: str
    warnings: tuple[Problem, ...]
    looser: tuple[Looser, ...]

    @property
    def sha256(self) -> str:
        return self.policy.sha256

    @property
    def changed(self) -> bool:
        return self.sha256 != self.before


async def propose_file(settings: Settings, store: Store, digester: Digester) -> Proposal:
    """Check the policy file, and compare it with the policy in force. Raises Broken with what ``check`` would refuse, and StoreError."""
    from smtpguard.app.policies import stamps

    before = stamps(settings)
    documents = await asyncio.to_thread(policy_documents, settings.policy)
    proposal = await propose(settings, store, digester, documents, where=display_path(settings.policy))
    now = await asyncio.to_thread(policy_documents, settings.policy)
    if digest(now) != digest(documents) or stamps(settings) != before:
        text = "the policy's files were changed while they were read"
        expected = "a file that is replaced by renaming a complete new one"
        raise Broken([Problem(str(settings.policy), 1, 1, text, expected)])
    return proposal


async def propose(
    settings: Settings, store: Store, digester: Digester, documents: Mapping[str, bytes], *, where: str
) -> Proposal:
    """Check these documents and compare them with the policy in force. Raises Broken and StoreError."""
    before = (await store.gate.read()).policy_sha256
    in_force = await store.policies.documents(before)
    return await asyncio.to_thread(_proposed, settings, digester, documents, where, before, in_force)


def _proposed(
    settings: Settings,
    digester: Digester,
    documents: Mapping[str, bytes],
    where: str,
    before: str,
    in_force: Mapping[str, bytes],
) -> Proposal:
    old: Policy | None = None
    lost: tuple[Looser, ...] = ()
    try:
        old = parse_policy(settings, in_force) if in_force else None
    except Broken:
        pass
    if before and old is None:
        text = "the policy in force cannot be read by this smtpguard: what becomes looser is unknown"
        lost = (Looser(text=text, file=where),)
    indexed_in = partial(_indexed, settings, digester, old)
    checked = check_policy(documents, settings.policy.parent, settings, where=where, indexed_in=indexed_in)
    if checked.fatal:
        raise Broken(checked.problems)
    new = checked.policy
    found = looser(old, new, where=where) if old is not None and old.sha256 != new.sha256 else lost
    return Proposal(policy=new, before=before, warnings=checked.problems, looser=found)


def _indexed(settings: Settings, digester: Digester, old: Policy | None, new: Policy) -> frozenset[str]:
    """Return the lists with unchanged sources and an index to use while their sources are away."""
    if old is None:
        return frozenset()
    registry = built_registry(settings, old, digester, SystemClock())
    registry.reopen()
    same = {name for name, info in new.lists.items() if name in old.lists and old.lists[name].members == info.members}
    found = {name for name in same if registry.statuses[name].index is not None}
    if old.expansions == new.expansions:
        found.add(EXPANSIONS)
    return frozenset(found)


async def put(store: Store, proposal: Proposal, *, by: str, how: str) -> None:
    """Put a policy in force, in one commit with its journal entry. Every process follows within 250 ms. Raises PolicyMoved if another policy is in force by now than it
    was compared with."""
    policy = proposal.policy
    data = {
        "sha256": policy.sha256,
        "before": proposal.before or None,
        "rules": len(policy.rules.rules),
        "enforce": policy.enforce,
        "how": how,
        "host": socket.gethostname(),
        "looser": len(proposal.looser),
        "warnings": len(proposal.warnings),
    }
    private: dict[str, tuple[str, ...]] = {"actor": (by,)}
    if proposal.looser:  # contains addresses
        private["looser"] = tuple(each.text for each in proposal.looser[:MOST_TOLD])
    event = Event(kind=Kind.POLICY, id=ids()(), at=SystemClock().now(), data=data, private=private)
    await store.policies.put(policy.sha256, policy.documents, event, before=proposal.before)
