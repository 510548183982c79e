"""JSON models of a held message: its row, its detail, decisions, questions and answers, and its history.

A decision names what its person has ``Seen``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from smtpguard.console.api.incident import FreezeRow
from smtpguard.console.api.operation import ByValue, Comment, OrNone, PageQuery, Sent, Time
from smtpguard.console.api.reference import ReasonRow

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
StateName = Literal[
    "waiting",
    "approved",
    "releasing",
    "released",
    "undelivered",
    "in-doubt",
    "granted",
    "rejected",
    "withdrawn",
    "expired",
    "void",
]


class ListRef(BaseModel):
    name: str
    title: str


class VoteRow(BaseModel):
    approver: str
    choice: Annotated[Literal["approve", "reject"], ByValue]
    at: Time
    comment: str


class SettledRow(BaseModel):
    """How many recipients have each outcome. The outcome of ``doubted`` ones is unknown."""

    sent: int
    failed: int
    doubted: int


class Held(BaseModel):
    """One held message."""

    id: str
    state: StateName
    held_at: Time
    expires_at: Time
    release_at: Time | None = Field(
        description="for an approved hold that has not been released: the time of release, until which the approval can be undone"
    )
    sender: str | None
    subject: str
    recipients: int
    reach: int = Field(description="number of people after expansion of list addresses")
    lists: list[ListRef]
    rules: list[str]
    mailing: str | None
    decided_with: str | None = Field(description="the primary hold of its mailing, if it is another hold")
    settled: SettledRow | None = Field(description="outcome of its recipients, once all are known")
    asked_at: Time | None = Field(
        description="since when people are asked whether it was sent; a post to a list in doubt is not retried automatically"
    )
    confirm: ConfirmRow | None = Field(
        description="the question to its writer, of a copy that of the hold it was confirmed with; null if the writer was not asked"
    )
    url: str | None = Field(description="URL of its page in the console")


class ConfirmRow(BaseModel):
    """The question to the ``writer`` whether the message is meant. ``proof``: what proved that they wrote it. While ``asked``, nobody
    else can approve it. After ``until`` it is an ordinary hold, or expires, as ``after`` says."""

    writer: str
    proof: Literal["login", "listener", "origin"]
    until: Time
    after: Literal["hold", "expire"]
    asked: bool
    confirmed_at: Time | None
    people: int | None = Field(description="the number that the writer typed")
    lapsed_at: Time | None = Field(description="since when the approvers decide instead")


class SendingRow(BaseModel):
    """The state of an approved message's release, in recipients. ``under_way``: it is being sent at this moment. A
    recipient is ``in_doubt`` from the beginning of an attempt until its answer is recorded. Rejecting or withdrawing
    stops what is ``left``, and prevents another attempt for recipients in doubt."""

    under_way: bool
    has: int
    in_doubt: int
    left: int


class Seen(Sent):
    """What the person was shown. Send back what you showed: if it differs by now, the answer is 409."""

    content_sha256: Sha256
    envelope_sha256: Sha256
    policy_sha256: Sha256
    lists: Annotated[list[str], Field(max_length=1000)]
    rules: list[str] | None = Field(
        default=None, max_length=1000, description="its `rules`; null: they are not compared"
    )
    copies: int | None = Field(
        default=None, ge=0, description="the `copies` of `covers` as shown; null: all that wait at the time of the vote"
    )


class QuorumRow(BaseModel):
    """The votes that are needed: ``each`` of every group."""

    groups: list[str]
    each: int
    out_of_hours: QuorumRow | None = None


class AtOnceRow(BaseModel):
    """Why the message goes to all ``people`` at once: its recipient is the address of a list whose mailings are sent in stages.
    ``may``: whether it can be approved, by sending that number back as ``all_at_once``; if not, it must be sent as single copies."""

    lists: list[str]
    people: int
    at_least: bool
    may: bool


class DiffersRow(BaseModel):
    """A place at which copies may differ. ``kind``: name, number, code or list, of which ``seen`` are some; or words, of which
    ``seen`` are all that are covered. ``before``: the words in front of it."""

    before: str
    kind: str
    seen: list[str]


class LetterRow(BaseModel):
    """Another message of the same sender that waits with it. ``begins``: the beginning of its text, "" if the caller may not see
    it."""

    id: str
    recipients: int
    subject: str
    begins: str


class CoversRow(BaseModel):
    """What an approval covers. ``only``: this message and nothing else. ``letters``: how many other messages of its sender it covers
    as they are, oldest first. Otherwise it covers copies that differ only in ``differs``, in parts of ``links`` to these hosts, and
    in texts that are ``one_of`` several. That was learned from ``copies``, the number of waiting copies; if there are none, at most
    ``words_at_most`` words may differ. ``text``: the same in English. A caller who may not see the message does not get its words."""

    only: bool
    letters: int
    copies: int
    words_at_most: int | None
    differs: list[DiffersRow]
    links: list[str]
    one_of: list[list[str]]
    text: list[str]


class HeldDetail(Held):
    """A held message with the reasons, the approvers, and the effect of the caller's own decision."""

    reasons: list[ReasonRow]
    votes: list[VoteRow]
    missing: list[QuorumRow]
    may_decide: bool
    may_undo: bool = Field(
        description="whether this account may take back or undo an approval (unvote) before the release"
    )
    may_take_back: bool = Field(description="whether this account may still reject what is approved and not yet sent")
    sending: SendingRow | None = Field(description="progress of the release; null if nothing is to be sent")
    stopped: bool = Field(
        description="whether its release was stopped after some recipients had, or may have, received it"
    )
    frozen_by: list[FreezeRow] = Field(description="freezes that stop its release; it is sent when all are lifted")
    why_not: Literal["", "own", "voted", "leaving", "over", "decided", "role", "group", "writer"]
    approval_sends: bool = Field(description="whether this account's approval would complete the quorum")
    reach_must_be_said: bool
    people_at_most: int = Field(description="how many people its mailing may reach in all, further copies included")
    at_once: AtOnceRow | None = Field(description="why it cannot be sent in stages; null if it can, or has no stages")
    covers: CoversRow
    letters: list[LetterRow] = Field(description="further letters of its sender that are decided with it")
    seen: Seen


class HeldQuery(PageQuery):
    state: StateName | None = "waiting"
    list: str = Field(default="", max_length=100)


class Confirm(Sent):
    """A writer's confirmation. ``reach``: the number of people it goes to, as its writer says."""

    seen: Seen
    reach: int


class Approve(Sent):
    """An approval. ``reach``: the number of people it goes to, as the approver says; needed if ``reach_must_be_said``. ``people``: how
    many people its mailing may reach in all: from those who have it or wait for it, the default, up to ``people_at_most``. More is held.
    ``all_at_once``: the ``people`` of ``at_once``, needed if that is present and this approval is the last one needed."""

    seen: Seen
    comment: Comment = ""
    reach: int | None = None
    people: int | None = None
    all_at_once: int | None = None


class Reject(Sent):
    """A rejection. ``comment``: the reason, which its writer reads. It is required for a message whose approval is in force."""

    seen: Seen
    comment: Comment = ""


class Withdraw(Sent):
    comment: Comment = ""


class Settle(Sent):
    """The outcome of a release to a list address in doubt: it was ``sent``, or is to be sent ``again``. ``comment``: how this is
    known; it is journalled."""

    choice: Literal["sent", "again"]
    comment: Comment = ""


class Question(Sent):
    """A question to the writer."""

    question: Annotated[str, Field(min_length=1, max_length=2000)]


class Answer(Sent):
    """The writer's words to the approvers."""

    words: Annotated[str, Field(min_length=1, max_length=2000)]


class AttachmentRow(BaseModel):
    name: str
    type: str = Field(validation_alias="kind")
    size_bytes: int


class Text(BaseModel):
    """The text of a message. ``text`` and ``quoted``: what a reader sees; ``plain``: the text in programs without HTML, if it says
    something else; ``hidden``: text that the HTML hides. ``cut``: whether there is more text. ``problem``: why not all of it can be
    read."""

    text: str = Field(validation_alias="new")
    quoted: str
    plain: str
    hidden: str
    cut: bool
    problem: Annotated[str | None, OrNone] = Field(validation_alias="why")
    attachments: list[AttachmentRow]


class Happened(BaseModel):
    """An entry of the journal. ``kind``: as in the journal; ``text``: in English. ``who`` and ``words`` are empty once erased."""

    at: Time
    kind: str
    text: str
    who: str
    words: str


class History(BaseModel):
    items: list[Happened]
