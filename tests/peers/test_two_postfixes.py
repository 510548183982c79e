"""Between two real Postfixes: the story is held, ordinary mail passes, and 250 follows only when the mail is stored
durably."""

from __future__ import annotations

import smtplib
import subprocess

import dkim
import pytest

from tests.peers import letters
from tests.peers.chain import Chain, logged, member, until

pytestmark = pytest.mark.xdist_group("two-postfixes")


HIDDEN = (
    "Fredagens afterwork blir hos mig, ta med fläskkorv till grillen.\nPelle ordnar vinet, och ingen behöver köra hem."
)
SENT_ON = (
    "Chefen säger att lönerna fryses i höst, det vore skönt om vi slapp höra det i korridoren.\nVi tar det över en öl."
)


def held(chain: Chain, subject: str) -> dict[str, object]:
    """Wait for the hold and for empty queues, so that nothing of it can pass later."""
    found = until(lambda: chain.guard.held(subject), why=f"{subject!r} to be held")
    until(chain.is_idle, why="the queues to empty")
    assert len(found) == 1
    assert found[0]["state"] == "waiting"
    return dict(found[0])


def signed(mail: bytes, domain: bytes, key: tuple[bytes, bytes]) -> bytes:
    headers = [b"from", b"to", b"subject"]
    signature: bytes = dkim.sign(mail, b"s1", domain, key[0], include_headers=headers)
    return signature + mail


class TestStory:
    def test_a_message_to_the_lists_address(self, chain: Chain) -> None:
        chain.submit(letters.story("story-1@example.com"), "anna@example.com", "ramadan@lists.example.com")
        hold = held(chain, "SV: Bacon och brännvin")
        assert hold["reach"] == 1000
        assert hold["lists"] == ["ramadan-greetings"]
        assert "internal-to-list" in str(hold["rules"])
        assert "unsuitable-for-list" in str(hold["rules"])
        assert not chain.recorder.with_id("story-1@example.com")

    def test_a_message_to_fifty_members(self, chain: Chain) -> None:
        mail = letters.story(
            "story-2@example.com", to=", ".join(member(n) for n in range(50)), subject="SV: Till femtio"
        )
        chain.submit(mail, "anna@example.com", *(member(n) for n in range(50)))
        assert held(chain, "SV: Till femtio")["reach"] == 50
        assert not chain.recorder.with_id("story-2@example.com")

    def test_members_in_bcc(self, chain: Chain) -> None:
        mail = letters.story("story-3@example.com", to="bo@example.com", subject="SV: Dold kopia", text=HIDDEN)
        chain.submit(mail, "anna@example.com", "bo@example.com", *(member(n) for n in range(8)))
        assert "internal-to-hidden-members" in str(held(chain, "SV: Dold kopia")["rules"])
        assert not chain.recorder.with_id("story-3@example.com")

    def test_a_message_whose_reports_would_go_to_the_list(self, chain: Chain) -> None:
        mail = letters.story("story-5@example.com", to="gone@nowhere.example", subject="SV: Till en")
        chain.submit(mail, "ramadan@lists.example.com", "gone@nowhere.example")
        assert held(chain, "SV: Till en")["rules"] == ["returns-to-list"]
        assert not chain.recorder.with_id("story-5@example.com")

    def test_copies_expanded_by_a_list_server(self, chain: Chain) -> None:
        mail = letters.story(
            "story-4@example.com", to="inside@lists.example.com", subject="SV: Utskickat", text=SENT_ON
        )
        chain.submit(mail, "anna@example.com", "inside@lists.example.com", to=chain.lists)
        until(lambda: chain.guard.held("SV: Utskickat"), why="the expansion to be held")
        until(chain.is_idle, why="the queues to empty")  # it comes in two transactions
        assert sum(int(h["reach"]) for h in chain.guard.held("SV: Utskickat")) == 80
        assert not chain.recorder.with_id("story-4@example.com")


class TestOrdinaryDay:
    def passes(self, chain: Chain, message_id: str, recipients: int = 1) -> None:
        until(
            lambda: sum(len(m.rcpts) for m in chain.recorder.with_id(message_id)) == recipients,
            why=f"{message_id} to pass",
        )

    def test_a_hundred_answers_pass(self, chain: Chain) -> None:
        """A hundred answers within an hour pass from a shared mailbox, which the policy has as a stream."""
        before = len(chain.guard.json("held", "list"))
        sender = "support@example.com"
        for n in range(100):
            mail = letters.answer(f"answer-{n}@example.com", to=member(n), about=f"pumpar av modell {n}", sender=sender)
            chain.submit(mail, sender, member(n))
        for n in range(100):
            self.passes(chain, f"answer-{n}@example.com")
        assert len(chain.guard.json("held", "list")) == before

    def test_an_offer_with_colleagues_in_cc_passes(self, chain: Chain) -> None:
        colleagues = ["bo@example.com", "cia@example.com", "dan@example.com"]
        mail = letters.answer("quote-1@example.com", to=member(7), about="offerten", cc=colleagues)
        chain.submit(mail, "anna@example.com", member(7), *colleagues)
        self.passes(chain, "quote-1@example.com", 4)

    def test_a_letter_with_topic_words_passes(self, chain: Chain) -> None:
        mail = letters.mail(
            to=member(9), subject="Tonight", text="Wine at six? The usual place.\n", message_id="wine-1@example.com"
        )
        chain.submit(mail, "anna@example.com", member(9))
        self.passes(chain, "wine-1@example.com")

    def test_an_invitation_to_three_passes(self, chain: Chain) -> None:
        to = [member(n) for n in (11, 12, 13)]
        mail = letters.mail(
            to=", ".join(to),
            subject="Breakfast talk",
            text="Will you join us on Friday at nine?\n",
            message_id="three-1@example.com",
        )
        chain.submit(mail, "anna@example.com", *to)
        self.passes(chain, "three-1@example.com", 3)

    def test_mail_to_five_hundred_colleagues_passes(self, chain: Chain) -> None:
        people = [f"colleague{n}@example.com" for n in range(500)]
        mail = letters.mail(
            to="everybody@example.com", subject="SV: Fika", text="Tack, jag kommer!\n", message_id="fika-1@example.com"
        )
        chain.submit(mail, "anna@example.com", *people)
        self.passes(chain, "fika-1@example.com", 500)

    def test_receipts_of_a_stream_pass(self, chain: Chain, signing_key: tuple[bytes, bytes]) -> None:
        before = len(chain.guard.json("held", "list"))
        for n in range(60):  # more than a sender without a stream may write to
            mail = letters.receipt(f"receipt-{n}@example.com", to=member(n), number=1000 + n)
            chain.submit(signed(mail, b"shop.example.com", signing_key), "noreply@example.com", member(n))
        for n in range(60):
            self.passes(chain, f"receipt-{n}@example.com")
        assert len(chain.guard.json("held", "list")) == before


class TestCampaign:
    def test_a_campaign_signed_by_its_origin(self, chain: Chain, signing_key: tuple[bytes, bytes]) -> None:
        """A signed mailing to 120 recipients passes; one to 1,000 needs the approval of both groups."""
        few, many = "friends@lists.example.com", "ramadan@lists.example.com"
        mail = signed(letters.campaign("campaign-0@example.com", to=few), b"campaigns.example.com", signing_key)
        chain.submit(mail, "bounces@campaigns.example.com", few)
        [got] = until(lambda: chain.recorder.with_id("campaign-0@example.com"), why="the campaign to pass")
        assert got.content.endswith(mail)
        mail = signed(letters.campaign("campaign-1@example.com"), b"campaigns.example.com", signing_key)
        chain.submit(mail, "bounces@campaigns.example.com", many)
        hold = held(chain, "Ramadan Mubarak from all of us")
        assert hold["rules"] == ["unapproved-mailing"], "nothing else is wrong with it"
        for approver in ("eva@example.com", "dpo@example.com"):
            assert not chain.recorder.with_id("campaign-1@example.com")
            chain.guard.run("held", "approve", str(hold["id"]), "--as", approver)
        [got] = until(lambda: chain.recorder.with_id("campaign-1@example.com"), why="the release")
        assert got.content.endswith(mail)

    def test_an_unsigned_campaign_is_held_until_both_groups_approve(self, chain: Chain) -> None:
        mail = letters.campaign("campaign-2@example.com").replace(b"Subject: ", b"Subject: Unsigned: ")
        chain.submit(mail, "bounces@campaigns.example.com", "ramadan@lists.example.com")
        hold = held(chain, "Unsigned: Ramadan Mubarak from all of us")
        assert "not-a-writer" in str(hold["rules"])
        approve = ("held", "approve", str(hold["id"]))
        chain.guard.run(*approve, "--as", "eva@example.com")
        chain.guard.run(*approve, "--as", "stranger@example.com", exits=1)
        assert not chain.recorder.with_id("campaign-2@example.com")
        chain.guard.run(*approve, "--as", "dpo@example.com", "--comment", "Checked with the agency")
        [got] = until(lambda: chain.recorder.with_id("campaign-2@example.com"), why="the release")
        assert got.content.endswith(mail)
        assert b"FROM:<bounces@campaigns.example.com>" in got.mail
        until(
            lambda: chain.guard.held("Unsigned: Ramadan Mubarak from all of us")[0]["state"] == "released",
            why="the mark",
        )


class TestTransparency:
    def test_tls_on_every_hop(self, chain: Chain) -> None:
        chain.submit(
            letters.mail(to="you@example.org", message_id="tls-1@example.com"), "anna@example.com", "you@example.org"
        )
        until(lambda: chain.recorder.with_id("tls-1@example.com"), why="the mail over TLS")
        logged(chain.client, "Trusted TLS connection established to 127.0.0.1")
        logged(chain.relay, "TLS connection established from")

    def test_content_and_dkim_signature_are_unchanged(self, chain: Chain, signing_key: tuple[bytes, bytes]) -> None:
        mail = letters.mail(
            subject="Signed", to="you@example.org", message_id="dkim-1@example.com",
            text="Every byte counts.\n.\n..two dots\n.one dot\n\ttab, trailing space \n\n\n",
        )  # fmt: skip
        mail = signed(mail, b"example.com", signing_key)
        chain.submit(mail, "anna@example.com", "you@example.org")
        [got] = until(lambda: chain.recorder.with_id("dkim-1@example.com"), why="the signed mail")
        assert got.content.endswith(mail)
        assert dkim.verify(got.content, dnsfunc=lambda name, timeout=5: signing_key[1])

    def test_a_long_line_is_broken_by_the_relay(self, chain: Chain) -> None:
        """Behind the first sign of a comment, which its reader sees then. So the guard reads it (``text._broken``)."""
        html = f"<p>{'spring ' * 141}".ljust(997) + "<!-- bacon for everybody --></p>"
        mail = letters.mail(to="you@example.org", message_id="long-1@example.com", text="x").replace(
            b"text/plain", b"text/html"
        )
        head, _, _ = mail.partition(b"\r\n\r\n")
        with smtplib.SMTP("127.0.0.1", chain.guard.port, timeout=120) as smtp:
            smtp.sendmail("anna@example.com", "you@example.org", head + b"\r\n\r\n" + html.encode() + b"\r\n")
        [got] = until(lambda: chain.recorder.with_id("long-1@example.com"), why="the message with a long line")
        assert b" <\r\n !-- bacon for everybody -->" in got.content

    def test_dsn_parameters_are_passed_on(self, chain: Chain) -> None:
        mail = letters.mail(to="you@example.org", message_id="dsn-1@example.com")
        chain.submit(
            mail, "anna@example.com", "you@example.org",
            mail_options=["RET=HDRS", "ENVID=CaseKept-1"],
            rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;You@Example.Org"],
        )  # fmt: skip
        [got] = until(lambda: chain.recorder.with_id("dsn-1@example.com"), why="the mail with DSN parameters")
        assert b"RET=HDRS" in got.mail
        assert b"ENVID=CaseKept-1" in got.mail
        assert b"NOTIFY=SUCCESS,FAILURE" in got.rcpts[0]
        assert b"ORCPT=rfc822;You@Example.Org" in got.rcpts[0]

    def test_smtputf8_is_passed_on(self, chain: Chain) -> None:
        mail = letters.mail(to="jörgen@example.org", message_id="utf8-1@example.com").replace(
            b"=?utf-8?B?", b"=?utf-8?B?"
        )
        with smtplib.SMTP("127.0.0.1", chain.client.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.docmd("MAIL", "FROM:<anna@example.com> SMTPUTF8 BODY=8BITMIME")
            smtp.command_encoding = "utf-8"
            assert smtp.docmd("RCPT", "TO:<jörgen@example.org>")[0] == 250
            assert smtp.data(mail)[0] == 250
        [got] = until(lambda: chain.recorder.with_id("utf8-1@example.com"), why="the internationalized mail")
        assert "jörgen@example.org".encode() in got.rcpts[0]
        assert b"SMTPUTF8" in got.mail
        assert b"BODY=8BITMIME" in got.mail

    def test_xforward_names_the_client(self, chain: Chain) -> None:
        """XFORWARD names the first Postfix's client, which the relay logs."""
        chain.submit(
            letters.mail(to="you@example.org", message_id="xf-1@example.com"), "anna@example.com", "you@example.org"
        )
        until(lambda: chain.recorder.with_id("xf-1@example.com"), why="the mail")
        logged(chain.relay, "orig_client=")


class TestOutage:
    def test_with_the_relay_down_mail_stays_at_the_client(self, chain: Chain) -> None:
        until(chain.is_idle, why="the queues to empty")
        chain.relay.stop()
        try:
            mail = letters.mail(to="down@example.org", message_id="down-1@example.com")
            chain.submit(mail, "anna@example.com", "down@example.org")
            said = logged(chain.client, "to=<down@example.org>", "status=deferred")
            assert " 451 " in said or " 421 " in said  # 421: this process has not reached the relay yet
            assert chain.client.queued() == 1
        finally:
            chain.relay.start()
        chain.client.flush()
        until(lambda: chain.recorder.with_id("down-1@example.com"), why="the mail, once the relay is back")

    def test_with_the_relay_down_smtputf8_mail_is_not_bounced(self, chain: Chain) -> None:
        """While the relay is down, mail that needs SMTPUTF8 is deferred. A client that fell back to HELO would bounce
        it."""
        chain.relay.stop()
        try:
            with smtplib.SMTP("127.0.0.1", chain.client.port, timeout=120) as smtp:
                smtp.ehlo("desk.example.com")
                smtp.docmd("MAIL", "FROM:<anna@example.com> SMTPUTF8 BODY=8BITMIME")
                smtp.command_encoding = "utf-8"
                smtp.docmd("RCPT", "TO:<åsa@example.org>")
                assert smtp.data(letters.mail(to="åsa@example.org", message_id="down-2@example.com"))[0] == 250
            logged(chain.client, "sa@example.org>", "status=deferred")
            assert not any("status=bounced" in line for line in chain.client.lines())
        finally:
            chain.relay.start()
        chain.client.flush()
        until(lambda: chain.recorder.with_id("down-2@example.com"), why="the mail, once the relay is back")

    def test_a_refused_recipient_gets_the_relays_reply(self, chain: Chain) -> None:
        until(chain.guard.reaches_relay, why="every process of the guard to reach the relay")
        with smtplib.SMTP("127.0.0.1", chain.guard.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.mail("anna@example.com")
            code, text = smtp.docmd("RCPT", "TO:<nobody@[not an address]>")
            assert code in (501, 553), text

    def test_five_hundred_messages_at_once_arrive(self, chain: Chain) -> None:
        def arrived() -> int:  # does not count the guard's own notices
            return sum(b"bulk@example.com" in message.mail for message in chain.recorder.messages)

        until(
            chain.guard.reaches_relay, why="every process of the guard to reach the relay"
        )  # smtp-source does not retry
        subprocess.run(
            ["/usr/sbin/smtp-source", "-d", "-s", "10", "-m", "500", "-l", "1024", "-f", "bulk@example.com",
             "-t", "you@example.org", f"127.0.0.1:{chain.guard.port}"],
            check=True, timeout=600, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: arrived() >= 500, "500 messages at the recorder", seconds=600)
        until(chain.is_idle)
        assert arrived() == 500

    def test_swaks_passes(self, chain: Chain) -> None:
        done = subprocess.run(
            ["swaks", "--server", f"127.0.0.1:{chain.guard.port}", "--from", "anna@example.com", "--to", "you@example.org",
             "--header", "Message-ID: <swaks-1@example.com>", "--pipeline"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        until(lambda: chain.recorder.with_id("swaks-1@example.com"), why="the mail of swaks")

    def test_the_journal_is_whole(self, chain: Chain) -> None:
        [verified] = chain.guard.json("audit", "verify")
        assert verified["ok"]
        assert verified["entries"] > 100
