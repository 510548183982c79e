"""In what the copies of one mailing differ from person to person: learned from those that wait, and asked of one that comes.

A copy is what was approved if it has every block of it, in order, word by word, and differs only in slots: names, numbers, codes,
and single parts of links. A block that differs otherwise is covered as one of the alternatives that were among the copies, and so
before the approver's eyes. The files, From, and the hosts of links and pictures never differ.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from smtpguard.policy.alignment import opcodes, stretches
from smtpguard.reading.shown import LINK, PICTURE, POINT, Shown

MOST_WORDS = 6
"""Words of one slot."""
MOST_ALTERNATIVES = 20
"""Of one block, or of words in it: more than that nobody looks through."""
MOST_KNOWN = 60
"""Words of a list in each copy that are known, beside numbers."""
SHARE = 0.05
AT_LEAST = 8
"""Before there are copies to learn from, this share of the words may differ, or so many."""
_SAMPLES = 5

T = TypeVar("T", bound=Hashable)
_WORD = 40
_CODE = 64
_SEGMENT = 600
_TARGET = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//[^/?#]*|[a-z][a-z0-9+.-]*:", re.I)
_PLAIN_SEGMENT = re.compile(r"[\w\-.~%+*,:@!$|()]*\Z")
_ELSEWHERE = re.compile(r"://|%3a(?:%2f|//)|\bwww\.|%252f", re.I)
_CODED = re.compile(r"[\w@./+:#=~%-]{1,64}\Z")
_NUMBER = re.compile(r"[-+]?[\d.,:/%'’-]*\d[\d.,:/%'’-]*\Z")
_PARTICLES = frozenset([
    "af", "av", "von", "van", "de", "der", "den", "del", "della", "di", "da", "do", "dos", "du", "la", "le", "el", "al",
    "bin", "bint", "ibn", "ben", "y", "e", "och", "and", "und", "et", "ja"
])  # fmt: skip
_MONTHS = frozenset([
    "januari", "februari", "mars", "april", "maj", "juni", "juli", "augusti", "september", "oktober", "november",
    "december", "januar", "februar", "marts", "mai", "august", "desember", "janvier", "février", "avril", "juin", "juillet",
    "août", "septembre", "octobre", "novembre", "décembre", "enero", "febrero", "marzo", "mayo", "junio", "julio", "agosto",
    "septiembre", "octubre", "noviembre", "diciembre", "gennaio", "aprile", "maggio", "giugno", "luglio", "settembre",
    "ottobre", "dicembre", "januari", "maart", "mei", "augustus", "tammikuuta", "helmikuuta", "maaliskuuta", "huhtikuuta",
    "toukokuuta", "kesäkuuta", "heinäkuuta", "elokuuta", "syyskuuta", "lokakuuta", "marraskuuta", "joulukuuta", "kl", "uhr"
])  # fmt: skip
_JOINERS = frozenset((".", ",", "-", "'", "’", "&", "/", ":", "(", ")", "+", "#", "№", "€", "$", "£"))
_ENDS = frozenset((".", "!", "?", ":", "…", "<subject>", "。", "！", "？"))
_SPOKEN_TO = frozenset((",", "!", ":", "，", "！", "："))
_HONORIFICS, _HONORIFICS_BEFORE = frozenset("様殿氏さ先女小님씨"), frozenset("ณ")
"""What stands behind and before names in scripts without capital letters and spaces, by its first and last character."""
_DEAR = frozenset("的爱親")
_SHORT = 12
"""Words of a line in which one speaks to somebody."""
_LARGE = 0.15
_PLACEHOLDER = re.compile(r"[\[{%*|<_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """``kind``: name, number or code; list: numbers among words that were seen; words: one of ``values``, which were seen. Of the other
    kinds ``values`` are some that were seen. ``most`` and ``longest``: words, and characters of one, at most; ``empty``: it may be
    missing. ``known``: words that may stand in it beside what its kind says."""

    kind: str
    values: tuple[str, ...]
    most: int = 1
    longest: int = _WORD
    empty: bool = False
    known: tuple[str, ...] = ()

    @property
    def widest(self) -> int:
        """Words that it may have: the particles of a name do not count."""
        return MOST_WORDS if self.kind == "name" else self.most

    def takes_in(self, words: Sequence[str]) -> bool:
        if self.kind == "words":
            return " ".join(words) in self.values
        if not words:
            return self.empty
        counted = [w for w in words if w.lower() not in _PARTICLES] if self.kind == "name" else words
        if len(counted) > self.most or any(len(word) > self.longest for word in words):
            return False
        if self.kind == "list":
            return all(unit in self.known or kind_of([unit]) in ("number", "code") for unit in _units(words))
        kind = kind_of(words, self.known)
        return bool(kind) and (self.kind == "name" or kind == self.kind or (self.kind, kind) == ("code", "number"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A link or picture whose parts may differ. ``base``: kind, scheme and host; ``parts``: of path and query, each as it is, or a
    slot. ``whole``: the targets that were seen, where they differ in more than single parts."""

    base: str
    parts: tuple[str | Slot, ...] = ()
    whole: tuple[str, ...] = ()

    def takes_in(self, token: str) -> bool:
        if token in self.whole:
            return True
        base, parts = _taken_apart(token)
        if base != self.base or len(parts) != len(self.parts):
            return False
        return all(_part_fits(mine, one) for mine, one in zip(self.parts, parts, strict=True))


Item = str | Slot | Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """``together``: what was seen in its slots of words, each time in all of them; where there is more than one."""

    items: tuple[Item, ...]
    together: tuple[tuple[str, ...], ...] = ()

    @property
    def fixed(self) -> tuple[str, ...] | None:
        """Its tokens, where copies do not differ in it."""
        fixed = tuple(item for item in self.items if isinstance(item, str))
        return fixed if len(fixed) == len(self.items) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Blocks that are one of several alternatives; an empty one: they may be missing."""

    alternatives: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """``senders``: From as it is shown, of each who wrote some. ``learned``: from how many copies beside the first; 0: ``share`` of the
    words may differ, or AT_LEAST."""

    senders: tuple[str, ...]
    files: tuple[str, ...]
    elements: tuple[Block | Choice, ...]
    learned: int = 0
    share: float = SHARE
    alone: Template | None = None
    """What the first alone lets differ, where the others are versions that people approved each by itself."""

    def takes_in(self, shown: Shown) -> bool:
        if shown.opaque or shown.sender not in self.senders or shown.files != self.files:
            return False
        if self.alone is not None and self.alone.takes_in(shown):
            return True
        blocks = blocks_of(shown)
        if not self.learned:
            return self._by_default(blocks)
        return _matches(self.elements, [_split(block) for block in blocks], [_plain(block) for block in blocks])

    def _by_default(self, blocks: Sequence[str]) -> bool:
        mine = [[str(item) for item in one.items] for one in self.elements if isinstance(one, Block)]
        theirs = [_split(block)[0] for block in blocks]
        if len(mine) != len(theirs):
            return False
        budget = self.words_at_most
        capitals = _capitals(mine)
        for one, (other, begins) in zip(mine, map(_split, blocks), strict=True):
            if one == other:
                continue
            changed = _default_difference(one, other, begins, capitals)
            if changed is None:
                return False
            budget -= changed
            if budget < 0:
                return False
        return True

    def fits(self, element: Block, block: str) -> bool:
        """Whether one block of a copy is this one of the template, how many words differ in all of them aside."""
        if self.learned:
            return _is_block(element, _split(block))
        tokens, begins = _split(block)
        mine = [str(item) for item in element.items]
        return mine == tokens or _default_difference(mine, tokens, begins, "") is not None

    def is_only(self, shown: Shown) -> bool:
        """Whether it is the very content of which no copies were seen."""
        mine = [list(one.items) for one in self.elements if isinstance(one, Block)]
        same = [_split(block)[0] for block in blocks_of(shown)] == mine
        return same and shown.sender in self.senders and shown.files == self.files

    @staticmethod
    def fits_exactly(element: Block, block: str) -> bool:
        return list(element.items) == _split(block)[0]

    @property
    def words_at_most(self) -> int:
        """So many words may differ, where there were no copies to learn from."""
        return max(AT_LEAST, int(self.share * self.words))

    @property
    def words(self) -> int:
        """Of the first, markup and links aside."""
        items = (item for one in self.elements if isinstance(one, Block) for item in one.items)
        return sum(isinstance(item, str) and not is_markup(item) for item in items)

    @property
    def slots(self) -> tuple[tuple[str, Slot], ...]:
        """Each with the words before it."""
        found: list[tuple[str, Slot]] = []
        for element in self.elements:
            if isinstance(element, Block):
                words: list[str] = []
                for item in element.items:
                    if isinstance(item, Slot):
                        found.append((" ".join(words[-3:]), item))
                        words = []
                    elif isinstance(item, str) and not is_markup(item) and item != "<subject>":
                        words = [*words, item] if any(map(str.isalnum, item)) else []
        return tuple(found)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Links and pictures that differ."""
        items = (item for element in self.elements if isinstance(element, Block) for item in element.items)
        return tuple(dict.fromkeys(item for item in items if isinstance(item, Target)))

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """The alternatives of each block that differs, as people read them."""
        found = (element for element in self.elements if isinstance(element, Choice))
        return tuple(tuple(_readable(alternative) for alternative in one.alternatives) for one in found)

    @property
    def name(self) -> str:
        """By what it says, so that it never changes under its name."""
        return hashlib.sha256(self.dumps().encode()).hexdigest()[:32]

    def dumps(self) -> str:
        elements: list[Any] = [
            list(map(list, one.alternatives))
            if isinstance(one, Choice)
            else [[_item_out(i) for i in one.items], one.together]
            for one in self.elements
        ]
        kinds = "".join("c" if isinstance(one, Choice) else "b" for one in self.elements)
        document: list[Any] = [self.senders, self.files, kinds, elements, self.learned, self.share]
        if self.alone is not None:
            document.append(self.alone.dumps())
        return json.dumps(document, ensure_ascii=True, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> Template:
        senders, files, kinds, elements, learned, share, *alone = json.loads(text)
        made: list[Block | Choice] = []
        for kind, value in zip(kinds, elements, strict=True):
            if kind == "c":
                made.append(Choice(alternatives=tuple(map(tuple, value))))
            else:
                made.append(Block(items=tuple(map(_item_in, value[0])), together=tuple(map(tuple, value[1]))))
        return cls(
            senders=tuple(senders),
            files=tuple(files),
            elements=tuple(made),
            learned=learned,
            share=share,
            alone=cls.loads(alone[0]) if alone else None,
        )


def learn(first: Shown, copies: Iterable[Shown], share: float = SHARE) -> Template:
    """What ``first`` and those of ``copies`` that have its files have in common. One that could not be taken apart, or has another
    file, teaches nothing."""
    base = blocks_of(first)
    alike = [c for c in copies if not c.opaque and c.files == first.files]
    senders = tuple(dict.fromkeys((first.sender, *(c.sender for c in alike))))
    others = [blocks_of(c) for c in alike]
    if not others:
        elements: tuple[Block | Choice, ...] = tuple(Block(items=tuple(_split(block)[0])) for block in base)
        return Template(senders=senders, files=first.files, elements=elements, share=share)
    maps = [_aligned(tuple(base), tuple(other)) for other in others]
    made: list[Block | Choice] = []
    whole = [*(range(len(base)),), *maps]  # where each block of the first is in each, or -1
    blocks = [base, *others]
    ends = [-1] * len(blocks)  # the last block that was taken of each
    frames = [n for n in range(len(base)) if all(m[n] >= 0 for m in whole)]
    for n in [*frames, len(base)]:
        places = [m[n] if n < len(base) else len(b) for m, b in zip(whole, blocks, strict=True)]
        between = [tuple(map(_plain, b[end + 1 : place])) for b, end, place in zip(blocks, ends, places, strict=True)]
        if any(between):
            made += _chosen(between)
        if n < len(base):
            made.append(_block([b[place] for b, place in zip(blocks, places, strict=True)]))
        ends = places
    return Template(senders=senders, files=first.files, elements=tuple(made), learned=len(others), share=share)


def _chosen(seen: Sequence[tuple[str, ...]]) -> Iterator[Block | Choice]:
    """Those that were seen most often, if they are too many; where each has the same number of blocks with the same markup, what
    these have in common."""
    if len(set(seen)) > MOST_ALTERNATIVES and len(set(map(len, seen))) == 1:
        columns = list(zip(*seen, strict=True))
        if all(
            len({tuple(filter(_is_tag, map(_key, block.split("\n")))) for block in column}) == 1 for column in columns
        ):
            yield from map(_block, columns)
            return
    yield Choice(alternatives=_often(seen))


def _block(seen: Sequence[str]) -> Block:
    """Of one block as all copies have it. Where what differs are more combinations of words than anybody looks through, the stretch
    from the first of them to the last is taken as one, if it is a list."""
    first, _ = _split(seen[0])
    if all(one == seen[0] for one in seen):
        return Block(items=tuple(first))
    texts = [_split(one) for one in seen]
    keys = tuple(map(_key, first))
    maps = [_tokens_aligned(keys, tuple(map(_key, tokens))) for tokens, _ in texts]
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
    """What stands between the tokens of the first that all have; and whether more words were seen in it than it says."""
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


def _slot(values: Sequence[tuple[list[str], bool]]) -> Slot:
    """Free where what was seen are names, numbers or codes of many; otherwise one of what was seen."""
    said = [" ".join(value) for value, _ in values]
    distinct = tuple(dict.fromkeys(said))
    some = [value for value, _ in values if value]
    broken = any(broken for _, broken in values)
    small = tuple(dict.fromkeys(w for value in some for w in value if not _is_free(w)))
    most, longest = max(map(len, some)), max(len(word) for value in some for word in value)
    room = min(_CODE, longest + max(4, longest // 4))
    empty, many = len(some) < len(values), len(distinct) >= max(2, -(-len(values) // 5))
    if many and not broken and most <= MOST_WORDS and 2 * len(small) <= len(values) and len(small) <= MOST_ALTERNATIVES:
        kinds = {kind_of(value, small) for value in some}
        if "" not in kinds:
            kind = kinds.pop() if len(kinds) == 1 else "code" if kinds <= {"number", "code"} else "name"
            if kind == "name":
                most = max(sum(w.lower() not in _PARTICLES for w in value) for value in some)
            return Slot(
                kind=kind,
                values=distinct[:_SAMPLES],
                most=min(MOST_WORDS, most + 1),
                longest=room,
                empty=empty,
                known=small,
            )
    if len(distinct) > MOST_ALTERNATIVES:
        units = dict.fromkeys(u for value in some for u in _units(value) if kind_of([u]) not in ("number", "code"))
        if len(units) <= MOST_KNOWN and 2 * len(units) <= len(values):
            return Slot(
                kind="list",
                values=distinct[:_SAMPLES],
                most=most + most // 3,
                longest=room,
                empty=empty,
                known=tuple(units),
            )
    often = _often(said)
    return Slot(kind="words", values=often, most=max(len(one.split()) for one in often), empty="" in often)


def _often(said: Sequence[T]) -> tuple[T, ...]:
    """The first, and those that were seen most often."""
    counted = Counter(said)
    return tuple(sorted(counted, key=lambda one: (one != said[0], -counted[one]))[:MOST_ALTERNATIVES])


def _target(seen: Sequence[str]) -> Item:
    """A token that all have; of a link, the parts that differ."""
    if not is_target(seen[0]) or all(one == seen[0] for one in seen):
        return seen[0]
    apart = [_taken_apart(one) for one in seen]
    base, parts = apart[0]
    if any(len(p) != len(parts) for _, p in apart):
        distinct = tuple(dict.fromkeys(seen))
        return Target(base=base, whole=distinct[:MOST_ALTERNATIVES])  # no target has no parts
    picture = seen[0].startswith(PICTURE)
    made: list[str | Slot] = []
    for n, mine in enumerate(parts):
        theirs = [p[n] for _, p in apart]
        distinct = tuple(dict.fromkeys(theirs))
        if len(distinct) == 1:
            made.append(mine)
            continue
        free = all(map(_is_segment, theirs)) and len(distinct) >= max(2, -(-len(seen) // 5))
        if free and not (picture and not _in_query(parts, n)):
            made.append(Slot(kind="code", values=distinct[:_SAMPLES], empty="" in distinct))
        else:
            made.append(Slot(kind="words", values=distinct[:MOST_ALTERNATIVES]))
    return Target(base=base, parts=tuple(made))


def _part_fits(mine: str | Slot, one: str) -> bool:
    if isinstance(mine, str):
        return mine == one
    if mine.kind == "words":
        return one in mine.values
    return _is_segment(one) and (bool(one) or mine.empty)


# -- one copy


Words = tuple[list[str], frozenset[int]]
"""The tokens of a block, and which of them begin a line."""


def _matches(elements: Sequence[Block | Choice], blocks: Sequence[Words], plain: Sequence[str]) -> bool:
    """Whether the blocks are these elements, one after the other; each place is looked at once."""
    here = {0}
    for element in elements:
        after: set[int] = set()
        for at in here:
            if isinstance(element, Block):
                if at < len(blocks) and _is_block(element, blocks[at]):
                    after.add(at + 1)
                continue
            for alternative in element.alternatives:
                if tuple(plain[at : at + len(alternative)]) == alternative:
                    after.add(at + len(alternative))
        here = after
        if not here:
            return False
    return len(blocks) in here


def _is_block(block: Block, words: Words) -> bool:
    (tokens, begins), items = words, block.items
    if not any(isinstance(item, (Slot, Target)) for item in items):
        return list(items) == tokens
    here: set[tuple[int, tuple[str, ...]]] = {(0, ())}
    for item in items:
        after: set[tuple[int, tuple[str, ...]]] = set()
        for at, chosen in here:
            if isinstance(item, Slot):
                for n in range(min(item.widest, len(tokens) - at) + 1):
                    value = tokens[at : at + n]
                    if item.kind not in ("words", "list") and any(at + k in begins for k in range(1, n)):
                        break
                    if item.takes_in(value):
                        more = (" ".join(value),) if item.kind == "words" and block.together else ()
                        after.add((at + n, chosen + more))
            elif at < len(tokens) and (item.takes_in(tokens[at]) if isinstance(item, Target) else item == tokens[at]):
                after.add((at + 1, chosen))
        here = after
        if not here:
            return False
    return any(at == len(tokens) and (not block.together or chosen in block.together) for at, chosen in here)


def _default_difference(one: Sequence[str], other: Sequence[str], begins: frozenset[int], capitals: str) -> int | None:
    """How many words differ in one block, before there are copies; None where it is more than names, numbers and codes. ``capitals``:
    as _capitals has it."""
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
        if not (kind_of(new) and (kind_of(old) or any(map(_PLACEHOLDER.search, old)))):
            return None
        if kind_of(old) == "name" and _is_no_name(one, i1, i2, capitals):
            return None
        changed += max(len(old), len(new))
    return changed


def _is_no_name(block: Sequence[str], begin: int, end: int, capitals: str) -> bool:
    """Whether the capital letter of a word of one block tells nothing: since a sentence begins there, or since the text writes all nouns
    so; unless it stands as one speaks to somebody, as a name must where there are no such letters. ``capitals``: as _capitals has it."""
    words = [token for token in block if not is_markup(token) and token != "<subject>"]
    names = [
        w
        for w in block[begin:end]
        if not (w in _MONTHS or w in _JOINERS or w in "年月日" or _is_number(w) or _is_coded(w))
    ]
    if not names:
        return False  # a date
    behind = next((token for token in block[end:] if not is_markup(token)), ",")
    before = next((token for token in reversed(block[:begin]) if not is_markup(token)), ".")
    spoken_to = behind in _SPOKEN_TO
    if all(name.lower() == name.upper() for name in names):
        addressed = spoken_to and (before in _ENDS or before in _DEAR)
        return not (addressed or behind in _HONORIFICS or before in _HONORIFICS_BEFORE)
    if not capitals:
        return False
    if capitals == "nouns":
        return not spoken_to or (len(words) > _SHORT and before not in _ENDS)
    return len(words) > _SHORT and before in _ENDS and not spoken_to


def _capitals(blocks: Sequence[Sequence[str]]) -> str:
    """What a capital letter tells in a text: that a sentence begins or a name ("sentences"), also that it is a noun, as in German
    ("nouns"), or, where hardly a letter is one or the other, a name ("")."""
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
    if not is_target(old) or not is_target(new):
        return old == new or bool(kind_of([old]) and kind_of([new]))
    (base, parts), (other, theirs) = _taken_apart(old), _taken_apart(new)
    if base != other or len(parts) != len(theirs):
        return False
    picture = old.startswith(PICTURE)
    return all(
        mine == one
        or (_is_code(mine) and _is_code(one) and _is_segment(one) and not (picture and not _in_query(parts, n)))
        for n, (mine, one) in enumerate(zip(parts, theirs, strict=True))
    )


def _is_code(part: str) -> bool:
    return any(c.isdigit() for c in part) or len(part) >= 12


# -- words


def kind_of(words: Sequence[str], known: Sequence[str] = ()) -> str:
    """Number, code or name, if all of a value is such; otherwise "". ``known``: words that may stand in a name."""
    if not 0 < len(words) <= MOST_WORDS:
        return ""
    if all(_is_number(word) for word in words):
        return "number"
    if len(words) == 1 and _is_coded(words[0]):
        return "code"
    unspaced = sum(
        len(word) for word in words if word not in known and not word.isascii() and word.lower() == word.upper()
    )
    free = all(_is_free(w) or w in known or (n and w.lower() in _PARTICLES) for n, w in enumerate(words))
    return "name" if unspaced <= 8 and free and not all(w in _JOINERS for w in words) else ""


def _is_number(word: str) -> bool:
    return len(word) <= 20 and _NUMBER.match(word) is not None


def _is_coded(word: str) -> bool:
    return _CODED.match(word) is not None and (any(c.isdigit() for c in word) or "@" in word)


def _is_free(word: str) -> bool:
    """A number, a code, or what may be a name: with a capital letter at its beginning, in scripts that have them."""
    if is_markup(word) or len(word) > _CODE:
        return False
    if word in _JOINERS or word in _MONTHS or _is_number(word) or _is_coded(word):
        return True
    letters = word.strip(".'’-")
    if not letters or not all(_is_letter(c) or c in "-'’.&" for c in letters):
        return False
    return letters[0].isupper() or letters[0].lower() == letters[0].upper()


def _is_letter(character: str) -> bool:
    """Or what is set on one."""
    return unicodedata.category(character)[0] in "LM"


def _units(words: Sequence[str]) -> list[str]:
    """With characters of scripts without spaces put together."""
    made: list[str] = []
    joined = False
    for word in words:
        alone = len(word) == 1 and not word.isascii() and _is_letter(word) and word.lower() == word.upper()
        if alone and joined:
            made[-1] += word
        else:
            made.append(word)
        joined = alone
    return made


def is_markup(token: str) -> bool:
    return token.startswith("<") or is_target(token)


def is_target(token: str) -> bool:
    return token.startswith((LINK, PICTURE, POINT))


def _key(token: str) -> str:
    """By which tokens of two copies are the same: of links what never differs."""
    return _taken_apart(token)[0] if is_target(token) else token


@lru_cache(maxsize=4096)
def _taken_apart(token: str) -> tuple[str, tuple[str, ...]]:
    """Kind, scheme and host; and the parts of path and query, the "=" that fill up a code left out. A mail address as the host of what
    is addressed."""
    kind, _, target = token.partition(" ")
    found = _TARGET.match(target)
    base = found[0] if found else ""
    rest = target[len(base) :]
    if base.lower() == "mailto:":
        local, at, behind = rest.partition("@")
        domain, query, more = behind.partition("?")
        base, rest = f"{base}{at}{domain.lower()}", f"/{local}{query}{more}"
    parts = re.split(r"([/?&=#;])", re.sub(r"(?:=|%3D)+(?=&|#|\Z)", "", rest))
    return f"{kind} {base.lower()}", tuple(parts)


def _is_segment(part: str) -> bool:
    return len(part) <= _SEGMENT and _PLAIN_SEGMENT.match(part) is not None and _ELSEWHERE.search(part) is None


def _in_query(parts: Sequence[str], n: int) -> bool:
    return "?" in parts[:n]


# -- blocks


def blocks_of(shown: Shown) -> list[str]:
    """The subject, and what stands under it."""
    return ["\n".join(("<subject>", shown.subject)) if shown.subject else "<subject>", *shown.blocks]


@lru_cache(maxsize=8192)
def _split_cached(block: str) -> tuple[tuple[str, ...], frozenset[int]]:
    tokens: list[str] = []
    begins: set[int] = set()
    for token in block.split("\n"):
        if token:
            tokens.append(token)
        else:
            begins.add(len(tokens))
    return tuple(tokens), frozenset(begins)


def _split(block: str) -> Words:
    tokens, begins = _split_cached(block)
    return list(tokens), begins


def _plain(block: str) -> str:
    return "\n".join(_split_cached(block)[0])


def _aligned(base: tuple[str, ...], other: tuple[str, ...]) -> list[int]:
    """Where each block of the first is in the other, -1 where it is not."""
    found = [-1] * len(base)
    for op, i1, i2, j1, j2 in opcodes([_plain(b) for b in base], [_plain(b) for b in other]):
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
    """Whether two blocks are one block with slots: the same markup, and hardly anything else that differs than values of slots."""
    mine, theirs = _split_cached(one)[0], _split_cached(other)[0]
    if [t for t in map(_key, mine) if _is_tag(t)] != [t for t in map(_key, theirs) if _is_tag(t)]:
        return False
    a, b = [_key(t) for t in mine], [_key(t) for t in theirs]
    same, short = 0, True
    for op, i1, i2, j1, j2 in opcodes(a, b):
        if op == "equal":
            same += sum(not _is_tag(t) for t in a[i1:i2])
        else:
            short = short and all(not some or kind_of(some) for some in (a[i1:i2], b[j1:j2]))
    return short or 2 * same >= max(sum(not _is_tag(t) for t in a), sum(not _is_tag(t) for t in b))


def _is_tag(token: str) -> bool:
    return token.startswith(("<", "@"))


@lru_cache(maxsize=8192)
def _tokens_aligned(base: tuple[str, ...], other: tuple[str, ...]) -> list[int]:
    found = [-1] * len(base)
    for i, j, n in stretches(base, other):
        found[i : i + n] = range(j, j + n)
    return found


def _readable(blocks: Sequence[str]) -> str:
    return " ".join(token for block in blocks for token in block.split("\n") if token and not token.startswith("<"))


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
