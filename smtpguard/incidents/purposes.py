"""The descriptions of rules and lists, in their admins' words, from the policies that decided; and whether those
policies were enforced.

A rule may be gone by now, or mean something else under the same name, so the policy in force is not used. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smtpguard.config.problem import Broken
from smtpguard.policy.parse import parse

Documents = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListThen:
    """``sensitivity``, ``category``: GDPR Art. 9."""

    title: str
    audience: str
    sensitivity: str | None
    category: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purposes:
    """``of``: rule to description. ``lists``: as the last policy that decided declares them; so is ``zone``, the
    organization's. ``watching``: policies, by SHA-256, that only observed (``enforce: false``). ``lost``: those whose
    documents are erased or unreadable for this version."""

    of: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    watching: tuple[str, ...] = ()
    lists: Mapping[str, ListThen] = field(default_factory=dict)
    zone: str = ""


def purposes(policies: Mapping[str, Documents | None], *, delimiters: str, language: str) -> Purposes:
    """In ``language`` if the admin wrote it. ``policies``: in order, each with its documents; a tenth of a second each."""
    of: dict[str, str] = {}
    lists: dict[str, ListThen] = {}
    lost: list[str] = []
    watching: list[str] = []
    zone = ""
    for sha256, documents in policies.items():
        try:
            if documents is None:
                raise KeyError(sha256)
            policy = parse(documents, delimiters=delimiters)
        except (KeyError, Broken):
            lost.append(sha256)
            continue
        of |= policy.rules.purposes(language)
        lists |= {
            name: ListThen(
                title=one.title or name, audience=one.audience, sensitivity=one.sensitivity, category=one.category
            )
            for name, one in policy.lists.items()
        }
        zone = str(policy.organization.hours.zone)
        if not policy.enforce:
            watching.append(sha256)
    return Purposes(of=of, lost=tuple(lost), watching=tuple(watching), lists=lists, zone=zone)
