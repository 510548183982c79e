"""The policy file's sections as pydantic models: its grammar, its defaults, and its JSON Schema.

A model checks what it can check alone; checks that need the rest of the file (a group, a list, a fact's words) are in
parse. Addresses stay as they are written. What each key means is in schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from datetime import UTC, time
from itertools import combinations
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from smtpguard.config.durations import Delay, RateField, Seconds
from smtpguard.config.problem import Invalid, did_you_mean, one_of
from smtpguard.config.validation import Section
from smtpguard.lists.members import LISTED, LdapMembers, Mailbox, Mailboxes, SeveralExpands, SeveralMembers
from smtpguard.locale import languages
from smtpguard.policy.confirming import ConfirmModel
from smtpguard.policy.grammar import (
    Aways,
    ClockTime,
    Days,
    DaySpan,
    Domains,
    Holidays,
    LimitField,
    Logins,
    Name,
    Names,
    Networks,
    Yearly,
    Zone,
    compiled,
)
from smtpguard.policy.hours import MIDNIGHT, Hours, parse_days
from smtpguard.policy.stages import REST, SHARE, SORTS, Breaker, Breakers, Stages
from smtpguard.reading.fold import LANGUAGES

MOST_HOLIDAYS = 100
_FIELD_NAME = re.compile(r"[!-9;-~]{1,80}\Z")


class HoursModel(Section):
    days: Days = Field(default_factory=lambda: parse_days("mon-fri"), json_schema_extra={"default": "mon-fri"})
    from_: ClockTime = Field(default_factory=lambda: time(8), alias="from", json_schema_extra={"default": "08:00"})
    to: ClockTime = Field(default_factory=lambda: time(18), json_schema_extra={"default": "18:00"})
    zone: Zone = Field(default_factory=lambda: UTC, json_schema_extra={"default": "UTC"})
    holidays: Annotated[Holidays, Field(max_length=MOST_HOLIDAYS)] = Field(default=[])

    @model_validator(mode="after")
    def _in_order(self) -> HoursModel:
        if self.to != MIDNIGHT and self.from_ >= self.to:
            raise Invalid(f"working hours end at {self.to:%H:%M}, before they begin", "from earlier than to")
        return self

    def hours(self) -> Hours:
        spans = [each for each in self.holidays if isinstance(each, DaySpan)]
        return Hours(
            days=self.days,
            opens=self.from_,
            closes=self.to,
            zone=self.zone,
            holidays=frozenset(day for span in spans for day in span.days()),
            yearly=frozenset((each.month, each.day) for each in self.holidays if isinstance(each, Yearly)),
        )


def _people(value: Any) -> Any:
    """Addresses alone are a short form."""
    return {"addresses": value} if isinstance(value, list | str) else value


class PeopleModel(Section):
    """Addresses, and sources that have more of them."""

    addresses: Mailboxes = Field(default=[])
    members: SeveralMembers = Field(default=[])

    @model_validator(mode="after")
    def _somebody(self) -> PeopleModel:
        if not self.addresses and not self.members:
            raise Invalid("people, but no addresses and no members", "addresses, members, or both")
        return self


def _of_languages(known: Callable[[], Collection[str]]) -> Callable[[Any], Any]:
    """``known``: asked at each check, since a catalogue may be added."""

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            raise Invalid("no language", one_of(known()))
        if value not in known():
            raise Invalid(f'unknown language "{value}"', one_of(known()), did_you_mean(value, known()))
        return value

    return check


_spoken_here = _of_languages(languages)
Spoken = Annotated[
    str,
    BeforeValidator(_spoken_here),
    WithJsonSchema({"type": "string", "enum": list(languages())}),
    Field(title="language"),
]
"""A language in which there is a message catalogue."""


class OrganizationModel(Section):
    name: str = ""
    domains: Domains = Field(min_length=1)
    customers_here: bool = True
    languages: Annotated[list[Spoken], LISTED] = Field(default=["en"], min_length=1, title="language")
    hours: HoursModel = Field(default_factory=lambda: HoursModel.model_validate({}))
    aliases: dict[Mailbox, Mailboxes] = Field(default={})
    shared: Mailboxes = Field(default=[])
    people: Annotated[
        PeopleModel | None, BeforeValidator(_people, json_schema_input_type=PeopleModel | list[str] | str | None)
    ] = None


class OutOfHoursModel(Section):
    from_: Names = Field(alias="from", min_length=1)
    each: int = Field(default=1, ge=1, le=100)


class ApprovalsModel(OutOfHoursModel):
    """``each`` distinct people of every group in ``from``."""

    out_of_hours: OutOfHoursModel | None = None


class ListApprovalsModel(Section):
    from_: Names | None = Field(alias="from", default=None, min_length=1)
    each: int = Field(default=1, ge=1, le=100)
    out_of_hours: OutOfHoursModel | None = None
    always: bool = False

    @model_validator(mode="after")
    def _somebody(self) -> ListApprovalsModel:
        if self.from_ is None and (self.each != 1 or self.out_of_hours is not None or not self.always):
            raise Invalid("approvals without from", "from: [GROUP]; or approvals: always")
        return self

    @property
    def own(self) -> ApprovalsModel | None:
        """Return the list's own approvers, if it declares any."""
        if self.from_ is None:
            return None
        return ApprovalsModel.model_validate({"from": self.from_, "each": self.each, "out_of_hours": self.out_of_hours})


MOST_CLAIMS = 20


class GroupModel(Section):
    """``addresses`` alone may stand for all of it."""

    addresses: Mailboxes = Field(default=[])
    directory: LdapMembers | None = None
    claim: Annotated[Names, Field(max_length=MOST_CLAIMS)] = Field(default=[])

    @property
    def kept_elsewhere(self) -> bool:
        """Return whether others than the policy say who is in it."""
        return self.directory is not None or bool(self.claim)


class PersonModel(Section):
    away: Aways = Field(default=[])
    deputy: str | None = None

    @model_validator(mode="after")
    def _something(self) -> PersonModel:
        if not self.away:
            raise Invalid("a person without away", "away: 2026-12-20..2027-01-07, and deputy")
        return self


def _always(value: Any) -> Any:
    return {"always": True} if value == "always" else value


class OriginModel(Section):
    """The origin of mail: of each kind that is declared, one must match. ``logins``: login names of systems, not of
    people."""

    dkim: Domains = Field(default=[])
    clients: Networks = Field(default=[])
    logins: Logins = Field(default=[])

    @model_validator(mode="after")
    def _something(self) -> OriginModel:
        if not self.dkim and not self.clients and not self.logins:
            raise Invalid("an origin without a proof", "dkim, clients, logins, or several of them")
        return self


Category = Literal["ethnicity", "politics", "religion", "union", "genetics", "biometrics", "health", "sexuality"]
"""The special category of a list whose membership is sensitive (GDPR Art. 9)."""

Preview = Literal["reasons", "text", "full"]
PREVIEWS = get_args(Preview)
"""How much of a held message approvers see, least first: the reasons, the visible text as well, or all of it."""


_STEP = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\Z")


def _step(value: Any) -> Any:
    """Parse a number of people, a share of them, or the rest."""
    if value == "rest":
        return REST
    if isinstance(value, str) and (share := _STEP.match(value)) and 0 < float(share[1]) < 100:
        return float(share[1]) / 100
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return float(value)
    said = f'"{value}"' if isinstance(value, str | int | float) else "this"
    raise Invalid(f"{said} is not a stage", 'a number of people, a share like "1%", or "rest"')


def _steps(value: Any) -> Any:
    if not isinstance(value, list) or len(value) < 2 or value[-1] != "rest" or value.count("rest") > 1:
        raise Invalid("no stages", "at least two, of which the last is rest: [50, 1%, rest]")
    return value


def _pause(value: Any) -> Any:
    return None if value == "person" else value


Step = Annotated[
    float,
    BeforeValidator(_step),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^([0-9.]+ ?%|rest)$"}]}
    ),
]


class StagesModel(Section):
    steps: Annotated[list[Step], BeforeValidator(_steps)]
    pause: Annotated[Seconds | None, BeforeValidator(_pause, json_schema_input_type=str)] = 1800
    refused: float = Field(default=0.05, gt=0, le=1)
    reported: float = Field(default=0.005, gt=0, le=1)

    def stages(self) -> Stages:
        pause = int(self.pause) if self.pause is not None else None
        return Stages(steps=tuple(self.steps), pause_seconds=pause, refused=self.refused, reported=self.reported)


def _staged(value: Any) -> Any:
    """The steps alone are a short form."""
    return {"steps": value} if isinstance(value, list | str | int) else value


Language = Annotated[
    str,
    BeforeValidator(_of_languages(lambda: LANGUAGES)),
    WithJsonSchema({"type": "string", "enum": list(LANGUAGES)}),
    Field(title="language"),
]


class ListBreakersModel(Section):
    """Breakers for mailings to this list, each key in place of the policy's."""

    complaints: LimitField | None = None
    bounces: LimitField | None = None
    replies: LimitField | None = None
    unsubscribes: LimitField | None = None
    stops: Literal["mailing", "lists"] | None = None

    def breakers(self, usual: Breakers) -> Breakers:
        """``usual``: for keys that are not given here."""
        limits = {breaker.name: breaker.limit for breaker in usual.each}
        limits |= {name: limit for name in SORTS if (limit := getattr(self, name)) is not None}
        each = tuple(Breaker(name=name, limit=limits[name]) for name in SORTS if name in limits)
        return Breakers(each=each, lists=usual.lists if self.stops is None else self.stops == "lists")


class BreakersModel(ListBreakersModel):
    """Limits for what comes back after a mailing. They count people, by returns that carry proof."""

    stops: Literal["mailing", "lists"] = "mailing"


class ListModel(Section):
    title: str = ""
    owner: Mailbox | None = None
    addresses: Mailboxes = Field(default=[])
    addresses_elsewhere: Mailboxes = Field(default=[])
    list_ids: Names = Field(default=[])
    members: SeveralMembers = Field(default=[])
    audience: Name = "customers"
    sensitivity: Literal["normal", "special-category"] | None = None
    category: Category | None = None
    writers: Mailboxes = Field(default=[])
    origin: OriginModel | None = None
    avoid: Names = Field(default=[])
    language: Annotated[list[Language], LISTED] = Field(default=[], title="language")
    approvals: Annotated[
        ListApprovalsModel | None,
        BeforeValidator(_always, json_schema_input_type=ListApprovalsModel | Literal["always"] | None),
    ] = None
    preview: Preview | None = None
    stages: Annotated[
        StagesModel | None, BeforeValidator(_staged, json_schema_input_type=StagesModel | list[Step] | None)
    ] = None
    stages_by_address: Literal["refuse", "confirm"] | None = Field(
        default=None, json_schema_extra={"default": "confirm"}
    )
    release_delay: Delay | None = None
    breakers: ListBreakersModel | None = None

    @property
    def special(self) -> bool:
        return self.sensitivity == "special-category"

    @model_validator(mode="after")
    def _staged_at_all(self) -> ListModel:
        if self.stages_by_address is not None and self.stages is None:
            raise Invalid("stages_by_address without stages", "stages: [50, 1%, rest] beside it")
        return self

    @model_validator(mode="after")
    def _special(self) -> ListModel:
        if self.category is not None and not self.special:
            raise Invalid("a category without its sensitivity", "sensitivity: special-category beside it")
        return self


class StreamModel(Section):
    """Standing approval for one-by-one mail from systems; never for a list address."""

    from_: Mailboxes = Field(alias="from", min_length=1)
    origin: OriginModel
    max: RateField | None = None
    max_per_person: RateField | None = None
    owner: Mailbox | None = None


_ACTIONS = ("confirm", "hold", "defer", "reject", "alarm")


def _action(value: Any) -> Any:
    if value == "relay":
        raise Invalid(
            "a rule cannot relay: the strictest rule wins", 'an exception, as "unless" of the rules it is for'
        )
    if isinstance(value, str) and value not in _ACTIONS:
        raise Invalid(f'unknown action "{value}"', one_of(_ACTIONS), did_you_mean(value, _ACTIONS))
    return value


Conditions = dict[str, Any]
"""Parsed by grammar, with positions, and described by schema: here they are facts and raw conditions."""


def _spoken(value: Any) -> Any:
    """A text, or one for each of some languages. A text alone has the language ""."""
    if isinstance(value, str):
        return {"": value}
    if isinstance(value, dict):
        for language in value:
            _spoken_here(language)
            if not isinstance(value[language], str):
                raise Invalid(f"no text in {language}", "a text")
        return value
    raise Invalid("no text", "a text, or one for each language: {sv: ..., en: ...}")


Texts = Annotated[
    dict[str, str],
    BeforeValidator(_spoken),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {language: {"type": "string"} for language in languages()},
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""Language -> text."""


class RuleModel(Section):
    id: Name
    description: Texts = Field(default={})
    when: Conditions
    unless: Conditions | None = None
    then: Annotated[Literal["confirm", "hold", "defer", "reject", "alarm"], BeforeValidator(_action)] = Field(
        title="action"
    )
    mode: Literal["enforce", "observe"] = "enforce"
    scope: Literal["all", "customers"] = "all"
    explain: bool = False
    stop: Seconds | None = None
    within: Seconds | None = None
    after: Literal["hold", "expire"] | None = Field(default=None, json_schema_extra={"default": "hold"})


def _pattern(text: str) -> str:
    compiled(text)
    return text


def _field_name(text: str) -> str:
    """RFC 5322 section 2.2: printable ASCII without a colon."""
    name = text.strip().removesuffix(":")
    if text and not _FIELD_NAME.match(name):
        raise Invalid(f'invalid header field name "{text}"', "a name like X-Department")
    return name


class MarkModel(Section):
    """A mark of the admins' own: a header field that exists, or that matches, or words in the text."""

    side: Literal["internal", "mailing"]
    weight: Annotated[float, Field(gt=0, le=100)]
    header: Annotated[str, AfterValidator(_field_name)] = ""
    pattern: Annotated[str, AfterValidator(_pattern)] = ""
    term: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _something(self) -> MarkModel:
        if not (self.header or self.pattern or self.term):
            raise Invalid("a mark without anything to look for", "header, pattern or term")
        if self.pattern and self.term:
            raise Invalid("a mark with both a pattern and a term", "pattern or term")
        return self


def _share(value: Any) -> Any:
    if isinstance(value, str) and (share := _STEP.match(value)) and 0 <= float(share[1]) <= 50:
        return float(share[1]) / 100
    said = f'"{value}"' if isinstance(value, str | int | float) else "this"
    raise Invalid(f"{said} is not a share of the words", 'at most half of them, like "5%"')


class MailingsModel(Section):
    slots: Annotated[
        float,
        BeforeValidator(_share),
        WithJsonSchema({"type": "string", "pattern": "^[0-9.]+ ?%$"}),
        Field(json_schema_extra={"default": f"{SHARE:.0%}"}),
    ] = SHARE


class ReplyVotesModel(Section):
    people: int = Field(ge=1)
    sensitivity: Literal["none", "special-category"] = "none"
    senders_verified: Domains = Field(default=[])

    @property
    def special(self) -> bool:
        """Return whether it may go to lists of a special category."""
        return self.sensitivity != "none"


class PolicyModel(Section):
    """The whole policy file."""

    version: Literal[1] = 1
    enforce: bool = True
    organization: OrganizationModel
    groups: dict[
        Name,
        Annotated[GroupModel, BeforeValidator(_people, json_schema_input_type=GroupModel | list[str] | str)],
    ] = Field(default={})
    people: dict[str, PersonModel] = Field(default={})
    previews: dict[Name, Annotated[Preview, Field(title="preview")]] = Field(default={})
    approvals: ApprovalsModel
    lists: dict[Name, ListModel] = Field(default={})
    expansions: SeveralExpands = Field(default=[])
    mailings: MailingsModel = MailingsModel()
    confirm: ConfirmModel = ConfirmModel()
    reply_votes: ReplyVotesModel | None = None
    breakers: BreakersModel = BreakersModel()
    streams: dict[Name, StreamModel] = Field(default={})
    marks: dict[Name, Annotated[float, Field(ge=0, le=100)]] = Field(default={})
    own_marks: dict[Name, MarkModel] = Field(default={})
    rules: list[RuleModel] = Field(default=[])


_MOST_GROUPS = 10
"""The most groups of one quorum that the check combines."""


def lacking(asked: Sequence[str], each: int, groups: Mapping[str, Set[str]], without: Set[str] = frozenset()) -> str:
    """Return the seats for which there are too few people (Hall's condition); "" if all can be filled. ``each``: of
    each group ``asked`` so many must approve; all of them must be in ``groups``. ``without``: people who may not
    decide."""
    for size in range(1, min(len(asked), _MOST_GROUPS) + 1):
        for some in combinations(asked, size):
            people = frozenset().union(*(groups[group] for group in some)) - without
            if len(people) < (seats := each * size):
                wanted = "somebody" if seats == 1 else f"{seats} people"
                has = f"{'has' if size == 1 else 'have'} {len(people) or 'none'}"
                return f"needs {wanted} of {' and '.join(some)}, which {has}"
    return ""
