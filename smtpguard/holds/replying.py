"""Votes by mail: an approver's answer to a notice, a writer's confirmation, and why an answer does not count. Pure.

The token in the address of an answer belongs to one person and one notice. It becomes invalid when the content,
recipients, lists or rules of the hold change. The token is enough to reject. To approve, it must also be proven who
wrote the answer, and the policy must allow it. An automatic answer decides nothing.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from smtpguard.accounts.model import Account, May, Role
from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Choice, Hold
from smtpguard.locale import languages
from smtpguard.locale.phrase import N_, Phrase
from smtpguard.locale.speech import Speech
from smtpguard.mail.address import Address
from smtpguard.mail.fields import Signature, list_header, mailboxes
from smtpguard.mail.message import Header
from smtpguard.policy.models import ReplyVotesModel
from smtpguard.reading.quoting import split

MAX_AGE = timedelta(hours=1)
"""The greatest age of a signature that counts."""
MAX_AHEAD = timedelta(minutes=5)
"""How much the signer's clock may be ahead of ours."""
LONGEST_LINE = 40
"""The most characters of a line that can be a deciding word."""
MOST_COMMENT = 500
"""The most characters of a comment; a longer one is cut."""
_CODE_OCTETS = 16
_TAG_DIGITS = 8
_TAG = re.compile(f"[0-9a-f]{{{_TAG_DIGITS}}}")
LOCAL_OCTETS = 16 + 1 + _TAG_DIGITS + 1 + 26
"""The octets of the longest token. With the sign and the guard's local part before it, it must fit into 64 octets (RFC
5321 section 4.5.3.1.1)."""
WORDS = {Choice.REJECT: N_("REJECT"), Choice.APPROVE: N_("APPROVE")}
"""The words that decide, as notices name them. An answer may use the words of any language."""
CONFIRM = N_("CONFIRM")
_BULK = frozenset({"bulk", "list", "junk"})
_MACHINES = ("X-Auto-Response-Suppress", "X-Smtpguard-Notice", "List-Id")
_SIGNED = ("From", "Subject", "To")


class Uncounted(enum.Enum):
    """Why a vote by mail does not count."""

    TOKEN = Phrase("No notice can be answered at this address: the message has changed since, or other people are asked now.")  # fmt: skip
    AUTOMATIC = Phrase("An automatic mail decides nothing.")
    OTHER = Phrase("Only the person who got the notice can answer it.")
    USED = Phrase("This notice was answered already.")
    WRITER = Phrase("Nobody decides on their own message.")
    WORDLESS = Phrase("The answer must begin with one word alone on its line: REJECT or APPROVE.")
    OFF = Phrase("The policy does not let this message be approved by mail.")
    BARRED = Phrase("The account of this person may not decide.")
    FACTOR = Phrase("People who must sign in with a second factor cannot approve by mail.")
    UNPROVEN = Phrase("Nothing proves who wrote the answer, so it cannot approve.")
    NUMBER = Phrase("The answer must begin with CONFIRM and the number of people, alone on its line.")
    LOGIN = Phrase("To confirm, its writer must answer from their own login.")


class Proof(enum.Enum):
    """The proof that the voter wrote the answer. The values are in the journal."""

    LOGIN = "login"  # their own, at the guard or at an MTA that it trusts
    SIGNATURE = "dkim"
    TOKEN = "token"  # no other proof: enough to reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer to a notice. ``claimed``: the one address in From, canonical; None if it is ambiguous. ``login``: the
    canonical address of the login that sent the answer; "" without one. ``automatic``: whether a program sent it
    (``sent_by_program``). ``word`` and ``comment``: the result of ``read_vote``; ``people``: the result of
    ``read_confirmation``. ``signed``: the result of ``full_signatures``."""

    claimed: str | None
    login: str = ""
    automatic: bool = False
    word: Choice | None = None
    comment: str = ""
    people: int | None = None
    signed: tuple[Signature, ...] = ()


class Tokens:
    """Make and check tokens. ``secret``: the installation's, so that all processes accept the same tokens."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"smtpguard vote by mail 1", "sha256")

    def local(self, hold_id: str, bound: str, person: str, notice_id: str) -> str:
        """Make a token: the local part of the answer address, behind the sign. ``bound``: ``binding_digest`` of the
        notice's hold."""
        tag = hashlib.sha256(notice_id.encode()).hexdigest()[:_TAG_DIGITS]
        return f"{hold_id.lower()}.{tag}.{self._code(bound, person, tag)}"

    def person(self, local: str, hold: Hold, people: Iterable[str]) -> str:
        """Return the person among ``people`` that the token was made for. Returns "" if it was not made here, or the
        hold has changed."""
        _, tag, code = token_parts(local)
        if not tag or not code.isascii():
            return ""
        bound = binding_digest(hold)
        return next((one for one in people if hmac.compare_digest(code, self._code(bound, one, tag))), "")

    def _code(self, bound: str, person: str, tag: str) -> str:
        mac = hmac.digest(self._key, f"{bound}\n{tag}\n{person}".encode(), "sha256")[:_CODE_OCTETS]
        return base64.b32encode(mac).decode().rstrip("=").lower()


def token_parts(local: str) -> tuple[str, str, str]:
    """Return hold, notice and code of a token; three times "" if it is not a token."""
    hold_id, _, rest = local.lower().partition(".")
    tag, _, code = rest.partition(".")
    whole = hold_id and _TAG.fullmatch(tag) and code and len(local) <= LOCAL_OCTETS
    return (hold_id.upper(), tag, code) if whole else ("", "", "")


def binding_digest(hold: Hold) -> str:
    """Return a digest of a hold that changes with its content, envelope, lists and rules."""
    bound = (hold.hold_id, hold.content_sha256, hold.envelope.sha256, *sorted(hold.scope))
    return hashlib.sha256("\n".join(bound).encode()).hexdigest()[:32]


def sent_by_program(header: Header, *, null_sender: bool) -> bool:
    """Return whether a program sent the mail (RFC 3834 sections 2 and 5): an absence reply, a delivery report, a list
    server, or the guard's own notice."""
    says = list_header(header.named)
    return null_sender or says.automatic or says.precedence in _BULK or any(name in header for name in _MACHINES)


def read_vote(text: str) -> tuple[Choice | None, str]:
    """Return the deciding word on the first line of an answer, and the comment: the text below it, up to an empty line
    or a signature (``--``). Quoted lines are ignored. Two different words are none: (None, "")."""
    lines = [line.strip() for line in split(text).new.split("\n")]
    own = list(itertools.dropwhile(lambda line: not line, (line for line in lines if not line.startswith((">", "|")))))
    words = [word for line in own if (word := _choice_on(line)) is not None]
    if not own or _choice_on(own[0]) is None or any(word is not words[0] for word in words):
        return None, ""
    after = itertools.dropwhile(lambda line: not line, own[1:])  # text from HTML has an empty line after each line
    comment = " ".join(itertools.takewhile(lambda line: line and not line.startswith("--"), after))
    return words[0], comment[:MOST_COMMENT]


def read_confirmation(text: str) -> int | None:
    """Return the number of people behind the word CONFIRM on the first line of a writer's answer, None without both."""
    own = next((line.strip() for line in split(text).new.split("\n") if line.strip()), "")
    word, _, number = own[:LONGEST_LINE].partition(" ")
    digits = re.sub(r"[\s,.]", "", number)
    words = {Speech(language)(CONFIRM).casefold() for language in languages()}
    return int(digits) if word.casefold() in words and digits.isascii() and digits.isdigit() else None


def may_confirm(answer: Answer, *, addresses: frozenset[str]) -> int | Uncounted:
    """Return the number of people that the writer names, or why the answer does not confirm. ``addresses``: the
    writer's."""
    if answer.automatic:
        return Uncounted.AUTOMATIC
    if answer.claimed not in addresses:
        return Uncounted.OTHER
    if answer.people is None:
        return Uncounted.NUMBER
    return answer.people if answer.login in addresses else Uncounted.LOGIN


def _choice_on(line: str) -> Choice | None:
    return _choice_by_word().get(line.strip(" .!*_").casefold()) if len(line) <= LONGEST_LINE else None


@cache
def _choice_by_word() -> Mapping[str, Choice]:
    return {Speech(language)(word).casefold(): choice for language in languages() for choice, word in WORDS.items()}


def full_signatures(header: Header, signatures: Iterable[Signature], address: Address) -> tuple[Signature, ...]:
    """Return the signatures that cover the whole body, and From, Subject and To, each of which must occur once. To must
    be the address of this notice, so that nobody can send an answer to another notice again as an answer to this
    one."""
    once = all(len(header.all(name)) == 1 for name in _SIGNED)
    to = {str(one).lower() for one in mailboxes(header, "To")}
    if not once or to != {str(address).lower()}:
        return ()
    needed = {name.lower() for name in _SIGNED}
    return tuple(one for one in signatures if not one.limited and needed <= one.fields)


def why_barred(accounts: Iterable[Account], required: frozenset[Role]) -> Uncounted | None:
    """Return why a person with these accounts cannot approve by mail, None if they can, also without an account.
    ``required``: the roles that need a second factor."""
    known = tuple(accounts)
    if known and not any(account.may(May.DECIDE) for account in known):
        return Uncounted.BARRED
    factor = any(account.totp or not required.isdisjoint(account.roles) for account in known)
    return Uncounted.FACTOR if factor else None


def decide(
    answer: Answer,
    hold: Hold,
    person: str,
    *,
    addresses: frozenset[str],
    used: bool,
    barred: Uncounted | None,
    special: bool,
    allowed: ReplyVotesModel | None,
    now: datetime,
) -> tuple[Choice, Proof] | Uncounted:
    """Return the decision and its proof, or why the answer does not count. ``person``: the person that the token was
    made for, or ""; ``addresses``: all of theirs. ``used``: the notice was answered by a vote before. ``special``: a
    list of the hold is of a special category. ``allowed``: None if nobody may approve by mail."""
    if not person:
        return Uncounted.TOKEN
    if answer.automatic:
        return Uncounted.AUTOMATIC
    if answer.claimed not in addresses:
        return Uncounted.OTHER
    if used:
        return Uncounted.USED
    if addresses & hold.senders:
        return Uncounted.WRITER
    if answer.word is None:
        return Uncounted.WORDLESS
    proof = proof_of(answer, addresses, allowed, now)
    if answer.word is Choice.REJECT:
        return Choice.REJECT, proof
    if not may_be_approved(hold, special, allowed):
        return Uncounted.OFF
    if barred is not None:
        return barred
    return (Choice.APPROVE, proof) if proof is not Proof.TOKEN else Uncounted.UNPROVEN


def proof_of(answer: Answer, addresses: frozenset[str], allowed: ReplyVotesModel | None, now: datetime) -> Proof:
    """Return the proof that one of ``addresses`` wrote the answer."""
    if answer.login in addresses:
        return Proof.LOGIN
    domain = (answer.claimed or "").rpartition("@")[2]
    vouched = allowed is not None and domain in allowed.senders_verified
    by_signature = vouched and any(s.domain == domain and _is_fresh(s.at, now) for s in answer.signed)
    return Proof.SIGNATURE if by_signature else Proof.TOKEN


def may_be_approved(hold: Hold, special: bool, allowed: ReplyVotesModel | None) -> bool:
    """Return whether the policy allows an approval of this hold by mail. ``special``, ``allowed``: as in ``decide``."""
    if allowed is None or hold.reach_at_least or hold.reach > allowed.people:
        return False
    return allowed.special or not special


def people_asked(hold: Hold, in_force: InForce, now: datetime) -> frozenset[str]:
    """Return all people who can have a notice that asks about the hold: its writer while only the writer is asked;
    otherwise the groups of its quorums, in and out of hours, and the people who are now their deputies."""
    if hold.question is not None:
        return frozenset({hold.question.writer})
    groups = hold.verdict.all_groups
    everybody = frozenset().union(*map(in_force.groups.of, groups))
    deputies = (in_force.groups.deputy(one, now, groups, hold.senders) for one in everybody)
    return everybody | frozenset(filter(None, deputies))


def _is_fresh(at: datetime | None, now: datetime) -> bool:
    return at is not None and now - MAX_AGE < at <= now + MAX_AHEAD
