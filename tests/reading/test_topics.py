"""The grammar of vocabularies, and matching: inflections, compounds, exceptions, disguises; and what the shipped ones find."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from smtpguard.reading.topics import MOST, BadVocabulary, Vocabularies, compile_vocabularies
from tests.every import every
from tests.reading.letters import FOLDER, vocabularies


def made(**group: object) -> Vocabularies:
    return compile_vocabularies({"v": {"groups": [group]}})


def found(vocabulary: Vocabularies, text: str) -> list[str]:
    return [t.term for t in vocabulary.find([("text", text)])]


def test_a_term_matches_at_word_edges() -> None:
    v = made(terms=["öl"])
    assert found(v, "ett öl, tack") == ["öl"]
    assert found(v, "mjöl öland") == []
    assert found(v, "ÖL!") == ["öl"]


def test_only_declared_endings_match() -> None:
    v = made(terms=["öl"], inflect="et en")
    assert found(v, "ölet") == found(v, "ölen") == ["öl"]
    assert found(v, "ölen" + "s") == []


@every(
    ("compound", "hits"),
    [
        ("none", []),
        ("first", ["baconsvarv"]),
        ("last", ["frukostbacon"]),
        ("both", ["baconsvarv", "frukostbacon"]),
        (True, ["baconsvarv", "frukostbacon"]),
        (False, []),
    ],
)
def test_compounds_match_as_declared(compound: object, hits: list[str]) -> None:
    v = made(terms=["bacon"], compound=compound)
    assert [w for w in ("baconsvarv", "frukostbacon") if found(v, w)] == hits


def test_exceptions_before_after_and_with_stars() -> None:
    v = made(terms=["ham", "gris"], compound="both", **{"except": ["west ham", "*gatan", "ham radio*"]})
    assert found(v, "West  Ham won") == []
    assert found(v, "Grisgatan") == []
    assert found(v, "ham radios") == []
    assert found(v, "west of here, ham") == ["ham"]
    assert found(v, "Grisgatan och en gris") == ["gris"]


def test_a_term_of_several_words_spans_lines() -> None:
    assert found(made(terms=["gin & tonic"]), "en gin &\n  tonic") == ["gin & tonic"]


def test_a_topic_has_its_place_and_context() -> None:
    (topic,) = made(terms=["bacon"]).find([("subject", "Hej"), ("attachment name", "mycket bacon.pdf")])
    assert (topic.vocabulary, topic.term, topic.where) == ("v", "bacon", "attachment name")
    assert "mycket bacon.pdf" in topic.context


def test_a_long_context_is_cut() -> None:
    (topic,) = made(terms=["bacon"]).find([("text", "x " * 500 + "bacon" + " y" * 500)])
    assert len(topic.context) < 100
    assert topic.context.startswith("…")


def test_without_a_vocabulary_nothing_is_found() -> None:
    assert Vocabularies().find([("text", "bacon")]) == ()


def test_what_is_found_again_is_the_same() -> None:
    v = made(terms=["bacon"])
    for text in ("bacon", "Bo", "x " * 500 + "bacon"):
        for where in ("name", "text", "name"):
            assert v.find([(where, text)]) == made(terms=["bacon"]).find([(where, text)])


def test_a_very_long_word_is_searched_in_time() -> None:
    assert found(made(terms=["a"], **{"except": ["*b*c"]}), "a" * 200_000) == []


@every(
    ("document", "path"),
    [
        ([], ()),
        ({}, ("groups",)),
        ({"groups": []}, ("groups",)),
        ({"groups": ["x"]}, ("groups", 0)),
        ({"groups": [{"terms": []}]}, ("groups", 0, "terms")),
        ({"groups": [{"terms": [1]}]}, ("groups", 0, "terms")),
        ({"groups": [{"terms": ["a"], "compound": "maybe"}]}, ("groups", 0, "compound")),
        ({"groups": [{"terms": ["a"], "compounds": "both"}]}, ("groups", 0, "compounds")),
        ({"groups": [{"terms": ["a"]}], "group": 1}, ("group",)),
        ({"groups": [{"terms": ["a"], "inflect": 3}]}, ("groups", 0, "inflect")),
        ({"groups": [{"terms": ["a"], "compound": [1]}]}, ("groups", 0, "compound")),
    ],
)
def test_errors_are_reported_with_their_place(document: Mapping[str, object], path: tuple[str | int, ...]) -> None:
    with pytest.raises(BadVocabulary) as caught:
        compile_vocabularies({"v": document})
    assert caught.value.path == path
    assert caught.value.expected or caught.value.text


def test_a_topic_has_the_word_as_written() -> None:
    v = compile_vocabularies(
        {"v": {"groups": [{"terms": ["skink", "gin & tonic"], "compound": "both", "inflect": "a an"}]}}
    )
    assert [t.word for t in v.find([("text", "Julskinkan är slut. En Gin  & Tonic?")])] == ["julskinkan", "gin & tonic"]


def test_an_exception_covers_only_its_place() -> None:
    v = made(terms=["ham"], **{"except": ["west ham", "ham radio*"]})
    assert found(v, "west ham, ham radios, " * 20 + "and ham") == ["ham"]
    assert found(v, "west ham, ham radios, " * 20) == []


def test_a_words_cached_result_depends_on_its_place() -> None:
    v = made(terms=["ham"], **{"except": ["west ham"]})
    assert [found(v, t) for t in ("west ham", "ham", "west ham", "a ham")] == [[], ["ham"], [], ["ham"]]


def test_topics_are_in_the_order_of_the_text() -> None:
    v = made(terms=["bacon", "gris", "fläsk"])
    text = "gris, fläsk och bacon"
    assert found(v, text) == found(v, text) == ["gris", "fläsk", "bacon"]


def test_many_topics_of_one_vocabulary_do_not_hide_another() -> None:
    many = [f"{a}{b}{c}x" for a in "bcdfg" for b in "aeiou" for c in "klmnprstvz"]
    crowd = {"groups": [{"language": "en", "terms": many}]}
    pork = {"groups": [{"language": "en", "terms": ["bacon", "ham"]}]}
    found = compile_vocabularies({"crowd": crowd, "pork": pork}).find([("text", " ".join((*many, "ham", "bacon")))])
    assert len(many) > MOST
    assert [t.term for t in found if t.vocabulary == "pork"] == ["ham"]
    assert len(found) == MOST + 1


HITS: dict[str, str] = {
    "pork": "🥓 till frukost|bara🐷här|stegt flæsk|cochon grillé|pata negra|Haxenessen|ribbefest|julegris|christmas ham|slices of ham|griljerad|fläsket|FLÄSKPANNKAKA|julskinkan|skinkmacka|baconsvarv|baconlindad|griskött|grisfesten|vildsvin|suggorna|blodpuddingen|isterband"
    "|falukorv med mos|serranoskinka|pulled pork|bacon-wrapped dates|pork chops|porkchop|ham sandwich|a glazed ham|roast pig|pigs|hog roast|wild boar"
    "|svinekjøttet|flesket|juleribbe|flæskesteg|skinken|medisterpølse|sianlihaa|joulukinkkua|kinkkua|pekonia|possua|schweinefleisch|schweinebraten"
    "|schinkenbrot|kochschinken|spanferkel|schweine|du porc|des lardons|jambon cru|cochon de lait|jamón serrano|carne de cerdo|cochinillo|لحم الخنزير|خنزير|بيكون",
    "alcohol": "fredag🍻|🍷|en flaska rom|pint of lager|dark rum|Smirnoff|Jack Daniels|Guinness|dyngrak|på fyllan|ta ett järn|liquid lunch|hair of the dog|few pints|vorspiel|fadbamse|huurteiset|Absacker|boire un coup|unas birras|مشروبات روحية|Moët|Tuborg|ölet|öl|ölen|en öl efter jobbet|folkölen|ölprovning|vinet|rödvinet|vinprovning|spritfest|hemsprit|whiskyn|julsnapsen|glöggmingel|drinkarna"
    "|bubblet|bakfull|en stor stark|champagnefrukost|alkoholhaltig|supa|beer|beers|wine|wines|whiskey|liquor|liquor store|gin & tonic|happy hour|drunk|open bar|boozy"
    "|a pint of ale|fatøl|rødvinen|vinsmaking|akevitt|pilsner|snapsen|viiniä|punaviiniä|olutta|kaljaa|siideriä|kännissä|bier|rotwein|glühweinstand|schnäpse"
    "|weinprobe|sekt|besoffen|du vin rouge|bières|apéro|eau-de-vie|vino tinto|cerveza|unas cañas|chupitos|نبيذ|الكحول|خمر|بيرة",
    "gambling": "🎰|Unibet|V75|bet365|a flutter on the match|tipskupongen|einarmiger Bandit|jeux à gratter|rasca y gana|يانصيب|kasinot|casinoresa|nätcasino|bingokvällen|pokerkvällen|lotterier|trisslotten|vadslagningen|spelmissbruk|rouletten|travbanan|stryktipset|en enarmad bandit|spela bort lönen"
    "|gambling|gamblers|the casino|a poker night|betting|bookmakers|slot machines|the jackpot|lottery tickets|a scratch card|placed a bet|horse racing|spilleautomater|pengespill|veddemålet"
    "|norsk tipping|væddemål|ludomani|danske spil|kasinolla|rahapelit|vedonlyönti|pokeria|lottokuponki|raveihin|Glücksspiele|Sportwetten|Spielsucht|im Wettbüro|Lottoschein|jeux d'argent|paris sportifs"
    "|machines à sous|la loterie|la lotería|casa de apuestas|tragaperras|la quiniela|juegos de azar|القمار|كازينو|مراهنات",
    "religion": "🕌|⛪|the man upstairs|guds hus|la maison de Dieu|kyrkan|gudstjänsten|moskén|synagogor|prästen|biskopar|imamen|bibeln|koranen|muslimska|muslimer|judendomen|buddhism|buddhister|ateister|påven|be till Gud|predikan|the church|a mosque"
    "|priests|the bible|the Quran|muslims|jewish|christianity|christians|praying|prayers|worship|God bless|halal|ramadan|kirken|presten|moskeen|bibelen|gudstjeneste|præsten|koranen|kirkossa|piispat|raamattu"
    "|islamin|uskonto|Kirche|Gottesdienst|Moschee|Priester|muslimische|das Gebet|Katholiken|une église|la mosquée|les musulmans|la messe|prières|la iglesia|mezquita|los musulmanes|católica|rezar|المسجد|القرآن"
    "|الإسلام|كنيسة|رمضان",
    "politics": "🗳️|the Tories|sossarna|linksgrün|los fachas|riksdagen|politiker|politiska|socialdemokraterna|sverigedemokrat|statsministern|folkomröstningen|valrörelsen|kommunister|nazism|regeringen|rösta på moderaterna|the election|politicians|parliament"
    "|republicans|labour party|prime minister|far-right|communism|fascists|Brexit|vote for|Stortinget|statsministeren|valgkampen|Folketinget|socialdemokrater|udlændingepolitik|eduskunta|pääministeri|eduskuntavaalit"
    "|poliitikot|Bundestag|Bundeskanzler|Wahlkampf|rechtsextreme|die AfD|les élections|premier ministre|extrême droite|communistes|las elecciones|extrema derecha|fascistas|الانتخابات|البرلمان|غزة",
    "health": "💊|Ozempic|gått in i väggen|bun in the oven|magsjuk|in anderen Umständen|cancern|bröstcancer|diabetes|sjukskriven|sjukskrivning|läkarbesöket|depressionen|utbränd|gravid|missfall|aborten|astma|vaccinerad|migrän|cancer|a tumour|diabetics|heart attack|sick leave|pregnant"
    "|a miscarriage|antidepressants|autism|HIV|surgery|suicide|kreft|sykmeldt|graviditet|hjerteinfarkt|kræften|sygemeldt|blodprop|syöpä|sairauslomalla|masennus|raskaana|diabetes|Brustkrebs|krankgeschrieben|schwanger"
    "|Herzinfarkt|Krankenhaus|un cancer|arrêt maladie|enceinte de six mois|grossesse|dépression nerveuse|cáncer de mama|baja médica|embarazada|la gripe|السرطان|المستشفى|اكتئاب",
    "diets": "Weight Watchers|Nutrilett|tappa kilon|beach body|Hüftgold|operación bikini|lågkolhydratkosten|LCHF|bantning|dieten|ketodiet|kalorierna|viktnedgång|periodisk fasta|fastan|gå ner i vikt|16:8|veganskt|diet|low-carb|keto|calories|weight loss|losing weight|intermittent fasting|iftar|gluten-free"
    "|vegans|lavkarbo|slankekuren|å faste|lavkulhydrat|vægttab|at faste under ramadanen|vähähiilihydraattinen|dieetti|paasto|laihdutus|Diät|Low-Carb|Kalorien|Fasten|Intervallfasten|abspecken|régime cétogène|perdre du poids|le jeûne"
    "|calories|la dieta|perder peso|ayuno|calorías|الحمية|الصيام|رجيم",
    "sex": "🔞|🍆💦|Pornhub|OnlyFans|netflix and chill|ligga med|plan cul|echar un polvo|porrfilm|samlag|sexleksaker|haft sex|erotiska|strippklubben|prostituerad|prostitution|kondomer|nakenbilder|sexuella|sexig|porn|sexual|having sex|sex toys|naked|strip club|prostitutes|orgasms|condoms|one-night stand|NSFW|pornofilm"
    "|seksuell|hatt sex|nakne|samleje|bordellet|nøgne|seksiä|pornoa|alasti|seksuaalinen|Pornos|Geschlechtsverkehr|nackt|sexuelle|Bordell|Sex gehabt|porno|rapports sexuels|sexuelle|toute nue|préservatifs|relaciones sexuales|sexo oral"
    "|desnuda|preservativos|إباحي|علاقة جنسية|دعارة",
    "redundancy": "downsizing|letting people go|rationalisera bort|personalabbau|plan de sauvegarde de l'emploi|ajuste de plantilla|bemanningstilpasning|varslet|varslade|nedskärningar|övertaliga|arbetsbrist|avgångsvederlaget|lönesamtalet|lönerevisionen|lönelistan|lönen|uppsagd|fick sparken|årsbonusen|redundancies|made redundant|layoffs|laid off|job cuts|severance|salaries"
    "|pay rise|payroll|payslips|pink slip|hiring freeze|nedbemanning|oppsigelser|lønnsoppgjør|sluttpakke|fyringsrunde|fratrædelse|lønsamtaler|irtisanomiset|lomautukset|palkankorotus|yt-neuvottelut|potkut|Stellenabbau|Entlassungen"
    "|Abfindung|Gehaltserhöhung|das Gehalt|Kurzarbeit|licenciements|plan social|augmentation de salaire|fiche de paie|despidos|el finiquito|subida de sueldo|la nómina|الرواتب|راتبك|تسريح الموظفين",
    "confidential": "🤫|for your eyes only|off the record|unter vier Augen|entre quatre yeux|mellan skål och vägg|företagshemligheter|strikt konfidentiellt|hemligt|sekretessavtal|insiderinformation|vinstvarningen|styrelseprotokollet|endast för internt bruk|due diligence|våra marginaler|strictly confidential|trade secrets|internal use only"
    "|do not forward|under NDA|merger talks|takeover bid|profit warning|board minutes|data breach|bedriftshemmeligheter|strengt fortrolig|innsideinformasjon|fortroligt|opkøbstilbud|bestyrelsesmødet|liikesalaisuudet|tulosvaroitus|vain sisäiseen käyttöön"
    "|Geschäftsgeheimnisse|streng vertraulich|Übernahmeangebot|Gewinnwarnung|strictement confidentiel|secret des affaires|usage interne|nos marges|estrictamente confidencial|información privilegiada|uso interno|سري للغاية|للاستخدام الداخلي",
}  # fmt: skip
MISSES: dict[str, str] = {
    "pork": "jeg snakket med ham|fra ham til meg|I gave it to Ham|crackling fire|Grisgatan 3|Fläskgatan 12|Grisslehamn|Galtvägen|Svinesund|marsvinet|spargrisen|sparegris|valfläsk|Kevin Bacon|Francis Bacon|kalkonbacon|Pig Lane 4|12 Hog Street"
    "|guinea pigs|piggy bank|pork barrel politics|spam and ham|West Ham won|Hamburg|hamster|shame|ham radio|turkey bacon|Hammarby|hamn|pigment|pigg|hogwarts|swine flu|sigh"
    "|Porkkala|flaska|flask|Meerschweinchen|Sparschwein|porc-épic|cochon d'Inde|puerco espín|säästöpossu|porsaanreikä|Schinkenstraße|إنفلونزا الخنازير",
    "alcohol": "på lager|lagret är fullt|vårt lager|das Lager|slut i lager|ett rum|rum 12|mötesrum|Konferenzraum|vinglasen|vinglas|rödvinsglas|ölglas|Weinglas|Weingläser|wine glasses|rødvinsglas|vinglass|Porter|Margaret Mead|fylla i formuläret|fylla på|something else to drink|drink water|soft drinks|Guinness World Records|ale to nic|🥛|mjöl|pöl|kölen|böld|vinter|vinst|vinkel|Kelvin|Alvin|marsvin|handsprit|spritpenna|spritta|alkoholfri|alkoholfritt vin|alkoholfri glögg|lagerstatus|ginger|marginal"
    "|energi|screenshot|supersnabb|superb|alert|Alexander|salesman|root beer|ginger ale|non-alcoholic|alcohol-free|rubbing alcohol|winehq|Bourbon Street|meadow|rumble|virgin|margin"
    "|Insekten|Sektion|Sekten|weinen|verweint|alkoholfrei|Weinstraße|sølv|følg|først|alkoholiton|alkoholittoman|viinirinne|vinaigre de vin|sans alcool|vinaigrette|divin"
    "|sin alcohol|vino a verme|él vino ayer|بدون كحول|snapshot|drinkable water|Vin Diesel|cocktail dress|cocktailklänning|Pilzen|öland",
    "gambling": "♥|🎁|pokerface|planning poker|planeringspoker|buzzword bingo|Casinogatan|trava lådor|betonggolv|odds and ends|gambit|alphabetting|lotta|lots|raffinerad|bookmark|Casino Street|roulette wheel selection"
    "|jag slår vad om att det regnar|planleggingspoker|pokerfjes|suunnittelupokeri|Planungspoker|Wetter|Wettbewerb|Kasinostraße|à roulettes|supermarché Casino|poker planning|apuestas por el futuro|ميسر للجميع",
    "religion": "🙏|grüß dich|Kyrkogatan|Prästgatan|prästkragar|Biskopsgården|Christian Ek|Kristina|Kristensen|judo|Judith|god morgon|gott kaffe|gud vad roligt|mässan i Göteborg|orderkonfirmation|syndrom|Church Street|Churchill|Christchurch|Christine"
    "|judge|judgement|nunc|oh my god|priestley|a mass of data|massive|holyhead|Kirkegata|prestasjon|kaffebønner|grønne bønner|præstation|Kirkkokatu|Kirkkonummi|Gelsenkirchen|Kirchstraße|Mönchengladbach|grüß Gott|Gott sei Dank|rue de l'Église"
    "|Mon Dieu|calle de la Iglesia|Cristiano Ronaldo|judías verdes|صلاح الدين|صلاحية المنتج",
    "politics": "📊|personalpolitik|prispolitik|moderata priser|Regeringsgatan|policyn|partiet varor|polisen|valfri|valet av färg|office politics|leader election|vote for your favourite|trump card|trumpet|woke up|Parliament Street|a party on Friday|policy"
    "|politeness|lønnspolitikk|cookiepolitik|privatlivspolitik|hinnoittelupolitiikka|Preispolitik|Datenschutzpolitik|die linke Maustaste|élections du CSE|votar por tu favorito|elecciones sindicales|شارع البرلمان",
    "health": "❤️|hälsosam|hälsningar|hälsa henne|sjuka priser|sjöman|health check|antivirus|kräftskiva|operation lyckad|Sjukhusgatan|hospitality|be patient|cancel|cancellation|strokes of the pen|keystroke|depressing|L'Hospitalet|reisefeber|kreftdyr|rejsefeber"
    "|Krebse am See|Flusskrebse|Reisefieber|enceinte Bluetooth|dans l'enceinte|calle del Hospital|fiebre del oro|aids the process|nästa sida|to gripe about|AVC codec|عسكري|حامل البطاقة",
    "diets": "🥗 på menyn|fasta priser|fast delivery|faster|steadfast|breakfast|mediet|studiet|ingrediens|ketchup|Diet Coke|information diet|Dietrich|Fastighet|fastighetsbolag|fast anställd|övervikt bagage|overweight rating|vegan leather|Las Vegas|festen|befestigen"
    "|reisediett|rejsediæt|faste medarbejdere|ylipaino salkussa|Diäten der Abgeordneten|déjeuner|petit-déjeuner|dietas de viaje|détox digitale|محمية طبيعية|شامل الإفطار",
    "sex": "🍆 i grönsaksdisken|🍑 konserver|get laid off|den Vögeln zuliebe|bolle med smør|klockan sex|sex personer|sextio|sexton|sexhundra|Sussex|Essex|Middlesex|unisex|sextant|naked eye|naked domain|wire strippers|nude lipstick|porridge|nakna fakta|den nakne sannhet|vibration|penicillin|analys|analog|six|sekser|nackte Tatsachen"
    "|Nacken|Busen Sie|bordeaux|à l'œil nu|pieds nus|nue-propriété|premio consolador|الجنسية السعودية|عار من الصحة",
    "redundancy": "får gå in|du får gå hem|varselväst|varselkläder|stormvarsel|belöning|lönnsirap|lönar sig|provision of services|geo-redundancy|network redundancy|data redundancy|fire drill|sack of potatoes|wage war|bonus points|bonuspoäng|payment|paypal|belønning|lønnetre"
    "|oliefyret|liittymän irtisanominen|Alkoholgehalt|Fettgehalt|gehalten|behalten|lohnt sich|licences|montant viré|despedida de soltera|domicilia tu nómina|تسريح الشعر|تسريحة",
    "confidential": "🔒 säker betalning|hemlig gäst|hemliga rabatter|hemma|hemligheten bakom god service|kan innehålla konfidentiell information|may contain confidential information|secret santa|Victoria's Secret|unannounced visits|customer acquisition of new users|confidence"
    "|agenda|kunde|panda|hemmelig gjest|hemmelige ingredienser|kan indeholde fortrolige oplysninger|salainen resepti|Geheimtipp|enthält vertrauliche Informationen|ventes confidentielles|fusión con frutas|contiene información confidencial|الرقم السري",
}  # fmt: skip


@every("vocabulary", HITS)
def test_terms_match_and_similar_words_do_not(vocabulary: str) -> None:
    def hit(words: str) -> bool:
        found = vocabularies().find([("text", f"Vi skriver om {words}, som sagt.")])
        return any(term.vocabulary == vocabulary for term in found)

    assert [words for words in HITS[vocabulary].split("|") if not hit(words)] == [], "these should match"
    assert [words for words in MISSES[vocabulary].split("|") if hit(words)] == [], "these should not match"


def test_every_shipped_vocabulary_is_tested() -> None:
    assert {p.stem for p in FOLDER.glob("*.yaml")} == set(HITS) == set(MISSES)
