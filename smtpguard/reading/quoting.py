"""Split a text into its new and its quoted part: attributions, header blocks and ``>``, in the languages of mail
programs.

RFC 3676 section 4.5 knows only ``>``; the rest is what programs write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtpguard.reading.fold import fold

# Names of the fields in a quoted header block. One of the first row and two of the others make a block.
FROM = frozenset((
    "from", "från", "fra", "lähettäjä", "von", "de", "da", "van", "od", "frá", "saatja", "nuo", "no", "feladó", "kimden",
    "expéditeur", "remitente", "expeditor", "expeditorul", "от", "від", "από", "差出人", "发件人", "寄件者", "보낸 사람",
    "من", "מאת", "dari", "từ", "odosielateľ", "odesílatel", "pošiljatelj", "afsender", "avsändare", "avsender", "mittente",
))  # fmt: skip
_OTHER = (
    "sent", "date", "to", "cc", "subject", "reply-to", "skickat", "datum", "till", "kopia", "ämne", "sendt", "dato", "til",
    "kopi", "emne", "lähetetty", "päivämäärä", "päiväys", "vastaanottaja", "kopio", "aihe", "gesendet", "an", "betreff",
    "kopie", "envoyé", "à", "objet", "envoyé le", "date d'envoi", "enviado", "enviado el", "para", "asunto", "fecha",
    "enviada", "enviado em", "assunto", "data", "inviato", "a", "oggetto", "verzonden", "aan", "onderwerp", "wysłano",
    "do", "dw", "temat", "odesláno", "komu", "kopie", "předmět", "předmet", "predmet", "odoslané", "dátum", "címzett",
    "másolat", "tárgy", "küldve", "elküldve", "tarih", "kime", "konu", "bilgi", "gönderildi", "gönderme tarihi", "destinatarul",
    "subiectul", "subiect", "dată", "către", "trimis", "отправлено", "дата", "кому", "копия", "тема", "надіслано", "копія",
    "送信日時", "日付", "宛先", "件名", "发送时间", "日期", "收件人", "抄送", "主题", "寄件日期", "收件者", "主旨", "보낸 날짜",
    "날짜", "받는 사람", "제목", "التاريخ", "إلى", "الموضوع", "נשלח", "תאריך", "אל", "נושא", "tanggal", "kepada", "subjek",
    "saadetud", "saaja", "teema", "прати", "vastus", "primatelj", "prejemnik", "poslano", "zadeva", "gửi", "đến", "chủ đề",
    "στάλθηκε", "προς", "θέμα", "ημερομηνία", "för", "mottagare", "destinataire", "destinatario", "sujet", "message du", "copie à", "répondre à", "message reçu",
)  # fmt: skip
_NAMES = FROM | frozenset(_OTHER)
_SUBJECT = frozenset(
    """
    subject ämne emne aihe betreff objet sujet asunto assunto oggetto onderwerp temat předmět předmet predmet tárgy konu subiectul subiect
    тема 件名 主题 主旨 제목 الموضوع נושא subjek teema zadeva θέμα
    """.split()  # noqa: SIM905
) | {"chủ đề"}
_RULE = re.compile(
    r"[ \t>]*[-_=─*]{2,}[ \t]*(?:original(?:\s?message| appointment)|ursprungligt meddelande|originalmeddelande"
    r"|ursprungligt mejl|vidarebefordrat meddelande|opprinnelig melding|videresendt (?:melding|meddelelse|besked)"
    r"|oprindelig (?:meddelelse|besked)|alkuperäinen viesti|edelleenlähetetty viesti|välitetty viesti"
    r"|ursprüngliche (?:nachricht|mail)|originalnachricht|weitergeleitete nachricht|message d.origine|message original"
    r"|message transféré|forwarded message|mensaje original|mensaje reenviado|mensagem original|mensagem encaminhada"
    r"|messaggio originale|messaggio inoltrato|oorspronkelijk bericht|doorgestuurd bericht|wiadomość oryginalna"
    r"|oryginalna wiadomość|przekazana wiadomość|původní zpráva|přeposlaná zpráva|eredeti üzenet|továbbított (?:üzenet|levél)"
    r"|orijinal mesaj|iletilen mesaj|mesaj original|пересылаемое сообщение|исходное сообщение|переадресоване повідомлення"
    r"|رسالة معاد توجيهها|الرسالة الأصلية|转发邮件|原始邮件|转发的邮件|轉寄郵件|転送メッセージ|元のメッセージ|원본 메시지|전달된 메시지)",
    re.I,
)
_OF_RULES = frozenset("-_=─*")
_BEGINS = re.compile(
    r"[ \t>]*(?:begin forwarded message|start på vidarebefordrat|vidarebefordrat (?:mejl|brev|meddelande)|videresendt melding"
    r"|start på videresendt|(?:edelleenlähetetty|välitetty) viesti|anfang der weitergeleiteten|début du message (?:réexpédié|transféré)"
    r"|inicio del mensaje reenviado|início da mensagem (?:reencaminhada|encaminhada)|inizio messaggio inoltrato|begin doorgestuurd bericht"
    r"|początek przekazywanej|továbbított levél kezdete|ileti başlangıcı|începe mesajul|začátek přeposílané|začiatok preposlanej"
    r"|početak proslijeđene|начало переадресованного|початок листа|تم إعادة توجيه)[^\n]{0,60}:?\s*\Z",
    re.I,
)
_POINTER = re.compile(r">>+ ?\w|>[\w]+.{0,40}<")
_FOOTER_RULE = re.compile(r"\s*(?:_{10,}|-{10,}|-- ?|={10,}|-{5}.*mailing list.*)\s*\Z", re.I)
_FOOTER = re.compile(
    r"mailing list|/listinfo/|-unsubscribe@|to unsubscribe|google groups|groups\.io|/lists/|listserv", re.I
)
_WROTE = (
    "wrote|writes|schrieb|skrev|skrev følgende|kirjoitti|a écrit|écrit|escribió|escreveu|ha scritto|schreef|napisał|napisała"
    "|napisał\\(a\\)|napsal|napísal|napsal\\(a\\)|pisze|írta|yazdı|şunu yazdı|a scris|написал|написала|написав|пише|пишет"
    "|έγραψε|rašė|kirjutas|rakstīja|skrifaði|viết|menulis|đã viết|napisao|je napisal|wrote on|さんは書きました|のメール|写道|寫道|작성"
    "|님이 작성|كتب|כתב"
)
_ATTRIBUTION = re.compile(
    rf"[ \t>]*(?=[^\n]{{0,300}}(?:\d|@))[^\n]{{3,300}}?(?:\b|\s|[）>)]|(?<=[^\x00-\x7f]))(?:{_WROTE})[^\n]{{0,120}}[:：]\s*\Z",
    re.I,
)
_APPLE = re.compile(
    r"[ \t>]*(?:on|den|am|le|el|il|op|em|dnia|dne|på|på den|ma|tis|ons|tor|fre)\b[^\n]{6,200}@[^\n]{2,120}[:：]\s*\Z",
    re.I,
)
_WROTE_END = re.compile(rf"(?:{_WROTE})\s?[:：]\s*\Z", re.I)


@dataclass(frozen=True, slots=True)
class Split:
    """A text in two parts. ``opening``: the line (or block) that begins the quoted part; ``kind``: its kind."""

    new: str
    quoted: str = ""
    opening: str = ""
    kind: str = ""  # "header block", "attribution", "rule", "marker", "" where there is none


def split(text: str, *, from_markup: bool = False) -> Split:
    """Split a text into its new and its quoted part. Answers between quoted lines are new. Text ``from_markup``
    quotes differently from ``>``."""
    lines = _without_footer(text.split("\n"))
    for i, line in enumerate(lines):
        if ":" not in line and "：" not in line and line.lstrip(" \t>")[:1] not in _OF_RULES:
            continue
        if len(line) > 400 or not line or line.isspace():
            continue
        if _name(line) and (block := _header_block(lines, i)):
            return _parted(lines, i, "\n".join(block), "header block")
        if line.rstrip()[-1] in ":：":
            wrapped = i > 0 and line.lstrip(" >").startswith("<") and not lines[i - 1].isspace() and lines[i - 1] != ""
            sure = "@" in line or _WROTE_END.search(line) is not None or _quoted_next(lines, i)
            if sure and not wrapped and _ATTRIBUTION.match(line):
                return _parted(lines, i, line, "attribution")
            if (
                i
                and len(lines[i - 1]) < 200
                and _WROTE_END.search(line)
                and _ATTRIBUTION.match(f"{lines[i - 1]} {line}")
            ):
                lines[i - 1 : i + 1] = [f"{lines[i - 1].strip()} {line.strip()}"]
                return _parted(lines, i - 1, lines[i - 1], "attribution")
            if "@" in line and _APPLE.match(line):
                return _parted(lines, i, line, "attribution")
            if _BEGINS.match(line):
                return _parted(lines, i, line, "marker")
        first = line.lstrip(" \t>")[:2]
        if len(first) == 2 and first[0] in _OF_RULES and first[1] in _OF_RULES and _RULE.match(line):
            return _parted(lines, i, line, "rule")
    marked = [line for line in lines if line.startswith(">")]
    # Newsletters use ">" as a pointer too: only consecutive lines are a quotation.
    if len(marked) >= 2 and _row(lines) >= (4 if from_markup else 2):
        return Split(
            "\n".join(line for line in lines if not line.startswith(">")), "\n".join(marked), marked[0], "marker"
        )
    return Split("\n".join(lines))


def _row(lines: list[str]) -> int:
    """Return the longest run of lines quoted with ``>``. ``>>`` before a headline is no quotation."""
    longest = row = 0
    for line in lines:
        row = row + 1 if line.startswith(">") and not _POINTER.match(line) else 0
        longest = max(longest, row)
    return longest


def _without_footer(lines: list[str]) -> list[str]:
    """Remove the footer of a list server: a rule of underscores or dashes, and the list's name or address."""
    for i in range(max(0, len(lines) - 14), len(lines) - 1):
        if (
            lines[i].lstrip()[:1] in _OF_RULES
            and _FOOTER_RULE.match(lines[i])
            and _FOOTER.search(" ".join(lines[i + 1 : i + 4]))
        ):
            return lines[:i]
    return lines


def _quoted_next(lines: list[str], i: int) -> bool:
    return any(line.lstrip().startswith((">", "|")) for line in lines[i + 1 : i + 4])


def _parted(lines: list[str], i: int, opening: str, kind: str) -> Split:
    """Split at line ``i``: everything from it on is quoted, except answers between lines with ``>``."""
    head, tail = lines[:i], lines[i:]
    marked = sum(1 for line in tail if line.startswith(">"))
    if kind == "attribution" and marked:
        answers = [line for line in tail[1:] if not line.startswith(">")]
        quoted = [tail[0], *(line for line in tail[1:] if line.startswith(">"))]
        return Split("\n".join(head + answers), "\n".join(quoted), opening.strip(), kind)
    above = [line for line in head if line.startswith(">")]
    new = [line for line in head if not line.startswith(">")]
    return Split("\n".join(new), "\n".join(above + tail), opening.strip(), kind)


def _name(line: str) -> str:
    """Return the field named by a line of a quoted header, folded, or an empty string."""
    head, colon, _ = line[:60].partition(":")
    if not colon:
        head, colon, _ = line[:60].partition("：")
    name = head.strip(" \t>|*_\xa0").lower() if colon else ""
    if name and not name.isascii():
        name = fold(name)
    return name if name in _NAMES else ""


def _header_block(lines: list[str], i: int) -> list[str] | None:
    """Return the header block at line ``i``: a From line and two more fields within the next lines (Yahoo and others
    vary their order). None if there is none."""
    seen: set[str] = set()
    block: list[str] = []
    last = i
    for j in range(i, min(i + 14, len(lines))):
        name = _name(lines[j]) if len(lines[j]) < 2000 else ""
        if name:
            seen.add(name)
            block.append(lines[j])
            last = j
        elif j - last > 2:
            break
    # "De" and "Da" are also words: two more fields must bear them out. And "From Stockholm to Oslo on 2 March" is a journey:
    # mail has a subject, or an address.
    if len(seen) < 3 or not seen & FROM:
        return None
    return block if seen & _SUBJECT or any("@" in line for line in block) else None
