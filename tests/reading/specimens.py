"""Generated mail as today's clients, platforms and list servers write it, with made-up words.

Header and markup follow the known conventions of each program. ``traits`` of a specimen say what it is, so that a test
can tell how it must be read.
"""

from __future__ import annotations

import base64
import quopri
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from smtpguard.mail.message import Message
from tests.reading.letters import GROWN_THREAD, NEW_THREAD


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one language: a letter between colleagues, a newsletter, and what mail programs write around
    quotations."""

    letter: str
    greeting: str
    closing: str
    wrote: str
    block: tuple[str, str, str, str]
    prefixes: tuple[str, str]
    mobile: str
    campaign: str
    subject: str
    leave: str
    browser: str
    why: str


WORDS: Mapping[str, Words] = {
    "en": Words("Could you look at the draft before the meeting? I think the second page needs work.", "Hi Bo,", "Best regards\nAnna Ek", "On Mon, 3 Mar 2025 at 09:12, Bo Alm <bo@example.com> wrote:",
                ("From", "Sent", "To", "Subject"), ("RE", "FW"), "Sent from my iPhone", "Our autumn range is here. Shop now and save 20 % until Sunday.", "Autumn is here", "Unsubscribe", "View in browser",
                "You are receiving this email because you are a customer of Example."),
    "sv": Words("Kan du titta på utkastet före mötet? Jag tror att andra sidan behöver mer arbete.", "Hej Bo,", "Med vänlig hälsning\nAnna Ek", "Den mån 3 mars 2025 kl 09:12 skrev Bo Alm <bo@example.com>:",
                ("Från", "Skickat", "Till", "Ämne"), ("SV", "VB"), "Skickat från min iPhone", "Höstens nyheter är här. Köp nu och spara 20 % till och med söndag.", "Höstens nyheter", "Avprenumerera", "Visa i webbläsaren",
                "Du får detta mejl eftersom du är kund hos Example."),
    "no": Words("Kan du se på utkastet før møtet? Jeg tror side to trenger mer arbeid.", "Hei Bo,", "Med vennlig hilsen\nAnna Ek", "man. 3. mars 2025 kl. 09:12 skrev Bo Alm <bo@example.com>:",
                ("Fra", "Sendt", "Til", "Emne"), ("SV", "VS"), "Sendt fra min iPhone", "Høstens nyheter er her. Kjøp nå og spar 20 % til søndag.", "Høstens nyheter", "Meld deg av", "Vis i nettleser",
                "Du mottar denne e-posten fordi du er kunde hos Example."),
    "da": Words("Kan du kigge på udkastet før mødet? Jeg tror at side to kræver mere arbejde.", "Hej Bo,", "Med venlig hilsen\nAnna Ek", "Den man. 3. mar. 2025 kl. 09.12 skrev Bo Alm <bo@example.com>:",
                ("Fra", "Sendt", "Til", "Emne"), ("SV", "VS"), "Sendt fra min iPhone", "Efterårets nyheder er her. Køb nu og spar 20 % til og med søndag.", "Efterårets nyheder", "Afmeld nyhedsbrevet", "Se i browser",
                "Du modtager denne mail, fordi du er kunde hos Example."),
    "fi": Words("Voitko katsoa luonnosta ennen kokousta? Minusta toinen sivu vaatii vielä työtä.", "Hei Bo,", "Ystävällisin terveisin\nAnna Ek", "ma 3. maalisk. 2025 klo 9.12 Bo Alm <bo@example.com> kirjoitti:",
                ("Lähettäjä", "Lähetetty", "Vastaanottaja", "Aihe"), ("VS", "VL"), "Lähetetty iPhonesta", "Syksyn uutuudet ovat täällä. Osta nyt ja säästä 20 % sunnuntaihin asti.", "Syksyn uutuudet", "Peruuta tilaus", "Avaa selaimessa",
                "Sait tämän viestin, koska olet Examplen asiakas."),
    "de": Words("Kannst du dir den Entwurf vor der Besprechung ansehen? Ich glaube, Seite zwei braucht noch Arbeit.", "Hallo Bo,", "Mit freundlichen Grüßen\nAnna Ek", "Am Mo., 3. März 2025 um 09:12 Uhr schrieb Bo Alm <bo@example.com>:",
                ("Von", "Gesendet", "An", "Betreff"), ("AW", "WG"), "Von meinem iPhone gesendet", "Die Herbstkollektion ist da. Jetzt kaufen und bis Sonntag 20 % sparen.", "Die Herbstkollektion", "Newsletter abbestellen", "Im Browser ansehen",
                "Sie erhalten diese E-Mail, weil Sie Kunde von Example sind."),
    "fr": Words("Peux-tu regarder le brouillon avant la réunion ? Je pense que la page deux demande du travail.", "Bonjour Bo,", "Cordialement\nAnna Ek", "Le lun. 3 mars 2025 à 09:12, Bo Alm <bo@example.com> a écrit :",
                ("De", "Envoyé", "À", "Objet"), ("RE", "TR"), "Envoyé de mon iPhone", "La collection d'automne est là. Profitez de 20 % jusqu'à dimanche.", "La collection d'automne", "Se désabonner", "Voir dans le navigateur",
                "Vous recevez cet e-mail car vous êtes client de Example."),
    "es": Words("¿Puedes mirar el borrador antes de la reunión? Creo que mi segunda página necesita más trabajo.", "Hola Bo,", "Saludos\nAnna Ek", "El lun, 3 mar 2025 a las 9:12, Bo Alm (<bo@example.com>) escribió:",
                ("De", "Enviado", "Para", "Asunto"), ("RE", "RV"), "Enviado desde mi iPhone", "La colección de otoño está aquí. Compra ahora y ahorra un 20 % hasta el domingo.", "La colección de otoño", "Darse de baja", "Ver en el navegador",
                "Recibes este correo porque eres cliente de Example."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Specimen:
    name: str
    message: Message
    traits: Mapping[str, str] = field(default_factory=dict)


def message(fields: Mapping[str, str], plain: str = "", html: str = "", boundary: str = "b0") -> Message:
    """A plain or HTML message, or both as alternatives."""
    head = {"Date": "Mon, 3 Mar 2025 10:00:00 +0100", "MIME-Version": "1.0", **fields}
    parts = [(kind, text) for kind, text in (("plain", plain), ("html", html)) if text]
    lines = [f"{name}: {_encoded(value)}" for name, value in head.items()]
    if len(parts) == 1:
        lines += [f"Content-Type: text/{parts[0][0]}; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", ""]
        body = _qp(parts[0][1])
    else:
        lines += [f'Content-Type: multipart/alternative; boundary="{boundary}"', ""]
        body = "".join(
            f"--{boundary}\nContent-Type: text/{kind}; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n{_qp(text)}\n"
            for kind, text in parts
        ) + f"--{boundary}--\n"  # fmt: skip
    return Message.of("\n".join([*lines, body]).replace("\n", "\r\n").encode())


def _qp(text: str) -> str:
    return quopri.encodestring(text.encode()).decode()


def _encoded(value: str) -> str:
    return value if value.isascii() else f"=?utf-8?B?{base64.b64encode(value.encode()).decode()}?="


EXCHANGE = {
    "X-MS-Has-Attach": "", "X-MS-TNEF-Correlator": "", "X-MS-PublicTrafficType": "Email", "X-MS-Exchange-CrossTenant-AuthAs": "Internal",
    "X-MS-Exchange-Transport-CrossTenantHeadersStamped": "AM0PR01MB1234", "Accept-Language": "sv-SE, en-US", "Content-Language": "en-US",
}  # fmt: skip
HOW = ("new", "reply", "forward")


def people(domain: str = "example.com", to: str = "bo@example.com") -> Iterator[Specimen]:
    """Letters between people: traits are client, language, new or reply or forward, plain or HTML."""
    for client in (
        "exchange-online",
        "outlook",
        "owa",
        "outlook-mobile",
        "gmail",
        "apple-mail",
        "iphone",
        "thunderbird",
    ):
        for language, words in WORDS.items():
            for how in HOW:
                for html in (True, False):
                    if client in ("owa", "outlook-mobile") and not html:
                        continue
                    yield letter(client, language, words, how, html, domain, to)


def letter(client: str, language: str, words: Words, how: str, html: bool, domain: str, to: str) -> Specimen:
    fields = {"From": f"Anna Ek <anna@{domain}>", "To": f"Bo Alm <{to}>", **_client(client, how, domain)}
    prefix = {"new": "", "reply": f"{_prefix(client, words, 0)}: ", "forward": f"{_prefix(client, words, 1)}: "}[how]
    fields["Subject"] = f"{prefix}{words.letter[:24]}"
    if how == "reply":
        fields["In-Reply-To"] = fields["References"] = f"<1234@mail.{to.partition('@')[2]}>"
    own = f"{words.greeting}\n\n{words.letter}\n\n{words.closing}"
    if client in ("iphone", "outlook-mobile"):
        own = f"{words.letter}\n\n{words.mobile}"
    plain = own + (f"\n\n{_quoted(client, words)}" if how != "new" else "")
    markup = _markup(client, own, words, how) if html else ""
    both = html and client not in ("outlook-plain",)
    boundary = {"exchange-online": "_000_AM0PR01MB1234567890ABCDEFAM0PR01MB1234eurp_", "outlook": "----=_NextPart_000_0001_01DB8C12.3A4B5C60",
                "gmail": "0000000000001234567890abcdef", "apple-mail": "Apple-Mail=_0A1B2C3D-1111-2222-3333-0123456789AB",
                "iphone": "Apple-Mail-0A1B2C3D-1111-2222-3333-0123456789AB", "thunderbird": "------------A1b2C3d4E5f6G7h8I9j0K1l2"}.get(client, "_000_ABCDEFABCDEFABCDEFABCDEF01_")  # fmt: skip
    made = message(fields, plain if both or not html else "", markup, boundary)
    return Specimen(f"{client}-{language}-{how}-{'html' if html else 'plain'}", made, {"how": how, "client": client})


def _prefix(client: str, words: Words, n: int) -> str:
    return words.prefixes[n] if client in ("exchange-online", "outlook", "owa", "outlook-mobile") else ("Re", "Fwd")[n]


def _client(client: str, how: str, domain: str) -> dict[str, str]:
    microsoft = {
        **EXCHANGE, "X-OriginatorOrg": domain, "Thread-Topic": "Draft", "Thread-Index": NEW_THREAD if how == "new" else GROWN_THREAD,
        "Message-ID": "<AM0PR01MB1234567890ABCDEF@AM0PR01MB1234.eurprd01.prod.outlook.com>",
    }  # fmt: skip
    return {
        "exchange-online": microsoft,
        "owa": microsoft,
        "outlook-mobile": microsoft,
        "outlook": {"X-Mailer": "Microsoft Outlook 16.0", "Thread-Index": microsoft["Thread-Index"], "Message-ID": f"<000001db8c12$3a4b5c60$aee21520$@{domain}>", "Content-Language": "sv"},
        "gmail": {"Message-ID": "<CAKx2y0123456789abcdefghijABCDEFGHIJ+Q@mail.gmail.com>", "X-Gm-Message-State": "AOJu0Yx"},
        "apple-mail": {"X-Mailer": "Apple Mail (2.3826.400.131.1.6)", "Mime-Version": "1.0 (Mac OS X Mail 16.0 \\(3826.400.131.1.6\\))", "Message-Id": f"<0A1B2C3D-1111-4222-8333-0123456789AB@{domain}>"},
        "iphone": {"X-Mailer": "iPhone Mail (22D82)", "Message-Id": f"<0A1B2C3D-1111-4222-8333-0123456789AB@{domain}>", "Mime-Version": "1.0 (1.0)"},
        "thunderbird": {"User-Agent": "Mozilla Thunderbird", "Message-ID": f"<0a1b2c3d-1111-4222-8333-0123456789ab@{domain}>", "Content-Language": "en-US"},
    }[client]  # fmt: skip


def _quoted(client: str, words: Words) -> str:
    if client in ("exchange-online", "outlook", "owa", "outlook-mobile"):
        values = ("Bo Alm <bo@example.com>", "3 mars 2025 09:12", "Anna Ek", "Draft")
        return (
            "________________________________\n"
            + "\n".join(f"{n}: {v}" for n, v in zip(words.block, values, strict=True))
            + "\n\nOk?"
        )
    return f"{words.wrote}\n\n> Ok?\n> Bo"


def _markup(client: str, own: str, words: Words, how: str) -> str:
    lines = own.split("\n")
    quoted = ""
    if client in ("exchange-online", "outlook"):
        body = "".join(f"<p class=MsoNormal>{line or '&nbsp;'}<o:p></o:p></p>" for line in lines)
        if how != "new":
            block = "<br>".join(f"<b>{n}:</b> x" for n in words.block)
            quoted = f"<div><div style='border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt 0cm 0cm 0cm'><p class=MsoNormal>{block}<o:p></o:p></p></div></div><p class=MsoNormal>Ok?</p>"
        return f'<html xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office"><head><meta name=Generator content="Microsoft Word 15 (filtered medium)"><!--[if !mso]><style>v\\:* {{behavior:url(#default#VML);}}</style><![endif]--><style></style><!--[if gte mso 9]><xml></xml><![endif]--></head><body lang=SV><div class=WordSection1>{body}{quoted}</div></body></html>'
    if client in ("owa", "outlook-mobile"):
        body = "".join(f'<div class="elementToProof">{line or "<br>"}</div>' for line in lines)
        if how != "new":
            block = "<br>".join(f"<b>{n}:</b> x" for n in words.block)
            quoted = f'<div id="appendonsend"></div><hr><div id="divRplyFwdMsg" dir="ltr">{block}</div><div>Ok?</div>'
        name = "ms-outlook-mobile-signature" if client == "outlook-mobile" else "Signature"
        return f'<html><head></head><body dir="ltr">{body}<div id="{name}"></div>{quoted}</body></html>'
    body = "".join(f"<div>{line or '<br>'}</div>" for line in lines)
    if how != "new":
        cite = 'class="gmail_quote" style="margin:0px 0px 0px 0.8ex"' if client == "gmail" else 'type="cite"'
        quoted = f"<div>{words.wrote.replace('<', '&lt;').replace('>', '&gt;')}</div><blockquote {cite}><div>Ok?</div></blockquote>"
        if client == "gmail":
            quoted = f'<br><div class="gmail_quote gmail_quote_container">{quoted}</div>'
    if client == "gmail":
        return f'<div dir="ltr">{body}</div>{quoted}'
    if client in ("apple-mail", "iphone"):
        return f'<html><head></head><body style="overflow-wrap: break-word; -webkit-nbsp-mode: space; line-break: after-white-space;">{body}{quoted}</body></html>'
    return f'<!DOCTYPE html><html><head></head><body text="#000000" bgcolor="#FFFFFF">{body}{quoted}</body></html>'


LEAVING = {"List-Unsubscribe": "<https://news.shop.example/u/1?x=2>, <mailto:u-123@news.shop.example>"}
ONE_CLICK = {**LEAVING, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
PLATFORMS: Mapping[str, Mapping[str, str]] = {
    "mailchimp": {**ONE_CLICK, "X-Mailer": "MailChimp Mailer - **CIDabc123**", "X-Campaign": "mailchimpabc", "X-campaignid": "mailchimpabc", "X-MC-User": "0123", "Feedback-ID": "1:1.2:us1:mc", "List-ID": "123mc list <123.456.list-id.mcsv.net>", "Return-Path": "<bounce-mc.us1_1.2-kim=example.net@mail1.atl1.mcsv.net>"},
    "sendgrid": {**LEAVING, "X-SG-EID": "u001.abc", "X-SG-ID": "u001.def", "X-Entity-ID": "u001.ghi", "Return-Path": "<bounces+123-abcd-kim=example.net@em1.shop.example>"},
    "brevo": {**ONE_CLICK, "X-Mailin-EID": "MTIz", "X-Mailin-Campaign": "17", "X-CSA-Complaints": "csa-complaints@eco.de", "Feedback-ID": "1.2.3:1:17:Sendinblue", "Origin-messageId": "<1@smtp-relay.mailin.fr>"},
    "hubspot": {**ONE_CLICK, "X-HS-Cid": "1ab", "X-Report-Abuse-To": "abuse@hubspot.com", "Feedback-ID": "aws-123:hubspot", "Precedence": "bulk"},
    "klaviyo": {**ONE_CLICK, "X-Kmail-Account": "AbC123", "X-Kmail-Message": "xyz", "X-Kmail-Relay": "1", "Feedback-ID": "us:1:2:klaviyo", "X-Mailer": "Klaviyo Mailer"},
    "mailgun": {**LEAVING, "X-Mailgun-Sid": "WyJ", "X-Mailgun-Tag": "autumn", "X-Mailgun-Sending-Ip": "192.0.2.9", "Sender": "news@mg.shop.example"},
    "amazon-ses": {**LEAVING, "Feedback-ID": "1.eu-west-1.abc:AmazonSES", "X-SES-Outgoing": "2025.03.03-192.0.2.8", "Message-ID": "<0102019560aa-0a1b2c3d-1111-2222-3333-0123456789ab-000000@eu-west-1.amazonses.com>"},
    "salesforce": {**ONE_CLICK, "X-SFMC-Stack": "1", "X-Delivery": "Level 2", "Feedback-ID": "1:2:192.0.2.7:sfmktgcld", "x-job": "123_456", "x-CSA-Compliance-Source": "SFMC", "List-ID": "<123.xt.local>"},
    "campaign-monitor": {**ONE_CLICK, "X-Cmail-Recipientid": "ab", "X-Cmail-CampaignId": "cd", "Feedback-ID": "ab:cd:campaignmonitor", "X-Complaints-To": "abuse@cmail20.com", "List-Id": "<t.shop.createsend.com>"},
    "activecampaign": {**ONE_CLICK, "X-Sender": "news@shop.example", "X-mid": "a2lt", "Feedback-ID": "1:2:3:acems", "X-Report-Abuse": "https://shop.activehosted.com/abuse", "List-Id": "<1.shop.activehosted.com>"},
}  # fmt: skip
SENDERS = ("Example Shop <news@shop.example>", "Lisa from Example <lisa@shop.example>", "no-reply@mail.shop.example")


def mailings() -> Iterator[Specimen]:
    """Campaigns: traits are platform, language, sender, HTML or plain, and a faked "Re:" on some."""
    for platform, fields in PLATFORMS.items():
        for n, (language, words) in enumerate(WORDS.items()):
            for html in (True, False):
                sender = SENDERS[n % len(SENDERS)]
                subject = f"Re: {words.subject}" if n % 4 == 3 else words.subject
                head = {"From": sender, "To": "kim@customer.example", "Subject": subject, **fields}
                yield Specimen(
                    f"{platform}-{language}-{'html' if html else 'plain'}",
                    message(
                        head, campaign_text(words, personal=sender.startswith("Lisa")), campaign(words) if html else ""
                    ),
                )


def campaign(words: Words) -> str:
    rows = "".join(
        f'<tr><td style="padding:0"><a href="https://click.shop.example/{n}?utm_source=mail&amp;utm_campaign=a"><img src="https://img.shop.example/{n}.png" alt="" width="600"></a></td></tr>'
        for n in range(5)
    )
    return (
        '<!doctype html><html xmlns:v="urn:schemas-microsoft-com:vml"><head><meta name="viewport" content="width=device-width"><title></title>'
        "<!--[if mso]><xml></xml><![endif]--><style>@media only screen {.c{width:100%}}</style></head><body>"
        f'<div style="display:none;max-height:0">{words.campaign[:40]}</div><table role="presentation" width="100%"><tr><td><a href="https://click.shop.example/web">{words.browser}</a></td></tr>{rows}'
        f"<tr><td>{words.campaign}</td></tr><tr><td>{words.why} <a href='https://click.shop.example/unsubscribe?u=1'>{words.leave}</a></td></tr></table>"
        '<img src="https://click.shop.example/open.gif" width="1" height="1" alt=""></body></html>'
    )


def campaign_text(words: Words, *, personal: bool = False) -> str:
    begin = f"{words.greeting}\n\n" if personal else ""
    end = f"\n\n{words.closing.split(chr(10))[0]}\nLisa" if personal else ""
    return f"{begin}{words.campaign}\n\nhttps://shop.example/autumn{end}\n\n{words.why}\n{words.leave}: https://click.shop.example/u/1\n"


def small_newsletters() -> Iterator[Specimen]:
    """Newsletters that a small sender writes in Outlook or Gmail, without bulk header fields."""
    for client in ("exchange-online", "outlook", "gmail"):
        for language, words in WORDS.items():
            for leaving in (True, False):
                fields = {
                    "From": "Galleri <galleri@small.example>",
                    "To": "galleri@small.example",
                    "Subject": words.subject,
                    **_client(client, "new", "small.example"),
                }
                text = f"{words.campaign}\n\nhttps://small.example/\n" + (
                    f"\n{words.why} {words.leave}." if leaving else ""
                )
                yield Specimen(
                    f"small-{client}-{language}-{'leave' if leaving else 'bare'}",
                    message(fields, text, _markup(client, text, words, "new")), {"leaving": "yes" if leaving else ""},
                )  # fmt: skip


SERVERS: Mapping[str, Mapping[str, str]] = {
    "mailman3": {"X-Mailman-Version": "3.3.9", "X-Mailman-Rule-Hits": "member-moderation", "Precedence": "list", "List-Id": "Talk <talk.lists.example.org>", "Archived-At": "<https://lists.example.org/1>"},
    "google-groups": {"X-Google-Group-Id": "123", "List-ID": "<talk.googlegroups.com>", "Precedence": "list", "Mailing-list": "list talk@googlegroups.com; contact talk+owners@googlegroups.com", "X-Original-Sender": "kim@example.net"},
    "groups-io": {"X-Groupsio-Msgnum": "17", "List-Id": "<talk.groups.io>", "Precedence": "Bulk"},
    "sympa": {"X-Sympa-To": "talk@lists.example.org", "List-Id": "<talk.lists.example.org>", "Precedence": "list", "X-Loop": "talk@lists.example.org"},
    "mlmmj": {"X-Mlmmj-Version": "1.4", "List-Id": "<talk.lists.example.org>", "Precedence": "list"},
    "vger": {"X-Mailing-List": "linux-talk@vger.example.org", "List-Id": "<linux-talk.vger.example.org>", "Precedence": "bulk", "List-Subscribe": "<mailto:s@vger.example.org>"},
}  # fmt: skip


def posts() -> Iterator[Specimen]:
    """Posts of people to mailing lists."""
    for server, fields in SERVERS.items():
        for client in ("gmail", "thunderbird", "apple-mail"):
            for how in ("new", "reply"):
                words = WORDS["en"]
                head = {
                    "From": "Kim <kim@example.net>", "To": "talk@lists.example.org", **_client(client, how, "example.net"), **fields,
                    "Subject": f"{'Re: ' if how == 'reply' else ''}[talk] the parser", "List-Post": "<mailto:talk@lists.example.org>",
                    "List-Unsubscribe": "<mailto:talk-leave@lists.example.org>",
                }  # fmt: skip
                if how == "reply":
                    head["In-Reply-To"] = "<17@example.org>"
                footer = "\n_______________________________________________\ntalk mailing list -- talk@lists.example.org\nTo unsubscribe send an email to talk-leave@lists.example.org\n"
                text = (
                    f"{words.letter}\n\nKim\n" + (f"\n{words.wrote}\n> Ok?\n> Bo\n" if how == "reply" else "") + footer
                )
                yield Specimen(f"{server}-{client}-{how}", message(head, text), {"how": how})
