"""What rules are for, in their admins' words, as the policies had it that decided: for whoever has to say afterwards why.

A rule may be gone by now, or mean something else under the same name, so the policy in force is not asked. Pure. Never here:
where documents are kept (store), or what a rule saw (sentence).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smtpguard.config.problem import Broken
from smtpguard.policy.parse import parse

Documents = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purposes:
    """``of``: rule to what it is for, where several policies decided as the last of them has it. ``lost``: policies, by SHA-256,
    whose documents are not kept any more or that this version does not read."""

    of: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def purposes(policies: Mapping[str, Documents | None], *, delimiters: str, language: str) -> Purposes:
    """In this language where the admin wrote that. Of each policy, in order, its documents. Takes a tenth of a second each."""
    of: dict[str, str] = {}
    lost: list[str] = []
    for sha256, documents in policies.items():
        try:
            if documents is None:
                raise KeyError(sha256)
            of |= parse(documents, delimiters=delimiters).rules.purposes(language)
        except (KeyError, Broken):
            lost.append(sha256)
    return Purposes(of=of, lost=tuple(lost))
