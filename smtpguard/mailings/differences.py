"""List the differences between a message and the approved copies of its mailing, to explain why the approval does not
cover it.

This only explains. ApprovedContent and Template decide whether a message is covered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from smtpguard.locale.phrase import N_, Phrase
from smtpguard.mailings.alignment import opcodes
from smtpguard.mailings.slots import Block, Choice, Item, Slot, Target, Template
from smtpguard.mailings.tokens import (
    ITSELF,
    is_markup,
    is_target,
)
from smtpguard.reading.shown import ANOTHER_SHOWN, LINK, MANY_SHOWN, PART, Shown, as_text, tokens

FACT = "mailing.differs"
MOST_SAID = 3
_MOST_COMPARED = 600
"""The most tokens of a paragraph whose words are compared."""
_MOST_TRIED = 40
"""The most paragraphs of each side that are tried as copies, or as a changed form, of those of the other."""
_MOST_TOKENS = 100_000
"""The most tokens of all paragraphs together that are tried as copies."""
_LONG = 60

SAID: Mapping[str, str] = {
    "octets": N_(
        "A mailing like it was approved, but what it shows cannot be taken apart, so that the approval cannot cover it"
    ),
    "rules": N_("A mailing like it was approved, but this hits a rule that had not hit then"),
    "sender": N_("A mailing like it was approved with another sender"),
    "proof": N_("A mailing like it was approved where its sender was proven in another way"),
    "shown": N_("It shows everybody who gets it the addresses of many others, in To or Cc"),
    "another": N_("To names another customer than the recipient"),
    "file": N_("A file has been added to what was approved, or changed"),
    "picture": N_("A picture has been added to what was approved, or changed"),
    "paragraph": N_("A paragraph has been added to what was approved"),
    "words": N_("Words differ from what was approved, outside the places where copies may differ"),
    "many-words": N_("More words differ from what was approved than may differ from copy to copy"),
    "link": N_("A link has been added to what was approved, or goes elsewhere"),
    "subject": N_("A mailing like it was approved with another subject"),
    "address": N_("Copies to single people were approved, and this goes to a list's address"),
    "file-missing": N_("A file that was approved is missing from it"),
    "picture-missing": N_("A picture that was approved is missing from it"),
    "paragraph-missing": N_("A paragraph that was approved is missing from it"),
    "link-missing": N_("A link that was approved is missing from it"),
    "lists": N_("It goes to people for whose lists a mailing like it was not approved"),
    "people": N_("The approval of its mailing is for fewer people than it would reach by now"),
    "markup": N_("How its text is laid out, shown or hidden differs from what was approved"),
    "order": N_("It has what was approved in another order"),
}
"""A sentence for each kind of difference, without its full stop, the gravest first."""
_RANKS = {kind: n for n, kind in enumerate(SAID)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference. ``kind``: a key of SAID. ``what``: the words, name or address that differ, for readers who may see the message;
    "" for none."""

    kind: str
    what: str = ""

    @property
    def public(self) -> Phrase:
        return Phrase("{observed}.", observed=Phrase(SAID[self.kind]))

    @property
    def detail(self) -> Phrase:
        if not self.what:
            return self.public
        return Phrase('{difference}: "{what}".', difference=Phrase(SAID[self.kind]), what=self.what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """The approved content. ``template``: None if it is no longer stored. ``exact``: that content alone was approved."""

    template: Template | None
    exact: bool = False

    def differences(self, coming: Shown) -> tuple[Difference, ...]:
        return differences(self.template, coming, exact=self.exact) if self.template is not None else ()


def differences(approved: Template, coming: Shown, *, exact: bool) -> tuple[Difference, ...]:
    """Return the differences, the gravest first, each kind once; none if the message is what was approved. ``exact``: what was
    approved has no slots."""
    if coming.opaque:
        return (Difference(kind="octets"),)
    found = [*_sender(approved, coming, exact), *_files(approved.files, coming.files), *_text(approved, coming, exact)]
    if not found and not (approved.is_only(coming) if exact else approved.matches(coming)):
        found.append(Difference(kind="many-words" if not exact and not approved.learned else "order"))
    return gravest(replace(one, what=one.what.replace(ITSELF, coming.recipient)) for one in found)


def gravest(found: Iterable[Difference]) -> tuple[Difference, ...]:
    """Return the first difference of each kind, the gravest first."""
    kinds: dict[str, Difference] = {}
    for one in found:
        kinds.setdefault(one.kind, one)
    return tuple(sorted(kinds.values(), key=lambda one: _RANKS[one.kind]))


def _sender(approved: Template, coming: Shown, exact: bool) -> Iterator[Difference]:
    is_from = approved.senders.__contains__ if exact else approved.is_from
    if is_from(coming.sender):
        return
    shown = _who(coming.sender)
    if not is_from(shown) and shown not in map(_who, approved.senders):
        yield Difference(kind="sender", what=_short(shown))
    elif shown != coming.sender:
        yield Difference(kind="shown" if coming.sender.endswith(MANY_SHOWN) else "another")


def _who(sender: str) -> str:
    """Return ``Shown.sender`` without what it says of To and Cc."""
    return sender.removesuffix(MANY_SHOWN).removesuffix(ANOTHER_SHOWN)


def _files(approved: Sequence[str], coming: Sequence[str]) -> Iterator[Difference]:
    """Yield the differences of files. Each entry is type, name and digest of a file."""
    had, has = Counter(approved), Counter(coming)
    names = {_name(one) for one in has - had}
    for one in has - had:
        yield Difference(kind="picture" if one.startswith("image/") else "file", what=_short(_name(one)))
    for one in had - has:
        if _name(one) not in names:
            kind = "picture-missing" if one.startswith("image/") else "file-missing"
            yield Difference(kind=kind, what=_short(_name(one)))


def _name(file: str) -> str:
    kind, _, rest = file.partition(" ")
    return rest.rpartition(" ")[0] or kind


def _text(approved: Template, coming: Shown, exact: bool) -> Iterator[Difference]:
    """Yield the blocks that only one side has. The most similar of these are reported as changed."""
    fit = Template.fits_exactly if exact else approved.fits
    blocks = approved.blocks_in(coming)
    subject = approved.elements[0] if approved.elements else None
    if isinstance(subject, Block) and not fit(subject, blocks[0]):
        yield Difference(
            kind="subject", what=_readable([item if isinstance(item, str) else "…" for item in subject.items])
        )
    known = {
        one for each in approved.elements if isinstance(each, Choice) for some in each.alternatives for one in some
    }
    formed = [b for each in approved.elements if isinstance(each, Choice) for form in each.forms for b in form]
    left: dict[tuple[str, ...], list[str]] = {}
    for block in blocks[1:]:
        if block.startswith(PART):
            continue
        said = tuple(tokens(block))
        if "\n".join(said) not in known and not any(fit(one, block) for one in formed):
            left.setdefault(said, []).append(block)
    missing = [
        element
        for element in approved.elements[1:]
        if isinstance(element, Block)
        and not str(element.items[0]).startswith(PART)
        and not (left.get(element.fixed or ()) and left[element.fixed or ()].pop())
    ]
    added = [block for some in left.values() for block in some]
    if not exact:
        missing, added = _without_slots(missing, added, approved.fits)
    changed = _paired(missing, added)
    for element, block in changed:
        yield from _changed(element.items, tokens(block))
    elements, taken = {id(element) for element, _ in changed}, {block for _, block in changed}
    for block in added:
        if block not in taken:
            yield _whole(tokens(block), added=True)
    for element in missing:
        if id(element) not in elements:
            yield _whole([item for item in element.items if isinstance(item, str)], added=False)


def _without_slots(
    missing: Sequence[Block], added: Sequence[str], fits: Callable[[Block, str], bool]
) -> tuple[list[Block], list[str]]:
    """Return the missing and the added blocks without those that differ only as copies may."""
    left, free, budget = list[Block](), list(added), _MOST_TOKENS
    for n, element in enumerate(missing):
        same = None
        for block in free[:_MOST_TRIED] if n < _MOST_TRIED else ():
            budget -= len(element.items) + block.count("\n")
            if budget < 0:
                break
            if fits(element, block):
                same = block
                break
        if same is None:
            left.append(element)
        else:
            free.remove(same)
    return left, free


def _paired(missing: Sequence[Block], added: Sequence[str]) -> list[tuple[Block, str]]:
    """Pair blocks with those of the other side that share most words with them, in order."""
    pairs: list[tuple[Block, str]] = []
    words = [Counter(token for token in tokens(block) if not is_markup(token)) for block in added]
    free = list(range(len(added)))
    for element in missing[:_MOST_TRIED]:
        mine = Counter(item for item in element.items if isinstance(item, str) and not is_markup(item))
        scored = [(_shared(mine, words[n]), -place) for place, n in enumerate(free[:_MOST_TRIED])]
        best = max(scored, default=(0.0, 0))
        if best[0] >= 0.6:
            pairs.append((element, added[free.pop(-best[1])]))
    return pairs


def _shared(mine: Counter[str], theirs: Counter[str]) -> float:
    both = mine.total() + theirs.total()
    return 2 * (mine & theirs).total() / both if both else 1.0


def _changed(items: Sequence[Item], said: Sequence[str]) -> Iterator[Difference]:
    mine = [item if isinstance(item, str) else item.base if isinstance(item, Target) else "" for item in items]
    theirs = list(said)
    if len(mine) > _MOST_COMPARED or len(theirs) > _MOST_COMPARED:
        yield Difference(kind="words", what=_readable(theirs))
        return
    slots = [item for item in items if isinstance(item, Slot)]
    for op, i1, i2, j1, j2 in opcodes(mine, theirs):
        old, new = items[i1:i2], theirs[j1:j2]
        if op == "equal":
            continue
        targets = [token for token in new if is_target(token)]
        gone = [item for item in old if isinstance(item, str) and is_target(item)]
        targets = [t for t in targets if not any(isinstance(item, Target) and item.matches(t) for item in items)]
        for token in targets:
            yield Difference(kind="link" if token.startswith(LINK) else "picture", what=_short(token.partition(" ")[2]))
        if gone and not targets:
            yield Difference(
                kind="link-missing" if gone[0].startswith(LINK) else "picture-missing",
                what=_short(gone[0].partition(" ")[2]),
            )
        words = [token for token in new if not is_markup(token)]
        lost = [item for item in old if isinstance(item, str) and not is_markup(item)]
        if (words or lost) and not any(slot.matches(words) for slot in slots):
            yield Difference(kind="words", what=_readable(words or lost))
        elif not targets and not gone and any(token.startswith("<") for token in (*new, *map(str, old))):
            yield Difference(kind="markup")


def _whole(said: Sequence[str], *, added: bool) -> Difference:
    """Return the difference that is a block without a similar one on the other side."""
    words = _readable(said)
    if words:
        return Difference(kind="paragraph" if added else "paragraph-missing", what=words)
    target = next((token for token in said if is_target(token)), "")
    if not target:
        return Difference(kind="markup")
    kind = "link" if target.startswith(LINK) else "picture"
    return Difference(kind=kind if added else f"{kind}-missing", what=_short(target.partition(" ")[2]))


def _readable(said: Sequence[str]) -> str:
    return _short(as_text(said))


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
