"""JSON models of requests and responses. Times are UTC with Z, absent values are null. The OpenAPI document is made of
these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from smtpguard.journal.chain import instant, utc_text

T = TypeVar("T")


Time = Annotated[datetime, PlainSerializer(utc_text, return_type=str, when_used="json")]
Moment = Annotated[Time, BeforeValidator(instant)]
"""From microseconds, as the journal has times."""
OrNone = BeforeValidator(lambda value: value or None)
"""From a value that is 0 or "" for none."""
IfAny = Annotated[int | None, OrNone]
ByValue = BeforeValidator(lambda member: member.value)
"""From a member of an enum."""
Comment = Annotated[str, Field(max_length=2000)]


class Sent(BaseModel):
    """A request body. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[T]):
    """Newest first. ``next``: the cursor of the next page, null on the last."""

    items: list[T]
    next: str | None = None


class PageQuery(Sent):
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str = Field(default="", max_length=200)


class ReasonRow(BaseModel):
    rule: str
    description: str
    sentences: list[str]


# -- mailings

MailingState = Literal["passing", "held", "approved", "paused", "rejected"]


class GrantRow(BaseModel):
    """An approval: so many people in all, until then. ``covers``: one message and nothing else, or copies of it as
    well. ``set``: of a correction, the SHA-256 of its people's keyed digests; null otherwise."""

    hold: str
    people: int
    until: str
    by: list[str]
    covers: Literal["message", "copies"]
    set: str | None


class RejectionRow(BaseModel):
    hold: str
    sentence: str
    until: str


class StageRow(BaseModel):
    """A release in stages: ``stage`` of ``of``, for at most ``limit`` people so far."""

    at: str
    stage: int
    of: int
    limit: int | None
    goes_on_at: str | None
    why: str | None


class MailingRow(BaseModel):
    """One mailing. Numbers are of distinct people: ``relayed`` have it, as far as is known, and ``doubted`` may; for
    ``admitted`` it is on its way; ``held``: it waits for a decision; ``deferred``: their copies are at the client;
    ``refused`` by the relay; ``stopped``: it was held, and does not go out. At least ``at_least`` people have it, and
    at most ``at_most``: they differ if recipients are in doubt, or if people of two lists, or of two versions of one,
    may be the same. ``first_at``, ``last_at``: when copies of it came; ``went_first_at``, ``went_last_at``: when the
    relay took the first and the last one, null if it took none."""

    id: str
    subject: str
    sender: str | None = Field(validation_alias=AliasChoices("from", "sender"))
    lists: list[str]
    at_least: int
    at_most: int
    relayed: int
    admitted: int
    held: int
    deferred: int
    refused: int
    doubted: int
    stopped: int
    customers: int
    messages: int
    copies: int
    bounces: int
    complaints: int
    first_at: str
    last_at: str
    went_first_at: str | None
    went_last_at: str | None
    state: MailingState
    hold: str | None
    approved: GrantRow | None
    rejected: RejectionRow | None
    stage: StageRow | None


class MailingsQuery(PageQuery):
    """``least``: mailings with at least so many people, or with a decision made or pending."""

    state: MailingState | None = None
    least: int = Field(default=20, ge=0, le=10_000_000_000)


class Feedback(Sent):
    """How many more since the last report."""

    bounces: int = Field(default=0, ge=0, le=10_000_000)
    complaints: int = Field(default=0, ge=0, le=10_000_000)
    comment: Comment = ""


class ReturnedMail(Sent):
    """A mail that came back, as in Explain. ``recipients``: those of its envelope."""

    message: str = ""
    message_base64: str = ""
    recipients: Annotated[list[Annotated[str, Field(max_length=320)]], Field(max_length=100)] = []


class ReturnRow(BaseModel):
    """``id``: the SHA-256 of the mail; ``n``: which of the people it is about. ``known_by``: how ``message`` and
    ``mailing`` were found; by likeness they are only likely. ``counts``: whether breakers count it. ``kept``: whether
    the mail is still stored."""

    id: str
    n: int
    at: str
    sort: Literal[
        "bounce", "delay", "delivered", "complaint", "reply", "unsubscribe", "automatic", "mention", "unsorted"
    ]
    known_by: Literal["trace", "envid", "verp", "message-id", "likeness", "nothing"]
    message: str | None
    mailing: str | None
    counts: bool
    address: str | None
    sender: str | None = Field(validation_alias=AliasChoices("from", "sender"))
    subject: str
    status: str | None
    said: str | None
    feedback: str | None
    why: str | None
    kept: bool


class ReturnsTaken(BaseModel):
    """``again``: it had been taken before, and nothing was written."""

    id: str
    again: bool
    items: list[ReturnRow]


class SortRow(BaseModel):
    """``counted``: people whom breakers count; ``likely``: only by its subject."""

    sort: str
    returns: int
    counted: int
    likely: int


class StretchRow(BaseModel):
    at: str
    bounce: int
    delay: int
    delivered: int
    complaint: int
    reply: int
    unsubscribe: int
    automatic: int
    mention: int
    unsorted: int


class DoneRow(BaseModel):
    at: str
    deed: Literal["went", "ended", "first", "stopped", "observed", "frozen", "thawed", "changed"]
    breaker: str | None
    limit: str | None
    counted: int | None
    people: int | None
    what: str | None


class Returns(BaseModel):
    """``now`` and ``before``: how much came back in the last ``seconds``, and in as many before. ``stretches``: each of
    ``stretch_seconds``, those in which nothing came back left out. ``items``: the latest 1,000."""

    mailing: str
    subject: str
    at_least: int
    at_most: int
    trend: Literal["nothing", "too few to tell", "grows", "falls", "goes on"]
    seconds: int
    now: int
    before: int
    sorts: list[SortRow]
    stretch_seconds: int
    stretches: list[StretchRow]
    done: list[DoneRow]
    items: list[ReturnRow]


class Moved(Sent):
    comment: Comment = ""


class RejectMailing(Sent):
    """``comment``: the reason. Its writers read it, and further messages of the mailing are refused with it."""

    comment: Annotated[str, Field(min_length=1, max_length=2000)]


class Disclosure(BaseModel):
    """Two people who decide on the mailing agree to list who got it. ``agreed_by``: null until a second agrees;
    ``until``: the second must agree before this, and then both can get the list up to this time."""

    asked_by: str
    asked_at: Time
    agreed_by: Annotated[str | None, OrNone]
    until: Time


class People(Sent):
    """The addresses to match: the members of ``list``, or those in the ``column`` of a CSV file."""

    list: Annotated[str, Field(max_length=100)] = ""
    csv: str = ""
    column: Annotated[str, Field(max_length=100)] = ""


class PersonRow(BaseModel):
    address: str
    what: Literal["sent", "may have"]


class WhoGot(BaseModel):
    """``set``: the SHA-256 of these people's keyed digests, which the journal has."""

    sent: int
    may_have: int
    set: str
    people: list[PersonRow]


# -- freezes

SelectorName = Literal["all", "list", "sender", "mailing", "thread"]


class FreezeRow(BaseModel):
    id: str = Field(validation_alias="freeze_id")
    selector: Annotated[SelectorName, ByValue]
    value: str
    reason: str
    by: str
    at: Time
    until: Time | None


class Freezes(BaseModel):
    items: list[FreezeRow]


class SetFreeze(Sent):
    """``value``: the list's name, the sender's address, the mailing or the thread; nothing for all."""

    selector: SelectorName
    value: Annotated[str, Field(max_length=500)] = ""
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    minutes: int | None = Field(default=None, ge=1, le=30 * 1440)


class FreezeSet(BaseModel):
    """``recalled``: messages that were dropped before their final dot; ``past_recall``: the relay has those, or may
    have."""

    freeze: FreezeRow
    recalled: int
    past_recall: int
    problems: list[str] = Field(
        description="freeze or thaw commands that failed, and whether the messages could not be counted"
    )


class FreezeLifted(BaseModel):
    """``lifted`` false: two people are needed. This one's consent is recorded, and the freeze stays until another
    agrees."""

    id: str
    lifted: bool
    problems: list[str]


# -- lists, policy, audit


class ListRow(BaseModel):
    name: str
    title: str
    audience: str
    sensitivity: str | None
    category: str | None
    people: int | None
    checked_at: Time | None
    state: str
    problem: str | None


class Lists(BaseModel):
    items: list[ListRow]


class PolicyRule(BaseModel):
    id: str = Field(validation_alias="rule_id")
    action: Annotated[str, BeforeValidator(lambda action: action.word)] = Field(validation_alias="then")
    mode: Annotated[str, ByValue]
    description: str


class PolicyShown(BaseModel):
    sha256: str
    enforce: bool
    rules: list[PolicyRule]
    groups: dict[str, int] = Field(description="number of people in each group")


class Explain(Sent):
    """``message``: a whole message (RFC 5322) as text; ``message_base64`` if it is not UTF-8. ``sender``: the
    reverse-path, "" for the null one; by default the message's From. Nothing is sent or stored."""

    message: str = ""
    message_base64: str = ""
    sender: Annotated[str, Field(max_length=320)] | None = None
    recipients: Annotated[list[str], Field(min_length=1, max_length=1000)]


class Explained(BaseModel):
    action: Literal["relay", "confirm", "hold", "defer", "reject"]
    looks: str
    reasons: list[ReasonRow]
    marks: list[str]
    unknown: dict[str, str]
    reach: int
    lists: list[str]
    policy_sha256: str


class FirstBad(BaseModel):
    seq: int
    problem: str


class Lost(BaseModel):
    """Entry ``seq`` says that the store was rolled back: entries up to ``through``, signed after ``since`` and until
    ``signed_at``, are not in it."""

    seq: int
    at: Moment
    through: int
    signed_at: Moment
    since: Moment | None


class Unsigned(BaseModel):
    """Entries without a checkpoint. Times: of the first and of the last."""

    first: int
    last: int
    since: Moment
    until: Moment


class Backwards(BaseModel):
    """An entry that is older than one before it, and how many such entries follow each other."""

    seq: int
    at: Moment
    before: Moment
    entries: int


class Beside(BaseModel):
    """Data that the store has beside the journal, and that disagrees with it."""

    about: str
    id: str
    problem: str


class Witnessed(BaseModel):
    """Up to which entry a witness has checkpoints, and when the last of them was signed."""

    seq: int
    signed_at: Moment


def _witnessed(given: tuple[int, int] | None) -> object:
    return given and {"seq": given[0], "signed_at": given[1]}


class Verified(BaseModel):  # made from the attributes of journal.proof.Proof
    ok: bool
    entries: int
    first_bad: FirstBad | None
    lost: list[Lost]
    renewed: IfAny = Field(
        description="The entry that put the present secret in force; null if it is the first secret."
    )
    others: list[str] = Field(description="Other journals with checkpoints in the state folder.")
    unreadable: int
    filed: bool = Field(
        description="Whether the file of checkpoints has one of this journal; without it, a missing end of the journal cannot be detected."
    )
    witnessed: Annotated[Witnessed | None, BeforeValidator(_witnessed)] = Field(
        description="Null if there is no witness: then root on this host could rewrite the whole journal undetected."
    )
    trimmed: IfAny = Field(description="The last entry that retention has deleted; null if none.")
    unsigned: list[Unsigned]
    backwards: list[Backwards]
    beside: list[Beside]


class Me(BaseModel):
    """The account that this token acts as, and what it may do."""

    address: str
    name: str
    roles: list[str]
    token: str
    scopes: list[str] = Field(description="the scopes that the account's roles allow")
    expires_at: Time
