"""One policy in force with everything built from it, replaced as a whole by a reload."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime

from smtpguard.accounts.membership import source_of
from smtpguard.accounts.model import Account, Unseated, unseated
from smtpguard.lists.registry import Registry
from smtpguard.policy.approvals import Absence, Member
from smtpguard.policy.hours import Hours
from smtpguard.policy.models import PREVIEWS
from smtpguard.policy.parse import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce(Policy):
    """The policy that a transaction is planned, closed and disposed of under, even if another is put in force
    meanwhile. Its groups are also those that directories and sign-ons name (``with_people``)."""

    registry: Registry

    @classmethod
    def of(cls, policy: Policy, registry: Registry) -> InForce:
        return cls(registry=registry, **{each.name: getattr(policy, each.name) for each in fields(policy)})

    @property
    def hours(self) -> Hours:
        return self.organization.hours

    def sources_of_groups(self) -> Mapping[str, str]:
        """Return by group the digest of its directory (accounts.membership.source_of)."""
        return {
            name: source_of(model.model_dump(by_alias=True, exclude_none=True))
            for name, model in self.directories.items()
        }

    def addresses_of(self, *people: str) -> frozenset[str]:
        """Return all addresses that the policy knows of the people with these addresses."""
        return frozenset().union(*map(self.groups.addresses, people))

    def behind(self, addresses: Collection[str], user: str | None = None) -> frozenset[str]:
        """Return all addresses of the people who wrote under these canonical addresses. A login that is no address of the
        organization, and an address at another of its domains, mean everybody of that name in a group."""
        names = self.registry.names
        return self.addresses_of(*addresses, *self.groups.named(addresses, names.is_ours, names.account(user or "")))

    def sees(self, who: str, lists: Iterable[str], writers: Collection[str], at: datetime) -> bool:
        """Return whether a person sees a mailing to these lists as one of those who decide on it, at any hour (Groups.sees)."""
        return self.groups.sees(who, self._deciding(lists), at, self.behind(writers))

    def decides(self, who: str, lists: Iterable[str], writers: Collection[str], at: datetime) -> bool:
        """Return whether a person decides on a mailing to these lists, at any hour (Groups.decides)."""
        return self.groups.decides(who, self._deciding(lists), at, self.behind(writers))

    def _deciding(self, lists: Iterable[str]) -> frozenset[str]:
        return frozenset().union(*(quorum.all_groups for quorum in self.rules.quorum(lists)))

    def with_people(self, members: Iterable[Member], said: Iterable[Absence]) -> InForce:
        """Return the policy with the members that directories and sign-ons name, and the absences that people reported."""
        return replace(self, groups=self.groups.with_members(members).with_absences(said))

    def unseated(self, accounts: Iterable[Account]) -> tuple[Unseated, ...]:
        """Return the people whose account does not fit the groups of this policy, and who have none."""
        return unseated(accounts, self.groups.with_deputies(), self.rules.groups_asked())

    def preview(self, lists: Iterable[str], person: str, at: datetime) -> str:
        """Return how much of a message held for these lists an approver sees: "reasons", "text" or "full". The strictest list
        counts, and the most generous of the person's groups."""
        of_lists = [info.preview for name in lists if (info := self.registry.lists.get(name)) and info.preview]
        of_groups = [self.previews.get(group, "full") for group in self.groups.of_person(person, at)]
        most = max(of_groups, key=PREVIEWS.index, default="reasons")
        return min((*of_lists, most), key=PREVIEWS.index)

    def of_special_category(self, lists: Iterable[str]) -> bool:
        """Return whether membership of one of these lists is sensitive (GDPR Art. 9)."""
        known = self.registry.lists
        return any(name in known and known[name].special for name in lists)

    def title(self, name: str) -> str:
        """Return what people call a list, its name if the policy has it no more."""
        return self.registry.lists[name].called if name in self.registry.lists else name
