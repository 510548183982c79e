"""Templates of approved mailings: a text with slots, and whether a message fits it.

A message is a copy of what was approved if it has every block, in order, word by word, and differs only in slots:
names, numbers, codes, and single parts of links. A slot takes no site or address, which mail programs make links of, if
none was seen in it. A block that differs otherwise is covered only if it is one of the alternatives among the waiting
copies, which the approver could see. The files, From, and the hosts of links and pictures never differ.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import ne
from typing import Any

from smtpguard.mailings.alignment import opcodes
from smtpguard.mailings.tokens import (
    ITSELF,
    JOINERS,
    MONTHS,
    MOST_WORDS,
    OWN,
    PARTICLES,
    Words,
    blocks_of,
    currencies_in,
    in_query,
    is_coded,
    is_markup,
    is_number,
    is_segment,
    is_serial,
    is_target,
    kind_of,
    links_in,
    mailboxes,
    nested,
    parts_of,
    plain,
    readable,
    split,
    units_of,
    with_itself,
    with_own,
)
from smtpguard.policy.stages import SHARE
from smtpguard.reading.shown import ANOTHER_SHOWN, MANY_SHOWN, PICTURE, Shown

AT_LEAST = 8
"""The words that may differ without copies to learn from, even if the share gives fewer."""
_WORD = 40
_ENDS = frozenset((".", "!", "?", ":", "…", "<subject>", "。", "！", "？"))
_SPOKEN_TO = frozenset((",", "!", ":", "，", "！", "："))
_HONORIFICS, _HONORIFICS_BEFORE = frozenset("様殿氏さ先女小님씨"), frozenset("ณ")
"""Honorifics after and before names in scripts without case and spaces, by their first and last character."""
_DEAR = frozenset("的爱親")
_SHORT = 12
"""The most words of a line that is an address to a person (a salutation)."""
_LARGE = 0.15
_PLACEHOLDER = re.compile(r"[\[{%*|<_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place where copies differ.

    ``kind``: "name", "number" or "code"; "picture", a serial code in its path; "list", numbers among words that were seen;
    "words", one of ``values``, which were seen. For other kinds ``values`` are examples that were seen, first those with sites,
    addresses and currencies. ``most`` and ``longest``: the most words, and characters of one. ``empty``: it may be missing.
    ``known``: words that it may contain beside its kind."""

    kind: str
    values: tuple[str, ...]
    most: int = 1
    longest: int = _WORD
    empty: bool = False
    known: tuple[str, ...] = ()

    @property
    def widest(self) -> int:
        """The most words that it may have: the particles of a name do not count."""
        return MOST_WORDS if self.kind == "name" else self.most

    @property
    def opens(self) -> bool:
        """Return whether one copy of those seen may let others pass, by its words, a site, an address, or another currency."""
        seen = [word for value in self.values for word in value.split()]
        return self.kind == "words" or bool(self.known or links_in(seen)) or len(currencies_in(seen)) > 1

    def matches(self, words: Sequence[str]) -> bool:
        if self.kind == "words":
            return " ".join(words) in self.values
        if not words:
            return self.empty
        counted = [w for w in words if w.lower() not in PARTICLES] if self.kind == "name" else words
        new = [word for word in words if word not in self.known]
        if len(counted) > self.most or any(len(word) > self.longest for word in new) or not self.may_link(new):
            return False
        if self.kind == "list":
            return all(unit in self.known or kind_of([unit]) in ("number", "code") for unit in units_of(words))
        kind = kind_of(words, self.known)
        if self.kind == "name":  # many write their own in lower case
            return bool(kind or (len(words) == 1 and words[0][0].isalpha() and kind_of([words[0].capitalize()])))
        if self.kind == "number" and not currencies_in(words) <= currencies_in(self.values):
            return False
        return bool(kind) and (kind == self.kind or (self.kind, kind) == ("code", "number"))

    def may_link(self, words: Iterable[str]) -> bool:
        """Return whether the words have no kind of link (site, address) that was not seen in the slot."""
        links = links_in(words)
        return not links or links <= links_in(word for value in self.values for word in value.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A link or picture whose parts may differ. ``base``: kind, scheme and host; ``parts``: those of path and query, each
    fixed, a slot, or, for an encoded address within a link, a target of its own. ``whole``: the targets that were seen,
    if they differ in more than single parts."""

    base: str
    parts: tuple[str | Slot | Target, ...] = ()
    whole: tuple[str, ...] = ()

    def matches(self, token: str) -> bool:
        if token in self.whole:
            return True
        base, parts = parts_of(token)
        return base == self.base and len(parts) == len(self.parts) and all(map(_part_fits, self.parts, parts))


Item = str | Slot | Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of a template. ``together``: the combinations of values seen in its slots of words, if it has several such slots.
    ``runs``: its items, with the tokens between two slots together. ``fixed``: its tokens, None if copies differ in it."""

    items: tuple[Item, ...]
    together: tuple[tuple[str, ...], ...] = ()
    runs: tuple[tuple[str, ...] | Slot | Target, ...] = field(init=False, repr=False, compare=False)
    fixed: tuple[str, ...] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        runs: list[tuple[str, ...] | Slot | Target] = []
        words: list[str] = []
        for item in (*self.items, None):
            if isinstance(item, str):
                words.append(item)
                continue
            if words:
                runs.append(tuple(words))
                words = []
            if item is not None:
                runs.append(item)
        object.__setattr__(self, "runs", tuple(runs))
        fixed = tuple(item for item in self.items if isinstance(item, str))
        object.__setattr__(self, "fixed", fixed if len(fixed) == len(self.items) else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Alternative sequences of blocks; an empty one says that they may be missing. ``forms``: the alternatives with slots."""

    alternatives: tuple[tuple[str, ...], ...]
    forms: tuple[tuple[Block, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The text of a mailing with slots.

    ``senders``: From as it is shown, of each writer. ``learned``: the number of copies beside the first that it was learned
    from; with 0 the ``share`` of the words may differ, or AT_LEAST, and with a share of 0 none. ``own``: addresses that are
    recipients, and that copies to other people link to as well; a link to them counts as one to the copy's own recipient.
    ``alone``: the template of the first alone, if the others are versions that people approved one by one. ``passed``: for each
    element the block of the last copy that matched; empty if there are choices.
    """

    senders: tuple[str, ...]
    files: tuple[str, ...]
    elements: tuple[Block | Choice, ...]
    learned: int = 0
    share: float = SHARE
    own: tuple[str, ...] = ()
    alone: Template | None = None
    passed: list[str | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choices = any(isinstance(one, Choice) for one in self.elements)
        object.__setattr__(self, "passed", [] if choices else [None] * len(self.elements))

    def matches(self, shown: Shown) -> bool:
        if shown.opaque or not self.is_from(shown.sender) or shown.files != self.files:
            return False
        if self.alone is not None and self.alone.matches(shown):
            return True
        if self._is(blocks := self.blocks_in(shown)):
            return True
        if not shown.recipient or not any(shown.recipient in block.lower() for block in shown.blocks):
            return False
        # Perhaps every copy names this person, as the team's own mailbox; and earlier versions learned the address in
        # the text as any other.
        others = blocks_of(shown, (*self.own, shown.recipient)), blocks_of(shown, self.own)
        return any(map(self._is, others)) or self._with_own(shown.recipient)._is(blocks)

    def blocks_in(self, shown: Shown) -> list[str]:
        return blocks_of(shown, (*self.own, shown.recipient), ITSELF)

    def _is(self, blocks: Sequence[str]) -> bool:
        if not self.learned:
            return self._by_default(blocks)
        if not self.passed:
            return _matches(self.elements, [split(block) for block in blocks], blocks)
        return len(blocks) == len(self.passed) and self._in_place(blocks)

    def _with_own(self, address: str) -> Template:
        """Return this template with ``address``, in links and text, as that of the copy's own recipient."""

        def of(text: str) -> str:
            return with_itself(with_own(text, (address,)), address)

        def owned(block: Block) -> Block:
            return replace(block, items=tuple(of(item) if isinstance(item, str) else item for item in block.items))

        elements = (
            owned(one)
            if isinstance(one, Block)
            else Choice(
                alternatives=tuple(tuple(map(of, some)) for some in one.alternatives),
                forms=tuple(tuple(map(owned, form)) for form in one.forms),
            )
            for one in self.elements
        )
        return replace(self, elements=tuple(elements), alone=None)

    def _in_place(self, blocks: Sequence[str]) -> bool:
        """Return whether each block matches the element in its place. Only those that differ from the last copy are looked at."""
        for n in itertools.compress(itertools.count(), map(ne, blocks, self.passed)):
            element = self.elements[n]
            if not (isinstance(element, Block) and is_block(element, split(blocks[n]))):
                return False
        self.passed[:] = blocks
        return True

    def _by_default(self, blocks: Sequence[str]) -> bool:
        mine = [one.fixed or () for one in self.elements if isinstance(one, Block)]
        if len(mine) != len(blocks):
            return False
        budget = self.words_at_most
        capitals = _capitals(mine)
        for one, (other, begins) in zip(mine, map(split, blocks), strict=True):
            if one == other:
                continue
            changed = _default_difference(one, other, begins, capitals)
            if changed is None:
                return False
            budget -= changed
            if budget < 0:
                return False
        return True

    def is_from(self, sender: str) -> bool:
        """Return whether From, Sender and Reply-To are as approved, or with another sub-address of the same mailbox, and To and Cc
        show neither many people nor anybody else, unless they did so then."""
        if sender in self.senders:
            return True
        alike = {mailboxes(sender + more) for more in ("", MANY_SHOWN, ANOTHER_SHOWN)}
        return any(mailboxes(one) in alike for one in self.senders)

    def fits(self, element: Block, block: str) -> bool:
        """Return whether one block of a copy matches this one of the template, regardless of how many words differ in all."""
        if self.learned:
            return is_block(element, split(block))
        tokens, begins = split(block)
        return _default_difference(element.fixed or (), tokens, begins, "") is not None

    def is_only(self, shown: Shown) -> bool:
        """Return whether a message is the very content of which no copies were seen."""
        mine = [one.items for one in self.elements if isinstance(one, Block)]
        same = [split(block)[0] for block in self.blocks_in(shown)] == mine
        return same and shown.sender in self.senders and shown.files == self.files

    @staticmethod
    def fits_exactly(element: Block, block: str) -> bool:
        return element.items == split(block)[0]

    @property
    def words_at_most(self) -> int:
        """The most words that may differ if there were no copies to learn from."""
        return max(AT_LEAST, int(self.share * self.words)) if self.share else 0

    @property
    def words(self) -> int:
        items = (item for one in self.elements if isinstance(one, Block) for item in one.items)
        return sum(isinstance(item, str) and not is_markup(item) for item in items)

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks, those of alternatives with slots included."""
        for element in self.elements:
            if isinstance(element, Block):
                yield element
            else:
                yield from itertools.chain.from_iterable(element.forms)

    @property
    def slots(self) -> tuple[tuple[str, Slot], ...]:
        """The slots, each with the words before it."""
        found: list[tuple[str, Slot]] = []
        for block in self.blocks:
            words: list[str] = []
            for item in block.items:
                if isinstance(item, Slot):
                    found.append((" ".join(words[-3:]), item))
                    words = []
                elif isinstance(item, str) and not is_markup(item) and item != "<subject>":
                    words = [*words, item] if any(map(str.isalnum, item)) and item != ITSELF else []
        return tuple(found)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The links and pictures that differ."""
        items = (item for block in self.blocks for item in block.items)
        return tuple(dict.fromkeys(item for item in items if isinstance(item, Target)))

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """The alternatives of each block that differs, as people read them; of those with slots an example."""
        found = (element for element in self.elements if isinstance(element, Choice))
        return tuple(tuple(map(readable, (*one.alternatives, *map(_example, one.forms)))) for one in found)

    @property
    def name(self) -> str:
        """A digest of its content, so that a name never gets another content."""
        return hashlib.sha256(self.dumps().encode()).hexdigest()[:32]

    def dumps(self) -> str:
        elements: list[Any] = [
            _block_out(one)
            if isinstance(one, Block)
            else [one.alternatives, [list(map(_block_out, form)) for form in one.forms]]
            if one.forms
            else one.alternatives
            for one in self.elements
        ]
        kinds = "".join("b" if isinstance(one, Block) else "f" if one.forms else "c" for one in self.elements)
        document: list[Any] = [self.senders, self.files, kinds, elements, self.learned, self.share]
        if self.alone is not None or self.own:
            document.append(self.alone.dumps() if self.alone is not None else "")
        if self.own:
            document.append(self.own)
        return json.dumps(document, ensure_ascii=True, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> Template:
        senders, files, kinds, elements, learned, share, *rest = json.loads(text)
        alone, own = (*rest, "", ())[:2] if rest else ("", ())
        made: list[Block | Choice] = []
        for kind, value in zip(kinds, elements, strict=True):
            if kind == "b":
                made.append(_block_in(value))
                continue
            alternatives, forms = value if kind == "f" else (value, ())
            forms = tuple(tuple(map(_block_in, form)) for form in forms)
            made.append(Choice(alternatives=tuple(map(tuple, alternatives)), forms=forms))
        return cls(
            senders=tuple(senders),
            files=tuple(files),
            elements=tuple(made),
            learned=learned,
            share=share,
            own=tuple(own),
            alone=cls.loads(alone) if alone else None,
        )


def _part_fits(mine: str | Slot | Target, one: str) -> bool:
    if isinstance(mine, str):
        return mine == one
    if isinstance(mine, Target):
        return mine.matches(nested(one))
    if mine.kind == "words":
        return one in mine.values
    if mine.kind == "picture":
        return is_serial(one) and one.partition(".")[2] == mine.values[0].partition(".")[2]
    return is_segment(one) and (bool(one) or mine.empty) and mine.may_link((one,))


def _matches(elements: Sequence[Block | Choice], blocks: Sequence[Words], texts: Sequence[str]) -> bool:
    """Return whether the blocks match these elements, one after the other. Each place is tried once."""
    here = {0}
    for element in elements:
        after: set[int] = set()
        for at in here:
            if isinstance(element, Block):
                if at < len(blocks) and is_block(element, blocks[at]):
                    after.add(at + 1)
                continue
            for alternative in element.alternatives:
                if tuple(map(plain, texts[at : at + len(alternative)])) == alternative:
                    after.add(at + len(alternative))
            for form in element.forms:
                if at + len(form) <= len(blocks) and all(map(is_block, form, blocks[at : at + len(form)])):
                    after.add(at + len(form))
        here = after
        if not here:
            return False
    return len(blocks) in here


def is_block(block: Block, words: Words) -> bool:
    tokens, begins = words
    if block.fixed is not None:
        return tokens == block.fixed
    if len(tokens) == len(block.items) and not block.together and _one_by_one(block, tokens):
        return True
    return _by_lengths(block, tokens, begins)


def _by_lengths(block: Block, tokens: tuple[str, ...], begins: frozenset[int]) -> bool:
    """Return whether a block matches with some number of tokens for each slot."""
    here: set[tuple[int, tuple[str, ...]]] = {(0, ())}
    for item, behind in zip(block.runs, (*block.runs[1:], None), strict=True):
        after: set[tuple[int, tuple[str, ...]]] = set()
        for at, chosen in here:
            if isinstance(item, tuple):
                if tokens[at : at + len(item)] == item:
                    after.add((at + len(item), chosen))
            elif isinstance(item, Slot):
                for n in range(min(item.widest, len(tokens) - at) + 1):
                    if n > 1 and item.kind not in ("words", "list") and any(at + k in begins for k in range(1, n)):
                        break
                    if _goes_on(behind, tokens, at + n) and item.matches(tokens[at : at + n]):
                        more = (" ".join(tokens[at : at + n]),) if item.kind == "words" and block.together else ()
                        after.add((at + n, chosen + more))
            elif at < len(tokens) and item.matches(tokens[at]):
                after.add((at + 1, chosen))
        here = after
        if not here:
            return False
    return any(at == len(tokens) and (not block.together or chosen in block.together) for at, chosen in here)


def _one_by_one(block: Block, tokens: tuple[str, ...]) -> bool:
    """Return whether a block matches with one token for each slot, as with nearly all copies: no other lengths need be tried."""
    at = 0
    for item in block.runs:
        if isinstance(item, tuple):
            if tokens[at : at + len(item)] != item:
                return False
            at += len(item)
            continue
        if not (item.matches(tokens[at : at + 1]) if isinstance(item, Slot) else item.matches(tokens[at])):
            return False
        at += 1
    return True


def _goes_on(item: tuple[str, ...] | Slot | Target | None, tokens: Sequence[str], at: int) -> bool:
    """Return whether the tokens from ``at`` on may match this item, or the end of the block (None). A slot's value is looked at only
    if what follows fits, as it seldom does."""
    if item is None:
        return at == len(tokens)
    return not isinstance(item, tuple) or (at < len(tokens) and tokens[at] == item[0])


def _default_difference(one: Sequence[str], other: Sequence[str], begins: frozenset[int], capitals: str) -> int | None:
    """Return how many words differ in one block, without copies to learn from; None if other words than names, numbers and codes
    differ. ``capitals``: as from _capitals."""
    changed = 0
    for op, i1, i2, j1, j2 in opcodes(one, other):
        if op == "equal":
            continue
        old, new = one[i1:i2], other[j1:j2]
        if any(is_target(token) for token in (*old, *new)):
            if len(old) != len(new) or not all(map(_default_token, old, new)):
                return None
            changed += sum(not is_target(token) for token in old)
            continue
        if not old or not new or any(j in begins for j in range(j1 + 1, j2)):
            return None
        if not _may_replace(old, new) or (kind_of(old) == "name" and _is_no_name(one, i1, i2, capitals)):
            return None
        changed += max(len(old), len(new))
    return changed


def _may_replace(old: Sequence[str], new: Sequence[str]) -> bool:
    """Return whether words are names, numbers or codes that may be in the place of others, or of a placeholder."""
    kind = kind_of(old)
    if not kind_of(new) or any((is_markup(word) and len(word) > 1) or word == ITSELF for word in old):
        return False
    if not kind and not any(map(_PLACEHOLDER.search, old)):
        return False
    return links_in(new) <= (links_in(old) if kind else {"address"})  # a placeholder may be for an address


def _is_no_name(block: Sequence[str], begin: int, end: int, capitals: str) -> bool:
    """Return whether the capital letter of words does not mark a name: a sentence begins there, or the text capitalizes all nouns,
    and the words are not in a salutation. In scripts without case only a salutation or an honorific marks a name. ``capitals``: as
    from _capitals."""
    names = [
        w for w in block[begin:end] if not (w in MONTHS or w in JOINERS or w in "年月日" or is_number(w) or is_coded(w))
    ]
    if not names:
        return False  # a date
    behind = next((block[n] for n in range(end, len(block)) if not is_markup(block[n])), ",")
    before = next((block[n] for n in range(begin - 1, -1, -1) if not is_markup(block[n])), ".")
    spoken_to = behind in _SPOKEN_TO
    if all(name.lower() == name.upper() for name in names):
        addressed = spoken_to and (before in _ENDS or before in _DEAR)
        return not (addressed or behind in _HONORIFICS or before in _HONORIFICS_BEFORE)
    if not capitals:
        return False
    words = (token for token in block if not is_markup(token) and token != "<subject>")
    long = next(itertools.islice(words, _SHORT, None), None) is not None
    if capitals == "nouns":
        return not spoken_to or (long and before not in _ENDS)
    return long and before in _ENDS and not spoken_to


def _capitals(blocks: Sequence[Sequence[str]]) -> str:
    """Return what a capital letter marks in a text: the beginning of a sentence or a name ("sentences"), also a noun, as in
    German ("nouns"), or, in a text mostly in scripts without case, only a name ("")."""
    large = small = other = 0
    for block in blocks:
        for before, word in itertools.pairwise(token for token in block if not is_markup(token)):
            if word[0].isalpha() and before not in _ENDS:
                large += word[0].isupper()
                small += word[0].islower()
                other += word[0].lower() == word[0].upper()
    if other > large + small:
        return ""
    return "nouns" if large > _LARGE * (large + small) else "sentences"


def _default_token(old: str, new: str) -> bool:
    if new == OWN and old.startswith(OWN) and _PLACEHOLDER.search(old, len(OWN)):
        return True
    if not is_target(old) or not is_target(new):
        return old == new or _may_replace([old], [new])
    (base, parts), (other, theirs) = parts_of(old), parts_of(new)
    if base != other or len(parts) != len(theirs):
        return False
    picture = old.startswith(PICTURE)
    return all(
        mine == one
        or (bool(nested(mine)) and _default_token(nested(mine), nested(one)))
        or (
            _is_code(mine)
            and _is_code(one)
            and is_segment(one)
            and links_in([one]) <= links_in([mine])
            and not (picture and not in_query(parts, n))
        )
        for n, (mine, one) in enumerate(zip(parts, theirs, strict=True))
    )


def _is_code(part: str) -> bool:
    return any(c.isdigit() for c in part) or len(part) >= 12


def _example(form: Sequence[Block]) -> list[str]:
    """Return the words of an alternative, with a value that was seen in each slot."""
    items = (item for block in form for item in block.items)
    return [item if isinstance(item, str) else item.values[0] for item in items if not isinstance(item, Target)]


def _block_out(block: Block) -> Any:
    return [[_item_out(item) for item in block.items], block.together]


def _block_in(value: Any) -> Block:
    return Block(items=tuple(map(_item_in, value[0])), together=tuple(map(tuple, value[1])))


def _item_out(item: Item) -> Any:
    if isinstance(item, str):
        return item
    if isinstance(item, Slot):
        return {"s": [item.kind, item.values, item.most, item.longest, item.empty, item.known]}
    return {"t": [item.base, [_item_out(part) for part in item.parts], item.whole]}


def _item_in(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and "s" in value:
        kind, values, most, longest, empty, known = value["s"]
        return Slot(kind=kind, values=tuple(values), most=most, longest=longest, empty=empty, known=tuple(known))
    base, parts, whole = value["t"]
    return Target(base=base, parts=tuple(map(_item_in, parts)), whole=tuple(whole))
