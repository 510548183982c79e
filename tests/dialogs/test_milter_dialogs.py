"""Replays the golden milter transcripts in this folder: packets of the MTA (M), and our answers (S).

A `.milter` file is read line by line; `#` begins a comment. Backslash escapes (\\r \\n \\t \\x..) denote octets.

    limits: recipients=2                 settings of the listener's limits
    verdict: relay | hold | reject SENTENCE | defer SENTENCE | part ADDRESS... (these are held, the rest is delivered)

    M: Negotiate 6 1ff 1fffff            the MTA's offer, in hexadecimal
    M: Macros M {auth_authen}=anna       for the command with this letter
    M: Connect NAME 4|6|L|U ADDRESS      M: Helo NAME       M: Mail PATH PARAMETERS      M: Rcpt PATH PARAMETERS
    M: Header NAME:VALUE                 M: Body OCTETS     M: Unknown LINE
    M: Data | EndOfHeader | EndOfMessage | Abort | Quit | QuitNext
    S: Continue | Accept | Discard       S: Negotiate 6 109 1ff7ff        S: Reply 550 5.7.1 words, `...` matches anything
    S: Insert 0 NAME:VALUE               S: Delete PATH
    S: <closed>                          we close
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from smtpguard.mail import reply
from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected
from smtpguard.wire import milterpackets as packet
from smtpguard.wire.listener import Limits
from smtpguard.wire.milterpackets import Answer, Command, encode
from tests.wire.milter.speaking import relay_all, served
from tests.wire.relayed import fence_holds

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.milter"))


def octets(text: str) -> bytes:
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def _macros(rest: str) -> Command:
    letter, *pairs = rest.split(" ")
    values = [octets(pair).partition(b"=") for pair in pairs]
    return packet.Macros(letter.encode(), tuple((name, value) for name, _, value in values))


def _connect(rest: str) -> Command:
    name, family, *address = rest.split(" ")
    there = packet.Family(family.encode())
    return packet.Connect(name.encode(), there, 4711 if address else 0, "".join(address).encode())


def _header(rest: str) -> Command:
    name, _, value = octets(rest).partition(b":")
    return packet.HeaderField(name, value)


def _negotiate(rest: str) -> packet.Negotiate:
    version, actions, steps = rest.split()
    return packet.Negotiate(int(version), int(actions, 16), int(steps, 16))


def _with_path(made: Callable[..., Command]) -> Callable[[str], Command]:
    def parse(rest: str) -> Command:
        path, *parameters = octets(rest).split(b" ")
        return made(path, tuple(parameters))

    return parse


SAID: Mapping[str, Callable[[str], Command]] = {
    "Negotiate": _negotiate,
    "Macros": _macros,
    "Connect": _connect,
    "Helo": lambda rest: packet.Helo(octets(rest)),
    "Mail": _with_path(packet.Mail),
    "Rcpt": _with_path(packet.Rcpt),
    "Header": _header,
    "Body": lambda rest: packet.Body(octets(rest)),
    "Unknown": lambda rest: packet.Unknown(octets(rest)),
    **{
        kind.__name__: lambda rest, kind=kind: kind()  # type: ignore[misc]
        for kind in (packet.Data, packet.EndOfHeader, packet.EndOfMessage, packet.Abort, packet.Quit, packet.QuitNext)
    },
}


def shown(answer: Answer) -> str:
    match answer:
        case packet.Negotiate(version, actions, steps):
            return f"Negotiate {version} {actions:x} {steps:x}"
        case packet.SmtpReply(said):
            return f"Reply {said.code} " + "\\n".join(said.lines)
        case packet.InsertHeader(index, name, value):
            return f"Insert {index} {name.decode()}:" + value.decode().replace("\n", "\\n").replace("\t", "\\t")
        case packet.DeleteRecipient(path):
            return f"Delete {path.decode()}"
    return type(answer).__name__


class Script:
    """A parsed file."""

    def __init__(self, path: Path) -> None:
        self.limits: dict[str, Any] = {}
        self.verdict, self.words = "relay", ""
        self.turns: list[tuple[int, str, str]] = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            key, _, rest = line.partition(": ")
            match key:
                case "limits":
                    self.limits |= {name: int(value) for name, value in (word.split("=") for word in rest.split())}
                case "verdict":
                    self.verdict, _, self.words = rest.partition(" ")
                case "M" | "S":
                    self.turns.append((number, key, rest))
                case _:
                    assert not line.strip() or line.startswith("#"), f"{path.name}:{number}: {line!r}"

    async def decide(self, transaction: Transaction, onward: Onward) -> Disposition:
        match self.verdict:
            case "relay":
                return await relay_all(transaction, onward)
            case "hold":
                return Held(hold_id=transaction.id)
            case "reject":
                return Rejected(reply=reply.Reply.of(550, "5.7.1", *self.words.split("\\n")))
            case "defer":
                return Deferred(reply=reply.deferred(self.words))
            case "part":
                taken = tuple(r for r in transaction.envelope.recipients if str(r.address) in self.words.split())
                assert transaction.pass_rest is not None
                await transaction.pass_rest(b"X-Smtpguard: id=1\r\n", fence_holds, taken)
                return Held(hold_id=transaction.id, taken=taken)
        raise ValueError(self.verdict)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda p: p.stem)
async def test_transcript_is_answered_as_recorded(path: Path, tmp_path: Path) -> None:
    script = Script(path)
    async with served(tmp_path, script.decide, limits=Limits(**script.limits)) as world:
        mta = await world.connect()
        for number, who, line in script.turns:
            if who == "M":
                word, _, rest = line.partition(" ")
                mta.say(encode(SAID[word](rest)))
                continue
            try:
                said = shown(await mta.hear())
            except EOFError:
                said = "<closed>"
            if line.endswith("..."):
                said = said[: len(line) - 3] + "..."
            assert said == line, f"{path.name}:{number}"


def test_there_are_enough_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 7
