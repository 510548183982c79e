"""Swedish for the sentences that rules and readings say in English. What is not here stays as it was said.

Those of facts stand in the table of facts (policy.facts). In a sentence ``#`` is a number and ``*`` anything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from smtpguard.policy.facts import FACTS

_NUMBER = r"(?:between [\d,.e+]+ and [\d,.e+]+|at least [\d,.e+]+|[\d,.e+]+)(?: %)?"
_WINDOW = re.compile(r"(\d+)\s*(s|m|h|d|w)\b")
_UNITS: Mapping[str, tuple[str, str, str, str]] = {
    "s": ("second", "seconds", "sekund", "sekunder"),
    "m": ("minute", "minutes", "minut", "minuter"),
    "h": ("hour", "hours", "timme", "timmar"),
    "d": ("day", "days", "dygn", "dygn"),
    "w": ("week", "weeks", "vecka", "veckor"),
}

SENTENCES: Mapping[str, str] = {
    **dict(said for fact in FACTS.values() for said in fact.says.values()),
    "Something about it could not be checked, so people have to look at it": "Något gick inte att kontrollera, så någon behöver titta på det",
    "One person had got it before it was stopped": "En person hade fått det innan det stoppades",
    "It is one of several messages of a mailing: what is decided is decided on all of them, and on what still comes":
        "Det är ett av flera meddelanden i ett utskick: det som bestäms gäller alla, och det som ännu kommer",
    "Before it was stopped it had been let through to one person": "Innan det stoppades hade det släppts igenom till en person",
    "Before it was stopped it had been let through to # people": "Innan det stoppades hade det släppts igenom till # personer",
    "One person may have got it already": "En person kan redan ha fått det",
    "# people may have got it already": "# personer kan redan ha fått det",
    "# people had got it before it was stopped": "# personer hade fått det innan det stoppades",
    "Other copies of it are held, and people are to decide on all of them at once": "Andra exemplar av det väntar, och man avgör alla på en gång",
"A mailing like it was approved, but what it shows cannot be taken apart, so that the approval cannot cover it":
        "Ett utskick som liknar det har godkänts, men det går inte att se vad det här består av, så godkännandet omfattar det inte",
    "A mailing like it was approved, but this hits a rule that had not hit then":
        "Ett utskick som liknar det har godkänts, men det här träffas av en regel som inte gällde det då",
    'A mailing like it was approved, but this hits a rule that had not hit then: "*"': 'Ett utskick som liknar det har godkänts, men det här träffas av en regel som inte gällde det då: "*"',
    "A mailing like it was approved with another sender":
        "Ett utskick som liknar det har godkänts från en annan avsändare",
    'A mailing like it was approved with another sender: "*"': 'Ett utskick som liknar det har godkänts från en annan avsändare: "*"',
    "A mailing like it was approved where its sender was proven in another way":
        "Ett utskick som liknar det har godkänts, men då var avsändaren bekräftad på ett annat sätt",
    "A file has been added to what was approved, or changed":
        "En fil har tillkommit eller ändrats sedan det godkändes",
    'A file has been added to what was approved, or changed: "*"': 'En fil har tillkommit eller ändrats sedan det godkändes: "*"',
    "A picture has been added to what was approved, or changed":
        "En bild har tillkommit eller ändrats sedan det godkändes",
    'A picture has been added to what was approved, or changed: "*"': 'En bild har tillkommit eller ändrats sedan det godkändes: "*"',
    "A paragraph has been added to what was approved":
        "Ett stycke har tillkommit sedan det godkändes",
    'A paragraph has been added to what was approved: "*"': 'Ett stycke har tillkommit sedan det godkändes: "*"',
    "Words differ from what was approved, outside the places where copies may differ":
        "Ord skiljer sig från det som godkändes, utanför de ställen där exemplaren får skilja sig åt",
    'Words differ from what was approved, outside the places where copies may differ: "*"': 'Ord skiljer sig från det som godkändes, utanför de ställen där exemplaren får skilja sig åt: "*"',
    "More words differ from what was approved than may differ from copy to copy":
        "Fler ord skiljer sig från det som godkändes än vad som får skilja sig mellan exemplaren",
    "A link has been added to what was approved, or goes elsewhere":
        "En länk har tillkommit eller leder någon annanstans sedan det godkändes",
    'A link has been added to what was approved, or goes elsewhere: "*"': 'En länk har tillkommit eller leder någon annanstans sedan det godkändes: "*"',
    "A mailing like it was approved with another subject":
        "Ett utskick som liknar det har godkänts med ett annat ämne",
    'A mailing like it was approved with another subject: "*"': 'Ett utskick som liknar det har godkänts med ett annat ämne: "*"',
    "Copies to single people were approved, and this goes to a list's address":
        "Exemplar till enskilda personer har godkänts, men det här går till en listas adress",
    "A file that was approved is missing from it":
        "En fil som godkändes saknas i det",
    'A file that was approved is missing from it: "*"': 'En fil som godkändes saknas i det: "*"',
    "A picture that was approved is missing from it":
        "En bild som godkändes saknas i det",
    'A picture that was approved is missing from it: "*"': 'En bild som godkändes saknas i det: "*"',
    "A paragraph that was approved is missing from it":
        "Ett stycke som godkändes saknas i det",
    'A paragraph that was approved is missing from it: "*"': 'Ett stycke som godkändes saknas i det: "*"',
    "A link that was approved is missing from it":
        "En länk som godkändes saknas i det",
    'A link that was approved is missing from it: "*"': 'En länk som godkändes saknas i det: "*"',
    "It goes to people for whose lists a mailing like it was not approved":
        "Det går till personer på listor som ett liknande utskick inte godkändes för",
    'It goes to people for whose lists a mailing like it was not approved: "*"': 'Det går till personer på listor som ett liknande utskick inte godkändes för: "*"',
    "The approval of its mailing is for fewer people than it would reach by now":
        "Godkännandet av utskicket gäller för färre personer än vad det nu skulle nå",
    'The approval of its mailing is for fewer people than it would reach by now: "*"': 'Godkännandet av utskicket gäller för färre personer än vad det nu skulle nå: "*"',
    "How its text is laid out, shown or hidden differs from what was approved":
        "Hur texten är uppställd, visas eller döljs skiljer sig från det som godkändes",
    "What was approved stands in another order in it":
        "Det som godkändes står i en annan ordning i det",
    "It was sent to be approved beforehand: nothing of it is sent on": "Det skickades för att godkännas på förhand: inget av det skickas vidare",
    "Whatever else its sender writes to so many customers waits with it, and what is decided is decided on all of it":
        "Det övriga som avsändaren skriver till så många kunder väntar tillsammans med det, och det som bestäms gäller alltihop",
    "So many answered this conversation in a short time that it rests for a while": "Så många har svarat i den här konversationen på kort tid att den får vila en stund",
    "Mail is being stopped at the moment, and waits until people let it go on": "E-post är stoppad just nu, och väntar tills någon släpper fram den",
    "Mail like this is being stopped at the moment. It waits until people decide on it, also when other mail goes on again":
        "Sådan här e-post är stoppad just nu. Meddelandet väntar tills någon bestämmer om det, även när annan e-post går fram igen",
    "Mail like this is being stopped at the moment. It waits until people decide on it, also when other mail goes on again. The reason given: *":
        "Sådan här e-post är stoppad just nu. Meddelandet väntar tills någon bestämmer om det, även när annan e-post går fram igen. Skälet som angavs: *",
    "It is of a kind that somebody is to have seen before it goes to customers": "Det är av ett slag som någon ska ha sett innan det går till kunder",
    "An earlier attempt to send this message may have reached the list: somebody is to look first": "Ett tidigare försök att skicka det här kan redan ha nått listan: någon ska titta först",
    "Automatic replies and bounces cannot be sent to a mailing list": "Automatiska svar och studsar kan inte skickas till en lista",
}  # fmt: skip

DESCRIPTIONS: Mapping[str, str] = {
    "A freeze is in force": "Någon har stoppat all sådan e-post tills vidare",
    "An earlier attempt may have reached the list already": "Ett tidigare försök kan redan ha nått listan",
    "Automatic replies and bounces never go to a list": "Automatiska svar och studsar går aldrig till en lista",
}

TOPICS: Mapping[str, str] = {
    "alcohol": "alkohol", "confidential": "affärshemligheter", "diets": "dieter och fasta", "gambling": "hasardspel",
    "health": "hälsa", "politics": "politik", "pork": "fläsk", "redundancy": "uppsägningar och löner",
}  # fmt: skip
"""The product's own vocabularies; an admin's bears the admin's name."""

MARKS: Mapping[str, str] = {
    '"*" (*, in the subject)': '"*" (*, i ämnesraden)',
    '"*" (*, in the text)': '"*" (*, i texten)',
    '"*" (*, in the html)': '"*" (*, i texten)',
    '"*" (*, in the alt text)': '"*" (*, i texten till en bild)',
    '"*" (*, in the attachment name)': '"*" (*, i namnet på en bilaga)',
    '"*" (*, in the attached text)': '"*" (*, i en bilaga)',
    '"*" (*, in the hidden text)': '"*" (*, i text som inte syns)',
    "it bears list headers, which weigh nothing from where people write": "det har fält från en lista, som inget väger när de kommer därifrån människor skriver",
    "a header claims that it passed this guard before; that proves nothing": "ett brevhuvud påstår att det redan har passerat e-postvakten; det bevisar ingenting",
    "List-Unsubscribe-Post offers to unsubscribe with one click": "det går att avsluta prenumerationen med ett klick (List-Unsubscribe-Post)",
    "it has a List-Unsubscribe field": "det har ett List-Unsubscribe-fält",
    "List-Id names the list *": "List-Id anger listan *",
    "Precedence is *": "Precedence är *",
    "it has a Feedback-ID for complaints about mailings": "det har ett Feedback-ID för klagomål på utskick",
    "a platform put a * field on it": "ett utskickssystem har lagt till fältet *",
    "* put a * field on it": "* har lagt till fältet *",
    "the field * numbers a campaign or mailing": "fältet * numrerar en kampanj eller ett utskick",
    "it was made by a program, *": "det är gjort av ett program, *",
    "it was made by *": "det är gjort med *",
    "Auto-Submitted says that a machine generated it": "Auto-Submitted säger att en maskin har gjort det",
    'the subject begins with "*"': 'ämnesraden börjar med "*"',
    "it answers a message made at *": "det svarar på ett meddelande från *",
    "In-Reply-To or References says that it answers another message": "brevhuvudet säger att det svarar på ett annat meddelande",
    "its Thread-Index belongs to an Outlook conversation with answers": "det hör till en Outlook-konversation med svar",
    "Outlook or Exchange gave it a Thread-Index": "Outlook eller Exchange har gett det ett Thread-Index",
    "Outlook or Exchange gave it a Thread-Topic": "Outlook eller Exchange har gett det ett Thread-Topic",
    "Exchange says it was sent from *": "Exchange säger att det skickades från *",
    "Exchange put its fields on it, such as *": "Exchange har lagt till sina fält, till exempel *",
    "it was written in *": "det är skrivet i *",
    "its Message-ID is one that * makes": "dess Message-ID är av ett slag som * gör",
    'it is labelled "*"': 'det är märkt "*"',
    "it comes from *, which takes no answers": "det kommer från *, som inte tar emot svar",
    "it comes from *, a mailbox for news or orders": "det kommer från *, en brevlåda för nyheter eller order",
    "its return address at * was made for one recipient": "dess returadress hos * är gjord för en enda mottagare",
    "* and # more is shown in To or Cc and is a colleague": "* och # till står i Till eller Kopia och är kollegor",
    "* is shown in To or Cc and is a colleague": "* står i Till eller Kopia och är en kollega",
    "it is from * to * and to nobody else": "det är från * till * och till ingen annan",
    "To names nobody": "Till anger ingen",
    "To names the sender alone": "Till anger bara avsändaren",
    "it shows # recipients": "det visar # mottagare",
    "it cannot be read as a whole: it is encrypted (*)": "det går inte att läsa i sin helhet: det är krypterat (*)",
    "it cannot be read as a whole: it is wrapped in S/MIME, encrypted": "det går inte att läsa i sin helhet: det är krypterat (S/MIME)",
    "it cannot be read as a whole: it is wrapped in S/MIME as signed data": "det går inte att läsa i sin helhet: det ligger i ett S/MIME-signerat paket",
    "it cannot be read as a whole: it is in Microsoft's TNEF format (winmail.dat)": "det går inte att läsa i sin helhet: det är i Microsofts TNEF-format (winmail.dat)",
    "it cannot be read as a whole: it has more than one * field": "det går inte att läsa i sin helhet: det har mer än ett *-fält",
    "it cannot be read as a whole: its header block is broken": "det går inte att läsa i sin helhet: brevhuvudet är trasigt",
    "it cannot be read as a whole: it is one fragment of a larger message": "det går inte att läsa i sin helhet: det är en del av ett större meddelande",
    "it cannot be read as a whole: its text is kept elsewhere (message/external-body)": "det går inte att läsa i sin helhet: texten finns någon annanstans (message/external-body)",
    "it cannot be read as a whole: it has no words of its own, only pictures from elsewhere": "det går inte att läsa i sin helhet: det har inga egna ord, bara bilder från annat håll",
    "it cannot be read as a whole: it has no words of its own, only *": "det går inte att läsa i sin helhet: det har inga egna ord, bara *",
    "it cannot be read as a whole: a message is attached in Outlook's own format (.msg)": "det går inte att läsa i sin helhet: ett meddelande är bifogat i Outlooks eget format (.msg)",
    "it cannot be read as a whole: it gives two boundaries": "det går inte att läsa i sin helhet: det kan delas upp på två sätt",
    "it cannot be read as a whole: *": "det går inte att läsa i sin helhet: *",
    "it is a report on another message, by its type or its null return path": "det är en rapport om ett annat meddelande",
    "nothing in it is said to be sent to many": "inget i det tyder på att det är skickat till många",
    "it speaks of work: *": "det handlar om arbete: *",
    "it tells how to unsubscribe: *": "det talar om hur man avslutar prenumerationen: *",
    "it tells how to change what one is sent: *": "det talar om hur man ändrar vad man får: *",
    "it offers itself as a web page: *": "det går att läsa som webbsida: *",
    "it tells why one is sent it: *": "det talar om varför man får det: *",
    "it says that a machine wrote it or that nobody reads answers: *": "det säger att en maskin har skrivit det eller att ingen läser svar: *",
    "it ends with rights or privacy notices: *": "det slutar med text om rättigheter eller integritet: *",
    "it speaks to customers: *": "det vänder sig till kunder: *",
    "it speaks as newsletters and offers do: *": "det låter som nyhetsbrev och erbjudanden gör: *",
    "it speaks of an order, a parcel or an account: *": "det handlar om en beställning, ett paket eller ett konto: *",
    "it asks to keep it from somebody: *": "det ber att det inte ska föras vidare: *",
    "it says that it is for colleagues alone: *": "det säger att det bara är för kollegor: *",
    "it says that it is for internal use: *": "det säger att det är för internt bruk: *",
    "it carries a confidentiality notice: *": "det har en text om sekretess: *",
    "it was written on a telephone: *": "det är skrivet på en telefon: *",
    "it is an automatic answer of somebody away: *": "det är ett automatiskt svar från någon som är borta: *",
    'it quotes an earlier mail: "*"': 'det citerar ett tidigare meddelande: "*"',
    'it quotes what somebody wrote: "*"': 'det citerar vad någon har skrivit: "*"',
    "a mail program marked quoted text in it (*)": "ett e-postprogram har märkt ut citerad text i det (*)",
    "the quoted mail was written by or to *": "det citerade meddelandet är skrivet av eller till *",
    "a link to unsubscribe or to change preferences, at *": "en länk för att avsluta prenumerationen eller ändra den, hos *",
    "links that run through *": "länkar som går genom *",
    "# links with campaign parameters": "# länkar med kampanjparametrar",
    "# links and # pictures": "# länkar och # bilder",
    'it begins as a letter: "*"': 'det börjar som ett personligt brev: "*"',
    'it ends as a letter: "*"': 'det slutar som ett personligt brev: "*"',
    'it ends with a name: "*"': 'det slutar med ett namn: "*"',
    "it ends with somebody's telephone number": "det slutar med någons telefonnummer",
    "it speaks in the first person": "det är skrivet i jagform",
    "it is short, without links or pictures": "det är kort, utan länkar och bilder",
    "it has hardly any links or pictures": "det har knappt några länkar eller bilder",
    "it carries an invitation (*)": "det innehåller en inbjudan (*)",
    "a message from * is attached": "ett meddelande från * är bifogat",
    'a message is attached: "*"': 'ett meddelande är bifogat: "*"',
    'a document is attached: "*"': 'ett dokument är bifogat: "*"',
    'a field of a template is left unfilled: "*"': 'ett fält i en mall är inte ifyllt: "*"',
    'it calls itself a draft: "*"': 'det kallar sig utkast: "*"',
    'a comment of whoever wrote it is left in it: "*"': 'en kommentar från dem som skrev det är kvar: "*"',
    'it calls itself a test: "*"': 'det kallar sig test: "*"',
    'it holds filler text: "*"': 'det innehåller utfyllnadstext: "*"',
    'a file is named like a draft: "*"': 'en fil heter som ett utkast: "*"',
    'the text names "*", and "*" is attached': 'texten nämner "*", men "*" är bifogad',
    "it is made from a template (# tables, # pictures)": "det är gjort efter en mall (# tabeller, # bilder)",
    "it holds a picture of one pixel, as those who count readers use": "det innehåller en bild på en pixel, av det slag som räknar läsare",
    'a hidden line for previews: "*"': 'en dold rad för förhandsvisning: "*"',
    'it holds text that nobody sees: "*"': 'det innehåller text som ingen ser: "*"',
    "it is put together as * does it": "det är uppbyggt så som * gör det",
    "marks of both sides: *": "tecken åt båda hållen: *",
    "it is a person's post on a discussion list; * put the list headers on it": "det är någons inlägg på en diskussionslista; * har lagt till listans fält",
    "it is a post on a discussion list; * put the list headers on it": "det är ett inlägg på en diskussionslista; * har lagt till listans fält",
    "* says that From failed its checks (DMARC)": "* säger att avsändaren inte klarade kontrollen (DMARC)",
    "* says that * signed it": "* säger att * har signerat det",
    "it was first handed in by *, an internal host": "det lämnades först in av *, en intern dator",
    "its recipients are written as an internal address book has them": "mottagarna är skrivna så som de står i en intern adressbok",
    "it holds the unknown charset *": "det har den okända teckenkodningen *",
    "it holds the unknown transfer encoding *": "det har den okända överföringskodningen *",
    "it holds base64 with characters that do not belong in it": "det innehåller base64 med tecken som inte hör dit",
    "it holds base64 that is cut off": "det innehåller base64 som är avhuggen",
    "it holds uuencoded lines that are broken": "det innehåller uuencode-rader som är trasiga",
    "it holds octets that are not *": "det innehåller oktetter som inte är *",
    "it holds text that is UTF-8, declared as *": "det innehåller text i UTF-8 som anges vara *",
    "it holds text that cannot be read as *": "det innehåller text som inte går att läsa som *",
    "it holds an encoding around many parts": "det har en kodning runt flera delar",
    "it holds *": "det innehåller *",
    "it is signed by *, the origin that the list declares": "det är signerat av *, som listan anger som ursprung",
}  # fmt: skip


def sentence(text: str) -> str:
    """A whole sentence of a rule, in Swedish; as it was where nobody has translated it."""
    bare, window = text.rstrip("."), ""
    said = _look_up(bare, _SENTENCES)
    if said is None and " in " in bare:
        bare, _, length = bare.rpartition(" in ")
        said, window = _look_up(bare, _SENTENCES), f" på {spelled_window(length, swedish=True)}"
    return text if said is None else f"{said}{window}."


def description(text: str) -> str:
    """What one of the guard's own rules is for, in Swedish. An admin's own words stay as they are."""
    return DESCRIPTIONS.get(text.rstrip("."), text)


def mark(text: str) -> str:
    """A phrase for something found in a message, in Swedish."""
    return _TOPIC.sub(lambda found: f'" ({TOPICS.get(found[1], found[1])}, i ', _look_up(text, _MARKS) or text)


def spelled_window(text: str, *, swedish: bool) -> str:
    """ "10m" as people say it. What is no such length stays as it was."""

    def spell(found: re.Match[str]) -> str:
        one, many = _UNITS[found[2]][2:] if swedish else _UNITS[found[2]][:2]
        return f"{found[1]} {one if found[1] == '1' else many}"

    return _WINDOW.sub(spell, text)


def english(text: str) -> str:
    """A rule's sentence as it was said, with the window at its end spelled out."""
    head, found, length = text.rstrip(".").rpartition(" in ")
    if found and _WINDOW.fullmatch(length):
        return f"{head} in {spelled_window(length, swedish=False)}."
    return text


def _compiled(table: Mapping[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(re.escape(said).replace(r"\#", f"({_NUMBER})").replace(r"\*", "(.+?)") + r"\Z"), swedish)
        for said, swedish in table.items()
    ]


def _look_up(text: str, table: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, said in table:
        if found := pattern.match(text[:1000]):
            for value in found.groups():
                sign = re.search(r"[#*]", said)
                assert sign is not None, "as many signs in Swedish as in English"
                said = (
                    said[: sign.start()]
                    + (_number(value) if sign[0] == "#" else value.translate(_SIGNS))
                    + said[sign.end() :]
                )
            return said.translate(_UNSIGNED)
    return None


def _number(text: str) -> str:
    text = text.replace("at least", "minst").replace("between", "mellan").replace(" and ", " och ")
    return re.sub(r"\d[\d,.]*", lambda m: m[0].replace(",", "\u00a0").replace(".", ","), text)


_TOPIC = re.compile(r'" \((\S+), i (?=[a-zåäö ]+\)\Z)')
_SIGNS = str.maketrans("#*", "\ue000\ue001")  # in what was found, while signs are still looked for
_UNSIGNED = str.maketrans("\ue000\ue001", "#*")
_SENTENCES = _compiled(SENTENCES)
_MARKS = _compiled(MARKS)
