"""Learn from the waiting copies of a mailing in which slots copies differ from person to person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from smtpguard.mailings.alignment import opcodes, stretches
from smtpguard.mailings.slots import Block, Choice, Item, Slot, Target, Template, is_block
from smtpguard.mailings.tokens import (
    ITSELF,
    MOST_OF_CODE,
    MOST_WORDS,
    PARTICLES,
    Words,
    blocks_of,
    currencies_in,
    in_query,
    is_free,
    is_markup,
    is_number,
    is_segment,
    is_serial,
    is_tag,
    is_target,
    key_of,
    kind_of,
    linked_in,
    links_in,
    mailboxes,
    nested,
    parts_of,
    plain,
    split,
    units_of,
    unmarked,
)
from smtpguard.policy.stages import SHARE
from smtpguard.reading.shown import PICTURE, Shown

MOST_ALTERNATIVES = 20
"""The most alternatives of one block, or of words in it, that an approver can review."""
MOST_KNOWN = 60
"""The most known words of a list in each copy, beside numbers."""
MOST_FORMS = 6
FEWEST_OF_A_FORM = 3
"""The fewest different texts of one form, in a place where some copies have none or another, in which slots are learned."""
MOST_SERIES = 10
"""With more pictures than this, each in one copy alone, each person gets one of their own."""
_SAMPLES = 5
T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class _Budget:
    """``left``: how many more tokens of alternatives of a mailing are compared with others to find forms."""

    left: int = 500_000


def learn(first: Shown, copies: Iterable[Shown], share: float = SHARE) -> Template:
    """Return the common template of ``first`` and of those ``copies`` that have its files. A copy that could not be parsed, or has
    other files, is ignored."""
    alike = [c for c in copies if not c.opaque and c.files == first.files]
    senders = tuple({mailboxes(c.sender): c.sender for c in reversed((first, *alike))}.values())[::-1]
    linked = frozenset(a for c in (first, *alike) for a in linked_in(c.blocks) if a != c.recipient)
    base, *others = (blocks_of(c, {c.recipient} - linked, f"{ITSELF}{c.recipient}") for c in (first, *alike))
    if not others:
        own = tuple({first.recipient} & linked_in(first.blocks))
        elements: tuple[Block | Choice, ...] = tuple(Block(items=split(unmarked(block))[0]) for block in base)
        return Template(senders=senders, files=first.files, elements=elements, share=share, own=own)
    maps = [_aligned(tuple(base), tuple(other)) for other in others]
    made: list[Block | Choice] = []
    budget = _Budget()
    whole = [*(range(len(base)),), *maps]  # the place of each block of the first in each, or -1
    blocks = [base, *others]
    ends = [-1] * len(blocks)  # the last block taken from each
    frames = [n for n in range(len(base)) if all(m[n] >= 0 for m in whole)]
    for n in [*frames, len(base)]:
        places = [m[n] if n < len(base) else len(b) for m, b in zip(whole, blocks, strict=True)]
        between = [tuple(map(plain, b[end + 1 : place])) for b, end, place in zip(blocks, ends, places, strict=True)]
        if any(between):
            made += _chosen(between, budget)
        if n < len(base):
            made.append(_block([b[place] for b, place in zip(blocks, places, strict=True)]))
        ends = places
    return Template(senders=senders, files=first.files, elements=tuple(made), learned=len(others), share=share)


def _chosen(seen: Sequence[tuple[str, ...]], budget: _Budget) -> Iterator[Block | Choice]:
    """Yield the alternatives: common templates of those that differ in slots alone, and the most frequent others. If there are too
    many, yield the common template of all, if each has the same number of blocks with the same markup, and it fits all."""
    common: list[Block] = []
    if len(set(seen)) > MOST_ALTERNATIVES and len(set(map(len, seen))) == 1:
        columns = list(zip(*seen, strict=True))
        if all(
            len({tuple(filter(is_tag, map(key_of, block.split("\n")))) for block in column}) == 1 for column in columns
        ):
            common = [_block(column) for column in columns]
            if all(
                all(is_block(block, split(unmarked(one))) for one in some)
                for block, some in zip(common, columns, strict=True)
            ):
                yield from common
                return
    forms, left = _forms(seen, budget)
    if common and not forms:
        yield from common
    else:
        yield Choice(alternatives=_often([tuple(map(unmarked, one)) for one in left]) if left else (), forms=forms)


def _forms(
    seen: Sequence[tuple[str, ...]], budget: _Budget
) -> tuple[tuple[tuple[Block, ...], ...], list[tuple[str, ...]]]:
    """Return the common templates of alternatives that differ in slots alone, and the alternatives beside them."""
    groups: list[list[tuple[str, ...]]] = []
    for one in filter(None, seen):
        budget.left -= len(groups) * sum(block.count("\n") + 1 for block in one)
        if budget.left < 0:
            return (), list(seen)
        like = (some for some in groups if len(some[0]) == len(one) and all(map(_alike, some[0], one)))
        if (found := next(like, None)) is not None:
            found.append(one)
        elif len(groups) < MOST_FORMS:
            groups.append([one])
    forms: list[tuple[Block, ...]] = []
    left = list(seen)
    for some in groups:
        if len(set(some)) >= FEWEST_OF_A_FORM:
            form = tuple(map(_block, zip(*some, strict=True)))
            items = [item for block in form for item in block.items]
            free = any(isinstance(item, Slot) and item.kind != "words" for item in items)
            fixed = _words(item for item in items if isinstance(item, str))
            most = max(_words(token for block in one for token in block.split("\n")) for one in some)
            if free and 2 * most <= 3 * fixed:  # else a few copies could let any words pass
                forms.append(form)
                formed = frozenset(some)
                left = [one for one in left if one not in formed]
    return tuple(forms), left


def _words(some: Iterable[str]) -> int:
    return sum(not is_markup(token) for token in some)


def _block(seen: Sequence[str]) -> Block:
    """Return the template of one block over all copies. If the differing words have more combinations than an approver can
    review, the stretch from the first to the last of them becomes one slot, if it is a list."""
    first, _ = split(seen[0])
    if all(one == seen[0] for one in seen):
        return Block(items=tuple(map(unmarked, first)))
    texts = [split(one) for one in seen]
    keys = tuple(map(key_of, first))
    maps = [_tokens_aligned(keys, tuple(map(key_of, tokens))) for tokens, _ in texts]
    fixed = [n for n in range(len(first)) if all(m[n] >= 0 for m in maps)]
    made, clipped = _items(texts, maps, fixed)
    if not clipped:
        return made
    before = next(n for n in range(len(first) + 1) if n == len(first) or any(m[n] != n for m in maps))
    lengths = [len(tokens) for tokens, _ in texts]
    behind = next(
        n
        for n in range(len(first) - before + 1)
        if n == len(first) - before
        or any(
            m[len(first) - 1 - n] != length - 1 - n or length - n <= before
            for m, length in zip(maps, lengths, strict=True)
        )
    )
    whole, _ = _items(texts, maps, [n for n in fixed if n < before or n >= len(first) - behind])
    return whole if any(isinstance(item, Slot) and item.kind == "list" for item in whole.items) else made


def _items(texts: Sequence[Words], maps: Sequence[Sequence[int]], fixed: Sequence[int]) -> tuple[Block, bool]:
    """Return the block with items between the tokens that all copies have, and whether more words were seen in them than it
    lists."""
    first, _ = texts[0]
    items: list[Item] = []
    worded: list[list[str]] = []
    ends = [-1] * len(texts)
    for n in [*fixed, len(first)]:
        places = [m[n] if n < len(first) else len(tokens) for m, (tokens, _) in zip(maps, texts, strict=True)]
        values = [
            (tokens[end + 1 : place], any(b in begins for b in range(end + 2, place)))
            for (tokens, begins), end, place in zip(texts, ends, places, strict=True)
        ]
        if any(value for value, _ in values):
            items.append(slot := _slot(values))
            if slot.kind == "words":
                worded.append([" ".join(value) for value, _ in values])
        if n < len(first):
            items.append(_target([tokens[place] for (tokens, _), place in zip(texts, places, strict=True)]))
        ends = places
    seen = list(zip(*worded, strict=True))
    return Block(items=tuple(items), together=_often(seen) if len(worded) > 1 else ()), len(
        set(seen)
    ) > MOST_ALTERNATIVES


def _slot(values: Sequence[tuple[Sequence[str], bool]]) -> Slot:
    """Return a free slot if the values are names, numbers or codes of many; otherwise a slot for one of the values seen."""
    values = [([word.removeprefix(ITSELF) for word in value], broken) for value, broken in values]
    said = [" ".join(value) for value, _ in values]
    distinct = tuple(dict.fromkeys(said))
    some = [value for value, _ in values if value]
    broken = any(broken for _, broken in values)
    small = tuple(dict.fromkeys(w for value in some for w in value if not is_free(w)))
    most, longest = max(map(len, some)), max(len(word) for value in some for word in value)
    room = min(MOST_OF_CODE, longest + max(4, longest // 4))
    empty, many = len(some) < len(values), len(distinct) >= max(2, -(-len(values) // 5))
    if (
        many
        and not broken
        and not any(map(is_markup, small))
        and most <= MOST_WORDS
        and 2 * len(small) <= len(values)
        and len(small) <= MOST_ALTERNATIVES
    ):
        kinds = {kind_of(value, small) for value in some}
        if "" not in kinds:
            kind = kinds.pop() if len(kinds) == 1 else "code" if kinds <= {"number", "code"} else "name"
            if kind == "name":
                most = max(sum(w.lower() not in PARTICLES for w in value) for value in some)
            return Slot(
                kind=kind,
                values=_samples(distinct),
                most=min(MOST_WORDS, most + 1),
                longest=room,
                empty=empty,
                known=small,
            )
    if len(distinct) > MOST_ALTERNATIVES:
        units = dict.fromkeys(u for value in some for u in units_of(value) if kind_of([u]) not in ("number", "code"))
        if len(units) <= MOST_KNOWN and 2 * len(units) <= len(values):
            return Slot(
                kind="list",
                values=_samples(distinct),
                most=most + most // 3,
                longest=room,
                empty=empty,
                known=tuple(units),
            )
    often = _often(said)
    return Slot(kind="words", values=often, most=max(len(one.split()) for one in often), empty="" in often)


def _samples(distinct: Sequence[str]) -> tuple[str, ...]:
    """Return samples of the values: first one with a site, an address, and each currency, if any, since a slot takes none if its
    samples have none. Those who approve see them all, so the one with the most words is among them."""
    special = {kind: one for one in reversed(distinct) for kind in _special(one.split())}
    longest = max(distinct, key=lambda one: one.count(" "))
    return tuple(dict.fromkeys((*special.values(), distinct[0], longest, *distinct)))[: max(_SAMPLES, len(special))]


def _special(words: Sequence[str]) -> frozenset[str]:
    return links_in(words) | currencies_in(filter(is_number, words))


def _often(said: Sequence[T]) -> tuple[T, ...]:
    """Return the first, and the most frequent ones."""
    counted = Counter(said)
    return tuple(sorted(counted, key=lambda one: (one != said[0], -counted[one]))[:MOST_ALTERNATIVES])


def _target(seen: Sequence[str]) -> str | Target:
    """Return a token that all have; for a link, one with slots for the parts that differ."""
    if not is_target(seen[0]) or all(one == seen[0] for one in seen):
        return unmarked(seen[0])
    apart = [parts_of(one) for one in seen]
    base, parts = apart[0]
    if any(len(p) != len(parts) for _, p in apart):
        distinct = tuple(dict.fromkeys(seen))
        return Target(base=base, whole=distinct[:MOST_ALTERNATIVES])  # without parts it is no target
    picture = seen[0].startswith(PICTURE)
    made: list[str | Slot | Target] = []
    for n, mine in enumerate(parts):
        theirs = [p[n] for _, p in apart]
        distinct = tuple(dict.fromkeys(theirs))
        if len(distinct) == 1:
            made.append(mine)
            continue
        free = all(map(is_segment, theirs)) and len(distinct) >= max(2, -(-len(seen) // 5))
        inner = [nested(one) for one in theirs]
        if (
            all(inner)
            and len({parts_of(one)[0] for one in inner}) == 1
            and not isinstance(found := _target(inner), str)
        ):
            made.append(found)
        elif free and not (picture and not in_query(parts, n)):
            made.append(Slot(kind="code", values=_samples(distinct), empty="" in distinct))
        elif len(distinct) > max(MOST_SERIES, 0.9 * len(seen)) and all(map(is_serial, theirs)):
            made.append(Slot(kind="picture", values=_samples(distinct)))
        else:
            made.append(Slot(kind="words", values=distinct[:MOST_ALTERNATIVES]))
    return Target(base=base, parts=tuple(made))


def _aligned(base: tuple[str, ...], other: tuple[str, ...]) -> list[int]:
    """Return the place of each block of the first in the other, -1 for none."""
    found = [-1] * len(base)
    for op, i1, i2, j1, j2 in opcodes([plain(b) for b in base], [plain(b) for b in other]):
        if op == "equal":
            found[i1:i2] = range(j1, j2)
        elif op == "replace":
            if i2 - i1 == j2 - j1:
                for i, j in zip(range(i1, i2), range(j1, j2), strict=True):
                    if _alike(base[i], other[j]):
                        found[i] = j
                continue
            while i1 < i2 and j1 < j2 and _alike(base[i1], other[j1]):
                found[i1] = j1
                i1, j1 = i1 + 1, j1 + 1
            while i1 < i2 and j1 < j2 and _alike(base[i2 - 1], other[j2 - 1]):
                i2, j2 = i2 - 1, j2 - 1
                found[i2] = j2
    return found


@lru_cache(maxsize=8192)
def _alike(one: str, other: str) -> bool:
    """Return whether two blocks are one block with slots: they have the same markup, and few differences beside values of slots."""
    mine, theirs = split(one)[0], split(other)[0]
    if [t for t in map(key_of, mine) if is_tag(t)] != [t for t in map(key_of, theirs) if is_tag(t)]:
        return False
    a, b = [key_of(t) for t in mine], [key_of(t) for t in theirs]
    same, short = 0, True
    for op, i1, i2, j1, j2 in opcodes(a, b):
        if op == "equal":
            same += sum(not is_tag(t) for t in a[i1:i2])
        else:
            short = short and all(not some or kind_of(some) for some in (a[i1:i2], b[j1:j2]))
    return short or 2 * same >= max(sum(not is_tag(t) for t in a), sum(not is_tag(t) for t in b))


@lru_cache(maxsize=8192)
def _tokens_aligned(base: tuple[str, ...], other: tuple[str, ...]) -> list[int]:
    found = [-1] * len(base)
    for i, j, n in stretches(base, other):
        found[i : i + n] = range(j, j + n)
    return found
