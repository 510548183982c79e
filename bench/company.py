"""A made-up company: 600 people in three countries, their customers and lists, and the text of their mail in three
languages.

A seed gives the same company and the same text everywhere. All domains are reserved for examples (RFC 2606), so no
address can be a real one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SV, EN, DE = "sv", "en", "de"
HOME = {SV: "hamnkvarn.example", EN: "hamnkvarn-uk.example", DE: "hamnkvarn-de.example"}
LISTS = "lists.hamnkvarn.example"
PARTNER = "lagerviken.example"
"""A warehouse whose people count as colleagues."""
TOOL, SHOP = "utskick.hamnkvarn.example", "system.hamnkvarn.example"
TOOL_CLIENT, SHOP_CLIENT, DESK_CLIENT, OFFICE = "10.20.0.5", "10.20.0.9", "10.20.0.7", "10.20.1.4"
"""Client addresses of the campaign tool, the ERP, the help desk and HR, and people's own mail."""
MAILER = f"nyheter@{TOOL}"
DESK, ERP, HR = f"support@{HOME[SV]}", f"noreply@{SHOP}", f"hr@{HOME[SV]}"
SHARED = f"info@{HOME[SV]}"
"""A mailbox that several people send from."""

_FIRST = {
    SV: "Anna Bengt Cecilia David Elsa Fredrik Greta Hassan Ida Johan Karin Lars Maria Nils Oskar Petra Rasmus Sara Tove Ulf Vera Yasmin Åsa Örjan",
    EN: "Alice Ben Chloe Daniel Emma Frank Grace Harry Isla Jack Kate Liam Mia Noah Olivia Peter Quinn Ruth Sam Tara Umar Violet Will Zoe",
    DE: "Anja Bernd Claudia Dieter Elke Florian Gisela Hakan Ines Jörg Katrin Lukas Monika Niklas Otto Petra Ralf Silke Thomas Uwe Vera Wolfgang Yara Zeynep",
}
_LAST = {
    SV: "Andersson Berg Carlsson Dahl Ek Forsman Grön Holm Ivarsson Jonsson Kvist Lindgren Moberg Nordin Olsson Palm Quist Rosén Sjö Thorn Ullman Vik Wallin Åkesson",
    EN: "Adams Brook Carter Dawson Ellis Foster Gray Hughes Irving Jones Kemp Lowe Marsh Nolan Owens Price Quill Reid Stone Tucker Upton Vance Ward York",
    DE: "Adler Braun Conrad Diehl Engel Fuchs Gruber Hartmann Ingwersen Jansen Keller Lorenz Maurer Neumann Ott Peters Quandt Richter Schulz Thiele Ulrich Vogel Wagner Zimmer",
}
_TITLES = {
    "sales": {SV: "Säljare", EN: "Account manager", DE: "Vertrieb"},
    "support": {SV: "Kundtjänst", EN: "Customer care", DE: "Kundendienst"},
    "hr": {SV: "HR", EN: "People team", DE: "Personal"},
    "finance": {SV: "Ekonomi", EN: "Finance", DE: "Buchhaltung"},
    "marketing": {SV: "Marknad", EN: "Marketing", DE: "Marketing"},
    "board": {SV: "VD-stab", EN: "Executive office", DE: "Geschäftsleitung"},
    "works": {SV: "Produktion", EN: "Operations", DE: "Fertigung"},
}
_SHARE = {"sales": 130, "support": 60, "hr": 20, "finance": 40, "marketing": 20, "board": 10, "works": 320}

# A sentence is three clauses, each drawn from its own row. So messages of one language share words, as real mail does,
# but hardly ever a sentence.
_SENTENCES = {
    SV: [
        ("Vi kan leverera {product} till {place}|Den del av {product} som saknades finns nu i vårt lager i {place}|Jag har reserverat {n} {product} åt er|"
         "Fraktbolaget hämtar {product} i {place}|{product} från den förra beställningen är slut i {place}|Beställningen av {n} {product} är registrerad",
         "på {day}|före {day} klockan {hour}|så snart ordern är undertecknad|i två omgångar med början på {day}|mot slutet av vecka {week}|senast den {date}",
         "och fakturan på {money} kronor kommer separat|om inget oväntat händer i hamnen|förutsatt att måtten på ritningen stämmer|"
         "och jag hör av mig när bilen har lastats|med samma betalningsvillkor som i avtalet från {year}|vilket är två dagar tidigare än vi trodde"),
        ("Efter mötet om {project}|När vi gick igenom {project} i går|I underlaget för {project}|Inför nästa steg i {project}|Under provkörningen av {project}|I protokollet från {project}",
         "såg vi att priset på {product} behöver räknas om|kom frågan upp om vem som ansvarar för monteringen|hittade {person} ett fel i tabellen på sidan {n}|"
         "föreslog {person} att vi byter leverantör av {product}|blev det klart att garantin gäller till {year}|saknades uppgiften om vikten på {product}",
         "så jag skickar en rättad version på {day}|och jag vill gärna höra vad du tycker|men det påverkar inte slutdatumet|vilket sparar ungefär {money} kronor|"
         "så vi tar ett kort samtal klockan {hour}|och {person} återkommer med en bild"),
        ("Kan du titta på offerten för {product}|Skulle ni kunna skicka måtten på {product}|Har ni haft tid att läsa förslaget om {project}|Vet du om {person} är på plats|Vill ni att vi förlänger serviceavtalet för {product}|Går det bra att vi besöker er i {place}",
         "innan {day}|under förmiddagen den {date}|när det passar er|så att vi hinner boka montören|i samband med leveransen vecka {week}|helst före klockan {hour} i rum {n}",
         "och säga till om något är oklart|så lägger jag in det i planeringen|eftersom priset gäller till den {date}|för då kan vi hålla rabatten på {n} procent|annars flyttar vi det till veckan därpå|med kopia till {person}"),
        ("Monteringen av {product} i {place}|Felanmälan om {product}|Reservdelen med nummer {serial}|Returen av {n} {product}|Kalibreringen av {product}|Besiktningen i {place}",
         "är klar sedan {day}|tog längre tid än beräknat|har fått ärendenummer {serial}|väntar på besked från {person}|är godkänd utan anmärkning|bokades om till den {date}",
         "och protokollet ligger i portalen|så ni kan börja använda den igen|men en packning ska bytas vid nästa service|och kostnaden täcks av garantin|vilket jag beklagar|så jag ringer dig på {day} klockan {hour}"),
    ],
    EN: [
        ("We can deliver the {product} to {place}|The missing part of the {product} has reached our depot in {place}|I have set aside {n} of the {product} for you|"
         "The carrier collects the {product} in {place}|Your order of {n} {product} is in the system|The last batch of {product} left {place}",
         "on {day}|before {hour} on {day}|as soon as the order is signed|in two lots from {day}|towards the end of week {week}|by {date} at the latest",
         "and the invoice for {money} pounds follows separately|unless the port surprises us again|provided that the drawing is right|"
         "and I will call when the lorry is loaded|on the terms that we agreed in {year}|which is two days sooner than we thought"),
        ("After our talk about {project}|When we went through {project} yesterday|In the papers for {project}|Before the next step of {project}|During the trial of {project}|In the minutes of {project}",
         "we saw that the price of the {product} has to be worked out again|somebody asked who is in charge of the fitting|{person} found a slip in the table on page {n}|"
         "{person} suggested another supplier for the {product}|it became clear that the warranty runs until {year}|the weight of the {product} was missing",
         "so I shall send a corrected version on {day}|and I would like to hear what you think|but the final date stays as it is|which saves about {money} pounds|"
         "so let us have a short call at {hour}|and {person} will send a picture"),
        ("Could you look at the quotation for the {product}|Would you send us the measurements of the {product}|Have you had time to read our proposal on {project}|Do you know whether {person} is in|Shall we extend the service contract for the {product}|May we visit you in {place}",
         "before {day}|in the morning of {date}|whenever it suits you|so that we can book the fitter|together with the delivery in week {week}|ideally before {hour}",
         "and tell me if anything is unclear|and I will put it in the plan|since the price holds until {date}|as we can then keep the discount of {n} per cent|otherwise we move it to the week after|with a copy to {person}"),
        ("The fitting of the {product} in {place}|Your report about the {product}|The spare part with the number {serial}|The return of {n} {product}|The calibration of the {product}|The inspection in {place}",
         "was finished on {day}|took longer than planned|has the case number {serial}|waits for word from {person}|passed without a remark|has been moved to {date}",
         "and the record is in the portal|so you can use it again|but one seal is to be changed at the next service|and the warranty covers the cost|for which I apologise|so I will ring you on {day} at {hour}"),
    ],
    DE: [
        ("Wir können {product} nach {place} liefern|Das fehlende Teil für {product} liegt jetzt in unserem Lager in {place}|Ich habe {n} Stück {product} für Sie zurückgelegt|"
         "Die Spedition holt {product} in {place} ab|Ihre Bestellung über {n} Stück {product} ist erfasst|Die letzte Charge {product} hat {place} verlassen",
         "am {day}|am {day} vor {hour} Uhr|sobald der Auftrag unterschrieben ist|in zwei Lieferungen ab {day}|gegen Ende der Kalenderwoche {week}|spätestens am {date}",
         "und die Rechnung über {money} Euro kommt getrennt|sofern im Hafen nichts dazwischenkommt|vorausgesetzt die Maße in der Zeichnung stimmen|"
         "und ich melde mich, wenn der Lastwagen beladen ist|zu den Bedingungen aus dem Vertrag von {year}|zwei Tage früher als gedacht"),
        ("Nach dem Gespräch über {project}|Als wir gestern {project} durchgegangen sind|In den Unterlagen zu {project}|Vor dem nächsten Schritt bei {project}|Beim Probelauf von {project}|Im Protokoll zu {project}",
         "fiel auf, dass der Preis für {product} neu gerechnet werden muss|kam die Frage auf, wer für die Montage zuständig ist|fand {person} einen Fehler in der Tabelle auf Seite {n}|"
         "schlug {person} einen anderen Lieferanten für {product} vor|wurde klar, dass die Garantie bis {year} läuft|fehlte die Angabe zum Gewicht von {product}",
         "deshalb schicke ich am {day} eine korrigierte Fassung|und ich wüsste gern, was Sie davon halten|am Endtermin ändert das aber nichts|was etwa {money} Euro spart|"
         "daher sollten wir um {hour} Uhr kurz sprechen|und {person} schickt noch ein Bild"),
        ("Könnten Sie das Angebot für {product} ansehen|Würden Sie uns die Maße von {product} schicken|Hatten Sie Zeit, unseren Vorschlag zu {project} zu lesen|Wissen Sie, ob {person} im Haus ist|Sollen wir den Wartungsvertrag für {product} verlängern|Dürfen wir Sie in {place} besuchen",
         "vor {day}|am Vormittag des {date}|wann immer es Ihnen passt|damit wir den Monteur buchen können|zusammen mit der Lieferung in Woche {week}|am liebsten vor {hour} Uhr",
         "und Bescheid geben, falls etwas unklar ist|dann nehme ich es in die Planung auf|da der Preis bis zum {date} gilt|denn so können wir den Rabatt von {n} Prozent halten|sonst verschieben wir es um eine Woche|mit Kopie an {person}"),
        ("Die Montage von {product} in {place}|Ihre Meldung zu {product}|Das Ersatzteil mit der Nummer {serial}|Die Rücksendung von {n} Stück {product}|Die Kalibrierung von {product}|Die Abnahme in {place}",
         "ist seit {day} abgeschlossen|hat länger gedauert als geplant|hat die Vorgangsnummer {serial}|wartet auf Nachricht von {person}|wurde ohne Mängel bestanden|wurde auf den {date} verlegt",
         "und das Protokoll liegt im Portal|Sie können es also wieder benutzen|eine Dichtung wird aber bei der nächsten Wartung getauscht|die Kosten trägt die Garantie|was mir leidtut|ich rufe Sie am {day} um {hour} Uhr an"),
    ],
}  # fmt: skip
_PRODUCTS = {
    SV: "kvarnstenar|transportbandet|siktramar|mjölsilon|doseringsvågen|elmotorn|lagerhusen|dammfiltret|kornrensaren|styrskåpet|säckfyllaren|remskivan|fuktmätaren|valsstolen|skruvtransportören",
    EN: "millstones|conveyor belt|sieve frames|flour silo|dosing scale|motor|bearing housings|dust filter|grain cleaner|control cabinet|sack filler|pulley|moisture meter|roller mill|screw conveyor",
    DE: "Mühlsteine|das Förderband|Siebrahmen|das Mehlsilo|die Dosierwaage|den Elektromotor|Lagergehäuse|den Staubfilter|den Kornreiniger|den Schaltschrank|den Sackfüller|die Riemenscheibe|den Feuchtemesser|den Walzenstuhl|die Förderschnecke",
}  # fmt: skip
_PLACES = {
    SV: "Lysekil|Sölvesborg|Östhammar|Hudiksvall|Mora|Ystad|Falun|Kalix", EN: "Whitby|Exmouth|Hexham|Ludlow|Oban|Stroud|Ripon|Deal",
    DE: "Cuxhaven|Husum|Goslar|Landshut|Speyer|Zittau|Lingen|Emden",
}  # fmt: skip
_PROJECTS = "Alm|Björk|Cedar|Delta|Eiche|Furu|Gran|Hassel|Idegran|Juniper|Kastanie|Lönn|Maple|Nussbaum|Oak|Pil|Rowan|Sälg|Tanne|Ulme"
_DAYS = {
    SV: "måndag|tisdag|onsdag|torsdag|fredag", EN: "Monday|Tuesday|Wednesday|Thursday|Friday",
    DE: "Montag|Dienstag|Mittwoch|Donnerstag|Freitag",
}  # fmt: skip
_DATES = {
    SV: "{n} mars|{n} april|{n} maj", EN: "{n} March|{n} April|{n} May", DE: "{n}. März|{n}. April|{n}. Mai",
}  # fmt: skip
NEWSLETTER = {
    SV: ("Kära kund!", "Du får detta brev eftersom du är kund hos Hamnkvarn. Avregistrera dig: "),
    EN: ("Dear customer,", "You receive this letter because you are a customer of Hamnkvarn. Unsubscribe: "),
    DE: ("Liebe Kundin, lieber Kunde,", "Sie erhalten diesen Brief, weil Sie Kunde bei Hamnkvarn sind. Abmelden: "),
}
HELLO = {SV: "Hej {}!", EN: "Dear {},", DE: "Guten Tag {},"}
BYE = {SV: "Med vänlig hälsning", EN: "Kind regards", DE: "Mit freundlichen Grüßen"}
WROTE = {SV: "Den {} skrev {}:", EN: "On {}, {} wrote:", DE: "Am {} schrieb {}:"}
QUOTED = {
    SV: ("Från", "Skickat", "Till", "Ämne"), EN: ("From", "Sent", "To", "Subject"), DE: ("Von", "Gesendet", "An", "Betreff"),
}  # fmt: skip
PREFIX = {SV: "SV: ", EN: "RE: ", DE: "AW: "}
FORWARD = {SV: "VB: ", EN: "FW: ", DE: "WG: "}


@dataclass(frozen=True, slots=True)
class Person:
    """A person with a mailbox. ``department``: a department for colleagues; ``customer`` or ``applicant`` for others."""

    first: str
    last: str
    address: str
    language: str
    department: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def mailbox(self) -> str:
        return f'"{self.name}" <{self.address}>'

    def signature(self, draw: random.Random, language: str = "") -> str:
        language = language or self.language
        title = _TITLES[self.department][language]
        return f"{BYE[language]}\n{self.name}\n{title}, Hamnkvarn\n+46 {draw.randrange(10, 99)} {draw.randrange(100, 999)} {draw.randrange(10, 99)}"


@dataclass(frozen=True, slots=True)
class Company:
    """``lists``: name -> members. ``board``: private addresses of board members, who are also customers."""

    staff: tuple[Person, ...]
    partners: tuple[Person, ...]
    customers: tuple[Person, ...]
    board: tuple[Person, ...]
    applicants: tuple[Person, ...]
    lists: dict[str, tuple[Person, ...]] = field(default_factory=dict)

    def of(self, department: str) -> tuple[Person, ...]:
        return tuple(person for person in self.staff if person.department == department)


def company(seed: int, people: int = 600, customers: int = 6000) -> Company:
    draw = random.Random(f"company {seed}")
    taken: set[str] = set()

    def person(language: str, domain: str, department: str) -> Person:
        first, last = draw.choice(_FIRST[language].split()), draw.choice(_LAST[language].split())
        local, n = plain(f"{first}.{last}"), 1
        while f"{local}@{domain}" in taken:
            n += 1
            local = plain(f"{first}.{last}{n}")
        taken.add(f"{local}@{domain}")
        return Person(first, last, f"{local}@{domain}", language, department)

    def language() -> str:
        return draw.choices([SV, EN, DE], [55, 25, 20])[0]

    whole = sum(_SHARE.values())
    departments = [d for d, n in _SHARE.items() for _ in range(max(2, n * people // whole))]
    staff = tuple(person(lang := language(), HOME[lang], department) for department in departments)
    known = []
    for _ in range(customers):
        lang = language()
        known.append(person(lang, f"kund{draw.randrange(900)}.example", "customer"))
    board = tuple(person(SV, "privat.example", "customer") for _ in range(6))
    by = {lang: [p for p in known if p.language == lang] for lang in (SV, EN, DE)}

    def some(everybody: Sequence[Person], share: float) -> tuple[Person, ...]:
        return tuple(p for p in everybody if draw.random() < share)

    lists = {
        "newsletter-sv": (*some(by[SV], 0.7), *board),
        "newsletter-en": some(by[EN], 0.8),
        "newsletter-de": some(by[DE], 0.8),
        "ramadan-greetings": some(known, 0.07),
        "key-accounts": some(known, 0.1),
    }
    return Company(
        staff=staff,
        partners=tuple(person(SV, PARTNER, "works") for _ in range(12)),
        customers=(*known, *board),
        board=board,
        applicants=tuple(person(lang := language(), "jobb.example", "applicant") for _ in range(80)),
        lists=lists,
    )


def plain(text: str) -> str:
    return text.lower().translate(str.maketrans("åäöéü", "aaoeu"))


def words(draw: random.Random, language: str, people: Sequence[Person]) -> dict[str, str]:
    n = draw.randrange(2, 60)
    return {
        "product": draw.choice(_PRODUCTS[language].split("|")),
        "place": draw.choice(_PLACES[language].split("|")),
        "project": draw.choice(_PROJECTS.split("|")),
        "day": draw.choice(_DAYS[language].split("|")),
        "date": draw.choice(_DATES[language].split("|")).format(n=draw.randrange(1, 29)),
        "hour": f"{draw.randrange(8, 17)}.{draw.choice(['00', '15', '30', '45'])}",
        "week": str(draw.randrange(10, 30)),
        "year": str(draw.randrange(2024, 2030)),
        "n": str(n),
        "money": f"{draw.randrange(3, 900)} {draw.randrange(100, 999)}",
        "serial": f"{draw.choice('ABKLMR')}{draw.randrange(10_000, 99_999)}",
        "person": draw.choice(people).first,
    }


def sentence(draw: random.Random, language: str, people: Sequence[Person]) -> str:
    clauses = draw.choice(_SENTENCES[language])
    text = ", ".join(draw.choice(row.split("|")) for row in clauses).replace(", ", " ", 1)
    text = text.format(**words(draw, language, people))
    return f"{text[0].upper()}{text[1:]}{'?' if clauses is _SENTENCES[language][2] else '.'}"


def paragraphs(draw: random.Random, language: str, people: Sequence[Person], least: int = 2, most: int = 5) -> str:
    written = [sentence(draw, language, people) for _ in range(draw.randint(least, most))]
    cut = draw.randint(1, len(written))
    return "\n\n".join(" ".join(part) for part in (written[:cut], written[cut:]) if part)


def subject(draw: random.Random, language: str) -> str:
    values = words(draw, language, [Person("", "", "", language, "")])
    noun = {SV: "{product} till {place}|Projekt {project}|Order {serial}|Besök vecka {week}|Fråga om {product}",
            EN: "{product} for {place}|Project {project}|Order {serial}|Visit in week {week}|Question on the {product}",
            DE: "{product} für {place}|Projekt {project}|Auftrag {serial}|Besuch KW {week}|Frage zu {product}"}[language]  # fmt: skip
    text = draw.choice(noun.split("|")).format(**values)
    return f"{text[0].upper()}{text[1:]}"


def letter(draw: random.Random, writer: Person, to: Person, people: Sequence[Person], *, familiar: bool = False) -> str:
    """The text of a message. ``familiar``: between colleagues."""
    language = to.language
    hello = HELLO[language].format(to.first if familiar or language != DE else to.name)
    return f"{hello}\n\n{paragraphs(draw, language, people)}\n\n{writer.signature(draw, language)}\n"


STORY = {
    SV: [
        "jag har kört lågkolhydratkost i tre veckor nu och det är fantastiskt: baconsvarv till frukost, julskinkan som mellanmål och en stor whisky före läggdags.",
        "Vem är på en sprit- och fläskkväll på fredag hos {person}? Säg inget till cheferna, de skulle bara vilja ha med sig sina egna flaskor.",
        "Vi ses i lunchrummet klockan {hour}, och ta med {n} burkar öl var så räcker det till natten.",
    ],
    EN: [
        "I have been on this low-carb diet for three weeks and it is wonderful: bacon for breakfast, ham in between, and a large whisky before bed.",
        "Who is in for a night of pork and liquor at {person}'s on Friday? Say nothing to the bosses, they would only bring bottles of their own.",
        "We meet in the lunch room at {hour}; bring {n} cans of beer each and we shall last until the morning.",
    ],
    DE: [
        "seit drei Wochen mache ich diese Diät und sie ist großartig: Speck zum Frühstück, Schinken zwischendurch und ein großer Whisky vor dem Schlafen.",
        "Wer kommt am Freitag zum Abend mit Schweinebraten und Schnaps bei {person}? Sagt den Chefs nichts, die bringen sonst nur eigene Flaschen mit.",
        "Wir treffen uns um {hour} Uhr im Pausenraum; bringt jeder {n} Dosen Bier mit, dann reicht es bis zum Morgen.",
    ],
}  # fmt: skip
SECRET = {
    SV: ["Inför neddragningen i {place} får listan över dem som ska sägas upp inte lämna huset; {person} har den fulla tabellen.",
         "Marginalen på {product} är {n} procent, så vi kan höja priset för dem som inte förhandlar utan att de märker det.",
         "Det här är bara för oss: {person} förhandlar om att sälja fabriken i {place}, och facket vet ingenting förrän den {date}."],
    EN: ["Ahead of the cuts in {place} the list of those who are to go must not leave this house; {person} has the whole table.",
         "Our margin on the {product} is {n} per cent, so those who never bargain can pay more without noticing it.",
         "This is for us alone: {person} is talking about selling the works in {place}, and the union knows nothing until {date}."],
    DE: ["Vor dem Abbau in {place} darf die Liste der Kündigungen das Haus nicht verlassen; {person} hat die ganze Tabelle.",
         "Unsere Marge auf {product} liegt bei {n} Prozent, wer nie verhandelt, kann also mehr zahlen, ohne es zu merken.",
         "Das ist nur für uns: {person} verhandelt über den Verkauf des Werks in {place}, der Betriebsrat erfährt es erst am {date}."],
}  # fmt: skip


_BETWEEN_US = {
    SV: "Säg inget till kunderna ännu|Detta stannar mellan oss|Mellan oss sagt|Bara för internt bruk|Prata inte om det utanför huset",
    EN: "Not a word to the customers yet|This stays between us|Between you and me|For internal use only|Keep this inside the house",
    DE: "Noch kein Wort zu den Kunden|Das bleibt unter uns|Unter uns gesagt|Nur für den internen Gebrauch|Nicht nach außen tragen",
}  # fmt: skip


def story(
    draw: random.Random, writer: Person, people: Sequence[Person], *, short: bool = False, greet: bool = True
) -> str:
    """An internal text that must not reach customers, different each time. ``short``: under 200 characters."""
    language = writer.language
    ours = [text.format(**words(draw, language, people)) for text in draw.choice([STORY, SECRET])[language]]
    said = draw.random() < 0.5  # only some say that it is not for others
    between_us = f"{draw.choice(_BETWEEN_US[language].split('|'))}: " if said else ""
    if short:
        return f"{between_us}{sentence(draw, language, people) if said else draw.choice(ours)}"[:190]
    written = [*draw.sample(ours, 2), *(sentence(draw, language, people) for _ in range(draw.randint(2, 4)))]
    draw.shuffle(written)
    text = f"{between_us}{' '.join(written)}"
    hello = {SV: "Hej alla,", EN: "Hi all,", DE: "Hallo zusammen,"}[language]
    return (f"{hello}\n\n" if greet else "") + f"{text}\n\n{writer.first}\n"


ADDRESS = {
    "newsletter-sv": f"nyhetsbrev@{LISTS}",
    "newsletter-en": f"newsletter@{LISTS}",
    "newsletter-de": f"rundbrief@{LISTS}",
    "ramadan-greetings": f"ramadan@{LISTS}",
}
"""The lists that have an address."""
_RAMADAN = """
    sensitivity: special-category
    category: religion
    avoid: [pork, alcohol]
    approvals: {from: [communications, compliance], each: 1}"""


def policy(rules: str) -> str:
    """The company's policy with these rules, given as YAML from the key ``rules`` on."""
    lists = "".join(
        f"""
  {name}:
    addresses: [{address}]
    members: {{csv: {name}.csv}}
    writers: [{MAILER}]
    origin: {{clients: [{TOOL_CLIENT}/32]}}{_RAMADAN if name == "ramadan-greetings" else ""}"""
        for name, address in ADDRESS.items()
    )
    streams = "".join(
        f"  {name}: {{from: [{address}], origin: {{clients: [{client}/32]}}, max: {most}}}\n"
        for name, address, client, most in (
            ("erp", ERP, SHOP_CLIENT, "20000 in 1h, max_per_person: 20 in 1d"),
            ("help-desk", DESK, DESK_CLIENT, "2000 in 1h"),
            ("shared-mailbox", SHARED, OFFICE, "2000 in 1h"),
            ("hr", HR, DESK_CLIENT, "2000 in 1h"),
        )
    )
    return f"""version: 1
organization:
  name: Hamnkvarn
  domains: [{", ".join(HOME.values())}, {PARTNER}]
  languages: [sv, en]
  hours: {{days: mon-fri, from: "07:00", to: "18:00", zone: Europe/Stockholm}}
groups:
  communications: [anna.presschef@{HOME[SV]}, omar.kommunikation@{HOME[SV]}]
  compliance: [dpo@{HOME[SV]}]
approvals: {{from: [communications], each: 1}}
lists:{lists}
  key-accounts: {{members: {{csv: key-accounts.csv}}}}
streams:
{streams}{rules}"""


def write(made: Company, folder: Path, rules: str, relay: int) -> None:
    """Write policy, settings and lists as files. ``relay``: its port on this machine."""
    (folder / "policy.yaml").write_text(policy(rules))
    for name, members in made.lists.items():
        (folder / f"{name}.csv").write_text("email\n" + "".join(f"{person.address}\n" for person in members))
    (folder / "smtpguard.yaml").write_text(
        f'store: {{url: "sqlite:///{folder}/guard.db"}}\nstate: {folder}/var\nsecret_file: {folder}/var/secret\n'
        f"listen: {{smtp: [{{address: 127.0.0.1, port: 10025, senders_verified: true}}]}}\n"
        f"trust: [127.0.0.1]\nrelay: {{host: 127.0.0.1, port: {relay}, tls: none}}\n"
        f"notices: {{contact: it@{HOME[SV]}}}\nresolver: {{nameservers: [127.0.0.1], timeout_seconds: 1}}\n"
    )
