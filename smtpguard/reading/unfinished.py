"""Signs that a message is not finished: unfilled fields of a template, a draft, comments of colleagues, a test, filler
text, a file other than the one that it mentions.

They are looked for in the subject and in the visible part of the writer's own text, and those of a template in hidden text too. They say nothing about what a
message looks like: a letter and a mailing can both be drafts. Every pattern takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from smtpguard.reading.fold import normalized
from smtpguard.reading.markup import TRACKED
from smtpguard.reading.phrases import automaton_of

_MOST = 60_000
_NAME = r"(?:first|last|full|sur|given)?_?-? ?(?:name|namn|nimi|nom|nombre|vorname|nachname)|förnamn|efternamn|fornavn|etternavn|etunimi|sukunimi|prénom|apellido|kundnr|kundnummer|company|företag"
_PLACEHOLDER = re.compile(
    r"\*\|[A-Z_:0-9]{2,40}\|\*|%%[\w\- ]{2,40}%%|\{\{\s*[\w.|'\":,() \-]{2,60}\s*\}\}|\{%\s*\w[^%{}]{0,60}%\}|\$\{[\w.]{2,40}\}|\{\$\w[\w.]{1,40}\}|##[\w.]{2,40}##|<%=?\s*[\w.]{2,40}\s*%>"
    r"|<<[\w ]{2,40}>>|%(?:FIRSTNAME|FNAME|LNAME|EMAIL|NAME|recipient[\w.]{0,30})%"
    r"|\[object Object\]|(?<!\w)(?-i:#(?:N/A|REF!|VALUE!|DIV/0!|SAKNAS!|REFERENS!|VÄRDEFEL!|BEZUG!|WERT!)|Invalid Date\b|NaN ?(?:kr|[A-Z]{3}\b|[€$£])|[€$£] ?NaN\b)"
    rf"|\[\[?(?:{_NAME}|UNSUBSCRIBE\w*|fname|lname)\]?\]|\{{(?:{_NAME}|fname|lname)\}}|<(?:{_NAME})>|«(?:{_NAME}|\w+_\w+)»",
    re.I,
)
_UNNAMED = re.compile(
    r"\A\s*(?:hej|hi|hello|dear|hallo|hei|guten tag|liebe[rs]?|sehr geehrte(?:r|/r|\(r\))?|kära?|bästa|estimad[oa]|hola|cher|chère)(?: (?:mr|mrs|ms|herr|herrn|frau|fru|fröken|señor|señora)\.?)?(?: ,"
    r"| +(?:null|none|undefined|nan|n/a)\b| +(?:\(null\)|#nv\b)"
    r"| +(?:first|last|full)? ?_?name\b| +(?:förnamn|efternamn|fornavn|etternavn|vorname|nachname|prénom|etunimi)\b)",
    re.I,
)
_DRAFT = re.compile(
    r"\A\W{0,3}(?:(?:re|fw|fwd|sv|vb|vs|aw|wg)\s*:\s*)?\W{0,3}(?:draft|utkast|udkast|luonnos|entwurf|brouillon|borrador|bozza|concept|rascunho|szkic|مسودة)\b(?! beer| bier| horse)"
)
_STAMPS = ("DRAFT", "UTKAST", "UDKAST", "LUONNOS", "ENTWURF", "BROUILLON", "BORRADOR", "BOZZA", "RASCUNHO", "EJ KLAR", "INTE KLAR", "NOT FINAL",
           "NICHT FERTIG", "WORK IN PROGRESS", "ARBETSVERSION", "ARBEITSVERSION")  # fmt: skip
_STAMPED = re.compile(rf"(?:^|[\n\[(*_\-–—:|] ?)(?:{'|'.join(_STAMPS)})(?:[\])*_\-–—:|!.\n]| ?v?\d|\Z)")
_REMINDERS = ("TODO", "TO-DO", "FIXME", "TBD", "TBA", "TBC")
_REMINDER = re.compile(rf"\b(?:{'|'.join(_REMINDERS)})\b(?=[\s:;,.!?)\]]|\Z)")
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
# "Lisa check this": to a person by name, in brackets or on a line of its own.
_NOBODY = r"(?!(?:We|They|I|You|He|She|It|Please|Let|To|And|Vi|Ni|De|Jag|Du|Han|Hon|Den|Det|Wir|Sie|Ich|Er|Es|Nous|Vous|Je|On|Me|Te|Yo|Vil|Kan)\b)"
_THIS = r"(?:this|that|it|here|the \w+|detta|det|här|den här|priset|länken|dette|tämä|tämän|das|dies|hier|den|ça|ceci|le|la|esto|aquí)"
_TO_SOMEBODY = re.compile(
    rf"(?:^|[\n\[(<])[^\S\n]*@?{_NOBODY}[A-ZÅÄÖÆØÉÜ][\w\-]{{1,20}}(?:[,:]|[ ]?[-–])[ ](?i:{_ASKS})\b[^\n\[\]()<>]{{0,40}}(?:[\])>]|\n|\Z)"
    rf"|(?:^|[\n\[(<])[^\S\n]*@?{_NOBODY}[A-ZÅÄÖÆØÉÜ][\w\-]{{1,20}}[ ](?i:{_ASKS}) (?i:{_THIS})\b[^\n\[\]()<>]{{0,20}}(?:[\])>]|\n|\Z)"
    rf"|[\[(<](?i:{_ASKS})\b[^\n\[\]()<>]{{0,60}}[\])>]"
)
_TEST = re.compile(
    r"\A\W{0,3}(?:test(?:ar|ing|mail|mejl|brev|utskick|meddelande|melding|besked|viesti|nachricht|email|e-mail| mail| email| e-mail)?|testi|prueba|essai|teste|prova|اختبار)(?:\W{1,3}(?:test\w{0,3}|\d{1,6}|[a-c]|en|ett|one|two|av .{1,40}|of .{1,40}|för .{1,40}))*\W{0,3}\Z"
    r"|\A\W{0,3}\[?test(?:utskick|mail|mejl)?\]?\s*[:\]\-–]\s",
    re.I,
)
_SAID_TO_BE_A_TEST = re.compile(
    r"\b(?:this is (?:only |just )?a test\b(?! drive| of)|(?:detta|det här) är (?:bara )?ett test\b|dies ist (?:nur )?ein test\b"
    r"|dette er (?:bare |kun )?en test\b|tämä on (?:vain )?testi|ceci est un (?:simple )?test\b|esto es una prueba)",
    re.I,
)
# Not as customers are asked: "if it was not you, ignore this mail", "please ignore this reminder".
_IGNORED = re.compile(
    r"(?:\A|[.!?])(?:(?!\b(?:if|unless|already|then|can|in (?:that|this|which) case|om|ifall|redan|då|kan|i så fall)\b)[^.!?])*?"
    r"\b(please ignore this|(?<!not )(?<!n.t )ignore this (?:e-?mail|mail|message)|bortse från (?:detta|det här) (?:mejl|mail|utskick)(?:et)?)(?=\s*(?:[.!,;:\n–-]|\Z))",
    re.I,
)
_FILLER = re.compile(
    r"\blorem ipsum\b|\bdolor sit amet\b|\bconsectetur adipisc|\bsed do eiusmod\b|\bblindtext\b|\basdf(?:asdf|gh|jkl)|\bqwerty(?:uiop)?\b(?=\W|\Z)|\bbla bla bla\b|\bfoo bar baz\b",
    re.I,
)
_BODY_OF_A_TEST = 60
_ENDS = r"\.(?:pdf|docx?|docm|xls[xmb]?|pptx?|odt|ods|odp|rtf|csv)"
_DOCUMENT, _ARCHIVE = re.compile(rf"{_ENDS}\Z", re.I), re.compile(r"\.(?:zip|7z|rar|tar|t?gz)\Z", re.I)
_NAMED_DRAFT = re.compile(
    r"(?:\A|[\s_\-.(\[+])(?<!\bon[\s_\-])(?:draft(?![\s_\-]?(?:beers?|bier|ale|cider|horses?|picks?|board|lottery|guide|day|night))|utkast|udkast|luonnos|entwurf|brouillon|borrador|bozza"
    r"|arbetsversion|arbetskopia|arbetsmaterial|arbeitsversion|arbeitskopie|(?:ej|inte)[\s_\-]klar[at]?|nicht[\s_\-]fertig|not[\s_\-]final|work[\s_\-]in[\s_\-]progress)(?=[\s_\-.)\]+\d]|\Z)",
    re.I,
)
# The name of a file in a text. Where it has spaces, this is its last word; none is found in a path or an address.
_SPOKEN_OF = re.compile(rf"(?<![\w/@.=&?%+\-])\w[\w\-.()+&]{{0,100}}?{_ENDS}(?![\w/@?=])(?!\.\w)", re.I)
_LINK = re.compile(r"\b(?:https?://|www\.)[^\s<>\"]+", re.I)
_LINKED = re.compile(r"[\s<>()\[\]:\-–]{0,5}(?:https?://|www\.)", re.I)
_AROUND = 80
_NOT_HERE = re.compile(
    r"\b(?:er|din|ditt|fick|igår|i går|nedan|site|web|online|last (?:week|month)|your|sent|received|below|yesterday|ihre?[mnrs]?|gestern|unten|danke|dank|eilen|ayer|ieri)\b"
    r"|\b(?:ladda (?:ner|hem|upp)|tack för|hemsid|webb|portal|tidigare|förra|häromdag|skickade|mottag|mapp|website|download|upload|earlier|previous|thank|folder|sharepoint|onedrive|dropbox"
    r"|google drive|teams|intran|herunter|hochgeladen|internet|ordner|früher|letzte|vorige|geschickt|gesendet|erhalten|last ned|nettsid|hjemmesid|lataa|télécharg|reçu|descarg|scarica)"
)
_HERE = re.compile(
    r"\b(?:bifoga|bilag|bilägg|attach|enclos|anbei|anhang|anhäng|angehängt|beigefügt|anlage|beilage|vedlagt|vedhæft|vedlegg|liit|oheis|ci-joint|pièce|annex|adjunt|allegat|bijlage|bijgevoegd)"
)

# Searching for plain words first is many times faster than for the patterns.
_NOTES = ("note to self", "obs internt", "kommentar", "comment", "anm")
_ASKED = ("check", "look at", "have a look", "verify", "confirm", "fix", "update", "rewrite", "is this", "kolla", "kontrollera", "titta", "stämmer", "ändra",
          "rätta", "skriv om", "sjekk", "tjek", "tarkista", "prüf", "stimmt", "vérif", "revisa", "comprueba")  # fmt: skip
_TESTS = ("test", "prueba")
_IGNORES = ("ignore th", "bortse")
_FILLERS = ("lorem ipsum", "dolor sit", "consectetur", "eiusmod", "blindtext", "asdf", "qwerty", "bla bla", "foo bar")
_BEGINS = re.compile(r"[\n\[(<]")
_LOOKED_FOR = ((_TO_PUT_IN, ("[", "(", "<")), (_NOTED, _NOTES), (_TO_SOMEBODY, _ASKED))
_SIGNS = automaton_of(
    {
        word.lower(): words[0]
        for words in (_STAMPS, _REMINDERS, *(words for _, words in _LOOKED_FOR), _TESTS, _IGNORES, _FILLERS)
        for word in words
    },
    "",
)
"""Finds in one pass through a text in lower case which of these tuples have a word in it: the first word of each."""


def unfinished_signs(subject: str, own: str, markup: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield (kind, found text) of the first of each kind (marks.UNFINISHED) except file and empty. ``markup``: the signs
    of its HTML."""
    body = own[:_MOST]
    text = f"{subject}\n\n{body}"
    small = text.lower()
    if found := _PLACEHOLDER.search(text) or _UNNAMED.match(body):
        yield "placeholder", " ".join(found[0].split())[:40]
    signs: dict[str, list[int]] = {}
    for at, first in _SIGNS.iter(small):
        signs.setdefault(first, []).append(at)
    stamped = _STAMPED.search(text) if _STAMPS[0] in signs and any(map(text.__contains__, _STAMPS)) else None
    if found := _DRAFT.match(subject.lower()) or stamped:
        yield "draft", found[0].strip(" \n[]()*_-–—:|.")[:40]
    found = (
        _REMINDER.search(text) if _REMINDERS[0] in signs and any(map(text.__contains__, _REMINDERS)) else None
    ) or next(
        (
            f
            for pattern, words in _LOOKED_FOR
            if words[0] in signs and (f := _search_lines(pattern, text, signs[words[0]]))
        ),
        None,
    )
    if found:
        yield "comment", " ".join(found[0].split())[:60]
    elif not markup.isdisjoint(TRACKED):
        yield "comment", "a change or a comment of a word processor"
    short = body.strip()
    tried = (subject.strip(), short if len(short) <= _BODY_OF_A_TEST else short[:400])
    asked = ((_TESTS, _SAID_TO_BE_A_TEST), (_IGNORES, _IGNORED))
    tests = (_TEST.match, *(pattern.search for words, pattern in asked if words[0] in signs))
    if found := next((f for t in tried if t for test in tests if (f := test(t))), None):
        yield "test", " ".join(found[found.lastindex or 0].split())[:40]
    if _FILLERS[0] in signs and (found := _FILLER.search(text)):
        yield "filler", found[0][:40]


def _search_lines(pattern: re.Pattern[str], text: str, signs: Sequence[int]) -> re.Match[str] | None:
    """Do as ``search``, for patterns that begin with the text, at the end of a line or with a bracket, and have one
    of their ``signs`` in that line: many times faster."""
    ascii, done = text.isascii(), 0
    for sign in signs if ascii else (len(text),):  # else a letter in lower case may be two
        line = max(done, text.rfind("\n", done, sign + 1)) if ascii else 0
        starts = [place.start() for place in _BEGINS.finditer(text, line, sign + 1)]
        for start in starts if line else (0, *starts):
            if found := pattern.match(text, start):
                return found
        done = max(done, sign + 1)
    return None


def named_like_a_draft(files: Sequence[str]) -> str:
    """Return the first document of ``files`` whose name says that it is not finished, or ""."""
    for name in files:
        if (_DOCUMENT.search(name) or _ARCHIVE.search(name)) and _NAMED_DRAFT.search(normalized("NFC", name)):
            return name
    return ""


def another_file(own: str, files: Sequence[str], source: str = "") -> tuple[str, str]:
    """(name in the text, name of the attached file instead), or two of "".

    ``files``: names of all attachments. A text that names one document and attaches none, or also another, refers to
    one sent before; so does a text that says so, or that links the name. An archive may contain the file.
    """
    documents = [name for name in files if _DOCUMENT.search(name)]
    if not documents or any(map(_ARCHIVE.search, files)):
        return "", ""
    text = _LINK.sub(lambda link: link[0][:8], own[:_MOST])
    there = [stem for name in files if (stem := _stem(name))]
    missing = ""
    for found in _SPOKEN_OF.finditer(text):
        before = _stem(text[max(0, found.start() - 120) : found.end()])
        if any(_may_be(_stem(found[0]), before, stem) for stem in there):
            return "", ""
        missing = missing or ("" if _is_elsewhere(text, found, source) else found[0])
    return (missing, documents[0]) if missing else ("", "")


def _is_elsewhere(text: str, found: re.Match[str], source: str) -> bool:
    """Return whether a named file is said to be elsewhere, or is a link. ``source``: HTML in lower case."""
    at = source.find(found[0].lower())
    if _LINKED.match(text, found.end()) or (at >= 0 and source.rfind("<a", 0, at) > source.rfind("</a", 0, at)):
        return True
    near = text[max(0, found.start() - _AROUND) : found.end() + _AROUND].lower()
    return bool(_NOT_HERE.search(near)) and not _HERE.search(near)


def _may_be(spoken: str, before: str, attached: str) -> bool:
    """Return whether the named file may be the attached one. ``before``: the name with the words before it, which may
    belong to it. "prislista.pdf" may be "prislista (2).pdf"; "2026.pdf" is only the end of a name."""
    short, long = sorted((spoken, attached), key=len)
    return before.endswith(attached) or (sum(map(str.isalpha, short)) >= 4 and short in long)


def _stem(name: str) -> str:
    """Return the letters and digits of a name without its extension, in a normal spelling: "Vår_lista.PDF" is
    "varlista"."""
    apart = normalized("NFKD", _DOCUMENT.sub("", name)).casefold().replace("ø", "o").replace("æ", "ae")
    plain = "".join(c for c in apart if c.isalnum())
    return plain.replace("ae", "a").replace("oe", "o").replace("ue", "u")
