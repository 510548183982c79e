"""Phrases of mailings and of colleagues, by language: each is evidence for a mark wherever it is found.

They are data, with one automaton over all. Phrases are written in folded form (``fold``): lower case, one space. A
phrase begins and ends at the edge of a word, except those that end in ``*``.

The automaton (Aho-Corasick) finds many words at once, and skips ordinary text quickly. It looks for the next letter among a node's
children one by one, in the order in which they were added. So the commonest letters are added first, and the root knows every common
character, also those with which no word begins. This scans a text in two thirds of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import ahocorasick

T = TypeVar("T")
_COMMON = " etaoinsrhldcumfpgwybvkäåöxjqzéüøæ.,-'0123456789:/?!()\""
_RANK = {c: i for i, c in enumerate(_COMMON)}
_NEVER = "\uffff"  # a noncharacter: it adds a child to the root, and a word that is never found


def automaton_of(words: Mapping[str, T], nothing: T) -> Any:
    """Return an ahocorasick.Automaton that gives (last position, value). ``nothing``: the value of the helper words."""
    automaton = ahocorasick.Automaton()
    for c in _COMMON:
        automaton.add_word(c + _NEVER, nothing)
    for word in sorted(words, key=lambda w: ([_RANK.get(c, len(_RANK)) for c in w], w)):
        automaton.add_word(word, words[word])
    automaton.make_automaton()
    return automaton


_PHRASES: dict[str, dict[str, str]] = {
    "secretive": {
        "en": "don't tell the boss*|do not tell the boss*|don't tell my boss|don't tell management|don't mention it to|not a word to|keep this between us|keep it between us|between you and me|between ourselves"
        "|just between us|keep this quiet|keep it quiet|mum's the word|don't pass this on|don't pass it on|don't spread this|don't let the customers|don't tell the customers|don't tell the client*|don't tell hr|don't forward this"
        "|say nothing to|don't show this to",
        "sv": "säg inget till|säg ingenting till|säg inte till|säg inte något till|berätta inte för|berätta inget för|inte ett ord till|mellan oss sagt|stannar mellan oss|håll det mellan oss|bara mellan oss|sinsemellan oss"
        "|sprid inte detta|sprid det inte|för det inte vidare|visa inte det här|visa inte för|låt inte kunderna|chefen får inte veta|cheferna får inte veta|låt inte chefen|låt inte cheferna|hyssj|håll tyst om|knip igen|får inte komma ut|skicka inte vidare",
        "no": "ikke si det til|ikke si noe til|si ingenting til|ikke fortell|ikke et ord til|mellom oss|holder vi for oss selv|ikke send videre|ikke spre|hold det for deg selv|ikke vis dette",
        "da": "sig det ikke til|sig ikke noget til|sig ingenting til|fortæl det ikke|fortæl ikke|ikke et ord til|mellem os|bliver mellem os|send det ikke videre|hold det for dig selv|vis det ikke",
        "fi": "älä kerro|älkää kertoko|ei sanaakaan|meidän kesken|jää meidän väliseksi|vain meidän kesken|älä lähetä eteenpäin|älä näytä tätä|pidä tämä omana tietona*",
        "de": "sag nichts|sagt nichts|sagen sie nichts|nicht dem chef|chef nichts sagen|chef noch nichts|chefin nichts sagen|chefin noch nichts|kein wort zu|kein wort zum chef|unter uns gesagt|bleibt unter uns|nur unter uns|behalt es für dich|behaltet es für euch|nicht weitersagen|zeig das nicht|erzähl es nicht",
        "fr": "ne dis rien|ne dites rien|pas un mot|entre nous|ça reste entre nous|reste entre nous|garde ça pour toi|gardez ça pour vous|ne le dis pas|ne le répète pas|ne fais pas suivre|ne montre pas",
        "es": "no le digas|no digas nada|no le digáis|no digáis nada|ni una palabra|entre nosotros|que quede entre|no lo cuentes|no se lo cuentes|no lo reenvíes|no se lo enseñes",
        "it": "non dire niente|non dirlo|non dite niente|resti tra noi|tra noi|acqua in bocca", "nl": "zeg niks tegen|zeg niets tegen|onder ons gezegd|blijft onder ons|niet doorvertellen",
        "pt": "não diga nada|não digas nada|entre nós|não conte|fica entre nós", "pl": "nie mów|między nami|nikomu nie mów",
        "ar": "لا تخبر|بيننا فقط|لا تقل شيئا|فيما بيننا",
    },
    "unsubscribe-words": {
        "en": "unsubscribe*|opt out of|opt-out|opting out|stop receiving|no longer wish to receive|no longer want to receive"
        "|do not wish to receive|don't want to receive|prefer not to receive|remove me from|be removed from this|be removed from our|be removed from the list|be removed from future|removed from this list"
        "|removed from our|remove yourself|wish to be removed|like to be removed|want to be removed|leave this list|leave the list|cancel your subscription|cancel subscription"
        "|stop these emails|turn off these emails|don't want these emails|stop getting these|sign off the list"
        "|not to receive future|not receive future|receive future e-mail|discontinue receiving|discontinue this",
        "sv": "avprenumerera*|avregistrera*|avanmäl*|avsluta prenumeration*|avsluta din prenumeration|säga upp din prenumeration"
        "|inte längre vill få|vill inte längre ha|vill du inte ha fler|vill du inte längre få|sluta prenumerera|avbeställ*|avböj fler",
        "no": "meld deg av|melde deg av|avmeld*|avslutt abonnement*|avregistrer*|ikke lenger ønsker å motta|stopp abonnement",
        "da": "afmeld nyhed*|afmeld dig|afmelde dig|afmelde nyhed*|afmeld her|afmeld abonnement*|frameld*|ikke længere ønsker at modtage|opsig dit abonnement|stop abonnement",
        "fi": "peruuta tilau*|peru tilau*|lopeta tilau*|poistua listalta|postituslistalta|et halua enää vastaanottaa|tilauksen peru*|peruuttaa uutiskir*",
        "de": "hier abmelden|jederzeit abmelden|wieder abmelden|abmelden möchten|abmelden, klick*|verteiler abmelden|liste abmelden|um sich abzumelden|abbestell*|newsletter abmeld*|newsletter-abmeld*|vom newsletter ab*|aus dem verteiler|nicht mehr erhalten|keine weiteren e-mails|abmeldelink",
        "fr": "se désabonner|vous désabonner|désabonne*|désinscri*|désinscription|ne plus recevoir|me désabonner|ne souhaitez plus",
        "es": "darse de baja|darte de baja|dar de baja|cancelar suscrip*|cancelar la suscrip*|anular suscrip*|desuscri*|no deseas recibir"
        "|dejar de recibir|no desea recibir|no desea seguir",
        "it": "annulla iscrizione|cancella iscrizione|disiscri*|annullare l'iscrizione|cancellarsi|cancellati dalla|cancellati qui|non ricevere più|non desideri più",
        "nl": "hier afmelden|afmelden voor|afmelden van|nieuwsbrief afmelden|afmeldlink|uitschrijven|niet meer ontvangen",
        "pt": "cancelar inscrição|cancelar a inscrição|cancelar a subscrição|descadastr*|anular a subscrição|deixar de receber|cancelar subscrição",
        "pl": "wypisz się|zrezygnować z newsletter*|zrezygnować z otrzymywania|zrezygnować z subskrypcj*|rezygnacja z newsletter*|rezygnacja z otrzymywania|rezygnacja z subskrypcj*|anuluj subskrypcj*|wypisać się|aby zrezygnować, kliknij",
        "cs": "odhlásit*|odhlášení|zrušit odběr", "hu": "leiratkoz*", "ro": "dezabon*", "tr": "abonelikten çik*|listeden çik*|bültenden çik*|üyelikten ayril*|aboneliği iptal*|aboneliğinizi iptal*",
        "ru": "отписаться|отписка|отказаться от рассылки|отменить подписку", "uk": "відписатися", "el": "διαγραφή από|απεγγραφή",
        "ar": "إلغاء الاشتراك|الغاء الاشتراك|لإلغاء الاشتراك", "he": "להסרה|הסרה מרשימת|לביטול המנוי|ביטול הרשמה|לביטול ההרשמה", "ja": "配信停止|購読解除|配信解除|登録解除",
        "zh": "退订|取消订阅|取消訂閱|退訂", "ko": "수신거부|수신 거부|구독 취소", "et": "loobu uudiskirja*|lahku listist", "lt": "atsisakyti naujien*",
    },
    "preferences": {
        "en": "email preferences|e-mail preferences|mail preferences|communication preferences|notification preferences|notification settings"
        "|delivery preferences|manage preferences|manage your preferences|update preferences|update your preferences|update profile"
        "|update your profile|manage subscription*|manage your subscription*|subscription preferences|subscription settings|change your preferences"
        "|change your subscription*|email settings|manage your email*|manage email|subscription center|preference center|preference centre"
        "|manage your account online|alert preferences|modify your subscription|change your e-mail|change your email|update your e-mail"
        "|manage your profile|edit your profile|email options",
        "sv": "ändra dina inställningar|hantera prenumeration*|hantera dina|uppdatera dina uppgifter|mejlinställningar|e-postinställningar|dina preferenser"
        "|uppdatera din profil|ändra dina uppgifter|aviseringsinställningar",
        "no": "administrer abonnement*|endre innstillinger|oppdater profilen|e-postinnstillinger|varslingsinnstillinger|oppdater dine",
        "da": "opdater dine|administrer dit abonnement|rediger din profil|mailindstillinger|opdater din profil|ret dine oplysninger",
        "fi": "päivitä tietosi|hallitse tilau*|muuta asetuksia|sähköpostiasetuk*|muokkaa tilau*",
        "de": "ihre einstellungen ändern|profil aktualisieren|e-mail-einstellungen|newsletter-einstellungen|daten ändern|abonnement verwalten|präferenzen",
        "fr": "gérer vos préférences|mettre à jour vos préférences|préférences de|gérer mes|modifier vos préférences|modifier mon profil|modifier vos données|gérer votre abonnement",
        "es": "preferencias de|gestionar suscrip*|actualizar tus|actualizar sus|administrar suscrip*|actualizar perfil|modificar tus datos",
        "it": "gestisci le tue|preferenze di|aggiorna il tuo profilo|modifica iscrizione", "nl": "voorkeuren aan*|gegevens wijzigen|profiel wijzigen",
        "pt": "preferências de|atualizar preferências|gerir preferências", "pl": "preferencj*|zmień ustawienia",
        "ar": "تفضيلات|إدارة الاشتراك",
    },
    "web-version": {
        "en": "view in browser|view in your browser|view this email in|view it in your browser|view online|view this message in|view as a web page"
        "|view web version|web version|online version|read online|read this online|read this newsletter online|trouble viewing|having trouble reading|problems viewing"
        "|can't see this email|can't read this|cannot read this|unable to view|having trouble viewing|display correctly|view email in browser|open in browser|open in app"
        "|to view this newsletter|using an html enabled|html enabled|html version|problems viewing",
        "sv": "visa i webbläsare*|webbversion*|läs i webbläsare*|läs på webben|visas inte korrekt|visa på webben|visas det här|öppna i webbläsare*",
        "no": "vis i nettleser*|nettversjon*|se i nettleser*|åpne i nettleser*|webversjon|les i nettleser*|vises ikke",
        "da": "vis i browser*|se i browser*|webversion*|læs online|vises ikke korrekt|åbn i browser*|se nyhedsbrevet",
        "fi": "näytä selaimessa|avaa selaimessa|lue selaimessa|verkkoversio*|katso selaimessa|selainversio",
        "de": "im browser*|webversion*|online-version|onlineversion|online ansehen|nicht richtig angezeigt|nicht korrekt angezeigt|korrekt angezeigt|online lesen",
        "fr": "dans votre navigateur|version en ligne|version web|ne s'affiche pas|s'affiche mal|voir en ligne|lire en ligne|visualiser",
        "es": "ver en el navegador|ver en navegador|versión web|versión online|ver online|no se visualiza|visualiza correctamente|ver en tu navegador|ver en línea",
        "it": "visualizza nel browser|versione web|versione online|visualizza online|non visualizzi", "nl": "bekijk in|webversie|online versie|online bekijken|bekijk online",
        "pt": "ver no navegador|versão web|versão online|visualizar no", "pl": "zobacz w przeglądarce|wersja online|otwórz w przeglądarce",
        "ru": "в браузере|веб-версия", "ar": "عرض في المتصفح|في المتصفح", "ja": "ブラウザで", "zh": "在浏览器中|网页版", "tr": "tarayicida", "he": "בדפדפן", "cs": "v prohlížeči",
    },
    "why-you-get-this": {
        "en": "you are receiving this|you're receiving this|you received this|you have received this|you got this email because|why am i getting|why did i get"
        "|you are getting this|you're getting this|this email was sent to|this e-mail was sent to|this message was sent to|this mailing was sent|this email was intended for"
        "|was sent to you because|because you signed up|because you subscribed|because you are subscribed|because you're subscribed|because you opted|because you registered"
        "|you are subscribed|you're subscribed|you subscribed|currently subscribed|as a subscriber|as a member of|as a registered|our mailing list|add us to your address book"
        "|subscribe to this|sent to you by|you are on this list|this is a posting from|this message is sent to|to subscribe|your subscription to|subscribed as|who opted",
        "sv": "du får detta|du får det här|du har fått detta|du har fått det här|detta mejl skickades till|detta utskick|eftersom du prenumererar|du prenumererar"
        "|eftersom du är kund|eftersom du är medlem|skickades till dig",
        "no": "du mottar denne|du får denne|denne e-posten ble sendt|du har mottatt denne|fordi du abonnerer|fordi du er kunde",
        "da": "du modtager denne|denne e-mail er sendt til|denne mail er sendt|fordi du abonnerer|fordi du er tilmeldt|du får denne",
        "fi": "saat tämän|sait tämän|tämä viesti on lähetetty|olet tilannut|koska olet",
        "de": "sie erhalten diese|du erhältst diese|diese e-mail wurde an|diese mail wurde an|sie haben diese|weil sie sich|weil du dich|sie erhalten diesen",
        "fr": "vous recevez ce|vous recevez cet|ce message a été envoyé à|cet email a été envoyé|cet e-mail a été envoyé|parce que vous êtes|car vous êtes inscrit",
        "es": "recibes este|recibe este|has recibido este|ha recibido este|este mensaje se envió|este correo fue enviado|este email se ha enviado|porque te has suscrito|porque estás",
        "it": "ricevi questa|hai ricevuto questa|questa email è stata inviata|stai ricevendo|ricevete questa", "nl": "u ontvangt deze|je ontvangt deze|deze e-mail is verzonden|omdat je|omdat u",
        "pt": "você está recebendo|recebeu este|este email foi enviado|este e-mail foi enviado", "pl": "otrzymujesz tę|otrzymałeś tę|wiadomość została wysłana",
        "ar": "لقد تلقيت هذا|تتلقى هذه|تم إرسال هذه", "he": "קיבלת הודעה זו|קיבלת מייל זה|נשלח אליך|נשלחה אליך", "tr": "kayitli olduğunuz için|abone olduğunuz için|üye olduğunuz için",
        "ja": "方にお送りして|方に配信して|ご登録いただいた|会員登録された",
    },
    "do-not-reply": {
        "en": "do not reply|don't reply|please do not respond|not reply to this|not monitored|unmonitored|cannot receive replies|cannot accept replies|unable to respond to replies"
        "|automatically generated|auto-generated|automated message|automated email|automated e-mail|automatic notification|automated notification|generated automatically|sent automatically"
        "|sent from a notification-only|replies to this|system-generated|system generated|an automated|outgoing-only|mailbox is not|email is automatically|post-only|by an automated",
        "sv": "svara inte på|kan inte besvaras|går inte att svara|skickats automatiskt|autogenererat|automatiskt genererat|automatiskt meddelande|kan ej besvaras|ej svara på",
        "no": "ikke svar på|kan ikke besvares|ikke mulig å svare|automatisk generert|sendt automatisk|automatisk utsendt",
        "da": "kan ikke besvares|svar ikke på|ikke besvare|automatisk genereret|sendt automatisk|autogenereret",
        "fi": "älä vastaa|ei voi vastata|automaattinen viesti|lähetetty automaattisesti|automaattisesti lähetetty",
        "de": "nicht antworten|nicht auf diese e-mail|automatisch generiert*|automatisch erstellt*|automatisch erzeugt*|automatisch versendet|antworten sie nicht|automatische nachricht",
        "fr": "ne pas répondre|ne répondez pas|message automatique|généré automatiquement|envoyé automatiquement|merci de ne pas répondre|e-mail automatique",
        "es": "no responda a|no respondas a|no responder a|por favor, no responda|generado automáticamente|mensaje automático|correo automático|enviado automáticamente",
        "it": "non rispondere a|generato automaticamente|messaggio automatico|si prega di non rispondere", "nl": "niet beantwoorden|niet antwoorden|automatisch gegenereerd|automatisch verzonden",
        "pt": "não responda|gerado automaticamente|mensagem automática", "pl": "nie odpowiadaj|prosimy nie odpowiadać|wygenerowan* automatycznie|nie odpowiadać|wygenerowana automatycznie|automatycznie wygenerowan*",
        "ar": "لا ترد على|لا ترد|عدم الرد|رسالة تلقائية", "he": "נא לא להשיב|אין להשיב|אין להגיב|הודעה אוטומטית", "tr": "yanitlamayin*|cevap vermeyin*|cevaplamayin*|otomatik bir ileti*|otomatik olarak gönderil*",
        "ja": "返信しないで|返信できません|返信いただけません|送信専用|自動送信|自動配信", "zh": "请勿回复|請勿回覆", "ko": "발신전용|발신 전용|회신하지", "ru": "не отвечайте на это",
    },
    "imprint": {
        "en": "all rights reserved|privacy policy|privacy notice|terms of service|terms of use|terms and conditions|privacy statement|registered trademark*|trademarks of|terms & conditions|contact customer service",
        "sv": "alla rättigheter förbehållna|integritetspolicy*|personuppgiftspolicy|köpvillkor|allmänna villkor", "no": "personvernerklæring*|alle rettigheter|vilkår og betingelser",
        "da": "privatlivspolitik*|persondatapolitik|handelsbetingelser", "fi": "tietosuojaselost*|tietosuojakäytän*|kaikki oikeudet pidätetään|käyttöehdot",
        "de": "impressum|datenschutz|datenschutzerklärung|alle rechte vorbehalten|agb", "fr": "tous droits réservés|politique de confidentialité|mentions légales|données personnelles",
        "es": "todos los derechos reservados|política de privacidad|aviso legal|términos y condiciones", "it": "tutti i diritti riservati|informativa sulla privacy|informativa privacy",
        "nl": "privacybeleid|alle rechten voorbehouden|privacyverklaring", "pt": "todos os direitos reservados|política de privacidade", "pl": "polityka prywatności|wszelkie prawa zastrzeżone|regulamin",
        "ar": "جميع الحقوق محفوظة|سياسة الخصوصية", "he": "כל הזכויות שמורות|מדיניות פרטיות|מדיניות הפרטיות", "tr": "tüm haklari saklidir|gizlilik politikasi", "ja": "プライバシーポリシー",
    },
    "dear-customer": {
        "en": "dear customer|dear valued|dear member|dear subscriber|dear user|dear reader|dear client|dear sir or madam|valued customer|dear friend|dear shopper|dear readers|dear subscribers|our members|our subscribers|our customers|our readers",
        "sv": "kära kund|bästa kund|hej kund|hej medlem|hej medlemmar|bäste kund|kära medlem|bästa medlem|kära läsare|våra kunder|våra medlemmar|våra läsare|kära prenumerant", "no": "kjære kunde|kjære medlem|hei kunde|våre kunder",
        "da": "kære kunde|kære medlem|vores kunder|vores medlemmer", "fi": "hyvä asiakas|arvoisa asiakas|hyvä jäsen|asiakkaamme",
        "de": "lieber kunde|liebe kundin|sehr geehrter kunde|sehr geehrte kundin|liebe leser*|liebes mitglied|unsere kunden|unsere leser", "fr": "cher client|chère cliente|cher abonné|cher membre|chers clients|madame, monsieur|nos clients|nos abonnés",
        "es": "estimado cliente|querido cliente|estimado socio|nuestros clientes", "it": "gentile cliente|caro cliente", "nl": "beste klant|geachte klant", "pt": "prezado cliente|caro cliente",
        "pl": "szanowny kliencie|drogi kliencie|szanowny odbiorco|szanowni klienci|drodzy klienci", "ar": "عزيزي العميل|عميلنا العزيز|عملاءنا الكرام|عملائنا الكرام|عملاؤنا الكرام",
        "he": "לקוח יקר|לקוחה יקרה|לקוחות יקרים", "tr": "değerli müşteri*|sayin müşteri*|değerli üye*", "ja": "お客様各位|会員の皆様|会員各位", "zh": "尊敬的客户|亲爱的用户", "ru": "уважаемый клиент|уважаемые клиенты",
    },
    "newsletter-words": {
        "en": "newsletter|e-newsletter|ezine|e-zine|daily digest|weekly digest|weekly update|in this issue|today's headlines|top stories|editor's note|forward to a friend|forward this|sponsored by|advertisement"
        "|shop now|buy now|order now|limited time|special offer*|free shipping|% off|save up to|sale ends|offer ends|register now|sign up now|learn more|read more|click here|click below|book now|follow us on|subscriber|subscribers|sponsor|webinar|press release|for immediate release",
        "sv": "nyhetsbrev*|erbjudande*|fri frakt|handla nu|köp nu|läs mer|kampanj*|rabatt|rabattkod|klicka här|boka nu|följ oss|anmäl dig|veckans|månadens|medlemspris|utgåva", "no": "nyhetsbrev*|gratis frakt|kjøp nå|les mer|tilbud|rabatt|klikk her|følg oss|meld deg på",
        "da": "nyhedsbrev*|gratis fragt|køb nu|læs mere|tilbud|rabat|klik her|følg os|tilmeld dig", "fi": "uutiskirje*|tarjous|tarjoukset|lue lisää|osta nyt|alennus|klikkaa tästä|seuraa meitä|ilmoittaudu",
        "de": "newsletter|rundbrief|jetzt kaufen|jetzt bestellen|angebot der woche|angebote|rabatt|mehr erfahren|hier klicken|kostenloser versand|weiterlesen|folgen sie uns|gutschein*|jetzt anmelden",
        "fr": "infolettre|lettre d'information|newsletter|livraison gratuite|profitez|offre spéciale|en savoir plus|cliquez ici|lire la suite|suivez-nous|j'en profite|promotion*|offre valable", "es": "boletín|newsletter|envío gratis|compra ahora|oferta*|descuento*|leer más|saber más|haz clic|haga clic|síguenos",
        "it": "newsletter|spedizione gratuita|acquista ora|offerta|sconto|scopri di più|clicca qui", "nl": "nieuwsbrief|gratis verzending|korting|lees meer|klik hier|aanbieding*", "pt": "boletim|newsletter|frete grátis|compre agora|saiba mais|clique aqui|desconto*", "pl": "newsletter|biuletyn|promocj*|kliknij tutaj|rabat*|czytaj więcej|darmowa dostawa",
        "ar": "النشرة الإخبارية|عرض خاص|اشتر الآن|تسوق الآن|خصم|اقرأ المزيد|انقر هنا", "he": "ניוזלטר|מבצעי|הנחה|משלוח חינם|קנו עכשיו|לרכישה", "tr": "bülten*|indirim*|kampanya*|alişveriş*|satin al*|kargo bedava|ücretsiz kargo|firsat*",
        "ja": "メルマガ|メールマガジン|送料無料|セール|クーポン|お買い得|ご購入はこちら",
    },
    "order-words": {
        "en": "order confirmation|your order|thanks for your order|on its way to you|how did we do|take our survey|take the survey|we would love to hear|we'd love to hear|rate your|your recent purchase|your recent visit|your stay|your trial|your subscription|order number|order #|order no|your purchase|tracking number|track your|your package|your parcel|your shipment|out for delivery|has been delivered|has been shipped|has shipped|delivery date|estimated delivery|your delivery|your receipt"
        "|your invoice|your account|reset your password|password reset|verify your email|verify your e-mail|verification code|confirm your email|confirm your e-mail|your booking|your reservation|your registration|your payment|account number|amount due|your statement|security code|sign in to|log in to your|membership|your password|change your password|user name|thank you for using|as you requested|if you didn't request|if you did not request|ignore this message|ignore this email|your registration|thank you for registering|thank you for signing up|thank you for your order|thanks for signing up|welcome to|customer portal|my account|your bill|your appointment",
        "sv": "orderbekräftelse|din beställning|tack för din beställning|tack för din order|paketet är på väg|är på väg till dig|vad tyckte du|svara på enkäten|vår enkät|ditt besök|din vistelse|ditt köp|ditt medlemskap|din order|ordernummer|ditt paket|ditt kvitto|din faktura|ditt konto|återställ ditt lösenord|nytt lösenord|bekräfta din e-post|verifieringskod|din bokning|kollinummer|din leverans|bokningsnummer|spåra din|engångskod|mina sidor|kundportalen|er faktura|förfallodag*|din bokade tid",
        "no": "ordrebekreftelse|din bestilling|takk for din bestilling|takk for bestillingen|er på vei til deg|hva synes du om|ditt besøk|ditt kjøp|ditt medlemskap|bestillingen din|ordrenummer|pakken din|kvittering*|din konto|kontoen din|tilbakestill passord*|bekreft e-post*|sporingsnummer", "da": "ordrebekræftelse|din ordre|tak for din bestilling|tak for din ordre|er på vej til dig|hvad synes du om|dit besøg|dit køb|dit medlemskab|din bestilling|ordrenummer|din pakke|kvittering*|din konto|nulstil din adgangskode|bekræft din",
        "fi": "tilausvahvistus|tilauksesi|kiitos tilauksestasi|vastaa kyselyyn|vierailusi|ostoksesi|jäsenyytesi|tilausnumero|pakettisi|kuitti|laskusi|tilisi|vaihda salasana*|vahvista sähköposti*|seurantatunnus|omasivu*|omilla sivuilla*|eräpäivä*", "de": "bestellbestätigung|ihre bestellung|danke für ihre bestellung|vielen dank für ihre bestellung|unterwegs zu ihnen|wie zufrieden|ihr aufenthalt|ihr einkauf|ihre mitgliedschaft|deine bestellung|bestellnummer|ihr paket|dein paket|sendungsnummer|sendungsverfolgung|ihre rechnung|ihr konto|dein konto|passwort zurücksetzen|kundennummer|ihre sendung|deine sendung|bestätigungscode|kundenportal|mein konto",
        "fr": "votre commande|merci pour votre commande|votre avis|votre séjour|votre achat|votre abonnement|numéro de commande|votre colis|votre facture|votre compte|réinitialiser votre mot de passe|confirmation de commande|numéro de suivi|votre réservation|code de vérification", "es": "tu pedido|gracias por tu pedido|gracias por su pedido|tu opinión|su opinión|tu estancia|tu compra|su compra|tu suscripción|su pedido|número de pedido|tu paquete|su paquete|tu factura|su factura|tu cuenta|su cuenta|restablecer*|código de verificación|número de seguimiento|confirmación de",
        "it": "il tuo ordine|numero d'ordine|il tuo account|la tua spedizione|codice di verifica|reimposta*", "nl": "je bestelling|uw bestelling|bestelnummer|je pakket|uw pakket|je account|wachtwoord herstellen|verificatiecode", "pt": "seu pedido|sua conta|sua fatura|redefinir senha|código de verificação|número do pedido", "pl": "twoja paczka|twoja przesyłka|twoje zamówienie|numer zamówienia|twoje konto|paczka o numerze|numer przesyłki|zresetuj hasło|twoja faktura|portalu klienta|termin płatności",
        "ar": "طلبك|رقم الطلب|شحنتك|حسابك|إعادة تعيين كلمة المرور|رمز التحقق|فاتورتك|بوابة العملاء", "he": "הזמנתך|מספר הזמנה|החשבון שלך|קוד אימות|החשבונית שלך|אזור אישי", "tr": "siparişiniz*|sipariş numara*|faturaniz*|hesabiniz*|rezervasyonunuz*|doğrulama kodu*|müşteri portali*|son ödeme tarihi*",
        "ja": "ご注文|注文番号|お届け予定|ご予約|認証コード|パスワードの再設定|ご請求|マイページ",
    },
    "inside-only": {
        "en": "internal only|internal use only|not for external|for internal distribution|classification: internal|do not share externally|internal - confidential|dear employees|dear staff|dear all staff|because you are employed by|because you're employed by|staff newsletter|employee newsletter",
        "sv": "endast för internt bruk|endast internt|endast för intern|endast för interna|endast för internt|kära medarbetare|bästa medarbetare|hej medarbetare|hej alla medarbetare|eftersom du är anställd|personalblad*|personaltidning*", "no": "kun for intern|kun for internt|kun for interne|kun til intern|kun til internt|kun internt|kjære ansatte|kjære medarbeidere|fordi du er ansatt|personalblad*", "da": "kun til intern|kun til internt|kun til interne|kun internt|kære medarbejdere|kære ansatte|fordi du er ansat|personaleblad*", "fi": "vain sisäiseen käyttöön|vain sisäisesti|hyvä henkilöstö|hyvät työntekijät|henkilöstökirje*|henkilöstölehti*", "de": "nur für den internen|nur intern|nur für internen|liebe mitarbeiter*|sehr geehrte mitarbeiter*|liebe beschäftigte*|mitarbeiter-newsletter|mitarbeiternewsletter|mitarbeiterzeitung*|mitarbeiterzeitschrift*",
        "fr": "interne uniquement|chers salariés|chers employés", "es": "solo para uso interno|uso exclusivamente interno|estimados empleados|queridos empleados", "it": "solo per uso interno|cari dipendenti|gentili dipendenti", "nl": "alleen voor intern|alleen voor interne|beste medewerkers", "pt": "apenas para uso interno|somente para uso interno|caros funcionários|prezados funcionários",
        "pl": "tylko do użytku wewnętrznego|wyłącznie do użytku wewnętrznego|drodzy pracownicy|szanowni pracownicy|biuletyn pracowniczy", "tr": "şirket içi kullanim*|kurum içi kullanim*|dahili kullanim*|değerli çalişanlar*|sevgili çalişanlar*|çalişan bülteni*", "he": "לשימוש פנימי|לעובדים בלבד|עובדים יקרים|עובדות ועובדים יקרים|עלון העובדים", "ar": "للموظفين فقط|السادة الموظفين|الموظفين الكرام|نشرة الموظفين",
        "ja": "社外秘|社内限定|社内報|社員各位|従業員各位|社員の皆様|従業員の皆様", "zh": "仅供内部", "ko": "사내 한정|대외비", "ru": "для служебного пользования|уважаемые сотрудники|дорогие сотрудники",
    },
    "internal-words": {
        "en": "for internal use|internal use|do not forward outside|do not distribute outside|not for distribution|company confidential|strictly confidential|staff only|employees only|proprietary and confidential|not for onward",
        "sv": "för internt bruk|internt bruk|får ej spridas|får inte spridas|sprid inte vidare|företagshemlig*|endast för personal*|strikt konfidentiell*|internt:|intern information|stannar mellan oss|för intern användning",
        "no": "til internt bruk|internt bruk|skal ikke deles eksternt|strengt fortrolig|bedriftshemmelig*", "da": "til internt brug|internt brug|må ikke deles eksternt|strengt fortroligt|kun for ansatte",
        "fi": "sisäiseen käyttöön|luottamuksellinen - sisäinen|ei talon ulkopuolelle|ei saa jakaa", "de": "zur internen verwendung|interner gebrauch|streng vertraulich|nicht weitergeben|nicht extern weiterleiten|firmenintern|betriebsintern",
        "fr": "usage interne|diffusion interne|strictement confidentiel|à usage interne|ne pas diffuser", "es": "uso interno|estrictamente confidencial|no distribuir fuera|no difundir",
        "it": "uso interno|strettamente riservato", "nl": "intern gebruik|strikt vertrouwelijk", "pt": "uso interno|estritamente confidencial", "pl": "do użytku wewnętrznego|użytek wewnętrzny|ściśle poufne", "ar": "للاستخدام الداخلي|داخلي فقط|سري للغاية", "zh": "内部使用", "ru": "для внутреннего пользования",
    },
    "confidentiality": {
        "en": "this email and any attachments|this e-mail and any attachments|intended recipient|intended solely for|may contain confidential|confidential and may|legally privileged|delete this message|notify the sender|received this message in error|received this email in error|received this e-mail in error|unauthorized use|unauthorised use",
        "sv": "avsett för adressaten|avsedd för adressaten|konfidentiell information|fått detta mejl av misstag|fått detta meddelande av misstag|tänk på miljön|personuppgifter behandlas|så behandlar vi dina personuppgifter|så behandlar vi personuppgifter", "no": "konfidensiell informasjon|mottatt denne e-posten ved en feil|taushetsplikt*",
        "da": "fortrolige oplysninger|modtaget denne e-mail ved en fejl|modtaget denne mail ved en fejl", "fi": "luottamuksellinen|luottamuksellista tietoa|tarkoitettu vain vastaanottajalle", "de": "vertrauliche informationen|vertraulich und|nicht der richtige adressat|irrtümlich erhalten|bestimmungsgemäße",
        "fr": "destinataire*|confidentiel et|reçu ce message par erreur|pièces jointes sont confidentiel*", "es": "destinatario*|información confidencial|recibido este mensaje por error", "it": "informazioni riservate|destinatario indicato", "nl": "vertrouwelijke informatie|niet de geadresseerde", "pt": "informações confidenciais|recebeu esta mensagem por engano", "ar": "معلومات سرية",
    },
    "mobile-footer": {
        "en": "sent from my|sent from outlook for|get outlook for|sent from mail for|sent from yahoo mail|sent via the samsung|sent from blackberry|sent via blackberry|sent from a mobile|sent from samsung|sent with proton|sent from proton|get outlook for ios|get outlook for android|sent from my iphone|sent from mobile|sent from a phone|please excuse typos|please excuse brevity",
        "sv": "skickat från min|skickat från outlook för|hämta outlook för|skickat från min iphone|skickat från e-post för|skickat från mobilen|skickat från mobil|skickat från yahoo|skaffa outlook för|hälsningar från mobilen", "no": "sendt fra min|sendt fra outlook for|last ned outlook for|få outlook for|hent outlook for|skaff deg outlook", "da": "sendt fra min|sendt fra outlook|hent outlook|få outlook til|download outlook|sendt fra yahoo",
        "fi": "lähetetty iphonesta|lähetetty puhelimesta|hanki outlook|lähetetty laitteesta|lähetetty samsung*|lähetetty outlook*|hae outlook", "de": "von meinem iphone|gesendet von meinem|von meinem ipad|outlook für ios|outlook für android|gesendet von outlook|gesendet von mail|von unterwegs gesendet|holen sie sich outlook|gesendet mit der", "fr": "envoyé de mon|envoyé depuis mon|envoyé à partir de outlook|télécharger outlook|obtenez outlook|envoyé à partir de|provenance : courrier", "es": "enviado desde mi|obtener outlook|enviado desde outlook|enviado desde correo",
        "it": "inviato da iphone|inviato dal mio|scarica outlook|ottieni outlook|inviato da posta|inviato da outlook", "nl": "verstuurd vanaf mijn|verzonden vanaf mijn|verzonden vanuit|outlook voor ios|verstuurd vanaf|outlook voor android", "pt": "enviado do meu|obter o outlook|obtenha o outlook|enviado a partir do meu|enviado do correio", "pl": "wysłane z iphone*|wysłano z iphone*|wysłane z mojego|pobierz program outlook|pobierz aplikację outlook|wysłano z mojego", "cs": "odesláno z iphone*|odesláno z mého|odesláno z aplikace", "tr": "iphone'umdan gönderildi|iphone'dan gönderildi", "ru": "отправлено с iphone|отправлено с моего|отправлено с айфона", "ar": "أرسلت من|تم الإرسال من", "zh": "发自我的|从我的iphone|获取 outlook", "ja": "iphoneから送信|から送信", "ko": "나의 iphone에서 보냄|iphone에서 보냄",
    },
    "out-of-office": {
        "en": "out of office|out of the office|away from the office|on vacation until|on leave until|i am currently away|i'm currently away|automatic reply|autoreply|limited access to email|limited access to e-mail|away from my desk|back in the office on|on annual leave|on parental leave|on holiday until|will be out of",
        "sv": "autosvar|frånvaromeddelande|jag är på semester|jag är ledig|inte på kontoret|jag är tillbaka|föräldraledig|tillbaka på kontoret|är inte på plats|automatiskt svar", "no": "ikke på kontoret|fraværsmelding|automatisk svar|jeg er på ferie|tilbake på kontoret|har ferie", "da": "ikke på kontoret|autosvar|automatisk svar|jeg er på ferie|tilbage på kontoret|holder ferie|har ferie", "fi": "poissa toimistolta|automaattinen vastaus|olen lomalla|olen vuosilomalla|poissaoloilmoitus",
        "de": "abwesenheitsnotiz|nicht im büro|automatische antwort|im urlaub|bin ich nicht erreichbar|außer haus|wieder im büro", "fr": "absent du bureau|absence du bureau|réponse automatique|en congé jusqu|actuellement absent|je suis absent|je suis en congés", "es": "fuera de la oficina|respuesta automática|estoy de vacaciones|ausente hasta", "it": "fuori sede|risposta automatica|sono in ferie|fuori ufficio", "nl": "niet op kantoor|automatisch antwoord|afwezig tot", "pt": "fora do escritório|resposta automática|estou de férias", "pl": "poza biurem|autoodpowiedź|jestem na urlopie|automatyczna odpowiedź", "ar": "خارج المكتب|رد تلقائي", "he": "מחוץ למשרד|תשובה אוטומטית", "tr": "ofis dişinda*|otomatik yanit*|izindeyim", "ja": "不在通知|自動応答",
    },
    "work-talk": {
        "en": "meeting|the meeting|stand-up|standup|conference call|call me|give me a call|give you a call|let me know|let's meet|lunch|after work|attached is|attached are|please find attached|see attached|i've attached|i have attached|the attached|action items|deadline|follow up|follow-up|my desk|your desk|the office|please review|take a look|can you|could you|fyi|can we|shall we|i'll be|i will be|looking forward|as discussed|per our|please advise|draft|spreadsheet|agenda|minutes|colleague|colleagues|the team|my team|your team|our team|hr|payroll|manager|budget|quarterly|contract|the boss|conference room|intranet|sharepoint|teams meeting|zoom|payslip*|timesheet*|leave request*|employee portal|file server*|vpn|service desk|it department|extension",
        "sv": "mötet|möte|avstämning|fika|fikar*|lunch|afterwork|after work|hör av dig|ring mig|återkom|bifogar|bifogad|bifogat|se bifogat|kan du|kan ni|ska vi|ses vi|vi ses|kollega|kollegor|kollegan|teamet|chefen|kontoret|fikarummet|personalfest*|julbord|deadline|underlag*|budgeten|utkast|protokoll|dagordning|personalen|gänget|på jobbet|jobbet|semester|intranätet|avdelningen|medarbetar*|löne*|filservern|vpn|tidrapport*|it-avdelningen|anknytning*|semesteransök*|driftstopp*",
        "no": "møtet|møte|lunsj|ring meg|vedlagt|kan du|kan dere|skal vi|sees|kollega|kolleger|teamet|sjefen|kontoret|julebord|fristen|utkast|referat|på jobb|jobben|avdelingen|ansatte", "da": "mødet|møde|frokost|ring til mig|vedhæftet|kan du|kan i|skal vi|ses|kollega|kolleger|teamet|chefen|kontoret|julefrokost|udkast|referat|på arbejde|afdelingen|medarbejder*", "fi": "kokous|palaveri|lounas|liitteenä|voitko|voitteko|voidaanko|nähdään|kollega|työkaveri*|tiimi|pomo|toimisto*|pikkujoulu*|luonnos|pöytäkirja|töissä|osasto*|henkilöstö*|palkkalaskelma*|verkkolevy*|tietohallinto*|intranet*|esihenkilö*",
        "de": "besprechung|meeting|mittagessen|anbei|im anhang|kannst du|könnt ihr|könnten sie|sollen wir|kollege|kollegen|kollegin|das team|chef|büro|weihnachtsfeier|entwurf|protokoll|arbeit|abteilung|mitarbeiter*|termin|gehaltsabrechnung*|fileserver|durchwahl|urlaubsantrag|personalabteilung|pflichtschulung*|betriebsrat|intranet", "fr": "réunion|déjeuner|ci-joint|pièce jointe|peux-tu|pouvez-vous|pourrais-tu|collègue*|l'équipe|le bureau|au bureau|brouillon|compte rendu|planning|rendez-vous", "es": "reunión|almuerzo|comida|adjunto|puedes|podrías|puede usted|compañero*|el equipo|la oficina|borrador|acta|jefe|departamento|cita",
        "it": "riunione|pranzo|in allegato|allegato|puoi|potresti|collega|colleghi|ufficio|bozza|verbale", "nl": "vergadering|overleg|lunch|bijlage|kun je|kunt u|collega*|kantoor|concept|notulen", "pt": "reunião|almoço|em anexo|anexo|você pode|colega*|escritório|rascunho", "pl": "spotkanie|załączeniu|w załączniku|czy możesz|kolega|koledzy|biuro|szkic|dział it|dział kadr|pasek płacowy|serwer plików|urlop*|intranecie|portalu pracownicz*|szkolenie bhp", "ar": "اجتماع|الاجتماع|مرفق|الزملاء|زملائي|المكتب|قسم تقنية المعلومات|الموارد البشرية|قسيمة راتب*|بوابة الموظفين|خادم الملفات",
        "he": "ישיבה|הישיבה|פגישה|מצורף|מצורפת|צהריים|עמיתים|המשרד|מערכות מידע|שרת הקבצים|משאבי אנוש|תלוש השכר|פורטל העובדים", "tr": "toplanti*|öğle yemeği*|ekte|ofis*|mesai*|arkadaşlar|çalişma arkadaş*|bilgi teknolojileri|insan kaynaklari|bordro*|dosya sunucu*|izin talebi*|yöneticiniz*", "ja": "お疲れ様です|お疲れさまです|会議|打ち合わせ|添付|議事録|ランチ|部長|課長|情報システム部|人事部|総務部|給与明細|社内ポータル|ファイルサーバー|休暇申請|退社前",
    },
}  # fmt: skip


def _automaton() -> Any:
    meanings: dict[str, list[tuple[str, bool]]] = {}
    for mark, languages in _PHRASES.items():
        for line in languages.values():
            for phrase in line.split("|"):
                open_ended = phrase.endswith("*")
                meanings.setdefault(phrase.rstrip("*"), []).append((mark, open_ended))
    phrases = {phrase: (len(phrase), tuple(dict.fromkeys(those))) for phrase, those in meanings.items()}
    return automaton_of(phrases, (1, ()))


_AUTOMATON = _automaton()
_UNSPACED = ("\u3040", "\u9fff")  # scripts without spaces: a phrase in them has no edges


def found_in(folded: str) -> Iterator[tuple[str, int, int]]:
    """Yield (mark, start, end) of every phrase in folded text."""
    size = len(folded)
    for last, (length, meanings) in _AUTOMATON.iter(folded):
        start, end = last - length + 1, last + 1
        edge = not start or not folded[start - 1].isalnum() or _UNSPACED[0] <= folded[start] <= _UNSPACED[1]
        if not edge:
            continue
        closed = end == size or not folded[end].isalnum() or _UNSPACED[0] <= folded[last] <= _UNSPACED[1]
        for mark, open_ended in meanings:
            if closed or open_ended:
                yield mark, start, end
