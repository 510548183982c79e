"""How the messages came in, compared with the same writers' earlier mail: what needs an explanation."""

from __future__ import annotations

from smtpguard.incidents.intrusion import COMPARED, MANY_REFUSED, Ingress, Sign, Usual, signs, traits_of, usual_ingress
from smtpguard.incidents.statement import Entries
from smtpguard.journal.chain import GENESIS, Entry, body_of
from smtpguard.journal.event import Event, Kind
from tests.journal.chaining import SEAL, T0

WAY = Ingress.of({"client": "192.0.2.1", "dkim": {"signed": ["example.com"], "failed": []}}, {}, None, None)
SAME = dict.fromkeys(COMPARED, 3)
THREE, NONE = Entries.of(1, 2, 3), Usual(entries=Entries(), shared=dict.fromkeys(COMPARED, 0))


def found(usual: Usual = NONE, way: Ingress = WAY, whole: bool = True, **watched: int) -> list[Sign]:
    some = {kind.replace("_", "-"): Entries.of(*range(1, n + 1)) for kind, n in watched.items()}
    return list(signs(usual, {way: Entries.of(7)}, some, whole=whole))


def test_usual_mail_has_no_signs_of_an_intrusion() -> None:
    assert found(Usual(entries=THREE, shared=SAME)) == []
    assert found(NONE) == [], "without earlier mail there is no sign"
    assert found(sign_in_refused=MANY_REFUSED - 1) == []


def test_unusual_mail_has_signs_to_be_explained() -> None:
    assert found(Usual(entries=THREE, shared=SAME | {Sign.CLIENT: 0})) == [Sign.CLIENT]
    assert found(sign_in_refused=MANY_REFUSED) == [Sign.REFUSED]
    assert found(secret=1, key=1) == [Sign.SECRET, Sign.KEY]
    assert found(whole=False) == [Sign.JOURNAL]
    forged = Ingress.of({"client": "192.0.2.1", "dkim": {"signed": [], "failed": ["example.com"]}}, {}, None, None)
    assert found(way=forged) == [Sign.UNSIGNED]


def test_earlier_mail_is_compared_by_client_login_and_helo() -> None:
    case = {traits_of({"client": "192.0.2.1"}, {"actor": [SEAL.of("actor", "anna")], "helo": ["k2"]})}
    earlier = []
    for client, login in (("192.0.2.1", "otto"), ("192.0.2.9", "anna")):
        event = Event(kind=Kind.VERDICT, id="T", at=T0, data={"client": client}, private={"actor": (login,)})
        body = body_of(event, SEAL)
        earlier.append(Entry(seq=1, at=0, kind="verdict", id="T", body=body, prev=GENESIS, hash=GENESIS))
    found = usual_ingress(case, earlier)
    assert (found.entries.many, found.shared) == (2, {Sign.CLIENT: 1, Sign.LOGIN: 1, Sign.HELO: 0})
    assert usual_ingress((), earlier).shared == {}


def test_an_erased_value_differs_from_an_absent_one() -> None:
    sealed = {"actor": ["k1"]}
    assert (Ingress.of({}, sealed, None, None).login, Ingress.of({}, {}, None, None).login) == (None, "")
    assert Ingress.of({}, sealed, {"actor": ["anna"]}, None).login == "anna"
    assert Ingress.of({}, sealed, None, False).proven is True, "a login proves it"


def test_entries_name_the_first_and_the_last() -> None:
    some = Entries.of(*range(100, 0, -1))
    assert (some.named, some.more, some.many) == ((1, 2, 3, 4, 100), 95, 100)
    assert Entries.of(5).named == (5,)
