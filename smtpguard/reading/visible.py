"""Find text of an HTML tree that readers do not see: by size, colour, place or style, inline, in attributes or in a
style sheet.

Sizes and colours are inherited and can be reset, so each text is judged by the nearest elements that set them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cache, partial

from selectolax.lexbor import LexborHTMLParser, LexborNode

from smtpguard.locale.phrase import Phrase
from smtpguard.reading.colours import (
    BLACK,
    CLEAR,
    LINK,
    UNKNOWN,
    WHITE,
    Colour,
    near,
)
from smtpguard.reading.request import Meter, TooComplex
from smtpguard.reading.sheets import ROOT, count_looks, rules_of, select, specificity
from smtpguard.reading.styles import PLAIN, Style, element_style, may_blend, style_of, with_variables

SMALLEST = 3.5
"""The least size of readable text, in pixels."""
_SMALLER = 0.6  # a factor of the parent's size: a few nested ones are too small
_RULES = 600
"""The most rules of all style sheets that affect visibility."""
_LONGEST_RULE = 4_000
_SIGNS = re.compile(
    r"hidden|popover|display|visibility|opacity|font|colou?r|clip|position|indent|margin|transform|mso-hide|height|width|zoom|filter"
    r"|spacing|background|padding|mask|blend|offset|translate|scale|rotate|security|-size|\btext=|\\"
)
"""Signs in a source that some of its text may be invisible."""
_SHOWS = re.compile(r"(?<![\w-])(?:display|visibility|opacity|max-height|overflow)\s*:")
"""Properties by which a later rule may show what an earlier one hides."""
_SETS = "[style],[hidden],[popover],[bgcolor],[background],font[color],body[text]"
"""Elements that set a style themselves, without a style sheet."""
_DYNAMIC = re.compile(r":{1,2}(?:hover|active|focus|visited|before|after|first-line|first-letter|selection)", re.I)
"""Selectors for what is not shown, or not at rest."""
_AT_REST = re.compile(r":not\(\s*:(?:hover|active|focus|visited)[a-z-]*\s*\)", re.I)
_LINKED = re.compile(r":(?:any-)?link\b", re.I)
_COMMA = re.compile(r",(?![^()]{0,200}\))")
_CUSTOM = re.compile(r"(--[\w\-]{1,60})\s*:\s*([^;{}]{1,100})")


@dataclass(slots=True)
class _State:
    """How text directly in an element is shown. ``covers``: elements that are put behind it are behind a background.

    It is not frozen: each element makes one, and to make a frozen one takes thrice the time.
    """

    hidden: bool = False
    visible: bool = True
    size: float = ROOT
    colour: Colour = BLACK
    back: Colour = WHITE
    covers: bool = False

    @property
    def is_seen(self) -> bool:
        return self.visible and not (
            self.hidden or self.size < SMALLEST or self.colour in (CLEAR, UNKNOWN) or near(self.colour, self.back)
        )

    def inherited_by(self, style: Style) -> _State:
        """Return the state of an element within this one that sets ``style``."""
        size = self.size if style.size is None else style.size * self.size if style.relative else style.size
        return _State(
            self.hidden or style.hides or (style.behind and self.covers),
            self.visible if style.visible is None else style.visible,
            size,
            self.colour if style.colour is None else style.colour,
            self.back if style.back is None else style.back,
            not style.layer and (self.covers or (style.back is not None and style.back != CLEAR)),
        )


def take_unseen(
    tree: LexborHTMLParser, html: str, source: str, sheets: Iterable[str], meter: Meter
) -> tuple[list[str], bool]:
    """Remove invisible text and links from ``tree``. Returns their texts, and whether the page begins with one.

    ``source``: ``html`` in lower case; ``sheets``: its style sheets. Raises TooComplex if they have too many rules.
    """
    if not _SIGNS.search(source):
        return [], False
    custom = dict(_CUSTOM.findall(html)) if "var(" in source else {}
    rules = _visibility_rules(sheets, custom, meter)
    inline = [(node, element_style(node, custom)) for node in tree.css(_SETS)]
    declared = [style for _, style in inline] + [style_of(text) for _, text in rules]
    by_colour = may_blend(declared)
    behind = any(style.behind for style in declared)
    small = any(
        style.size is not None and style.size < (_SMALLER if style.relative else SMALLEST) for style in declared
    )
    if not (by_colour or small or behind or any(style.hides or style.visible is False for style in declared)):
        return [], False
    if small and "<font" in source:  # a size attribute resets the size
        inline = [(node, element_style(node, custom)) for node in tree.css(f"{_SETS},font[size]")]
    texts: dict[int, str] = {}
    all_looks = cache(partial(count_looks, tree))
    for selector, text in rules:
        style = style_of(text)
        by_place = behind and (style.behind or style.layer or style.back)
        coloured = by_colour and (style.colour or style.back or style.aside)
        if style.hides or _SHOWS.search(text) or (small and style.size is not None) or coloured or by_place:
            for node in select(tree, selector, all_looks, meter):
                texts[node.mem_id] = f"{texts.get(node.mem_id, '')};{text}"
    own = {node.mem_id: style for node, style in inline}
    every = tree.css("*") if texts else (node for node, _ in inline)
    nodes = {id: node for node in every if (id := node.mem_id) in own or id in texts}
    styles = {
        id: own[id] if id in own and id not in texts else element_style(node, custom, texts.get(id, ""))
        for id, node in nodes.items()
    }
    doomed = _invisible_nodes(nodes, styles, meter)
    found = [text for node in doomed if (text := node.text(separator="")).strip()]
    begins = bool(found) and _begins_within(tree, {node.mem_id for node in doomed})
    for node in reversed(doomed):
        node.decompose()
    return found, begins


def _invisible_nodes(nodes: Mapping[int, LexborNode], styles: Mapping[int, Style], meter: Meter) -> list[LexborNode]:
    """Return the nodes that readers do not see. ``nodes``: those that set a style, from the top, each by its id;
    ``styles``: theirs."""
    states: dict[int, _State] = {}
    doomed: list[LexborNode] = []
    for n, (id, node) in enumerate(nodes.items()):
        if not n % 256:
            meter.look_at_the_clock()
        around = _state_around(node, states)
        style = _style_in_place(node, styles[id])
        whole = node.tag in ("body", "html")
        state = states[id] = around.inherited_by(replace(style, hides=False) if whole and style.hides else style)
        if whole:  # their background is behind everything
            state.covers = False
        if not state.is_seen and around.is_seen:
            doomed += _invisible_within(node, state, styles)
    return doomed


def _begins_within(tree: LexborHTMLParser, ids: Set[int]) -> bool:
    """Return whether the first words of the page stand within one of these nodes."""
    every = tree.body.traverse(include_text=True) if tree.body is not None else ()
    node = next((n for n in every if n.tag == "-text" and (n.text_content or "").strip()), None)
    while node is not None and node.mem_id not in ids:
        node = node.parent
    return node is not None


def _state_around(node: LexborNode, states: Mapping[int, _State]) -> _State:
    """Return the state that an element inherits."""
    parent = node.parent
    while parent is not None:
        state = states.get(parent.mem_id)
        if state is not None:
            return state
        parent = parent.parent
    return _State()


def _invisible_within(node: LexborNode, state: _State, styles: Mapping[int, Style]) -> list[LexborNode]:
    """Return the invisible nodes of an element: all of it, or its texts and links unless an inner element resets
    them."""
    if state.hidden:
        return [node]
    found: list[LexborNode] = []
    within = [(node, state)]
    while within:
        element, how = within.pop()
        for child in element.iter(include_text=True):
            if child.tag == "-text":
                found.append(child)
                continue
            inner = how.inherited_by(_style_in_place(child, styles.get(child.mem_id, PLAIN)))
            if inner.is_seen:
                continue
            if inner.hidden or (child.tag == "a" and _childless(child)):
                found.append(child)
            else:
                within.append((child, inner))
    if node.tag == "a" and _childless(node):
        return [node]
    return found


def _style_in_place(node: LexborNode, style: Style) -> Style:
    """Complete a style by its place: a link without a colour is blue, and an element that is moved may be on a
    picture nearby."""
    if node.tag == "a" and style.colour is None and "href" in node.attributes:
        style = replace(style, colour=LINK)
    beside = node.parent if style.aside and style.back is None else None
    if beside is not None and beside.css_first("img,video,picture,input[type=image]") is not None:
        style = replace(style, back=CLEAR)
    return style


def _childless(node: LexborNode) -> bool:
    return next(iter(node.iter()), None) is None


def _visibility_rules(sheets: Iterable[str], custom: Mapping[str, str], meter: Meter) -> list[tuple[str, str]]:
    """Return the rules that affect visibility, by specificity: pairs of a selector and its declarations."""
    found: list[tuple[str, str]] = []
    for sheet in sheets:
        for selectors, declarations in rules_of(sheet):
            text = with_variables(declarations[:_LONGEST_RULE].strip(), custom).lower()
            if not _SIGNS.search(text) or (style_of(text) == PLAIN and not _SHOWS.search(text)):
                continue
            selectors = _LINKED.sub("[href]", _AT_REST.sub("", selectors)) if ":" in selectors else selectors
            for selector in _COMMA.split(selectors):
                if not _DYNAMIC.search(selector) and selector.strip():
                    found.append((selector.strip(), text))
        if len(found) > _RULES:
            raise TooComplex(Phrase("its style sheets have more than {n} rules", n=_RULES))
        meter.look_at_the_clock()
    return sorted(found, key=specificity)  # of equal weight the last counts
