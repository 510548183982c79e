"""Whether distinct people can be found for all seats of a quorum. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import combinations

from smtpguard.policy.models import OutOfHoursModel

_MANY = 10


def lacking(model: OutOfHoursModel, groups: Mapping[str, Set[str]], without: Set[str] = frozenset()) -> str:
    """For which seats there are too few people (Hall's condition); "" where each can be filled. ``without``: those who may not
    decide. All of its groups are among ``groups``."""
    for size in range(1, min(len(model.from_), _MANY) + 1):
        for some in combinations(model.from_, size):
            people = frozenset().union(*(groups[group] for group in some)) - without
            if len(people) < model.each * size:
                seats = model.each * size
                wanted = "somebody" if seats == 1 else f"{seats} people"
                has = f"{'has' if size == 1 else 'have'} {len(people) or 'nobody'}"
                return f"needs {wanted} of {' and '.join(some)}, which {has}"
    return ""
