"""The events of an SMTP session (wire.session): what it requests of its caller, and what it reports.

A request names the method of the session that takes its answer; ``failed`` answers any of them. The session waits for
the answer. A report has no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smtpguard.mail.constant import constant
from smtpguard.mail.envelope import Envelope, RefusedRecipient, Session
from smtpguard.mail.reply import Reply
from smtpguard.wire.data import Arrived, Arriving
from smtpguard.wire.grammar import RcptTo
from smtpguard.wire.turnedaway import TurnedAway, Why


@constant
class AskRelay:
    """Request the relay's replies to these recipients of ``mail``. Answer: ``answered``."""

    mail: Envelope
    rcpts: Sequence[RcptTo]


@dataclass(frozen=True, slots=True)
class AskOffer:
    """Request the relay's offer. Answer: ``offered``."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Write ``replies``, then ``forget`` and make the handshake. Answer: ``secured``."""


@dataclass(frozen=True, slots=True)
class LogIn:
    """Let the client log in with the argument of AUTH, by one of ``mechanisms``. ``challenge`` as often as needed, then
    ``logged_in``."""

    argument: bytes
    mechanisms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """The client's response to a challenge: a line with its end, None if it is too long. The login goes on."""

    line: bytes | None


@dataclass(frozen=True, slots=True)
class NewClient:
    """XCLIENT: a previous login is over. If ``renamed``, the connection is another client's now, after that of the
    address ``before``. Answer: ``client_is``."""

    before: str
    renamed: bool


@dataclass(frozen=True, slots=True)
class Unload:
    """Move content from memory to its file. Answer: ``unloaded``."""

    arriving: Arriving


@dataclass(frozen=True, slots=True)
class Finish:
    """Read content that is in a file. Answer: ``arrived``."""

    arriving: Arriving


@constant
class Decide:
    """Decide on a whole message. Answer: ``carried``."""

    envelope: Envelope
    refused: tuple[RefusedRecipient, ...]
    arrived: Arrived


@constant
class Carried:
    """The answer to Decide. ``held``: the message waits here, was released before, or was for the guard itself; ``why``: set
    if there is no verdict."""

    reply: Reply
    held: bool = False
    why: Why | None = None


# Reports, which have no answer; ``TurnedAway`` is one too.


@dataclass(frozen=True, slots=True)
class Reset:
    """The transaction of the latest AskRelay is over, at the relay too."""


@dataclass(frozen=True, slots=True)
class CameToNothing:
    """A transaction ended without content after the relay had refused recipients. ``envelope``: with those that it
    accepted."""

    session: Session
    envelope: Envelope
    refused: tuple[RefusedRecipient, ...]


Event = (
    AskRelay | AskOffer | StartTls | LogIn | Response | NewClient | Unload | Finish | Decide
    | Reset | CameToNothing | TurnedAway
)  # fmt: skip
