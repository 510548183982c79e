"""The ten-line policy of the README is safe: it holds the story in every known shape, and lets a letter pass."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.catalogue.test_one_by_one import HTML, MIXED, QUOTED, STORY, TEXT
from tests.catalogue.wholeguard import ANNA, HELD, MEMBERS, RAMADAN, personal_mail, signed, whole_guard

README = (Path(__file__).parents[2] / "README.md").read_text()
FOOT = "\r\nDu får detta utskick eftersom du är kund. Avregistrera dig här: https://x.example/u/1\r\n"
LIST = "List-Unsubscribe: <https://x.example/u/1>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: bulk\r\n"
CAMPAIGN = "Campaigns <campaigns@example.com>"
FLAT = " ".join(STORY.split())


def ten_lines() -> str:
    """The README's policy with a list that the tests have."""
    found = re.search(r"## The policy in ten lines\n\n```yaml\n(.*?)```", README, re.S)
    assert found
    assert len(found[1].splitlines()) == 10
    return found[1].replace("lists/ramadan.csv", "ramadan.csv")


SHAPES = {
    "as it was": personal_mail(),
    "with a footer of a mailing": personal_mail(body=f"{STORY}{FOOT}", head=""),
    "one paragraph with a footer": personal_mail(body=f"{FLAT} Avregistrera dig här: https://x.example/u/1\r\n", head=""),
    "without a greeting, with a footer": personal_mail(body=f"{FLAT[5:]}\r\n{FOOT}{FOOT}", head="", subject="Nyhetsbrev"),
    "with list headers": personal_mail(body=f"{STORY}{FOOT}", head=LIST),
    "with list headers, from a campaign's address": personal_mail(body=f"{FLAT}\r\n{FOOT}", head=LIST, sender=CAMPAIGN),
    "a thread with a footer": personal_mail(body=f"Ja!\r\n\r\n{QUOTED}{STORY}{FOOT}", head=LIST),
    "a campaign's text shown in nothing": personal_mail(
        body=f'<p>{STORY}</p><p style="font-size:1px">{FOOT}</p>\r\n', head="", mime=HTML
    ),
    "a message attached": personal_mail(
        body=f"--b\r\n{TEXT}\r\n{FOOT}\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Dieten\r\n{TEXT}\r\n{STORY}--b--\r\n", mime=MIXED, head=LIST
    ),
    "from the origin": signed(personal_mail(body=STORY, head="", sender="Anna <campaigns@example.com>")),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_readmes_policy_holds_the_story(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with whole_guard(tmp_path, monkeypatch, text=ten_lines()) as guard:
            if shape == "from the origin":  # without changing the reverse-path, as people do
                answer = await guard.send(SHAPES[shape], RAMADAN, sender="campaigns@example.com")
                assert HELD.match(answer), answer
            else:
                await guard.held(SHAPES[shape], RAMADAN)
            many = personal_mail(body=f"{STORY}{FOOT}", head=LIST, to=ANNA)
            assert HELD.match(await guard.send(many, *MEMBERS[:60]))
            await guard.passes(personal_mail(to=MEMBERS[0], body="Hej, här är ritningarna.\r\n", head=""), MEMBERS[0])

    asyncio.run(play())
