"""``python -m tests.peers.picture``: make docs/console.png: the demo's story in a real Chromium, as its second approver
sees it."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

from smtpguard.demo.script import DPO, OMAR, Script, play
from smtpguard.demo.stage import Stage, stage
from tests.peers.browsing import chromium

PICTURE = Path(__file__).parents[2] / "docs" / "console.png"
SIZE: ViewportSize = {"width": 1120, "height": 1300}
SCALE = 1.5  # for screens with a high resolution
_COARSE = bytes(value // 12 for value in range(256))


def make(built: Stage, path: Path) -> None:
    (told,) = play(built, islice(Script(built).scenes(), 1))
    assert told.hold_id is not None, told.wrong
    built.command("held", "approve", told.hold_id, "--as", OMAR)
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium(), args=options)
        page = browser.new_page(base_url=built.console, viewport=SIZE, locale="en-GB", device_scale_factor=SCALE)
        page.goto(f"/held/{told.hold_id}")
        page.locator("#address").fill(DPO)
        page.locator("#password").fill(built.password)
        with page.expect_navigation():
            page.locator("main button[type=submit]").click()
        path.write_bytes(small(page.screenshot()))
        browser.close()


def small(png: bytes) -> bytes:
    """Reduce to 256 colours (PNG, colour type 3), a third of the size; text and boxes need no more. ``png``: 8-bit RGB,
    as Chromium makes it."""
    width, height = struct.unpack(">II", png[16:24])
    assert png[24:29] == bytes([8, 2, 0, 0, 0]), "RGB, not interlaced"
    at, packed = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        packed += png[at + 8 : at + 8 + length] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + length
    lines = list(_lines(zlib.decompress(packed), width * 3, height))
    counts = Counter(line[i : i + 3] for line in lines for i in range(0, len(line), 3))
    likes: dict[bytes, bytes] = {}  # similar colours -> the most frequent of them
    for colour, _ in counts.most_common():
        likes.setdefault(colour.translate(_COARSE), colour)
    palette = list(likes.values())[:256]
    index = {colour: n for n, colour in enumerate(palette)}
    index |= {colour: index.get(likes[colour.translate(_COARSE)], -1) for colour in counts}
    index |= {colour: _nearest(colour, palette) for colour, n in index.items() if n < 0}
    rows = b"".join(b"\0" + bytes(index[line[i : i + 3]] for i in range(0, len(line), 3)) for line in lines)
    head = struct.pack(">II", width, height) + bytes([8, 3, 0, 0, 0])
    chunks = ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return png[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _lines(raw: bytes, width: int, height: int) -> Iterator[bytes]:
    """Scan lines without their filters (PNG, section 9)."""
    before = bytearray(width)
    for y in range(height):
        kind, line = raw[y * (width + 1)], bytearray(raw[y * (width + 1) + 1 : (y + 1) * (width + 1)])
        for i in range(width if kind else 0):
            left, up, corner = line[i - 3] if i > 2 else 0, before[i], before[i - 3] if i > 2 else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            line[i] = line[i] + (0, left, up, (left + up) // 2, paeth)[kind] & 255
        yield bytes(line)
        before = line


def _nearest(colour: bytes, palette: list[bytes]) -> int:
    return min(range(len(palette)), key=lambda n: sum((a - b) ** 2 for a, b in zip(palette[n], colour, strict=True)))


if __name__ == "__main__":
    with stage() as built:
        make(built, PICTURE)
