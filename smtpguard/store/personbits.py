"""What sort of person a mailing has come for, as one number that can be summed by: a customer, perhaps one, and on which lists.

Two bits, then one for each list of the mailing, in the order in which it touched them; they stand in the table of who was
reached and in the sums of a mailing's row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from smtpguard.policy.mailing import Person

CUSTOMER, MAYBE = 1, 2
CUSTOMERS = CUSTOMER | MAYBE
_FIRST_LIST = 2
_MOST_LISTS = 60  # beyond these, lists share the last bit


def kinds(lists: list[str], people: Iterable[Person]) -> Iterator[tuple[Person, int]]:
    """Each person with its kind; ``lists`` grows by those that are new to the mailing."""
    for person in people:
        kind = (CUSTOMER if person.customer else 0) | (MAYBE if person.maybe else 0)
        for name in person.lists:
            if name not in lists:
                lists.append(name)
            kind |= on_list(lists, name)
        yield person, kind


def list_of(lists: Sequence[str], bit: int) -> str:
    """The one list that this bit stands for; "" where it stands for several, or for none."""
    at = bit.bit_length() - 1 - _FIRST_LIST
    return lists[at] if bit == 1 << (_FIRST_LIST + at) and 0 <= at < min(len(lists), _MOST_LISTS - 1) else ""


def renewed(before: int, kind: int) -> int:
    """A person's kind after another copy: who was once a customer, or on a list, stays that; whether it may be one is as the lists
    say now, since one that has its index again says no more than it knows."""
    return kind | (before & ~MAYBE)


def on_list(lists: Sequence[str], name: str) -> int:
    """The bit of those on this list; 0 where the mailing has touched no such list."""
    at = min(lists.index(name), _MOST_LISTS - 1) if name in lists else 0
    return 1 << (_FIRST_LIST + at) if name in lists else 0
