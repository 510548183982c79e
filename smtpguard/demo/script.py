"""The scenes in their order: the story in its variants, an ordinary day, campaigns, a freeze, and a release; and how they are played.

A person does something, and each expectation is met or not: by what the client was answered and what the relay has, never by the guard's
own view.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smtpguard.demo.stage import HOME, Answer, DemoMessage, Stage


class Disposition(enum.Enum):
    """What happens to a message."""

    RELAYED = "relayed"
    HELD = "held"
    REJECTED = "rejected"
    DEFERRED = "deferred"
    DONE = "done"  # no mail: a person's command


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """``disposition``: what must happen to ``message``. ``after`` runs once it is sent, and checks everything else."""

    title: str
    disposition: Disposition
    message: DemoMessage | None = None
    because: str = ""  # why a message passes, in plain words; for others the guard gives the reason
    found: bool = False  # whether to show the evidence in the message as well
    again: bool = False  # the same message as in an earlier scene
    patient: bool = False  # retry a 4xx for a while, as every MTA does
    before: Callable[[Stage], None] | None = None
    after: Callable[[Stage, Result], str | None] | None = None


@dataclass(slots=True)
class Result:
    """The result of a scene. ``found``: the evidence in the message. ``wrong``: a sentence on what failed; None if all
    is as expected."""

    scene: Scene
    answer: Answer | None = None
    content: bytes = b""
    hold_id: str | None = None
    rules: list[str] = field(default_factory=list)  # the purpose of each, in words
    found: list[str] = field(default_factory=list)
    reach: int | None = None
    lines: list[str] = field(default_factory=list)
    wrong: str | None = None


def play(stage: Stage, scenes: Iterator[Scene]) -> Iterator[Result]:
    """Play one scene after another, and yield each result."""
    for scene in scenes:
        result = Result(scene)
        if scene.before is not None:
            scene.before(stage)
        if scene.message is not None:
            _send(stage, scene.message, result)
        if result.wrong is None and scene.after is not None:
            result.wrong = scene.after(stage, result)
        yield result


def _send(stage: Stage, message: DemoMessage, result: Result) -> None:
    result.content = stage.content(message)
    had = len(stage.relay.taken)
    result.answer = stage.send(message, result.content)
    if result.scene.patient:
        stage.until(lambda: _again(stage, message, result))
    arrived = [taken for taken in stage.relay.taken[had:] if taken.content.endswith(result.content)]
    expected = result.scene.disposition
    code, text = result.answer.code, result.answer.text
    if expected is Disposition.HELD and "Held for review as" in text:
        result.hold_id = text.rpartition(" ")[2]
    if result.hold_id is not None and not result.scene.again:
        row = next(iter(stage.rows("held", "show", result.hold_id)), {})
        result.rules = [stage.descriptions.get(rule, rule) for rule in row.get("rules", [])]
        result.found = _found(row.get("reasons", [])) if result.scene.found else []
        result.reach = row.get("reach")
    match expected:
        case Disposition.RELAYED:
            fine = code == 250 and len(arrived) == 1 and set(arrived[0].recipients) == set(message.recipients)
        case Disposition.HELD:
            fine = code == 250 and result.hold_id is not None and not arrived
        case Disposition.REJECTED:
            fine = 500 <= code < 600 and not arrived
        case _:
            fine = 400 <= code < 500 and not arrived
    if not fine:
        result.wrong = f"expected {expected.value}; the client heard {result.answer}; at the relay: {len(arrived)}"


def _again(stage: Stage, message: DemoMessage, result: Result) -> bool:
    """Whether the answer is no 4xx; else retry once."""
    if result.answer is not None and 400 <= result.answer.code < 500:
        result.answer = stage.send(message, result.content)
    return result.answer is not None and not 400 <= result.answer.code < 500


def _found(reasons: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first pieces of evidence in the message, each once."""
    looks = [r["detail"] for r in reasons if r["fact"] == "message.looks" and r["detail"]][:1]
    topics = [r["detail"] for r in reasons if r["fact"] == "message.unsuitable_topics" and r["detail"]][:1]
    phrases = [text.split("; ")[1:][:most] for detail, most in ((looks, 3), (topics, 2)) for text in detail]
    return [phrase for several in phrases for phrase in several]


RAMADAN = f"ramadan@lists.{HOME}"
KALLE, LOTTA, SARA = f"kalle.berg@{HOME}", f"lotta.ek@{HOME}", f"sara.nyman@{HOME}"
CAMPAIGNS, OMAR, DPO = f"campaigns@{HOME}", f"omar.haddad@{HOME}", f"dpo@{HOME}"
EVA = f"eva.lind@{HOME}"


class Script:
    """The play for one stage; later scenes use results of earlier ones."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._story = DemoMessage(
            subject="SV: Dieten", sender=KALLE, name="Kalle Berg", to=f"Lotta Ek <{LOTTA}>, {RAMADAN}", body=STORY,
            recipients=(RAMADAN,), headers=OUTLOOK,
        )  # fmt: skip
        self._campaign = DemoMessage(
            subject="Ramadan mubarak!", sender=CAMPAIGNS, name="Nordhandel", to=RAMADAN, body=CAMPAIGN,
            recipients=(RAMADAN,), headers=CAMPAIGN_HEADERS, signed=True, reverse_path=f"bounces@campaigns.{HOME}",
        )  # fmt: skip
        self._first: Result | None = None
        self._late: Result | None = None
        self._newsletter = "-"

    def scenes(self) -> Iterator[Scene]:
        yield from self._the_story()
        yield from self._the_ordinary_day()
        yield from self._campaigns()
        yield from self._one_by_one()
        yield from self._standing_still()
        yield from self._decisions()
        yield from self._no_relay()

    def _the_story(self) -> Iterator[Scene]:
        members = tuple(self._stage.members)
        yield Scene(title="Kalle answers Lotta about his diet, and the Ramadan list is in To", disposition=Disposition.HELD,
                    message=self._story, found=True, after=self._remember)  # fmt: skip
        yield Scene(title="His program lost the answer and sends the same again", disposition=Disposition.HELD,
                    message=self._story, again=True, after=self._is_the_first)  # fmt: skip
        yield Scene(title="The same to 50 members of the list, each in To, in one envelope", disposition=Disposition.HELD,
                    message=self._story.other(to=", ".join(members[:50]), recipients=members[:50]))  # fmt: skip
        yield Scene(title="The same to Lotta, with 30 members in Bcc", disposition=Disposition.HELD,
                    message=self._story.other(to=LOTTA, recipients=(LOTTA, *members[50:80])))  # fmt: skip

    def _the_ordinary_day(self) -> Iterator[Scene]:
        amina, yusuf = self._stage.members[0], self._stage.members[17]
        yield Scene(title="Sara answers one customer, who happens to be on the list", disposition=Disposition.RELAYED,
                    because="internal-looking, and yet ordinary: one customer, and To shows who it is",
                    message=DemoMessage(subject="SV: Var är mitt paket?", sender=SARA, name="Sara Nyman", to=amina,
                                  body=ANSWER, recipients=(amina,), headers=OUTLOOK))  # fmt: skip
        yield Scene(title='"A glass of wine at six?" to one customer on a list that avoids alcohol', disposition=Disposition.RELAYED,
                    because="what is not for an audience may well be for one person of it",
                    message=DemoMessage(subject="At six?", sender=SARA, name="Sara Nyman", to=yusuf, body=WINE,
                                  recipients=(yusuf,)))  # fmt: skip
        yield Scene(title="A password reset, from the system that may send them", disposition=Disposition.RELAYED,
                    because="a declared stream, from where its mail provably comes",
                    message=DemoMessage(subject="Your new password", sender=f"noreply@{HOME}", to=amina, body=RESET,
                                  recipients=(amina,), headers=(("Auto-Submitted", "auto-generated"),),
                                  source="127.0.0.2"))  # fmt: skip
        yield Scene(title="Lotta to three colleagues, bacon and all", disposition=Disposition.RELAYED,
                    because="among colleagues nothing is looked at but the recipients",
                    message=DemoMessage(subject="Mötet i morgon", sender=LOTTA, name="Lotta Ek", to=f"{KALLE}, {SARA}",
                                  body=COLLEAGUES, recipients=(KALLE, SARA, OMAR), headers=OUTLOOK))  # fmt: skip
        everyone = tuple(f"colleague{n}@{HOME}" for n in range(500))
        yield Scene(title="Kalle answers to all 500 colleagues", disposition=Disposition.RELAYED,
                    because="many people, and none of them a customer",
                    message=DemoMessage(subject="Re: Coffee machine", sender=KALLE, name="Kalle Berg", to=f"everybody@{HOME}",
                                  body=EVERYBODY, recipients=everyone, headers=OUTLOOK))  # fmt: skip
        yield Scene(title="A quote to somebody who is on no list", disposition=Disposition.RELAYED,
                    because="no customer list is touched",
                    message=DemoMessage(subject="Drawings", sender=SARA, name="Sara Nyman", to="peter@partner.example",
                                  body=ORDINARY, recipients=("peter@partner.example",)))  # fmt: skip

    def _campaigns(self) -> Iterator[Scene]:
        yield Scene(title="The campaign tool writes to the Ramadan list, signed with its DKIM key", disposition=Disposition.RELAYED,
                    because="a mailing by the list's own writer, proven by the signature that the list declares",
                    message=self._campaign)  # fmt: skip
        yield Scene(title="The same campaign from somebody without the key", disposition=Disposition.HELD,
                    message=self._campaign.other(signed=False, subject="Ramadan mubarak, once more"), after=self._wait_for_people)  # fmt: skip
        yield Scene(title="A vacation notice answers the list, with the null reverse-path", disposition=Disposition.REJECTED,
                    message=DemoMessage(subject="Out of office: Ramadan mubarak!", sender="sales@partner.example", to=RAMADAN,
                                  body=AWAY, recipients=(RAMADAN,), reverse_path="",
                                  headers=(("Auto-Submitted", "auto-replied"),)))  # fmt: skip

    def _one_by_one(self) -> Iterator[Scene]:
        yield Scene(title="The newsletter, personalised, to sixty customers one by one: unapproved, it stops at the fiftieth",
                    disposition=Disposition.DONE, after=self._sixty)  # fmt: skip
        yield _done(
            f"{EVA} looks at one copy, and approves all of it", "held", "approve", self._newsletter, "--as", EVA
        )
        title = "The copies that waited go out, and what still comes passes"
        yield Scene(title=title, disposition=Disposition.DONE, after=self._flows)

    def _copy(self, n: int) -> DemoMessage:
        to = self._stage.others[n]
        body = NEWSLETTER.format(name=to.partition(".")[0].title(), number=70_000 + n)
        return DemoMessage(subject="Spring in our shops", sender=CAMPAIGNS, name="Nordhandel", to=to, body=body, recipients=(to,),
                      headers=NEWSLETTER_HEADERS, reverse_path=f"bounces+{n}@campaigns.{HOME}")  # fmt: skip

    def _sixty(self, stage: Stage, result: Result) -> str | None:
        said = [stage.send(self._copy(n)).text for n in range(60)]
        held = [text.rpartition(" ")[2] for text in said if "Held for review as" in text]
        if len(held) != 11 or any("Held" in text for text in said[:49]):
            return f"{60 - len(held)} passed"
        self._newsletter = held[0]
        result.lines.append("49 customers got it before it was stopped, and the reason says so; the rest waits as one")
        result.lines += [f"{row['id']}: {row['copies']} copies are stored with it" for row in stage.rows("held", "list") if row["id"] == held[0]]  # fmt: skip
        return None

    def _flows(self, stage: Stage, result: Result) -> str | None:
        if not stage.until(
            lambda: any(row["state"] != "waiting" for row in stage.rows("held", "show", self._newsletter))
        ):
            return "it did not go out when it was due"
        said = [stage.send(self._copy(n)).text for n in range(60, 70)]
        if any("Held" in text for text in said):
            return "it was held again"
        wanted = {stage.others[n] for n in range(70)}
        if not stage.until(lambda: wanted <= {r for taken in stage.relay.taken for r in taken.recipients}):
            return "not everybody has it"
        result.lines += [
            f"{row['relayed']} people have it, once each" for row in stage.rows("mailings", "list") if row["subject"] == "Spring in our shops"
        ]  # fmt: skip
        return None

    def _standing_still(self) -> Iterator[Scene]:
        again = self._campaign.other(subject="Ramadan mubarak: opening hours")
        frozen = "--list", "ramadan-greetings"
        yield _done("Omar stops the list: smtpguard freeze --list ramadan-greetings", "freeze", *frozen,
                    "--reason", "a wrong link in the campaign")  # fmt: skip
        title = "The next campaign, signed and all, waits while the list is frozen"
        yield Scene(title=title, disposition=Disposition.HELD, message=again)
        yield _done("The link is mended: smtpguard thaw --list ramadan-greetings", "thaw", *frozen)
        yield Scene(title="The campaign after that goes out", disposition=Disposition.RELAYED,
                    because="nothing stands in its way any more",
                    message=self._campaign.other(subject="Ramadan mubarak: Eid"))  # fmt: skip

    def _decisions(self) -> Iterator[Scene]:
        for who in (OMAR, DPO):
            title = f"{who} looks at the campaign without the key, and approves"
            yield _done(title, "held", "approve", (self._late and self._late.hold_id) or "-", "--as", who)
        title = "With both groups' word it is released, byte for byte"
        yield Scene(title=title, disposition=Disposition.DONE, after=self._was_released)
        yield Scene(title="Kalle cannot approve his own mail", disposition=Disposition.DONE, after=self._cannot_approve)

    def _no_relay(self) -> Iterator[Scene]:
        yield Scene(title="The relay is down: mail stays with those who send it", disposition=Disposition.DEFERRED,
                    before=lambda stage: stage.relay.down(),
                    message=DemoMessage(subject="Drawings", sender=SARA, to="peter@partner.example", body=ORDINARY,
                                  recipients=("peter@partner.example",)))  # fmt: skip
        yield Scene(title="The relay is back, and what stayed is tried again", disposition=Disposition.RELAYED, before=lambda stage: stage.relay.up(), patient=True,
                    message=DemoMessage(subject="Drawings, again", sender=SARA, to="peter@partner.example",
                                  body=ORDINARY, recipients=("peter@partner.example",)))  # fmt: skip

    # Checks after scenes.

    def _remember(self, stage: Stage, result: Result) -> str | None:
        self._first = result
        told = {KALLE, OMAR, DPO}
        if not stage.until(lambda: told <= {r for taken in stage.relay.taken for r in taken.recipients}):
            return "not everybody was told who is to hear of it"
        result.lines.append(f"{KALLE} and those who decide were told; nothing else left the house")
        return None

    def _is_the_first(self, stage: Stage, result: Result) -> str | None:
        if self._first is None or result.hold_id != self._first.hold_id:
            return f"it was held twice: as {self._first and self._first.hold_id} and as {result.hold_id}"
        result.lines.append("the same hold, and no second notice")
        return None

    def _wait_for_people(self, stage: Stage, result: Result) -> str | None:
        self._late = result
        return None

    def _was_released(self, stage: Stage, result: Result) -> str | None:
        content = self._late.content if self._late else b"?"
        if not stage.until(lambda: any(taken.content.endswith(content) for taken in stage.relay.taken)):
            return "the released mail did not reach the relay"
        result.lines.append("the relay has it, and what was added stands in front of it: trace headers")
        return None

    def _cannot_approve(self, stage: Stage, result: Result) -> str | None:
        hold_id = (self._first and self._first.hold_id) or "-"
        done = stage.command("held", "approve", hold_id, "--as", KALLE)
        if done.returncode != 1:
            return f"exit status {done.returncode}: {_last(done.stderr)}"
        result.lines.append((done.stderr or done.stdout).strip().removeprefix("smtpguard: "))
        return None


def _done(title: str, *words: str) -> Scene:
    """A person's command."""

    def run(stage: Stage, result: Result) -> str | None:
        done = stage.command(*words)
        if done.returncode:
            return f"smtpguard {' '.join(words)}: exit status {done.returncode}: {_last(done.stderr)}"
        result.lines.extend(done.stdout.strip().splitlines()[:3])
        return None

    return Scene(title=title, disposition=Disposition.DONE, after=run)


def _last(said: str) -> str:
    return (said.strip().splitlines() or ["nothing was said"])[-1]


# The texts, as mail programs would write them.

OUTLOOK = (
    ("Thread-Topic", "Dieten"),
    ("Thread-Index", "AdsT3m0q1v0Q8cU8R0mY6g3p2k9aXw=="),
    ("In-Reply-To", f"<c81f4e@exchange.{HOME}>"),
    ("References", f"<c81f4e@exchange.{HOME}>"),
    ("Accept-Language", "sv-SE, en-US"),
    ("Content-Language", "sv-SE"),
    ("X-MS-Has-Attach", ""),
    ("X-MS-TNEF-Correlator", ""),
    ("X-Originating-IP", "[10.1.4.22]"),
)

STORY = """
Hej!

Jo, jag kör på bacon till frukost och en flaska sprit på fredagen, och vågen rör sig inte.
Läkaren säger att det är fläsket. Jag säger att det är läkaren.

Säg inget till cheferna. Vi ses vid kaffet!

/Kalle

Kalle Berg
Inköp, Nordhandel AB
Detta meddelande är konfidentiellt och endast avsett för internt bruk.

Från: Lotta Ek <lotta.ek@nordhandel.example>
Skickat: den 2 mars 2026 09:12
Till: Kalle Berg <kalle.berg@nordhandel.example>
Ämne: Dieten

Hur går det med dieten? Du ser ju ut som förut.
/Lotta
"""

CAMPAIGN = """
Ramadan mubarak!

We wish you and your family a blessed month. Dates, lentils and rose water are at half price in all our shops
from today until Eid, and our shops are open until midnight.

With warm greetings from all of us at Nordhandel

You get this letter since you asked for our Ramadan greetings.
Unsubscribe: https://www.nordhandel.example/unsubscribe
Nordhandel AB, Storgatan 1, Stockholm
"""

CAMPAIGN_HEADERS = (
    ("List-Id", "Ramadan greetings <ramadan.lists.nordhandel.example>"),
    ("List-Unsubscribe", "<https://www.nordhandel.example/unsubscribe>, <mailto:leave@nordhandel.example>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ("Precedence", "bulk"),
    ("Feedback-ID", "ramadan:campaigns:nordhandel"),
)

NEWSLETTER = """
Dear {name},

spring has come to our shops, and with it everything that a garden asks for: bulbs, roses, seeds, soil and tools to last a lifetime.
Until Sunday all of it costs a fifth less, and whoever shows this letter at the desk gets a bag of compost for nothing.
Your customer number is {number}; what we have put aside for you is at https://www.nordhandel.example/spring?c={number:x}

We look forward to seeing you,
all of us at Nordhandel

Unsubscribe: https://www.nordhandel.example/unsubscribe?c={number:x}
"""

NEWSLETTER_HEADERS = (
    ("List-Unsubscribe", "<https://www.nordhandel.example/unsubscribe>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ("Precedence", "bulk"),
)

ANSWER = """
Hej Amina,

Tack för ditt mejl. Din beställning skickades i går och bör vara hos dig på torsdag. Säg till om den inte kommer.

Med vänlig hälsning
Sara Nyman
Kundtjänst, Nordhandel AB

Från: Amina
Skickat: den 2 mars 2026 08:40
Till: Kundtjänst
Ämne: Var är mitt paket?

Hej, jag undrar var mitt paket är?
"""

RESET = """
Somebody, probably you, asked for a new password for your account.

Choose it here within an hour: https://www.nordhandel.example/reset/8Kq2
If it was not you, nothing has happened, and you need do nothing.
"""

COLLEAGUES = """
Hej alla,

Mötet i morgon börjar tio i stället för nio. Det blir bacon och ägg efteråt, som vanligt.

/Lotta
"""

WINE = """
Hi Yusuf,

Good to see you at the fair. Shall we have a glass of wine at six and talk about the autumn order?

Best regards
Sara
"""

EVERYBODY = """
Please do not answer to all. I do it only to say that nobody should.

/Kalle
"""

AWAY = """
I am away until Monday. In urgent matters please write to sales@partner.example.
"""

ORDINARY = """
Hello Peter,

The drawings are attached next time, promised. Friday works.

Sara
"""
