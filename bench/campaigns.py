"""Generated mailings: templates in several languages, and any number of personalised copies of each.

All templates of a language share one small vocabulary, and those of one sender share header, footer and legal text: the
hard case. A seed gives the same mail everywhere.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

WORDS = {
    "en": (
        "customers guests members readers families visitors travellers students drivers gardeners neighbours friends",
        "discover order reserve enjoy choose compare collect prepare follow share renew protect",
        "spring summer fresh favourite generous simple careful local quiet bright reliable popular wooden seasonal",
        "kitchen garden journey jacket insurance concert library bicycle breakfast harvest workshop kettle blanket orchard",
        "before the weekend|in every store|at the harbour|during the holidays|with free delivery|from our own bakery|for a limited time"
        "|without any fee|together with your family|on the first floor",
        "This week {0} can {1} the {2} {3} {4}|We invite all {0} to {1} a {2} {3} {4}|Why do so many {0} {1} their {2} {3} {4}"
        "|It is easy for {0} to {1} one more {2} {3} {4}|Nobody should have to {1} a {2} {3} {4}",
    ),
    "sv": (
        "kunder gäster medlemmar läsare familjer besökare resenärer studenter förare odlare grannar vänner",
        "upptäcka beställa boka njuta-av välja jämföra hämta förbereda följa dela förnya skydda",
        "vårens somriga färska populära generösa enkla noggranna lokala tysta ljusa pålitliga omtyckta träiga gröna",
        "köket trädgården resan jackan försäkringen konserten biblioteket cykeln frukosten skörden verkstaden grytan filten fruktlunden",
        "före helgen|i alla butiker|nere vid hamnen|under semestern|med fri frakt|från vårt eget bageri|under en kort tid|helt utan avgift"
        "|tillsammans med familjen|på första våningen",
        "Den här veckan kan {0} {1} den {2} {3} {4}|Vi bjuder in alla {0} att {1} {2} {3} {4}|Varför vill så många {0} {1} {2} {3} {4}"
        "|Det är lätt för {0} att {1} ännu en {2} {3} {4}|Ingen ska behöva {1} {2} {3} {4}",
    ),
    "de": (
        "Kunden Gäste Mitglieder Leser Familien Besucher Reisende Studenten Fahrer Gärtner Nachbarn Freunde",
        "entdecken bestellen reservieren genießen wählen vergleichen abholen vorbereiten verfolgen teilen erneuern schützen",
        "frühlingshafte sommerliche frische beliebte großzügige einfache sorgfältige örtliche ruhige helle zuverlässige bekannte hölzerne grüne",
        "Küche Gartenbank Reise Jacke Versicherung Konzertreihe Bücherei Fahrradtour Frühstückskarte Ernte Werkstatt Teekanne Decke Obstwiese",
        "vor dem Wochenende|in jeder Filiale|unten am Hafen|während der Ferien|mit freier Lieferung|aus der eigenen Bäckerei|nur für kurze Zeit"
        "|ganz ohne Gebühr|gemeinsam mit der Familie|im ersten Stock",
        "Diese Woche können {0} die {2} {3} {4} {1}|Wir laden alle {0} ein, eine {2} {3} {4} zu {1}|Warum wollen so viele {0} ihre {2} {3} {4} {1}"
        "|Für {0} ist es leicht, noch eine {2} {3} {4} zu {1}|Niemand muss eine {2} {3} {4} {1}",
    ),
    "fr": (
        "clients invités membres lecteurs familles visiteurs voyageurs étudiants conducteurs jardiniers voisins amis",
        "découvrir commander réserver savourer choisir comparer retirer préparer suivre partager renouveler protéger",
        "printanière estivale fraîche préférée généreuse simple soignée locale calme lumineuse fiable appréciée boisée verte",
        "cuisine terrasse croisière veste assurance soirée bibliothèque bicyclette formule récolte boutique bouilloire couverture pommeraie",
        "avant le week-end|dans chaque magasin|près du port|pendant les vacances|avec la livraison offerte|de notre propre boulangerie"
        "|pour une durée limitée|sans aucun frais|avec toute la famille|au premier étage",
        "Cette semaine nos {0} peuvent {1} la {2} {3} {4}|Nous invitons tous les {0} à {1} une {2} {3} {4}|Pourquoi tant de {0} veulent {1} leur {2} {3} {4}"
        "|Il est facile pour nos {0} de {1} encore une {2} {3} {4}|Personne ne devrait {1} une {2} {3} {4}",
    ),
    "fi": (
        "asiakkaat vieraat jäsenet lukijat perheet kävijät matkailijat opiskelijat kuljettajat puutarhurit naapurit ystävät",
        "löytää tilata varata nauttia valita vertailla noutaa valmistella seurata jakaa uudistaa suojata",
        "keväisen kesäisen tuoreen suositun anteliaan helpon huolellisen paikallisen hiljaisen kirkkaan luotettavan pidetyn puisen vihreän",
        "keittiön puutarhan matkan takin vakuutuksen konsertin kirjaston polkupyörän aamiaisen sadon verstaan pannun peiton hedelmätarhan",
        "ennen viikonloppua|jokaisessa myymälässä|sataman rannalla|lomien aikana|ilman toimitusmaksua|omasta leipomosta|lyhyen aikaa"
        "|ilman mitään kuluja|koko perheen kanssa|ensimmäisessä kerroksessa",
        "Tällä viikolla {0} voivat {1} {2} {3} {4}|Kutsumme kaikki mukaan: {0} voivat {1} {2} {3} {4}|Miksi niin monet {0} haluavat {1} {2} {3} {4}"
        "|Nyt on helppoa, kun {0} tahtovat {1} vielä yhden {2} {3} {4}|Kenenkään ei tarvitse {1} {2} {3} {4}",
    ),
    "ja": (
        "お客様は 会員様は 読者の皆様は ご家族は 旅行者は 学生の方は 運転手は 園芸家は ご近所の方は お友達は",
        "ご予約ください お選びください 比べてみてください お楽しみください 受け取れます 準備できます 更新できます 守ることができます",
        "春らしい 夏向きの 新鮮な 人気の 気前のよい 簡単な 丁寧な 地元の 静かな 明るい 信頼できる 木製の",
        "台所用品を 庭の道具を 旅行保険を 上着を 音楽会を 図書館の本を 自転車を 朝食券を 収穫祭を 工房見学を 毛布を 果樹園を",
        "週末までに|全ての店舗で|港の近くで|休暇のあいだに|送料無料で|自家製のパン屋から|期間限定で|手数料なしで|ご家族とご一緒に|一階の売り場で",
        "今週、{0}{4}{2}{3}{1}|ぜひ{0}{4}{2}{3}{1}|多くの{0}すでに{4}{2}{3}{1}|とても簡単に{0}{4}もう一つの{2}{3}{1}|どなたでも、{0}{4}{2}{3}{1}",
    ),
    "zh": (
        "顾客们 会员们 读者们 家庭们 游客们 学生们 司机们 园丁们 邻居们 朋友们 老师们 同事们",
        "发现 预订 订购 享受 选择 比较 领取 准备 关注 分享 更新 保护",
        "春季的 夏日的 新鲜的 受欢迎的 实惠的 简单的 细致的 本地的 安静的 明亮的 可靠的 木制的",
        "厨房用品 花园工具 旅行保险 外套系列 音乐会门票 图书馆藏书 自行车配件 早餐套餐 丰收节活动 工坊课程 羊毛毯子 果园采摘",
        "在周末之前|在每一家门店|在港口附近|在假期期间|享受免费送货|来自自家面包房|在限定时间内|完全不收手续费|和家人一起|在一楼柜台",
        "本周{0}可以{4}{1}{2}{3}|我们邀请所有{0}{4}{1}{2}{3}|为什么这么多{0}愿意{4}{1}{2}{3}|对{0}来说，{4}再{1}一次{2}{3}很容易|没有人需要{4}{1}{2}{3}",
    ),
    "th": (
        "ลูกค้าทุกท่าน แขกผู้มีเกียรติ สมาชิกของเรา ผู้อ่านทุกคน ครอบครัวของคุณ นักท่องเที่ยว นักเรียน คนขับรถ ชาวสวน เพื่อนบ้าน",
        "ค้นพบ สั่งซื้อ จองล่วงหน้า เพลิดเพลินกับ เลือกชม เปรียบเทียบ รับสินค้า เตรียมตัว ติดตาม แบ่งปัน",
        "ฤดูใบไม้ผลิ ฤดูร้อน สดใหม่ ยอดนิยม ราคาพิเศษ ง่ายดาย พิถีพิถัน ในท้องถิ่น เงียบสงบ สว่างไสว",
        "เครื่องครัว สวนดอกไม้ ประกันการเดินทาง เสื้อแจ็คเก็ต คอนเสิร์ต ห้องสมุด จักรยาน อาหารเช้า งานเก็บเกี่ยว เวิร์คช็อป",
        "ก่อนวันหยุดสุดสัปดาห์|ในทุกสาขา|ใกล้ท่าเรือ|ในช่วงวันหยุดยาว|พร้อมจัดส่งฟรี|จากร้านเบเกอรี่ของเรา|ในเวลาจำกัด|โดยไม่มีค่าธรรมเนียม",
        "สัปดาห์นี้{0}สามารถ{1}{3}{2}{4}|เราขอเชิญ{0}มา{1}{3}{2}{4}|ทำไม{0}จำนวนมากจึง{1}{3}{2}{4}|เป็นเรื่องง่ายที่{0}จะ{1}{3}{2}{4}",
    ),
}
GREET = {
    "en": "Dear {},",
    "sv": "Hej {}!",
    "de": "Guten Tag {},",
    "fr": "Bonjour {},",
    "fi": "Hei {},",
    "ja": "{} 様",
    "zh": "尊敬的{}：",
    "th": "เรียนคุณ {}",
}
POINTS = {
    "en": "{}, you have {} points since {}", "sv": "{}, du har {} poäng sedan {}", "de": "{}, Sie haben {} Punkte seit {}",
    "fr": "{}, vous avez {} points depuis {}", "fi": "{}, sinulla on {} pistettä alkaen {}", "ja": "{} 様は{}ポイントをお持ちです（{}より）",
    "zh": "{}，您有{}积分（自{}起）", "th": "คุณ {} มี {} คะแนนตั้งแต่ {}",
}  # fmt: skip
LEAVE = {
    "en": "You receive this because {} is a customer. Unsubscribe: {}", "sv": "Du får detta för att {} är kund hos oss. Avregistrera dig: {}",
    "de": "Sie erhalten diese Nachricht, weil {} Kunde ist. Abmelden: {}", "fr": "Vous recevez ce message car {} est client. Se désabonner : {}",
    "fi": "Saat tämän viestin, koska {} on asiakas. Peruuta tilaus: {}", "ja": "このメールは {} に登録された方へお送りしています。配信停止: {}",
    "zh": "您收到此邮件是因为 {} 是我们的客户。退订：{}", "th": "คุณได้รับอีเมลนี้เพราะ {} เป็นลูกค้า ยกเลิกการรับ: {}",
}  # fmt: skip
MONTHS = ["2026-01-14", "14 February 2026", "3 mars 2026", "24/11/2026", "den 5 maj", "7. Juli", "2026年8月9日"]
FIRST = ["Anna", "Bo", "Carl-Johan", "Désirée", "Eva", "Fatima", "Giovanni", "Håkan", "Ingrid", "José", "Karin", "Li", "Maria del Carmen",
         "Nils", "Omar", "Per", "Qiu", "Ragnhild", "Siv", "Tove", "Ulla", "Vidar", "Wilhelmina", "Xin", "Yusuf", "Zoë"]  # fmt: skip
LAST = ["Andersson", "Berg", "de la Cruz", "Dahl", "Ek", "Farah", "Grönqvist", "Holm", "Ivanova", "Jung", "Käll", "Lindgren", "Månsson",
        "Nguyen", "Öberg", "Persson", "Quist", "Ros", "Ström", "Tanaka", "Uusitalo", "von Essen", "Wang", "Young", "Zetterlund", "Ås"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    first: str
    address: str
    number: int
    token: str
    date: str
    points: int

    @classmethod
    def drawn(cls, draw: random.Random) -> Person:
        first, last, number = draw.choice(FIRST), draw.choice(LAST), draw.randrange(10_000, 99_999_999)
        token = base64.urlsafe_b64encode(draw.randbytes(draw.choice((9, 18, 27)))).decode()
        return cls(
            f"{first} {last}",
            first,
            f"kund{number}@example.org",
            number,
            token,
            draw.choice(MONTHS),
            draw.randrange(9_999),
        )


@dataclass(frozen=True, slots=True)
class House:
    """What all mailings of one sender share."""

    language: str
    header: str
    footer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """``name`` says what the template is; ``copy`` makes one copy of it."""

    name: str
    language: str
    copy: Callable[[Person, random.Random], bytes]


def sentence(language: str, draw: random.Random) -> str:
    who, do, how, what, where, patterns = WORDS[language]
    pattern = draw.choice(patterns.split("|"))
    drawn = [draw.choice(words.split()).replace("-", " ") for words in (who, do, how, what)]
    end = "。" if language in ("ja", "zh") else " " if language == "th" else "."
    return pattern.format(*drawn, draw.choice(where.split("|"))) + end


def paragraph(language: str, draw: random.Random, least: int = 3, most: int = 6) -> str:
    gap = "" if language in ("ja", "zh") else " "
    return gap.join(sentence(language, draw) for _ in range(draw.randint(least, most)))


def house(language: str, draw: random.Random) -> House:
    return House(language, sentence(language, draw), (paragraph(language, draw, 3, 5), paragraph(language, draw, 4, 7)))


def newsletter(
    of: House, draw: random.Random, *, paragraphs: int, blocks: int = 0, html: bool = True, name: str = "newsletter"
) -> Template:
    """``blocks``: the number of paragraphs with three variants, of which each person gets one."""
    language = of.language
    subject = sentence(language, draw)[:60]
    body = [paragraph(language, draw) for _ in range(paragraphs)]
    variants = [[paragraph(language, draw, 2, 4) for _ in range(3)] for _ in range(blocks)]

    def copy(who: Person, draw: random.Random) -> bytes:
        group = draw.randrange(3)
        chosen = [*body, *(v[group] for v in variants)]
        leave = LEAVE[language].format(who.address, f"https://news.example.com/u/{who.token}")
        points = POINTS[language].format(who.first, who.points, who.date)
        parts = [GREET[language].format(who.first), *chosen[:1], points, *chosen[1:]]
        plain = "\r\n\r\n".join(
            [of.header, *parts, f"https://news.example.com/c/{who.token}?k={who.number}", *of.footer, leave]
        )
        marked = _html(subject, of.header, parts, [*of.footer, leave], who) if html else ""
        return _message(f"{who.first}: {subject}", f"news@{language}.example.com", who, plain, marked)

    return Template(f"{name} {language}", language, copy)


def letter(language: str, draw: random.Random, *, paragraphs: int = 3, name: str = "letter") -> Template:
    """Plain text with the name inside sentences, as a mail merge of a word processor makes it."""
    body = [paragraph(language, draw, 2, 4) for _ in range(paragraphs)]
    subject = sentence(language, draw)[:50]

    def copy(who: Person, draw: random.Random) -> bytes:
        told = [
            f"{p} {POINTS[language].format(who.name, who.number, who.date)}" if i == 1 else p
            for i, p in enumerate(body)
        ]
        plain = "\r\n\r\n".join(
            [GREET[language].format(who.name), *told, f"Ref. {who.number}/{who.token[:6]}", who.address]
        )
        return _message(subject, "eva@example.com", who, plain, "")

    return Template(f"{name} {language}", language, copy)


def receipt(language: str, draw: random.Random) -> Template:
    """A shop's receipt, whose lines of goods differ in kind and number."""
    head, tail = (
        [paragraph(language, draw, 2, 3) for _ in range(2)],
        [paragraph(language, draw, 3, 5) for _ in range(2)],
    )
    goods = WORDS[language][3].split()

    def copy(who: Person, draw: random.Random) -> bytes:
        lines = [
            f"{draw.randint(1, 9)} x {draw.choice(goods)}  {draw.randint(10, 999)},{draw.randint(10, 99)}"
            for _ in range(draw.randint(1, 4))
        ]
        parts = [GREET[language].format(who.name), *head, "\r\n".join(lines), f"{who.number} {who.date}", *tail]
        return _message(
            f"# {who.number}", "noreply@example.com", who, "\r\n\r\n".join(parts), _html("", head[0], parts, tail, who)
        )

    return Template(f"receipt {language}", language, copy)


def _html(title: str, header: str, parts: list[str], footer: list[str], who: Person) -> str:
    link = f"https://click.example.com/{who.token}?u={quote(who.address)}"
    rows = "".join(
        f'<tr><td style="padding:8px"><p>{p}</p><a href="{link}&amp;n={i}"><img src="https://img.example.com/{i}.png" alt=""></a></td></tr>'
        for i, p in enumerate(parts)
    )
    feet = "".join(f'<tr><td style="font-size:11px;color:#999">{f}</td></tr>' for f in footer)
    return (
        f'<!doctype html><html><head><title>{title}</title><meta name="viewport" content="width=device-width"><style>.x{{color:red}}</style></head>'
        f'<body><div style="display:none">{title} &zwnj;&nbsp;&zwnj;</div><table role="presentation"><tr><td><table><tr><td>{header}</td></tr>{rows}'
        f'{feet}</table></td></tr></table><img src="https://click.example.com/o/{who.token}.gif" width="1" height="1"></body></html>'
    )


def _message(subject: str, sender: str, who: Person, plain: str, marked: str) -> bytes:
    boundary = f"=_{who.token.replace('=', '').replace('-', '').replace('_', '')}_{who.number}"
    head = (
        f"From: <{sender}>\r\nTo: {who.address}\r\nSubject: =?utf-8?B?{base64.b64encode(subject.encode()).decode()}?=\r\n"
        f"Date: Wed, 14 Jan 2026 10:{who.number % 60:02}:00 +0100\r\nMessage-ID: <{who.token}.{who.number}@example.com>\r\nMIME-Version: 1.0\r\n"
    )
    if not marked:
        return f"{head}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{plain}\r\n".encode()
    part = "Content-Transfer-Encoding: 8bit\r\n\r\n"
    return (
        f'{head}Content-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n'
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n{part}{plain}\r\n"
        f"--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\n{part}{marked}\r\n--{boundary}--\r\n"
    ).encode()


def templates(seed: int = 1) -> list[Template]:
    """For each language: issues of one sender, one mailing of another sender, variants, a short text, a letter and a
    receipt."""
    made: list[Template] = []
    for language in WORDS:
        draw = random.Random(f"{seed} {language}")
        ours, other = house(language, draw), house(language, draw)
        made += [
            newsletter(ours, draw, paragraphs=6, name="issue one"),
            newsletter(ours, draw, paragraphs=6, name="issue two"),
            newsletter(ours, draw, paragraphs=2, name="short issue"),
            newsletter(other, draw, paragraphs=20, name="long"),
            newsletter(other, draw, paragraphs=4, blocks=1, name="variants"),
            newsletter(other, draw, paragraphs=3, html=False, name="text"),
            letter(language, draw),
            letter(language, draw, paragraphs=2, name="short letter"),
            receipt(language, draw),
        ]
    return made
