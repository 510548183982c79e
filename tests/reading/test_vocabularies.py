"""The vocabularies that come with the product: for each, words that are hits and words that are near misses."""

from __future__ import annotations

import pytest

from tests.reading.letters import FOLDER, vocabularies

HITS: dict[str, str] = {
    "pork": "fläsket|FLÄSKPANNKAKA|julskinkan|skinkmacka|baconsvarv|baconlindad|griskött|grisfesten|vildsvin|suggorna|blodpuddingen|isterband"
    "|falukorv med mos|serranoskinka|pulled pork|bacon-wrapped dates|pork chops|porkchop|ham sandwich|a glazed ham|roast pig|pigs|hog roast|wild boar"
    "|svinekjøttet|flesket|juleribbe|flæskesteg|skinken|medisterpølse|sianlihaa|joulukinkkua|kinkkua|pekonia|possua|schweinefleisch|schweinebraten"
    "|schinkenbrot|kochschinken|spanferkel|schweine|du porc|des lardons|jambon cru|cochon de lait|jamón serrano|carne de cerdo|cochinillo|لحم الخنزير|خنزير|بيكون",
    "alcohol": "ölet|öl|ölen|en öl efter jobbet|folkölen|ölprovning|vinet|rödvinet|vinglasen|vinprovning|spritfest|hemsprit|whiskyn|julsnapsen|glöggmingel|drinkarna"
    "|bubblet|bakfull|en stor stark|champagnefrukost|alkoholhaltig|supa|beer|beers|wine|wines|whiskey|liquor|liquor store|gin & tonic|happy hour|drunk|open bar|boozy"
    "|a pint of ale|fatøl|rødvinen|vinsmaking|akevitt|pilsner|rødvinsglas|snapsen|viiniä|punaviiniä|olutta|kaljaa|siideriä|kännissä|bier|rotwein|glühweinstand|schnäpse"
    "|weinprobe|sekt|besoffen|du vin rouge|bières|apéro|eau-de-vie|vino tinto|cerveza|unas cañas|chupitos|نبيذ|الكحول|خمر|بيرة",
}  # fmt: skip
MISSES: dict[str, str] = {
    "pork": "Grisgatan 3|Fläskgatan 12|Grisslehamn|Galtvägen|Svinesund|marsvinet|spargrisen|sparegris|valfläsk|Kevin Bacon|Francis Bacon|kalkonbacon|Pig Lane 4|12 Hog Street"
    "|guinea pigs|piggy bank|pork barrel politics|spam and ham|West Ham won|Hamburg|hamster|shame|ham radio|turkey bacon|Hammarby|hamn|pigment|pigg|hogwarts|swine flu|sigh"
    "|Porkkala|flaska|flask|Meerschweinchen|Sparschwein|porc-épic|cochon d'Inde|puerco espín|säästöpossu|porsaanreikä|Schinkenstraße|إنفلونزا الخنازير",
    "alcohol": "mjöl|pöl|kölen|böld|vinter|vinst|vinkel|Kelvin|Alvin|marsvin|handsprit|spritpenna|spritta|alkoholfri|alkoholfritt vin|alkoholfri glögg|lagerstatus|ginger|marginal"
    "|energi|screenshot|supersnabb|superb|alert|Alexander|salesman|root beer|ginger ale|non-alcoholic|alcohol-free|rubbing alcohol|winehq|Bourbon Street|meadow|rumble|virgin|margin"
    "|Insekten|Sektion|Sekten|weinen|verweint|alkoholfrei|Weinstraße|sølv|følg|først|alkoholiton|alkoholittoman|viinirinne|vinaigre de vin|sans alcool|vinaigrette|divin"
    "|sin alcohol|vino a verme|él vino ayer|بدون كحول|snapshot|drinkable water|Vin Diesel|cocktail dress|cocktailklänning|Pilzen|öland",
}  # fmt: skip
CASES = [(v, w, True) for v, line in HITS.items() for w in line.split("|")] + [
    (v, w, False) for v, line in MISSES.items() for w in line.split("|")
]


@pytest.mark.parametrize(("vocabulary", "words", "hit"), CASES, ids=lambda v: str(v))
def test_hits_and_near_misses(vocabulary: str, words: str, hit: bool) -> None:
    found = [
        t for t in vocabularies().find([("text", f"Vi skriver om {words}, som sagt.")]) if t.vocabulary == vocabulary
    ]
    assert bool(found) is hit, found


def test_every_vocabulary_that_comes_with_the_product_is_tested() -> None:
    assert {p.stem for p in FOLDER.glob("*.yaml")} == set(HITS) == set(MISSES)
