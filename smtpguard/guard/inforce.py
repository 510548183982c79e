"""One policy in force with everything built from it, replaced as a whole by a reload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from smtpguard.accounts.model import Account, Unseated, source_of, unseated
from smtpguard.lists.registry import Registry
from smtpguard.policy.absences import Absence, Groups, Member, together
from smtpguard.policy.approvals import SHARE, ByAddress, ReplyVotes, Stages
from smtpguard.policy.breakers import Breakers
from smtpguard.policy.engine import RuleSet
from smtpguard.policy.hours import Hours
from smtpguard.policy.parse import Policy

PREVIEWS = ("reasons", "text", "full")
"""How much of a held message an approver sees, least first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The policy that a transaction is planned, closed and disposed of under, even if another is put in force
    meanwhile.

    ``policy_sha256``: as in the gate. ``groups``: canonical addresses, and who is away when.
    ``enforce`` False: all rules only observe. ``marks``: the policy's weights of marks. ``previews``: how much of a held message each group sees. ``stages``: of
    lists whose mailings are released in stages; ``stages_by_address``: what happens to a message to the address of such
    a list. ``shared``: mailboxes of several people, whose answers are not limited.
    """

    policy_sha256: str
    rules: RuleSet
    registry: Registry
    groups: Groups
    hours: Hours
    aliases: Mapping[str, frozenset[str]] = field(default_factory=dict)
    enforce: bool = True
    marks: Mapping[str, float] = field(default_factory=dict)
    previews: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, Stages] = field(default_factory=dict)
    stages_by_address: Mapping[str, ByAddress] = field(default_factory=dict)
    release_delays: Mapping[str, int] = field(default_factory=dict)
    """By list: for how many seconds an approval can be undone before it takes effect."""
    shared: frozenset[str] = frozenset()
    approved_always: frozenset[str] = frozenset()
    """Lists whose people are not covered by an approval for another list that they are on."""
    directories: Mapping[str, str] = field(default_factory=dict)
    """Of groups: the directory that says who is in them (accounts.membership)."""
    claims: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Of groups: by which groups at the provider of single sign-on somebody is in them."""
    breakers: Breakers = field(default_factory=Breakers)
    reply_votes: ReplyVotes | None = None
    list_breakers: Mapping[str, Breakers] = field(default_factory=dict)
    slots: float = SHARE
    """The share of its words in which a copy may differ from the approved one when there were no copies to learn from.
    """

    @classmethod
    def of(cls, policy: Policy, registry: Registry) -> InForce:
        return cls(
            policy_sha256=policy.sha256,
            rules=policy.rules,
            registry=registry,
            groups=policy.groups,
            hours=policy.organization.hours,
            aliases=policy.aliases,
            enforce=policy.enforce,
            marks=policy.marks,
            previews=policy.previews,
            stages=policy.stages,
            stages_by_address=policy.stages_by_address,
            release_delays=policy.release_delays,
            shared=policy.organization.shared,
            directories={
                name: source_of(model.model_dump(by_alias=True, exclude_none=True))
                for name, model in policy.directories.items()
            },
            claims=policy.claims,
            slots=policy.slots,
            breakers=policy.breakers,
            reply_votes=policy.reply_votes,
            list_breakers=policy.list_breakers,
            approved_always=policy.approved_always,
        )

    def breakers_of(self, lists: Iterable[str]) -> Breakers:
        """The breakers of a mailing to these lists: those of each list, or the policy's for a list without its own."""
        return Breakers.over([self.list_breakers.get(name, self.breakers) for name in lists] or [self.breakers])

    def addresses_of(self, *people: str) -> frozenset[str]:
        """All addresses that the policy knows for the people with these addresses."""
        return frozenset().union(*(self.aliases.get(person, {person}) for person in people))

    def logging_in_as(self, user: str | None) -> frozenset[str]:
        """People of groups whom a login without a domain may mean: ``eva``, ``EXAMPLE\\eva``."""
        if not user:
            return frozenset()
        name = user.rpartition("\\")[2].lower()
        return frozenset(p for people in self.groups.values() for p in people if p.rpartition("@")[0] == name)

    def groups_of(self, person: str, at: datetime) -> frozenset[str]:
        """The person's own groups, and those of people whom they are deputy for at that time."""
        return self.groups.of_person(person, at)

    def with_people(self, members: Iterable[Member], said: Iterable[Absence]) -> InForce:
        """The same policy, with the members that directories and sign-ons name, and the absences that people have
        reported themselves."""
        groups = self.groups.with_members(members)
        groups = groups.with_absences(together(groups.absences, said))
        return replace(self, groups=groups, aliases=groups.aliases)

    def unseated(self, accounts: Iterable[Account]) -> tuple[Unseated, ...]:
        """Accounts that do not fit the groups of this policy, and the other way round."""
        return unseated(accounts, self.groups.with_deputies(), self.rules.groups_asked())

    def preview(self, lists: Iterable[str], person: str, at: datetime) -> str:
        """How much of a message held for these lists this approver sees: reasons, text or full. The strictest of the
        lists counts, and the most generous of the person's groups."""
        of_lists = [info.preview for name in lists if (info := self.registry.lists.get(name)) and info.preview]
        of_groups = [self.previews.get(group, "full") for group in self.groups_of(person, at)]
        most = max(of_groups, key=PREVIEWS.index, default="reasons")
        return min((*of_lists, most), key=PREVIEWS.index)

    def of_special_category(self, lists: Iterable[str]) -> bool:
        """Whether membership of one of these lists is sensitive (GDPR Art. 9)."""
        known = self.registry.lists
        return any(name in known and known[name].sensitivity == "special-category" for name in lists)

    def purposes(self) -> Mapping[str, str]:
        """Rule -> its purpose, in English if the admin wrote it so."""
        return self.rules.purposes()

    def open_at(self, at: datetime) -> bool:
        return self.hours.open_at(at)

    def people(self, group: str) -> frozenset[str]:
        """Canonical addresses of a group; empty if the group is gone."""
        return self.groups.get(group, frozenset())
