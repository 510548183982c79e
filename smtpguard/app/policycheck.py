"""What ``smtpguard check`` finds wrong with a policy before it is in force, and ``reload`` refuses: mistakes in the documents, and sources
of lists that cannot be read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from smtpguard.app.files import parse_policy
from smtpguard.config.documents import POLICY
from smtpguard.config.problem import Problem, Severity, ordered
from smtpguard.config.settings import Settings
from smtpguard.config.yaml import Document, Place, load_yaml
from smtpguard.lists.sources import SourceError, Tally, addresses, maps, number_of, unfit
from smtpguard.lists.sources.credentials import file_of
from smtpguard.lists.sources.opening import opened
from smtpguard.policy.condition import AtLeast
from smtpguard.policy.expansions import Expands
from smtpguard.policy.members import ListMembers, Members, Remote
from smtpguard.policy.parse import Policy, parse

EXPANSIONS = "(expansions)"
"""Among names of lists: what expands beside them. No list is called so."""
_FAR = 10  # lists grow
_OF_CUSTOMERS = (
    "recipients.customers",
    "recipients.members",
    "mailing.customers",
    "list.customers",
    "sender.customers",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPolicy:
    """``people``: list -> how many addresses its sources hold; ``unread``: how many of their rows hold none."""

    policy: Policy
    problems: tuple[Problem, ...] = ()
    people: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)

    @property
    def fatal(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.fatal)


def check_policy(
    documents: Mapping[str, bytes],
    base: Path,
    settings: Settings | None,
    *,
    where: str,
    indexed: frozenset[str] = frozenset(),
) -> CheckedPolicy:
    """``base``: the folder that paths of sources are relative to. ``where``: what problems call the policy's file. ``indexed``: lists
    whose sources stand as they did and have an index that is in use: that one cannot be read is a warning. Raises Broken for documents
    that are no policy."""
    policy = parse(documents, where=where) if settings is None else parse_policy(settings, documents, where)
    document = load_yaml(documents[POLICY], where)
    people: dict[str, int] = {}
    unread: dict[str, int] = {}
    problems = [*policy.warnings, *_cut_off(documents[POLICY], where)]
    for name, model in policy.lists.items():
        place: Place = ("lists", name, "members")
        found: list[Problem] = []
        for n, members in enumerate(model.members):
            here = (*place, n) if (*place, n) in document.values else place
            found += _credentials(document, here, members, base)
            if isinstance(members, Remote | ListMembers):  # asked by check --live, and counted there
                continue
            held, bad, wrong, key = _members(members.model_dump(by_alias=True, exclude_none=True), base)
            people[name] = people.get(name, 0) + held
            unread[name] = unread.get(name, 0) + bad
            if wrong:
                key = key if (*here, key) in document.values else members.source
                found.append(document.problem((*here, key), wrong))
        problems += _borne(found) if name in indexed else found
    expansions = list(_expansions(document, policy, base))
    problems += _borne(expansions) if EXPANSIONS in indexed else expansions
    problems += _out_of_reach(document, policy, people)
    if settings is not None:
        problems += _never_proven(document, policy, settings)
    return CheckedPolicy(policy=policy, problems=ordered(problems), people=people, unread=unread)


def _borne(problems: list[Problem]) -> list[Problem]:
    """What cannot be read now, and what was read of it before is in use."""
    return [
        replace(p, text=f"{p.text}; what was last read of it stays in use", severity=Severity.WARNING) for p in problems
    ]


def _cut_off(data: bytes, where: str) -> Iterator[Problem]:
    if data and not data.endswith(b"\n"):
        line = data.count(b"\n") + 1
        column = len(data.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        text = "the file does not end with a line end, as if it were cut off here"
        yield Problem(where, line, column, text, severity=Severity.WARNING)


def _out_of_reach(document: Document, policy: Policy, people: Mapping[str, int]) -> Iterator[Problem]:
    """Numbers of customers that all lists together are far from having; where somebody is counted elsewhere, nobody can say."""
    elsewhere = any(
        not m.members or any(isinstance(s, Remote | ListMembers) for s in m.members) for m in policy.lists.values()
    )
    if elsewhere or policy.expansions or not policy.lists or not all(people.get(name) for name in policy.lists):
        return
    everybody = sum(people.values())
    for n, rule in enumerate(policy.rules.rules):
        for condition in rule.when:
            name = condition.fact.name
            if name in _OF_CUSTOMERS and isinstance(condition, AtLeast) and condition.n > _FAR * everybody:
                text = f"rule {rule.rule_id} can never hit: all lists together have {number_of(everybody, 'person', 'people')}"
                yield warning(document, ("rules", n, "when", name), text)


def _never_proven(document: Document, policy: Policy, settings: Settings) -> Iterator[Problem]:
    """Writers of a list without an origin have to log in, or come through a listener whose senders are verified."""
    listening = settings.listen
    if listening.milter or settings.trust or any(each.auth or each.senders_verified for each in listening.smtp):
        return
    for name, info in policy.lists.items():
        if info.writers and info.origin is None:
            text = f"nobody can prove to be a writer of {name}: it has no origin, and no listener has auth or senders_verified"
            yield warning(document, ("lists", name, "writers"), text)


def warning(document: Document, place: Place, text: str, expected: str = "") -> Problem:
    return replace(document.problem(place, text, expected), severity=Severity.WARNING)


def _expansions(document: Document, policy: Policy, base: Path) -> Iterator[Problem]:
    """Maps are read as far as their lines can be told; servers are asked by check --live."""
    for n, model in enumerate(policy.expansions):
        place: Place = ("expansions", n) if ("expansions", n) in document.values else ("expansions",)
        yield from _credentials(document, place, model, base)
        written = getattr(model, model.source)
        try:
            if model.source == "aliases":
                deque(maps.aliases(maps.map_path(written, base)), maxlen=0)
            elif model.source == "virtual":
                deque(maps.virtual(maps.map_path(written, base)), maxlen=0)
        except SourceError as e:
            yield document.problem((*place, model.source), str(e))


def _members(declaration: Mapping[str, object], base: Path) -> tuple[int, int, str, str]:
    """How many addresses a source holds, and rows without one; why a sync would refuse it, and by which key of the policy ("" for
    neither)."""
    tally = Tally()
    try:
        source = opened(declaration, base)
        people = sum(1 for _ in addresses(source, tally))
    except SourceError as e:
        return 0, tally.bad, str(e), ""
    return (people, tally.bad, *(unfit(source.label, people, tally, declaration) or ("", "")))


def _credentials(document: Document, place: Place, members: Members | Expands, base: Path) -> Iterator[Problem]:
    """The files of a source that are not its members: of secrets, and of who signs certificates."""
    for key in ("password_file", "token_file", "ca_file"):
        written = getattr(members, key, None)
        if written is None:
            continue
        try:
            file = file_of(written, base)
        except SourceError as e:
            yield document.problem((*place, key), str(e))
            continue
        if not file.is_file():
            yield document.problem((*place, key), f"there is no file {shown(file)}", "a file that is there")
        elif not readable(file):
            yield document.problem((*place, key), f"{shown(file)} cannot be read by this user")


def readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def shown(path: Path) -> str:
    """As people at this place would name it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
