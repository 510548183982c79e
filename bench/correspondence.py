"""A made-up company's mail of a month: ordinary mail by kind, and dangerous mail of twenty kinds, plus three kinds sent
by scripts.

Each message is built with the headers of mail programs, a campaign tool, an ERP and a help desk. A seed gives the same
mail.
"""

from __future__ import annotations

import base64
import itertools
import random
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

from bench import company as words
from bench.company import Company, Person

FIRST = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)  # a Monday
DAYS = 30
CAMPAIGN = "campaign"
SCRIPT = "a script, each text another,"
UNPROVEN = f"{SCRIPT} without an account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One transaction. ``incident``: the incident that it belongs to; empty for ordinary mail."""

    at: datetime
    kind: str
    writer: str
    to: tuple[str, ...]
    raw: bytes
    client: str = words.OFFICE
    reverse_path: str = ""
    incident: str = ""


class Writing:
    """Generates the month's mail from a seed."""

    def __init__(self, seed: int, *, people: int = 600, customers: int = 6000, crowd: int = 60) -> None:
        """``crowd``: how many customers a person writes to who writes to them one by one."""
        self.company: Company = words.company(seed, people, customers)
        self.draw = random.Random(f"month {seed}")
        self.crowd = crowd
        self._number = itertools.count(1)
        self._accounts: dict[str, list[Person]] = {}
        self.known: dict[str, list[Person]] = {}
        """Customers to whom each colleague wrote before the month, as far as the messages require it."""

    def month(self, messages: int, incidents: int) -> list[Post]:
        """``messages`` ordinary messages and ``incidents`` incidents of each dangerous kind, in order of time."""
        posts: list[Post] = [*self._campaigns(messages)]
        kinds, weights = zip(*((make, weight) for make, weight in self._ordinary()), strict=True)
        while len(posts) < messages:
            posts += self.draw.choices(kinds, weights)[0]()
        posts = posts[:messages]
        for make in self._dangerous():
            for n in range(incidents):
                posts += make(n)
        return sorted(posts, key=lambda post: post.at)

    # time and people

    def when(self, *, day: int | None = None) -> datetime:
        day = self.draw.randrange(DAYS) if day is None else day
        while day % 7 > 4:
            day = self.draw.randrange(DAYS)
        return FIRST + timedelta(days=day, seconds=self.draw.randrange(10 * 3600))

    def colleague(self, *departments: str) -> Person:
        return self.draw.choice([p for d in departments for p in self.company.of(d)] or list(self.company.staff))

    def account_of(self, seller: Person, n: int = 1) -> list[Person]:
        """Customers whom a colleague writes to regularly, and sometimes a new one."""
        own = self._accounts.setdefault(seller.address, self.draw.sample(list(self.company.customers), 25))
        self.known.setdefault(seller.address, list(own))
        if self.draw.random() < 0.1:
            own[self.draw.randrange(len(own))] = self.draw.choice(self.company.customers)
        return self.draw.sample(own, n)

    # composing

    def raw(self, writer: str, to: Sequence[str], subject: str, body: str, at: datetime, *, headers: Sequence[str] = (),
            content: str = "text/plain") -> bytes:  # fmt: skip
        n = next(self._number)
        domain = writer.rpartition("@")[2].strip("<> ")
        fields = [
            f"From: {writer}",
            f"To: {', '.join(to)}",
            f"Subject: {_encoded(subject)}",
            f"Date: {format_datetime(at)}",
            f"Message-ID: <{n}.{at:%m%d%H%M%S}@{domain}>",
            "MIME-Version: 1.0",
            f"Content-Type: {content}" + ("" if content.startswith("multipart") else "; charset=utf-8"),
            "Content-Transfer-Encoding: 8bit",
            *headers,
        ]
        return ("\n".join(fields) + "\n\n" + body).replace("\r\n", "\n").replace("\n", "\r\n").encode()

    def post(self, kind: str, writer: Person, to: Sequence[Person], subject: str, body: str, at: datetime, *, incident: str = "",
             blind: bool = False, also: Sequence[str] = (), headers: Sequence[str] = (), content: str = "text/plain") -> Post:  # fmt: skip
        """A message as a mail program sends it. ``also``: addresses besides ``to``. ``blind``: no recipient is in the
        header."""
        grown = subject.startswith((*words.PREFIX.values(), *words.FORWARD.values()))
        outlook = [f"Thread-Topic: {_encoded(subject)}", f"Thread-Index: {_thread(self.draw, grown=grown)}",
                   "Accept-Language: sv-SE, en-US", "X-MS-Has-Attach:"]  # fmt: skip
        shown = [writer.mailbox] if blind else [*(p.mailbox for p in to), *also]
        raw = self.raw(writer.mailbox, shown, subject, body, at, headers=[*outlook, *headers], content=content)
        return Post(at=at, kind=kind, writer=writer.address, to=(*(p.address for p in to), *also), raw=raw,
                    reverse_path=writer.address, incident=incident)  # fmt: skip

    def subject(self, language: str) -> str:
        return words.subject(self.draw, language)

    def letter(self, writer: Person, to: Person, *, familiar: bool = False) -> str:
        return words.letter(self.draw, writer, to, self.company.staff, familiar=familiar)

    def story(self, writer: Person, *, short: bool = False, greet: bool = True) -> str:
        return words.story(self.draw, writer, self.company.staff, short=short, greet=greet)

    def paragraphs(self, language: str, least: int, most: int) -> str:
        return words.paragraphs(self.draw, language, self.company.staff, least, most)

    def values(self, language: str) -> dict[str, str]:
        return words.words(self.draw, language, self.company.staff)

    def answered(self, writer: Person, to: Person, earlier: Person, at: datetime, hours: int) -> str:
        """A letter above one that ``earlier`` wrote so many hours before."""
        return self.letter(writer, to) + self.quoted(writer, earlier, at - timedelta(hours=hours))

    def quoted(self, writer: Person, to: Person, at: datetime) -> str:
        """An earlier message of ``to``, quoted as mail programs do."""
        lang = writer.language
        earlier = self.paragraphs(to.language, 1, 3)
        if self.draw.random() < 0.5:
            head = words.WROTE[lang].format(f"{at:%Y-%m-%d %H:%M}", to.mailbox)
            return f"\n{head}\n" + textwrap.indent(earlier, "> ", lambda line: True) + "\n"
        names = words.QUOTED[lang]
        values = to.mailbox, f"{at:%Y-%m-%d %H:%M}", writer.mailbox, self.subject(lang)
        return (
            "\n________________________________\n"
            + "\n".join(f"{n}: {v}" for n, v in zip(names, values, strict=True))
            + f"\n\n{earlier}\n"
        )

    # ordinary kinds

    def _ordinary(self) -> list[tuple[Callable[[], list[Post]], float]]:
        return [
            (self.between_colleagues, 24), (self.to_a_customer, 16), (self.answer, 20), (self.help_desk, 9), (self.erp, 11),
            (self.payslips, 2.5), (self.applicants, 2), (self.attachment, 3.5), (self.partner, 3), (self.board, 0.15),
            (self.invitation, 1.5), (self.away, 2.5), (self.project, 3.5), (self.standard_text, 1.2), (self.mail_merge, 0.1),
            (self.forward_to_customer, 1.5), (self.shared_mailbox, 3), (self.prospects, 0.12),
        ]  # fmt: skip

    def between_colleagues(self) -> list[Post]:
        writer, at = self.colleague(), self.when()
        to = self.draw.sample(self.company.staff, self.draw.choice([1, 1, 1, 2, 3, 5, 12]))
        prefix = words.PREFIX[writer.language] if self.draw.random() < 0.5 else ""
        body = self.letter(writer, to[0], familiar=True)
        body += self.quoted(writer, to[0], at) if prefix else ""
        return [self.post("between colleagues", writer, to, prefix + self.subject(writer.language), body, at)]

    def to_a_customer(self) -> list[Post]:
        writer, at = self.colleague("sales", "sales", "support", "finance"), self.when()
        to = self.account_of(writer, self.draw.choice([1, 1, 1, 1, 2, 3]))
        body = self.letter(writer, to[0])
        return [self.post("letter to a customer", writer, to, self.subject(to[0].language), body, at)]

    def answer(self) -> list[Post]:
        writer, at = self.colleague("sales", "support", "support", "finance"), self.when()
        [to] = self.account_of(writer)
        subject = words.PREFIX[writer.language] + self.subject(to.language)
        body = self.answered(writer, to, to, at, 3)
        headers = [f"In-Reply-To: <{self.draw.randrange(10**9)}@{to.address.rpartition('@')[2]}>"]
        return [self.post("answer to a customer", writer, [to], subject, body, at, headers=headers)]

    def forward_to_customer(self) -> list[Post]:
        writer, at = self.colleague("sales"), self.when()
        [to] = self.account_of(writer)
        other = self.colleague("works")
        subject = words.FORWARD[writer.language] + self.subject(to.language)
        body = self.answered(writer, to, other, at, 30)
        return [self.post("forwarded to a customer", writer, [to], subject, body, at)]

    def shared_mailbox(self) -> list[Post]:
        """Answers that several people send from one address."""
        writer, at, to = self.colleague("support"), self.when(), self.draw.choice(self.company.customers)
        body = self.answered(writer, to, to, at, 3)
        one = replace(writer, first="Hamnkvarn", last="Info", address=words.SHARED)
        subject = words.PREFIX[writer.language] + self.subject(to.language)
        return [self.post("shared mailbox", one, [to], subject, body, at)]

    def prospects(self) -> list[Post]:
        """A letter each to a dozen customers who have never been written to, on one day."""
        writer, at, posts = self.colleague("sales"), self.when(), []
        for n, to in enumerate(self.draw.sample(self.company.customers, self.draw.randint(8, 16))):
            body = self.letter(writer, to)
            subject, when = self.subject(to.language), at + timedelta(minutes=11 * n)
            posts.append(self.post("letters to prospects", writer, [to], subject, body, when))
        return posts

    def help_desk(self) -> list[Post]:
        to, at, number = self.draw.choice(self.company.customers), self.when(), self.draw.randrange(10**5, 10**6)
        text = {words.SV: f"Hej {to.first}!\n\nDitt ärende {number} har fått ett svar:\n\n", words.EN: f"Dear {to.first},\n\nyour case {number} has an answer:\n\n",
                words.DE: f"Guten Tag {to.first},\n\nzu Ihrem Fall {number} gibt es eine Antwort:\n\n"}[to.language]  # fmt: skip
        body = text + self.paragraphs(to.language, 1, 3) + "\n\nHamnkvarn\n"
        subject = f"[#{number}] {self.subject(to.language)}"
        return self._system("help desk", words.DESK, words.DESK_CLIENT, to, subject, body, at)

    def erp(self) -> list[Post]:
        to, at, number = self.draw.choice(self.company.customers), self.when(), self.draw.randrange(10**6, 10**7)
        text = {words.SV: "Hej! Dina varor har kommit till vårt lager i {place} och skickas på {day}. Ordernummer {no}, summa {money} kronor.",
                words.EN: "Hello! Your goods have arrived at our depot in {place} and will be sent on {day}. Order {no}, total {money} pounds.",
                words.DE: "Guten Tag! Ihre Waren sind in {place} eingetroffen und gehen am {day} auf den Weg. Auftrag {no}, Summe {money} Euro."}[to.language]  # fmt: skip
        body = text.format(no=number, **self.values(to.language)) + "\n\nHamnkvarn\n"
        return self._system("ERP", words.ERP, words.SHOP_CLIENT, to, f"Order {number}", body, at)

    def payslips(self) -> list[Post]:
        to, at = self.colleague(), self.when()
        text = {words.SV: "Hej {}! Din lönespecifikation för mars finns i portalen.", words.EN: "Dear {}, your payslip for March is in the portal.",
                words.DE: "Guten Tag {}, Ihre Abrechnung für März liegt im Portal."}[to.language]  # fmt: skip
        return self._system("HR", words.HR, words.DESK_CLIENT, to, "Hamnkvarn HR", f"{text.format(to.first)}\n", at)

    def _system(
        self, kind: str, address: str, client: str, to: Person, subject: str, body: str, at: datetime
    ) -> list[Post]:
        headers = ["Auto-Submitted: auto-generated"]
        raw = self.raw(f"Hamnkvarn <{address}>", [to.mailbox], subject, body, at, headers=headers)
        post = Post(at=at, kind=kind, writer=address, to=(to.address,), raw=raw, client=client, reverse_path=address)
        return [post]

    def applicants(self) -> list[Post]:
        writer, at = self.colleague("hr"), self.when()
        to = self.draw.choice([*self.company.applicants, *self.company.customers[:20]])
        text = {words.SV: "tack för din ansökan till tjänsten som montör. Vi vill gärna träffa dig {day} klockan {hour} i {place}.",
                words.EN: "thank you for applying as a fitter. We would like to meet you on {day} at {hour} in {place}.",
                words.DE: "vielen Dank für Ihre Bewerbung als Monteur. Gern treffen wir Sie am {day} um {hour} Uhr in {place}."}[to.language]  # fmt: skip
        text = text.format(**self.values(to.language))
        body = f"{words.HELLO[to.language].format(to.first)}\n\n{text}\n\n{writer.signature(self.draw, to.language)}\n"
        return [self.post("recruiting", writer, [to], "Hamnkvarn", body, at)]

    def attachment(self) -> list[Post]:
        writer, at = self.colleague("sales", "finance"), self.when()
        [to] = self.account_of(writer)
        said = {words.SV: "Se bifogat.", words.EN: "Please see attached.", words.DE: "Anbei wie besprochen."}
        same = self.draw.random() < 0.3  # a price list that everybody sends
        pdf = _pdf(random.Random("price list") if same else self.draw)
        text, name = f"{said[to.language]}\n\n{writer.first}\n", "pris.pdf" if same else "offert.pdf"
        body, kind = _with(text, "application/pdf", name, pdf)
        return [self.post("see attached", writer, [to], self.subject(to.language), body, at, content=kind)]

    def partner(self) -> list[Post]:
        writer, at = self.draw.choice(self.company.partners), self.when()
        to = (
            [self.colleague("works", "sales")] if self.draw.random() < 0.7 else self.account_of(self.colleague("sales"))
        )
        body = self.letter(writer, to[0], familiar=True)
        return [self.post("partner", writer, to, self.subject(to[0].language), body, at)]

    def board(self) -> list[Post]:
        writer, at = self.colleague("board"), self.when()
        body = self.letter(writer, self.company.board[0], familiar=True)
        body = body.replace("\n\n", "\n\nKallelse till styrelsemöte, konfidentiellt.\n\n", 1)
        return [self.post("board", writer, self.company.board, "Styrelsemöte", body, at)]

    def invitation(self) -> list[Post]:
        writer, at = self.colleague("sales"), self.when()
        to = [*self.account_of(writer, self.draw.choice([1, 2])), self.colleague("works")]
        start = at + timedelta(days=3)
        event = (f"BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nUID:{next(self._number)}@hamnkvarn.example\nDTSTART:{start:%Y%m%dT%H0000Z}\n"
                 f"ORGANIZER:mailto:{writer.address}\nSUMMARY:{self.subject(writer.language)}\nEND:VEVENT\nEND:VCALENDAR\n")  # fmt: skip
        text = words.sentence(self.draw, to[0].language, self.company.staff) + "\n"
        body, kind = _with(text, "text/calendar; method=REQUEST", "", event.encode(), "alternative")
        return [self.post("invitation", writer, to, self.subject(to[0].language), body, at, content=kind)]

    def away(self) -> list[Post]:
        writer, at = self.colleague("sales", "support"), self.when()
        [to] = self.account_of(writer)
        text = {words.SV: "Jag är inte på kontoret just nu och svarar på {day}.", words.EN: "I am out of the office and shall answer on {day}.",
                words.DE: "Ich bin nicht im Büro und antworte am {day}."}[writer.language].format(**self.values(writer.language))  # fmt: skip
        post = self.post("out of office", writer, [to], "Auto: " + self.subject(to.language), f"{text}\n\n{writer.first}\n", at,
                         headers=["Auto-Submitted: auto-replied"])  # fmt: skip
        return [replace(post, reverse_path="")]

    def project(self) -> list[Post]:
        writer, at = self.colleague("sales"), self.when()
        to = [*self.draw.sample(self.company.of("works"), 3), *self.account_of(writer, self.draw.choice([1, 2, 3]))]
        subject = words.PREFIX[writer.language] + self.subject(writer.language)
        body = self.answered(writer, to[-1], to[0], at, 5)
        return [self.post("project with a customer", writer, to, subject, body, at)]

    def standard_text(self) -> list[Post]:
        """A standard text of the company that everybody uses, with a name in it."""
        writer, at = self.colleague("support", "sales"), self.when()
        [to] = self.account_of(writer)
        text = {words.SV: "dina varor har kommit och kan hämtas i vår butik på vardagar mellan nio och fem. Ta med legitimation och ordernumret. "
                          "Vi sparar dem i två veckor, därefter skickas de tillbaka till lagret. Välkommen!",
                words.EN: "your goods have arrived and can be collected in our shop on weekdays between nine and five. Please bring your papers "
                          "and the order number. We keep them for two weeks, then they go back to the depot. See you soon!",
                words.DE: "Ihre Waren sind da und können werktags zwischen neun und fünf in unserem Laden abgeholt werden. Bitte bringen Sie einen "
                          "Ausweis und die Auftragsnummer mit. Wir heben sie zwei Wochen auf, dann gehen sie zurück ins Lager. Bis bald!"}[to.language]  # fmt: skip
        body = f"{words.HELLO[to.language].format(to.first)}\n\n{text}\n\n{writer.signature(self.draw, to.language)}\n"
        return [self.post("standard text", writer, [to], "Order", body, at)]

    def mail_merge(self) -> list[Post]:
        """The same news to twelve of the writer's own customers, each addressed by name."""
        writer, at = self.colleague("sales"), self.when()
        news = self.paragraphs(writer.language, 3, 4)
        subject, posts = self.subject(writer.language), []
        for n, to in enumerate(self.account_of(writer, 12)):
            body = f"{words.HELLO[writer.language].format(to.first)}\n\n{news}\n\n{writer.signature(self.draw)}\n"
            posts.append(self.post("mail merge", writer, [to], subject, body, at + timedelta(seconds=4 * n)))
        return posts

    def newsletter(self, name: str, week: int) -> str:
        """The newsletter of a list and a week, always the same."""
        lang = {"newsletter-en": words.EN, "newsletter-de": words.DE}.get(name, words.SV)
        draw = random.Random(f"{name} {week}")
        news = "\n\n".join(words.paragraphs(draw, lang, self.company.staff, 3, 4) for _ in range(2))
        hello, leave = words.NEWSLETTER[lang]
        return f"{hello}\n\n{news}\n\n{leave}https://{words.TOOL}/u/{{n}}\n"

    def from_the_tool(self, kind: str, to: str, subject: str, body: str, at: datetime, *, incident: str = "", html: str = "", sender: str = words.MAILER,
                      client: str = words.TOOL_CLIENT, attached: bytes = b"") -> Post:  # fmt: skip
        n = next(self._number)
        headers = [f"List-Unsubscribe: <https://{words.TOOL}/u/{n}>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click", "Precedence: bulk",
                   "Feedback-ID: hamnkvarn:mailing"]  # fmt: skip
        text, content = body.replace("{n}", str(n)), "text/plain"
        if html:
            text, content = html.replace("{n}", str(n)), "text/html"
        if attached:
            text, content = _with(text, "application/pdf", "bilaga.pdf", attached)
        raw = self.raw(f"Hamnkvarn <{sender}>", [to], subject, text, at, headers=headers, content=content)
        return Post(
            at=at, kind=kind, writer=sender, to=(to,), raw=raw, client=client, reverse_path=sender, incident=incident
        )

    def _campaigns(self, messages: int) -> Iterator[Post]:
        """Each week a newsletter to the addresses of two lists, and personalised copies of a campaign for the members
        of a list."""
        for week in range(4):
            for name in ("newsletter-sv", "newsletter-de"):
                at, body = FIRST + timedelta(days=7 * week, hours=2), self.newsletter(name, week)
                yield self.from_the_tool(CAMPAIGN, words.ADDRESS[name], f"Hamnkvarn {week + 10}", body, at)
        copies = max(20, messages // 50)
        for week, name in enumerate(("newsletter-en", "ramadan-greetings", "newsletter-sv", "newsletter-en")):
            body, began = self.newsletter(name, week + 100), FIRST + timedelta(days=7 * week + 1, hours=3)
            members = self.company.lists[name]
            for n, to in enumerate(members[:copies]):
                text = body.replace("\n\n", f"\n\n{to.first}, {to.last}\n\n", 1)
                at = began + timedelta(seconds=20 * n)
                yield self.from_the_tool(CAMPAIGN, to.address, f"Hamnkvarn {week + 10}", text, at)

    # dangerous kinds

    def _dangerous(self) -> list[Callable[[int], list[Post]]]:
        return [
            self.reply_all, self.namesake, self.blind, partial(self._in_lots, "nineteen at a time", 19),
            partial(self._in_lots, "four at a time in Bcc", 4), self.one_by_one("long text, one by one", self._long),
            self.one_by_one("short text, one by one", self._short), self.one_by_one("answer with its thread, one by one", self._answering),
            self.one_by_one("forwarded with nothing added, one by one", self._forwarding), self.one_by_one("see attached, one by one", self._attaching),
            self.one_by_one("ends in an unsubscribe line, one by one", self._leaving), self.one_by_one("zero-width letters, one by one", self._long, self._zero_width),
            self.one_by_one("a random word in ten, one by one", self._long, self._random_words), self.slowly, self.footer_to_list, self.many_named, self.approved_and("an attachment"),
            self.approved_and("a paragraph replaced"), self.approved_and("hidden text on top"), self.approved_and("text below the footer"),
            self.script(f"{SCRIPT} from one account", proven=True), self.script(f"{SCRIPT} from one account that forges quotations", proven=True, quoting=True),
            self.script(UNPROVEN, proven=False),
        ]  # fmt: skip

    def writer(self) -> Person:
        return self.colleague("works", "sales", "finance")

    def list_address(self, n: int) -> str:
        return words.ADDRESS[list(words.ADDRESS)[n % len(words.ADDRESS)]]

    def crowd_of(self, n: int) -> list[Person]:
        everybody = self.company.lists[list(self.company.lists)[n % len(self.company.lists)]]
        return self.draw.sample(list(everybody), min(self.crowd, len(everybody)))

    def reply_all(self, n: int) -> list[Post]:
        writer, at, kind = self.writer(), self.when(), "thread of colleagues with a list in Cc"
        others = self.draw.sample(self.company.staff, 3)
        body = self.story(writer) + self.quoted(writer, others[0], at - timedelta(hours=1))
        subject, also = words.PREFIX[writer.language] + "Diet", [self.list_address(n)]
        return [self.post(kind, writer, others, subject, body, at, also=also, incident=f"{kind} {n}")]

    def namesake(self, n: int) -> list[Post]:
        writer, at, kind = self.writer(), self.when(), "a list's name at another domain"
        address = f"{self.list_address(n).partition('@')[0]}@{list(words.HOME.values())[n % 3]}"
        return [self.post(kind, writer, [], "Fredag", self.story(writer), at, also=[address], incident=f"{kind} {n}")]

    def footer_to_list(self, n: int) -> list[Post]:
        writer, at, kind = self.writer(), self.when(), "a colleague's letter with an unsubscribe line, to a list"
        body = self.story(writer) + f"\nAvregistrera dig: https://{words.TOOL}/u/1\n"
        return [self.post(kind, writer, [], "Fredag", body, at, also=[self.list_address(n)], incident=f"{kind} {n}")]

    def many_named(self, n: int) -> list[Post]:
        kind, writer, at = "comments nest in From, or two are named, to a list", self.writer(), self.when()
        claimed = f"{'(' * 2000}{')' * 2000} {words.MAILER}" if n % 2 else f"{words.MAILER}, {writer.address}"
        address = self.list_address(n)
        raw = self.raw(claimed, [address], "Fredag", self.story(writer), at)
        me = writer.address
        return [Post(at=at, kind=kind, writer=me, to=(address,), raw=raw, reverse_path=me, incident=f"{kind} {n}")]

    def blind(self, n: int) -> list[Post]:
        writer, at, kind = self.writer(), self.when(), "in Bcc to all at once"
        everybody, body = self.crowd_of(n), self.story(writer)
        return [self.post(kind, writer, everybody, "Fredag", body, at, incident=f"{kind} {n}", blind=True)]

    def _in_lots(self, kind: str, size: int, n: int) -> list[Post]:
        writer, at, posts = self.writer(), self.when(), []
        body, everybody = self.story(writer), self.crowd_of(n)
        for start in range(0, len(everybody), size):
            when = at + timedelta(minutes=start / 4)
            to, of = everybody[start : start + size], f"{kind} {n}"
            posts.append(self.post(kind, writer, to, "Fredag", body, when, incident=of, blind=size < 5))
        return posts

    def one_by_one(
        self, kind: str, make: Callable[[Person], tuple[str, str, str]], vary: Callable[[str], str] = str
    ) -> Callable[[int], list[Post]]:
        """``make``: subject, text and content type, for a writer. ``vary``: the text as one of the people gets it."""

        def incident(n: int) -> list[Post]:
            writer, at, posts = self.writer(), self.when(), []
            subject, text, content = make(writer)
            for number, to in enumerate(self.crowd_of(n)):
                when, body = at + timedelta(seconds=40 * number), vary(text)
                posts.append(
                    self.post(kind, writer, [to], subject, body, when, incident=f"{kind} {n}", content=content)
                )
            return posts

        return incident

    def _long(self, writer: Person) -> tuple[str, str, str]:
        return "Fredag", self.story(writer), "text/plain"

    def _short(self, writer: Person) -> tuple[str, str, str]:
        return "Fredag", f"{self.story(writer, short=True)}\n", "text/plain"

    def _answering(self, writer: Person) -> tuple[str, str, str]:
        other = self.colleague()
        body = self.story(writer, short=True) + "\n" + self.quoted(writer, other, FIRST)
        return words.PREFIX[writer.language] + "Diet", body, "text/plain"

    def _forwarding(self, writer: Person) -> tuple[str, str, str]:
        other, names = self.colleague(), words.QUOTED[writer.language]
        values = other.mailbox, "2026-03-02 09:12", writer.mailbox, "Diet"
        head = "\n".join(f"{n}: {v}" for n, v in zip(names, values, strict=True))
        body = f"\n________________________________\n{head}\n\n{self.story(other)}\n"
        return words.FORWARD[writer.language] + "Diet", body, "text/plain"

    def _attaching(self, writer: Person) -> tuple[str, str, str]:
        return "Fredag", *_with("Se bifogat.\n", "application/pdf", "fredag.pdf", _pdf(self.draw))

    def _leaving(self, writer: Person) -> tuple[str, str, str]:
        text = " ".join(self.story(writer, greet=False).split())
        return "Fredag", f"{text} Avregistrera dig här: https://{words.TOOL}/u/1\n", "text/plain"

    def _zero_width(self, text: str) -> str:
        return "".join(c + ("\u200b" if c.isalpha() and self.draw.random() < 0.05 else "") for c in text)

    def _random_words(self, text: str) -> str:
        return " ".join(
            "".join(self.draw.choices("aeinorstlmk", k=6)) if self.draw.random() < 0.1 else word
            for word in text.split()
        )

    def slowly(self, n: int) -> list[Post]:
        """A few messages a day, on every day of the month."""
        kind, writer, posts = "a few each day", self.writer(), []
        body = self.story(writer)
        days = [day for day in range(DAYS) if day % 7 < 5]
        for number, to in enumerate(self.crowd_of(n)):
            at = self.when(day=days[number * len(days) // self.crowd])
            posts.append(self.post(kind, writer, [to], "Fredag", body, at, incident=f"{kind} {n}"))
        return posts

    def script(self, kind: str, *, proven: bool, quoting: bool = False) -> Callable[[int], list[Post]]:
        """To five times as many customers within five days and nights, just slow enough to stay under any hourly limit."""

        def incident(n: int) -> list[Post]:
            writer, began, posts = self.writer(), self.when(day=7 * (n % 4)), []
            if not proven:
                writer = replace(writer, address=f"{writer.first.lower()}{n}@elsewhere.example")
            everybody = self.draw.sample(list(self.company.customers), min(5 * self.crowd, len(self.company.customers)))
            for number, to in enumerate(everybody):
                at = began + timedelta(days=5) * number / len(everybody)
                body = self.letter(writer, to)
                if quoting:
                    body += self.quoted(writer, to, at - timedelta(hours=3))
                subject = self.subject(writer.language)
                posts.append(self.post(kind, writer, [to], subject, body, at, incident=f"{kind} {n}"))
            return posts

        return incident

    def approved_and(self, what: str) -> Callable[[int], list[Post]]:
        """From the campaign tool to a list, one day after its newsletter was approved, with content that no approver
        has seen."""
        kind = f"approved, and then with {what}"

        def incident(n: int) -> list[Post]:
            name, week = ("newsletter-sv", "newsletter-de")[n % 2], n % 4
            at = FIRST + timedelta(days=7 * week + 1, hours=4, minutes=self.draw.randrange(200))
            writer = self.colleague("marketing")
            language = words.DE if name.endswith("de") else words.SV
            inside = self.story(replace(writer, language=language), greet=False)
            body, html, attached = self.newsletter(name, week), "", b""
            match what:
                case "an attachment":
                    attached = _pdf(self.draw)
                case "a paragraph replaced":
                    parts = body.split("\n\n")
                    parts[2] = " ".join(inside.split())
                    body = "\n\n".join(parts)
                case "hidden text on top":
                    paragraphs = "".join(f"<p>{part}</p>" for part in body.split("\n\n"))
                    html = f'<html><body><p style="color:#ffffff;font-size:2px">{inside}</p>{paragraphs}</body></html>'
                case _:
                    body = f"{body}\n{inside}"
            to, subject = words.ADDRESS[name], f"Hamnkvarn {week + 10}"
            return [
                self.from_the_tool(kind, to, subject, body, at, incident=f"{kind} {n}", html=html, attached=attached)
            ]

        return incident


def _encoded(text: str) -> str:
    return text if text.isascii() else f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="


def _thread(draw: random.Random, *, grown: bool) -> str:
    return base64.b64encode(b"\x01" + draw.randbytes(26 if grown else 21)).decode()


def _pdf(draw: random.Random) -> bytes:
    return b"%PDF-1.4\n" + draw.randbytes(600) + b"\n%%EOF\n"


def _with(text: str, kind: str, name: str, content: bytes, multipart: str = "mixed") -> tuple[str, str]:
    """A body of two parts, and its content type."""
    shown = f'; name="{name}"\nContent-Disposition: attachment; filename="{name}"' if name else "; charset=utf-8"
    encoded = base64.encodebytes(content).decode()
    sort = "html" if text.startswith("<html>") else "plain"
    body = f"--=_month\nContent-Type: text/{sort}; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{text}\n--=_month\nContent-Type: {kind}{shown}\nContent-Transfer-Encoding: base64\n\n{encoded}\n--=_month--\n"
    return body, f'multipart/{multipart}; boundary="=_month"'
