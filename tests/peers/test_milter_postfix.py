"""smtpguard as the milter of a real Postfix, set up from docs/milter.md: every disposition, and every way to submit."""

from __future__ import annotations

import json
import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import letters, postfix
from tests.peers.chain import logged, until
from tests.peers.milter import ANNA, CHECKED, CUSTOMERS, EXPANDED, LONG, SECRET, MilterChain

RAMADAN, NEWS = "ramadan@lists.example.com", "news@lists.example.com"
THREE = ("a@example.net", "b@example.net", "c@example.net")


@pytest.fixture(scope="module")
def chain(folder: Path) -> Iterator[MilterChain]:
    if why := postfix.sasl_missing():
        pytest.skip(why)
    with MilterChain(folder) as chain:
        yield chain


def submit(
    chain: MilterChain, mail: bytes, *recipients: str, port: int = 0, login: bool = False, **options: list[str]
) -> None:
    with smtplib.SMTP("127.0.0.1", port or chain.mta.port, timeout=120) as smtp:
        smtp.ehlo("desk.example.com")
        if login:
            smtp.login(ANNA, SECRET)
        smtp.sendmail(ANNA, recipients, mail, **options)


def passed(chain: MilterChain, message_id: str) -> bytes:
    [got] = until(lambda: chain.recorder.with_id(message_id), why=f"{message_id} to pass")
    content: bytes = got.content
    return content


def verdict(chain: MilterChain, subject: str) -> dict[str, object]:
    """The verdict's line in the log, which follows the commit of the outcome."""

    def look() -> dict[str, object] | None:
        text = chain.guard.log.read_text().rpartition("\n")[0].splitlines()
        assert not [line for line in text if not line.startswith("{")], "every line of the log is JSON"
        lines = map(json.loads, text)
        return next((one for one in lines if one["event"] == "verdict" and one.get("subject") == subject), None)

    found: dict[str, object] = until(look, why=f"the log to tell of {subject}")
    return found


class TestDispositions:
    def test_relayed_unchanged_with_our_trace(self, chain: MilterChain) -> None:
        mail = letters.mail(
            to="you@example.org", subject="Bytes", message_id="bytes-1@example.com",
            headers="X-Odd:no space\nX-Fold: a\n\tb\n  c \nX-Empty:\n", text=".dot\n..\ntab\there \n\n\n",
        )  # fmt: skip
        submit(chain, mail, "you@example.org")
        content = passed(chain, "bytes-1@example.com")
        assert content.endswith(mail)
        added = content.removesuffix(mail).decode()
        assert re.search(r"^X-Smtpguard: id=[0-9A-Z]{16}; policy=[0-9a-f]{12};\r\n\tmac=[0-9a-f]{32}\r\n", added, re.M)
        assert added.count("Received:") == 1, "the MTA's own, and no other"
        assert "X-Other: seen" in added, "milters behind us see what passes"
        assert verdict(chain, "Bytes")["size_bytes"] == len(mail)
        said = verdict(chain, "Bytes")["replies"]
        assert re.fullmatch(r"250 2.0.0 In the queue of mta.example.com as [0-9A-F]+", said[0])  # type: ignore[index]

    def test_held_mail_is_discarded_and_released_past_the_milter(self, chain: MilterChain) -> None:
        mail = letters.story("held-1@example.com", subject="SV: Milter")
        submit(chain, mail, RAMADAN)
        [hold] = until(lambda: chain.guard.held("SV: Milter"), why="the hold")
        logged(chain.mta, "milter-discard")
        assert not chain.recorder.with_id("held-1@example.com")
        approve = ("held", "approve", str(hold["id"]), "--as")
        chain.guard.run(*approve, "eva@example.com")
        chain.guard.run(*approve, "dpo@example.com")
        content = passed(chain, "held-1@example.com")
        assert content.replace(CHECKED, b"", 1).endswith(mail), "the checks of the header change it once"
        assert b"X-Other: seen" in content, "the release port has the other milter, and not ours"

    def test_a_rejection_may_have_a_percent_sign(self, chain: MilterChain) -> None:
        mail = letters.mail(to="many@example.net", message_id="never-1@example.com")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            submit(chain, mail, *THREE)
        assert refused.value.smtp_code == 550
        assert b"5.7.1 This message was not sent. 100 % of this is never sent." in refused.value.smtp_error

    def test_a_long_rejection_has_all_its_lines(self, chain: MilterChain) -> None:
        """The client gets all lines of a long reply."""
        with pytest.raises(smtplib.SMTPDataError) as refused:
            submit(chain, letters.mail(message_id="never-2@example.com"), *THREE, "d@example.net")
        assert isinstance(refused.value.smtp_error, bytes)
        lines = refused.value.smtp_error.decode().splitlines()
        assert len(lines) == 3
        assert {line[:6] for line in lines} == {"5.7.1 "}
        text = " ".join(line[6:] for line in lines)
        assert LONG in text
        assert re.search(r" Its reference is \w{16}\.$", text)

    @pytest.mark.parametrize("listed", [RAMADAN, EXPANDED])
    def test_customers_are_held_and_colleagues_get_it(self, chain: MilterChain, listed: str) -> None:
        """The list's recipients wait, and colleagues get the message. If Postfix expanded an alias, the addresses in
        its place are deleted."""
        message_id, subject = f"part-{listed}", f"SV: Delat, {listed}"
        mail = letters.story(message_id, to=f"bo@example.com, {listed}", subject=subject)
        submit(chain, mail, "team@example.com", listed)
        [hold] = until(lambda: chain.guard.held(subject), why="the hold")
        assert hold["recipients"] == [listed]
        [got] = until(lambda: chain.recorder.with_id(message_id), why="the colleagues' part")
        assert got.recipients == ["bo@example.com", "cia@example.com"]
        assert b"X-Smtpguard:" in got.content
        for person in ("eva@example.com", "dpo@example.com"):
            chain.guard.run("held", "approve", str(hold["id"]), "--as", person)
        both = until(lambda: len(found := chain.recorder.with_id(message_id)) == 2 and found, why="the release")
        assert both[1].recipients == ([RAMADAN] if listed == RAMADAN else CUSTOMERS)

    @pytest.mark.parametrize("route", ["<@a.example:{}>", "<Ramadan <{}>>"])
    def test_a_list_in_an_old_spelling_is_held_while_colleagues_get_it(self, chain: MilterChain, route: str) -> None:
        """Postfix deletes no recipient by such a path: smtpguard sends the colleagues' part itself."""
        message_id, subject = f"route-{len(route)}@example.com", f"SV: Omväg {len(route)}"
        with smtplib.SMTP("127.0.0.1", chain.mta.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.mail(ANNA)
            for path in ("<team@example.com>", route.format(RAMADAN)):
                assert smtp.docmd("RCPT", f"TO:{path}")[0] == 250
            smtp.data(letters.story(message_id, to="bo@example.com", subject=subject))
        [hold] = until(lambda: chain.guard.held(subject), why="the hold")
        assert hold["recipients"] == [RAMADAN]
        [got] = until(lambda: chain.recorder.with_id(message_id), why="the colleagues' part")
        assert got.recipients == ["bo@example.com", "cia@example.com"]

    def test_mail_is_frozen_and_thawed(self, chain: MilterChain) -> None:
        chain.guard.run("freeze", "--all", "--reason", "drill")
        try:
            submit(
                chain,
                letters.mail(to="you@example.org", subject="Frozen", message_id="frozen-1@example.com"),
                "you@example.org",
            )
            until(lambda: chain.guard.held("Frozen"), why="the hold")
        finally:
            chain.guard.run("thaw", "--all")
        assert not chain.recorder.with_id("frozen-1@example.com")


class TestSubmission:
    def test_a_submission_login_proves_the_writer(self, chain: MilterChain) -> None:
        """A login at the submission port proves the writer. This port uses the Unix socket in Postfix's queue
        directory."""
        mail = letters.mail(to=NEWS, subject="Proven", message_id="login-1@example.com")
        submit(chain, mail, NEWS, port=chain.login, login=True)
        assert b"X-Smtpguard:" in passed(chain, "login-1@example.com")
        submit(chain, mail.replace(b"Proven", b"Claimed").replace(b"login-1", b"login-2"), NEWS)
        [hold] = until(lambda: chain.guard.held("Claimed"), why="the hold")
        assert hold["rules"] == ["not-a-writer"]

    def test_the_writer_is_asked_and_confirms(self, chain: MilterChain) -> None:
        """The writer confirms, and no approver can decide meanwhile. The release is byte for byte the message that the
        MTA discarded."""
        mail = letters.mail(to=NEWS, subject="Meant", message_id="meant-1@example.com")
        submit(chain, mail, NEWS, *THREE[:2], port=chain.login, login=True)
        [hold] = until(lambda: chain.guard.held("Meant"), why="the hold")
        assert (hold["confirm"]["asked"], hold["confirm"]["proof"]) == (True, "login")
        assert not chain.recorder.with_id("meant-1@example.com")
        refused = chain.guard.run("held", "approve", hold["id"], "--as", "eva@example.com", exits=1)
        assert "only its writer can let it go until" in refused.stderr
        chain.guard.run("held", "confirm", hold["id"], "--as", ANNA, "--people", str(hold["reach"]))
        assert passed(chain, "meant-1@example.com").endswith(mail)
        assert chain.guard.held("Meant")[0]["confirm"]["people"] == hold["reach"]

    def test_local_sendmail_passes(self, chain: MilterChain) -> None:
        mail = letters.mail(to="you@example.org", subject="Pickup", message_id="pickup-1@example.com")
        assert chain.sendmail(mail, ANNA, "you@example.org").returncode == 0
        assert b"X-Smtpguard:" in passed(chain, "pickup-1@example.com")
        assert verdict(chain, "Pickup")["client"] == "127.0.0.1"

    def test_local_sendmail_is_held(self, chain: MilterChain) -> None:
        mail = letters.story("pickup-2@example.com", subject="SV: Lokalt")
        assert chain.sendmail(mail, ANNA, RAMADAN).returncode == 0
        until(lambda: chain.guard.held("SV: Lokalt"), why="the hold")

    def test_recipients_in_the_header_only(self, chain: MilterChain) -> None:
        """With ``sendmail -t``, recipients count although Postfix reports them after the content."""
        mail = letters.story("pickup-4@example.com", to=RAMADAN, subject="SV: Till")
        assert chain.sendmail(mail, ANNA, "-t").returncode == 0
        [hold] = until(lambda: chain.guard.held("SV: Till"), why="the hold")
        assert hold["recipients"] == [RAMADAN]

    def test_smtp_over_standard_input(self, chain: MilterChain) -> None:
        mail = letters.story("pickup-5@example.com", subject="SV: Samtal").replace(b"\r\n.", b"\r\n..")
        said = [
            b"EHLO desk",
            b"MAIL FROM:<%b>" % ANNA.encode(),
            b"RCPT TO:<%b>" % RAMADAN.encode(),
            b"DATA",
            mail + b".",
        ]
        words = ["/usr/sbin/sendmail", "-C", str(chain.mta.config), "-bs"]
        subprocess.run(words, input=b"\r\n".join([*said, b"QUIT", b""]), capture_output=True, timeout=120, check=True)
        until(lambda: chain.guard.held("SV: Samtal"), why="the hold")

    def test_rejected_local_mail_bounces(self, chain: MilterChain) -> None:
        chain.sendmail(letters.mail(message_id="pickup-3@example.com"), ANNA, *THREE)

        def bounced() -> bool:
            return any(
                b"pickup-3@example.com" in m.content and b"is never sent" in m.content for m in chain.recorder.messages
            )

        until(bounced, why="the bounce")

    def test_xclient_changes_the_client(self, chain: MilterChain) -> None:
        mail = letters.mail(to="you@example.org", subject="Forwarded", message_id="xclient-1@example.com")
        with smtplib.SMTP("127.0.0.1", chain.mta.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            said = smtp.docmd("XCLIENT", "NAME=far.example.net ADDR=IPv6:2001:db8::7 LOGIN=anna@example.com")
            assert said[0] == 220, said
            smtp.ehlo("far.example.net")
            smtp.sendmail(ANNA, ["you@example.org"], mail)
            smtp.sendmail(ANNA, [NEWS], mail.replace(b"xclient-1", b"xclient-2"))  # proven: the MTA reports the login
        passed(chain, "xclient-1@example.com")
        passed(chain, "xclient-2@example.com")
        assert verdict(chain, "Forwarded")["client"] == "2001:db8::7"

    def test_several_messages_in_one_connection_with_resets(self, chain: MilterChain) -> None:
        with smtplib.SMTP("127.0.0.1", chain.mta.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            for n in range(3):
                mail = letters.mail(to="you@example.org", message_id=f"many-{n}@example.com")
                smtp.sendmail(ANNA, ["you@example.org"], mail)
                smtp.docmd("MAIL", "FROM:<other@example.com>")
                smtp.docmd("RCPT", "TO:<nobody@example.org>")
                smtp.rset()
        for n in range(3):
            passed(chain, f"many-{n}@example.com")

    def test_non_ascii_addresses_and_dsn_parameters(self, chain: MilterChain) -> None:
        """Non-ASCII addresses and DSN parameters survive hold and release."""
        mail = letters.story("eai-1@example.com", subject="SV: Ärade kunder")
        with smtplib.SMTP("127.0.0.1", chain.mta.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.command_encoding = "utf-8"
            assert smtp.docmd("MAIL", "FROM:<åsa@example.com> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=Case-1")[0] == 250
            assert (
                smtp.docmd("RCPT", f"TO:<{RAMADAN}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Ramadan@lists.example.com")[0]
                == 250
            )
            said = smtp.data(mail)
            assert said[0] == 250, said
        [hold] = until(lambda: chain.guard.held("SV: Ärade kunder"), why="the hold")
        assert hold["reverse_path"] == "åsa@example.com"
        for person in ("eva@example.com", "dpo@example.com"):
            chain.guard.run("held", "approve", str(hold["id"]), "--as", person)
        [got] = until(lambda: chain.recorder.with_id("eai-1@example.com"), why="the release")
        assert "FROM:<åsa@example.com>".encode() in got.mail
        for word in (b"SMTPUTF8", b"RET=HDRS", b"ENVID=Case-1"):
            assert word in got.mail
        for word in (b"NOTIFY=SUCCESS,FAILURE", b"ORCPT=rfc822;Ramadan@lists.example.com"):
            assert word in got.rcpts[0]

    def test_a_large_message_passes(self, chain: MilterChain) -> None:
        mail = letters.mail(
            to="you@example.org", subject="Large", message_id="large-1@example.com", text="line after line\n" * 300_000
        )
        submit(chain, mail, "you@example.org")
        assert passed(chain, "large-1@example.com").endswith(mail)


class TestOutage:
    def test_without_the_milter_postfix_defers(self, chain: MilterChain) -> None:
        mail = letters.mail(to="you@example.org", message_id="down-1@example.com")
        with smtplib.SMTP("127.0.0.1", chain.mta.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.docmd("MAIL", f"FROM:<{ANNA}>")
            chain.guard.stop()
            try:
                said = [smtp.docmd("RCPT", "TO:<you@example.org>")]
                if said[0][0] == 250:
                    said.append(smtp.data(mail))
                assert said[-1][0] == 451, said
                chain.sendmail(mail, ANNA, "you@example.org")
                with smtplib.SMTP("127.0.0.1", chain.mta.port, timeout=120) as another:
                    another.ehlo("desk.example.com")
                    assert another.docmd("MAIL", f"FROM:<{ANNA}>")[0] == 451
                # while pickup tries, a copy is in another queue
                until(lambda: chain.mta.queued("maildrop") == 1, why="this message alone to wait for pickup")
            finally:
                chain.guard.start()
        chain.wake_pickup()
        passed(chain, "down-1@example.com")

    def test_the_journal_is_whole(self, chain: MilterChain) -> None:
        [verified] = chain.guard.json("audit", "verify")
        assert verified["ok"]
