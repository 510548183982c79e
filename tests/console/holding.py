"""Messages held on a stage, and readers of the pages' text."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import httpx2

from smtpguard.holds.model import Change, Hold
from smtpguard.journal.event import Kind
from tests.console.stage import Stage

ANNA, EVA, OMAR, DPO, DUTY = (f"{name}@example.com" for name in ("anna", "eva", "omar", "dpo", "duty"))
NEWS = "news@lists.example.com"


async def held(here: Stage, *to: str, **more: Any) -> Hold:
    """A hold of a new message from Anna about bacon."""
    return await here.home.held(*to, **more)


async def several(here: Stage, n: int, *to: str, first: int = 0) -> list[Hold]:
    """Holds of ``n`` messages without common content, one second apart."""
    holds = []
    for number in range(first, first + n):
        here.home.clock.pass_(seconds=1)
        words = f"word{number}"
        holds.append(
            await held(here, *to, Subject=f"SV: {words}", body=f"Bacon {words}", Message_ID=f"<{words}@example.com>")
        )
    return holds


async def changed(here: Stage, hold: Hold, **values: Any) -> Hold:
    """The hold after these values were changed in the store directly."""
    await here.home.store.holds.change(hold.hold_id, lambda found: Change(hold=replace(found, **values)))
    return await here.home.hold(hold.hold_id)


def text(answer: httpx2.Response) -> str:
    """The visible text of a page, on one line."""
    bare = re.sub(
        r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", " ", answer.text.replace("<wbr>", ""), flags=re.S
    )
    return " ".join(html.unescape(bare).split())


def subjects(page: str) -> list[str]:
    """The subjects of a page's rows, in order."""
    return re.findall(r'class="subject"[^>]*>([^<]*)<', page)


async def views(here: Stage, hold: Hold) -> list[tuple[str, str]]:
    """(Who, what was viewed) of each journalled view of the hold."""
    entries = await here.home.store.journal.history(hold.hold_id)
    return [
        (str((clear or {})["actor"][0]), str(entry.data["saw"]))
        for entry, clear in entries
        if entry.kind == Kind.VIEWED.value
    ]


HOSTILE = """MIME-Version: 1.0
Content-Type: multipart/related; boundary=outer

--outer
Content-Type: text/html; charset=utf-8

<html><head><meta http-equiv="refresh" content="0;url=CANARY/meta"><base href="CANARY/base/">
<link rel="stylesheet" href="CANARY/link.css"><link rel="preload" as="image" href="CANARY/preload">
<link rel="dns-prefetch" href="CANARY"><style>@import url("CANARY/import.css"); body { background: url("CANARY/css") }
@font-face { font-family: x; src: url("CANARY/font") } p { font-family: x }</style></head>
<body background="CANARY/body" onload="fetch('CANARY/onload')">
<p style="background-image: url(CANARY/inline); color: red">Bacon is <b>good</b> for you.</p>
<img src="CANARY/img.png" srcset="CANARY/srcset 2x" alt="a picture from elsewhere"><img src="//127.0.0.1:1/scheme">
<img src="cid:inside@example.com" alt="a picture from inside">
<img src="data:image/svg+xml,&lt;svg xmlns='http://www.w3.org/2000/svg'&gt;&lt;image href='CANARY/svg'/&gt;&lt;/svg&gt;">
<picture><source srcset="CANARY/picture"></picture><video src="CANARY/video" poster="CANARY/poster" autoplay></video>
<audio src="CANARY/audio" autoplay></audio><iframe src="CANARY/frame"></iframe><embed src="CANARY/embed">
<object data="CANARY/object"></object><svg><image href="CANARY/svgimage"/><use href="CANARY/use#a"/></svg>
<script>fetch("CANARY/script")</script><script src="CANARY/script.js"></script>
<form action="CANARY/form" id="f"><input name="q" value="1"><button>Click</button></form>
<a href="CANARY/link" id="go">A link</a><a href="javascript:fetch('CANARY/js')">Another</a>
<table background="CANARY/table"><tr><td background="CANARY/td">x</td></tr></table>
<div style="width: 10px; content: '\\75rl(CANARY/escaped)'">y</div><details ontoggle="fetch('CANARY/toggle')" open>z</details>
</body></html>
--outer
Content-Type: image/png
Content-ID: <inside@example.com>
Content-Transfer-Encoding: base64

iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==
--outer
Content-Type: text/html; name="<img src=CANARY/name onerror=alert(1)>.html"
Content-Disposition: attachment; filename="<img src=CANARY/name onerror=alert(1)>.html"
Content-Transfer-Encoding: base64

PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==
--outer--
"""
"""HTML with every known way to make a browser load something; CANARY is replaced by the address that it would load."""


async def hostile(here: Stage, canary: str = "http://canary.example.net", **more: Any) -> Hold:
    """The hold of a message with HOSTILE as body. HOSTILE begins with header fields, since the MIME fields are part of
    it."""
    head, _, body = HOSTILE.replace("CANARY", canary).replace("\n", "\r\n").partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.split("\r\n"))
    fields = {name.replace("-", "_"): value for name, value in headers.items()}
    return await held(here, body=body, **({"Subject": '<script>alert("x")</script>'} | fields | more))
