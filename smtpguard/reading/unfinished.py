"""What shows that a message is not finished: fields of a template left unfilled, a draft, comments of colleagues, a test, filler text,
a file that is not the one it speaks of.

Found in the subject and in what everybody sees of the writer's own text. It says nothing of what a message looks like: a letter and a
mailing are drafts alike. Every pattern takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

PLACEHOLDER, DRAFT, COMMENT, TEST, FILLER, FILE = KINDS = ("placeholder", "draft", "comment", "test", "filler", "file")
_MOST = 60_000
_NAME = r"(?:first|last|full|sur|given)?_?-? ?(?:name|namn|nimi|nom|nombre|vorname|nachname)|förnamn|efternamn|fornavn|etternavn|etunimi|sukunimi|prénom|apellido|kundnr|kundnummer|company|företag"
_PLACEHOLDER = re.compile(
    r"\*\|[A-Z_:0-9]{2,40}\|\*|%%[\w\- ]{2,40}%%|\{\{\s*[\w.|' \-]{2,60}\s*\}\}|\{%\s*\w[^%{}]{0,60}%\}|\$\{[\w.]{2,40}\}|\{\$\w[\w.]{1,40}\}|##[\w.]{2,40}##|<%=?\s*[\w.]{2,40}\s*%>"
    r"|<<[\w ]{2,40}>>|%(?:FIRSTNAME|FNAME|LNAME|EMAIL|NAME|recipient[\w.]{0,30})%"
    rf"|\[\[?(?:{_NAME}|UNSUBSCRIBE\w*|fname|lname)\]?\]|\{{(?:{_NAME}|fname|lname)\}}|<(?:{_NAME})>|«(?:{_NAME}|\w+_\w+)»",
    re.I,
)
_UNNAMED = re.compile(
    r"\A\s*(?:hej|hi|hello|dear|hallo|hei|liebe[rs]?|kära?|bästa|estimad[oa]|hola)(?: ,| +(?:null|none|undefined|nan|n/a)\b| +(?:first|last) ?name\b)",
    re.I,
)
_DRAFT = re.compile(
    r"\A\W{0,3}(?:(?:re|fw|fwd|sv|vb|vs|aw|wg)\s*:\s*)?\W{0,3}(?:draft|utkast|udkast|luonnos|entwurf|brouillon|borrador|bozza|concept|rascunho|szkic|مسودة)\b(?! beer| bier| horse)"
)
_STAMPED = re.compile(
    r"(?:^|[\n\[(*_\-–—:|] ?)(?:DRAFT|UTKAST|UDKAST|LUONNOS|ENTWURF|BROUILLON|BORRADOR|BOZZA|RASCUNHO|EJ KLAR|INTE KLAR|NOT FINAL|NICHT FERTIG|WORK IN PROGRESS|ARBETSVERSION|ARBEITSVERSION)(?:[\])*_\-–—:|!.\n]| ?v?\d|\Z)"
)
_REMINDER = re.compile(r"\b(?:TODO|TO-DO|FIXME|TBD|TBA|TBC)\b(?=[\s:;,.!?)\]]|\Z)")
_TO_PUT_IN = re.compile(
    r"[\[(<](?:(?:infoga|insert|lägg in|fyll i|sätt in|bitte einfügen|hier einfügen|insérer|insertar|lisää|sett inn|indsæt)[^\[\]()<>\n]{1,60}"
    r"|(?:bild|länk|text|datum|pris|image|link|date|price|logo) (?:here|hit|här))[\])>]",
    re.I,
)
_NOTED = re.compile(
    r"(?:^|\n)[^\S\n]*(?:note to self|obs internt|intern kommentar|kommentar|comment|anm)\s?:(?=[^\n]{3,200}(?:\n|\Z))",
    re.I,
)
_ASKS = (
    r"(?:check|please check|can you check|could you check|look at|have a look|verify|confirm|fix|update|rewrite|is this (?:right|ok|correct)|kolla|kan du kolla|dubbelkolla|kontrollera|titta på|stämmer|ändra|rätta|skriv om|fixa"
    r"|sjekk|kan du sjekke|tjek|kan du tjekke|tarkista|voitko tarkistaa|prüf|prüfe|bitte prüfen|kannst du prüfen|stimmt das|vérifie|peux-tu vérifier|à vérifier|revisa|puedes revisar|comprueba)"
)
# "Lisa check this": to somebody by name, in brackets or on a line of its own.
_NOBODY = r"(?!(?:We|They|I|You|He|She|It|Please|Let|To|And|Vi|Ni|De|Jag|Du|Han|Hon|Den|Det|Wir|Sie|Ich|Er|Es|Nous|Vous|Je|On|Me|Te|Yo|Vil|Kan)\b)"
_THIS = r"(?:this|that|it|here|the \w+|detta|det|här|den här|priset|länken|dette|tämä|tämän|das|dies|hier|den|ça|ceci|le|la|esto|aquí)"
_TO_SOMEBODY = re.compile(
    rf"(?:^|[\n\[(<])[^\S\n]*@?{_NOBODY}[A-ZÅÄÖÆØÉÜ][\w\-]{{1,20}}(?:[,:]|[ ]?[-–])[ ](?i:{_ASKS})\b[^\n\[\]()<>]{{0,40}}(?:[\])>]|\n|\Z)"
    rf"|(?:^|[\n\[(<])[^\S\n]*@?{_NOBODY}[A-ZÅÄÖÆØÉÜ][\w\-]{{1,20}}[ ](?i:{_ASKS}) (?i:{_THIS})\b[^\n\[\]()<>]{{0,20}}(?:[\])>]|\n|\Z)"
    rf"|[\[(<](?i:{_ASKS})\b[^\n\[\]()<>]{{0,60}}[\])>]"
)
_TRACKED = (
    "msocommentreference",
    'class="msodel',
    "class=msodel",
    "<del ",
    "msocommentanchor",
    'class="msoins',
    "msocomtxt",
)
_TEST = re.compile(
    r"\A\W{0,3}(?:test(?:ar|ing|mail|mejl|brev|utskick|meddelande|melding|besked|viesti|nachricht|email|e-mail| mail| email| e-mail)?|testi|prueba|essai|teste|prova|اختبار)(?:\W{1,3}(?:test\w{0,3}|\d{1,6}|[a-c]|en|ett|one|two|av .{1,40}|of .{1,40}|för .{1,40}))*\W{0,3}\Z"
    r"|\A\W{0,3}\[?test(?:utskick|mail|mejl)?\]?\s*[:\]\-–]\s"
    r"|\b(?:this is (?:only |just )?a test\b(?! drive| of)|please ignore this|ignore this (?:mail|email|message)|(?:detta|det här) är (?:bara )?ett test\b|bortse från (?:detta|det här) (?:mejl|mail|utskick)|dies ist (?:nur )?ein test\b"
    r"|dette er (?:bare |kun )?en test\b|tämä on (?:vain )?testi|ceci est un (?:simple )?test\b|esto es una prueba)",
    re.I,
)
_FILLER = re.compile(
    r"\blorem ipsum\b|\bdolor sit amet\b|\bconsectetur adipisc|\bsed do eiusmod\b|\bblindtext\b|\basdf(?:asdf|gh|jkl)|\bqwerty(?:uiop)?\b(?=\W|\Z)|\bbla bla bla\b|\bfoo bar baz\b",
    re.I,
)
_BODY_OF_A_TEST = 60
_ENDS = r"\.(?:pdf|docx?|xlsx?|pptx?|odt|ods|odp|csv|rtf|zip)"
# No file of a link, of a path or of an address; spaces belong to no name here, since nobody knows where such a one begins.
_SPOKEN_OF = re.compile(rf"(?<![\w/@.=&?%\-])\w[\w\-.()]{{0,100}}{_ENDS}(?![\w/@?=])", re.I)
_NAMED_DRAFT = re.compile(
    r"(?:\A|[\s_\-.(\[])(?:draft|utkast|udkast|luonnos|entwurf|brouillon|borrador|bozza|arbetsversion|arbeitsversion|untitled|namnlös|unbenannt"
    r"|ej klar|not final)(?=[\s_\-.)\]\d]|\Z)",
    re.I,
)


# To look for plain words first is many times faster than to look for the patterns.
_STAMPS = ("DRAFT", "UTKAST", "UDKAST", "LUONNOS", "ENTWURF", "BROUILLON", "BORRADOR", "BOZZA", "RASCUNHO", "EJ KLAR", "INTE KLAR", "NOT FINAL",
           "NICHT FERTIG", "WORK IN PROGRESS", "ARBETSVERSION", "ARBEITSVERSION")  # fmt: skip
_REMINDERS = ("TODO", "TO-DO", "FIXME", "TBD", "TBA", "TBC")
_NOTES = ("note to self", "obs internt", "kommentar", "comment", "anm")
_ASKED = ("check", "look at", "have a look", "verify", "confirm", "fix", "update", "rewrite", "is this", "kolla", "kontrollera", "titta", "stämmer", "ändra",
          "rätta", "skriv om", "sjekk", "tjek", "tarkista", "prüf", "stimmt", "vérif", "revisa", "comprueba")  # fmt: skip
_FILLERS = ("lorem ipsum", "dolor sit", "consectetur", "eiusmod", "blindtext", "asdf", "qwerty", "bla bla", "foo bar")
_LOOKED_FOR = (
    (_REMINDER, _REMINDERS, False), (_TO_PUT_IN, ("[", "(", "<"), False), (_NOTED, _NOTES, True), (_TO_SOMEBODY, _ASKED, True),
)  # fmt: skip


def unfinished(subject: str, own: str, source: str = "", files: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """(kind, what was found) of the first of each kind. ``source``: of its HTML in lower case. ``files``: names of what is attached."""
    body = own[:_MOST]
    text = f"{subject}\n\n{body}"
    small = text.lower()
    if found := _PLACEHOLDER.search(text) or _UNNAMED.match(body):
        yield PLACEHOLDER, " ".join(found[0].split())[:40]
    stamped = _STAMPED.search(text) if any(word in text for word in _STAMPS) else None
    if found := _DRAFT.match(subject.lower()) or stamped:
        yield DRAFT, found[0].strip(" \n[]()*_-–—:|.")[:40]
    found = next(
        (
            f
            for pattern, words, anyhow in _LOOKED_FOR
            if any(w in (small if anyhow else text) for w in words) and (f := pattern.search(text))
        ),
        None,
    )
    if found:
        yield COMMENT, " ".join(found[0].split())[:60]
    elif source and any(sign in source for sign in _TRACKED):
        yield COMMENT, "a change or a comment of a word processor"
    short = body.strip()
    tried = (subject.strip(), short if len(short) <= _BODY_OF_A_TEST else short[:400])
    if found := next((f for t in tried if t and (f := _TEST.search(t))), None):
        yield TEST, " ".join(found[0].split())[:40]
    if any(word in small for word in _FILLERS) and (found := _FILLER.search(text)):
        yield FILLER, found[0][:40]
    if found_file := _wrong_file(body, files):
        yield FILE, found_file


def _wrong_file(body: str, files: Sequence[str]) -> str:
    """An attached file whose name calls it a draft, or one that the text names while others are attached; or "". A text that names a file
    and brings none may speak of an earlier one."""
    for name in files:
        if _NAMED_DRAFT.search(name):
            return name[:60]
    if files and "." in body:
        there = {name.casefold() for name in files}
        spoken = [found[0] for found in _SPOKEN_OF.finditer(body)]
        if spoken and not any(name.casefold() in there for name in spoken):
            return f"{spoken[0][:60]}, and {files[0][:60]} is attached"
    return ""
