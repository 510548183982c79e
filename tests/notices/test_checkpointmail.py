"""The daily mail with the newest checkpoint: once a day, and enough to verify the journal."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from smtpguard.cli.audit import _unpacked
from smtpguard.journal.checkpoint import notes_in, read
from smtpguard.notices.daily import Daily, checkpoint_mail
from smtpguard.notices.notice import NoticeHead, NoticeTemplates
from smtpguard.notices.render import Renderer
from smtpguard.outbox.model import Intent
from tests.guard.house import House, house


async def test_the_newest_checkpoint_is_mailed_once_a_day(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        daily = Daily(home.store, home, home.clock, partial(checkpoint_mail, "auditor@example.org"))
        mails = [await mail(home, daily)]
        mails.append(await mail(home, daily))
        kept = "From auditor@example.org\n" + "\nFrom auditor@example.org\n".join(mails)
        notes = notes_in(_unpacked(kept))
        last = await home.store.journal.last()
        assert [read(note).seq for note in notes][-1] == last
        assert len({read(note).seq for note in notes}) == 2
        proof = await home.store.journal.audit("host", alone=True, against=notes)
        assert (proof.first_bad, proof.witnessed is not None) == (None, True)
        assert notes_in(_unpacked(notes[0])) == notes[:1], "a note that is no mail is read as it is"


async def due(home: House) -> list[Intent]:
    return [one for one in await home.outbox() if one.data["notice"] == "checkpoint"]


async def mail(home: House, daily: Daily) -> str:
    """The text of the day's mail."""
    await home.send("x@example.org")
    before = await due(home)
    await daily.write()
    await daily.write()
    assert await due(home) == before, "at the end of the day"
    home.clock.pass_(days=1)
    await home.store.journal.checkpoint()
    [intent] = [one for one in await due(home) if one not in before]
    templates = NoticeTemplates(NoticeHead(sender="Mail guard <smtpguard@example.com>"))
    renderer = Renderer(
        store=home.store,
        in_force=home.current,
        templates=lambda: templates,
        clock=home.clock,
        reporting_mta="guard.example.com",
    )
    [(_, raw)] = await renderer.render(intent)
    return raw.decode().replace("\r\n", "\n")
