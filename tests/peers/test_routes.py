"""A real Postfix in front of a guard with two relays: a message for both reaches both, each once."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import letters, postfix
from tests.peers.chain import Guard, Recorder, logged, until
from tests.peers.postfix import Postfix

pytestmark = pytest.mark.xdist_group("routes")
PETER, PIA = "peter@example.org", "pia@partner.example"


class Routed:
    def __init__(self, default: Recorder, partners: Recorder, root: Path, guard: Guard) -> None:
        self.default, self.partners, self._root, self._guard = default, partners, root, guard

    def front(self, name: str, **main: str) -> Postfix:
        onward = {"relayhost": f"[127.0.0.1]:{self._guard.port}", "smtp_send_xforward_command": "yes", **main}
        return Postfix(self._root, name=name, main=onward)

    def goes(self, front: Postfix, message_id: str) -> None:
        """Submit a message for both; it must reach each of both relays once."""
        mail = letters.mail(to=f"{PETER}, {PIA}", subject="Tonight", text="At six?\n", message_id=message_id)
        with smtplib.SMTP("127.0.0.1", front.port, timeout=120) as smtp:
            smtp.sendmail("anna@example.com", [PETER, PIA], mail)
        until(
            lambda: front.queued() == 0,
            lambda: f"{message_id} to leave the queue; {front.lines()[-5:]}; {self._guard.log.read_text()[-3000:]}",
        )
        for recorder, recipient in ((self.default, PETER), (self.partners, PIA)):
            assert [m.recipients for m in recorder.with_id(message_id)] == [[recipient]]


@pytest.fixture(scope="module")
def routed(certified: Path) -> Iterator[Routed]:
    if why := postfix.missing():
        pytest.skip(why)
    with Recorder() as default, Recorder() as partners:
        settings = {
            "relay": f"{{host: 127.0.0.1, port: {default.port}, tls: none}}",
            "routes": f"[{{name: partners, domains: [partner.example], relay: {{host: 127.0.0.1, port: {partners.port}}}}}]",
        }
        with Guard(certified, relay_port=default.port, settings=settings) as guard:
            yield Routed(default, partners, certified, guard)


def test_postfix_sends_the_rest_at_its_next_attempt(routed: Routed) -> None:
    with routed.front("plain") as front:
        routed.goes(front, "rest@example.com")
        logged(front, "status=deferred", "452 4.5.3 This recipient has another relay")
        assert not any("status=bounced" in line for line in front.lines())


def test_with_separate_transports_nothing_is_deferred(routed: Routed) -> None:
    """As docs/postfix.md has it."""
    map_ = f"inline:{{{{partner.example = relay:[127.0.0.1]:{routed._guard.port}}}}}"
    with routed.front("split", transport_maps=map_) as front:
        routed.goes(front, "split@example.com")
        for address in (PETER, PIA):
            logged(front, f"to=<{address}>", "status=sent")
        assert not any("status=deferred" in line for line in front.lines())
