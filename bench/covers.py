"""For ``python -m bench --mailings``: what an approval of generated campaigns covers, of true copies and of altered
ones.

Of each template some copies wait at the approval. What is learned from them is then tried on later copies and on
altered ones: with an added file, picture or paragraph, hidden or small text, another link, subject or From, or one
changed word that all copies share. The same is tried on an approval without copies (``beforehand``), which lets only a
few words differ.
"""

from __future__ import annotations

import base64
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.campaigns import WORDS, Person, Template
from smtpguard.mail.message import Message
from smtpguard.mailings import slots
from smtpguard.mailings.slotlearning import learn
from smtpguard.reading.shown import Shown, shown_by

_LETTERS = re.compile(r"[^\W\d_]{4,}")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u4e00-\u9fff]")
_INTERNAL = "Lisa, the complaints of these customers stay between us until the board has met."
_PDF = base64.encodebytes(b"%PDF-1.7 " + bytes(200)).decode().replace("\n", "\r\n")


@dataclass(slots=True)
class Figures:
    true: int = 0
    covered: int = 0
    altered: int = 0
    passed: int = 0
    seconds: float = 0.0
    which: Counter[str] = field(default_factory=Counter)
    """Altered copies that were covered, by alteration and template."""
    missed: Counter[str] = field(default_factory=Counter)
    """True copies that were not covered, by template."""

    def said(self, of: str) -> str:
        share = 100 * self.covered / max(1, self.true)
        which = ", ".join(f"{name}: {n}" for name, n in self.which.most_common(8))
        missed = ", ".join(f"{name}: {n}" for name, n in self.missed.most_common(8))
        return (
            f"{of}: covers {share:.3f} % of {self.true} true copies{f' ({missed})' if missed else ''}, and {self.passed} of "
            f"{self.altered} altered ones{f' ({which})' if which else ''}; {1e6 * self.seconds / max(1, self.true + self.altered):.0f} us each"
        )


def measured(
    templates: Sequence[Template], copies: int, waiting: int, seed: int, altered: int
) -> tuple[Figures, Figures]:
    """``altered``: the number of altered copies of all templates together."""
    learned, beforehand = Figures(), Figures()
    each = max(1, -(-altered // len(templates)))
    for template in templates:
        draw = random.Random(f"{seed} covers {template.name}")

        def one(template: Template = template, draw: random.Random = draw) -> bytes:
            return template.copy(Person.drawn(draw), draw)

        first, *others = [shown_by(Message.of(one())) for _ in range(waiting + 1)]
        by_copies, alone = learn(first, others), learn(first, ())
        for _ in range(copies):
            shown = shown_by(Message.of(one()))
            for figures, approved in ((learned, by_copies), (beforehand, alone)):
                took = _asked(figures, approved, shown)
                figures.true += 1
                figures.covered += took
                if not took:
                    figures.missed[template.name] += 1
        common = _common([one() for _ in range(12)])
        ways = [*ALTERATIONS.items(), *[("a single word", _word(common))] * len(ALTERATIONS)]
        done = n = 0
        while done < each and n < 4 * each:
            name, alter = ways[n % len(ways)]
            raw = one()
            changed = alter(raw, draw)
            n += 1
            if changed == raw:
                continue
            done += 1
            shown = shown_by(Message.of(changed))
            for figures, approved in ((learned, by_copies), (beforehand, alone)):
                figures.altered += 1
                if _asked(figures, approved, shown):
                    figures.passed += 1
                    figures.which[f"{name} {template.name}"] += 1
    return learned, beforehand


def _asked(figures: Figures, approved: slots.Template, shown: Shown) -> bool:
    began = time.process_time()
    took = approved.matches(shown)
    figures.seconds += time.process_time() - began
    return took


def _common(copies: Sequence[bytes]) -> list[str]:
    """Words in the body of every copy."""
    bodies = [raw.partition(b"\r\n\r\n")[2].decode() for raw in copies]
    found = [set(_LETTERS.findall(body)) for body in bodies]
    known = {word for languages in WORDS.values() for words in languages for word in re.split(r"[\s|{}0-9-]+", words)}
    unspaced = {word for word in known if len(word) > 1 and _UNSPACED.search(word)}
    return sorted(
        word for word in known if (word in unspaced and all(word in b for b in bodies)) or all(word in f for f in found)
    )


def _word(common: Sequence[str]) -> Callable[[bytes, random.Random], bytes]:
    def alter(raw: bytes, draw: random.Random) -> bytes:
        if not common:
            return raw
        head, _, body = raw.partition(b"\r\n\r\n")
        old, new = draw.choice(common), draw.choice(("whisky", "Fleisch", "bacon", "hemligt", "Lisa"))
        whole = re.escape(old) if _UNSPACED.search(old) else rf"(?<![\w@./]){re.escape(old)}(?![\w@./=])"
        return head + b"\r\n\r\n" + re.sub(whole, new, body.decode(), count=1).encode()

    return alter


def _in_html(raw: bytes, old: str, new: str) -> bytes:
    return raw.replace(old.encode(), new.encode(), 1)


def _above(what: str) -> Callable[[bytes, random.Random], bytes]:
    """Insert at the top of the HTML; in plain text, as the first paragraph."""

    def alter(raw: bytes, draw: random.Random) -> bytes:
        if b"<body>" in raw:
            return _in_html(raw, "<body>", f"<body>{what}")
        head, _, body = raw.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n" + f"{_INTERNAL}\r\n\r\n".encode() + body

    return alter


def _below(raw: bytes, draw: random.Random) -> bytes:
    if b"</body>" in raw:
        return _in_html(raw, "</body>", f"<p>{_INTERNAL}</p></body>")
    return raw + f"\r\n{_INTERNAL}\r\n".encode()


def _replaced(raw: bytes, draw: random.Random) -> bytes:
    paragraphs = raw.split(b"\r\n\r\n")
    at = draw.randrange(3, len(paragraphs) - 1) if len(paragraphs) > 5 else len(paragraphs) - 1
    long = [
        n for n, one in enumerate(paragraphs) if n > 1 and len(one) > 80 and b"<html" not in one and b"--=" not in one
    ]
    at = draw.choice(long) if long else at
    return b"\r\n\r\n".join([*paragraphs[:at], _INTERNAL.encode(), *paragraphs[at + 1 :]])


def _attached(raw: bytes, draw: random.Random) -> bytes:
    head, _, body = raw.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-", b"mime-"))]
    inner = b"\r\n".join(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-"))
    return (
        b"\r\n".join(kept)
        + b'\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="out"\r\n\r\n--out\r\n'
        + inner + b"\r\n\r\n" + body
        + b"\r\n--out\r\nContent-Type: application/pdf; name=story.pdf\r\nContent-Transfer-Encoding: base64\r\n"
        + b"Content-Disposition: attachment; filename=story.pdf\r\n\r\n" + _PDF.encode() + b"\r\n--out--\r\n"
    )  # fmt: skip


def _rewritten(pattern: bytes, new: bytes, count: int = 1) -> Callable[[bytes, random.Random], bytes]:
    """Rewrite that; where there is none of it, text at the end."""

    def alter(raw: bytes, draw: random.Random) -> bytes:
        changed = re.sub(pattern, new, raw, count=count)
        return changed if changed != raw else _below(raw, draw)

    return alter


ALTERATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a file attached": _attached,
    "a paragraph replaced": _replaced,
    "a paragraph first": _above(f"<p>{_INTERNAL}</p>"),
    "small white text above": _above(f'<p style="font-size:2px;color:#fff">{_INTERNAL}</p>'),
    "a picture on top": _above('<img src="https://img.example.com/story.png" width="1200">'),
    "text at the end": _below,
    "other links": _rewritten(rb"(click|news)\.example\.com", rb"\1.elsewhere.example", count=0),
    "another subject": _rewritten(rb"Subject: [^\r]*", b"Subject: Re: what stays between us"),
    "another From": _rewritten(rb"From: [^\r]*", b"From: <mallory@example.com>"),
    "text hidden": _rewritten(b"<p>", b'<p style="font-size:0">'),
}


def lines(
    templates: Sequence[Template], copies: int, seed: int, waiting: int = 100, altered: int = 10_000
) -> Iterator[str]:
    learned, beforehand = measured(templates, copies, waiting, seed, altered)
    yield learned.said(f"an approval with {waiting} copies waiting")
    yield beforehand.said("an approval without copies")
