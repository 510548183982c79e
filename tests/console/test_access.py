"""Every route of the console, and every operation of the API, for everybody who may ask. The tables name them all: a new
route fails until its row says who gets what."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.accounts.model import ALLOWED, Account, Role, Scope
from smtpguard.console.app import OPERATIONS
from smtpguard.console.people.sessions import token_hash
from smtpguard.holds.model import Hold
from smtpguard.policy.freezing import Selector
from tests.console import holding
from tests.console.api.program import Program, program, tokens
from tests.console.api.test_routes import body_of
from tests.console.holding import ANNA, DPO, EVA, NEWS
from tests.console.people.test_middleware import walked
from tests.console.stage import PASSWORD, Browser, Stage

WHO: dict[str, tuple[str, tuple[Role, ...]] | None] = {
    "nobody": None,
    "staff": ("sten@example.com", ()),
    "writer": (ANNA, ()),
    "decides": (EVA, (Role.APPROVER,)),
    "others": (DPO, (Role.APPROVER,)),  # decides on another list
    "viewer": ("vera@example.com", (Role.VIEWER,)),
    "operator": ("oskar@example.com", (Role.OPERATOR,)),
    "admin": ("adam@example.com", (Role.ADMIN,)),
}
LOGIN, MINE = "login", "mine"
"""Redirects: to the sign-in, and of people without a role to their own messages."""
EXPECTED = """
                                       nobody staff writer decides others viewer operator admin
GET  /                                 login  mine  mine   200     200    200    200      200
GET  /approvers                        login  404   404    404     404    404    200      200
POST /alarms/take                      login  404   404    303     303    404    303      303
GET  /journal                          login  404   404    404     404    200    200      200
GET  /held                             login  mine  mine   200     200    200    200      200
POST /decide                           login  404   404    200     303    404    404      404
POST /decided                          login  404   404    200     303    404    404      404
GET  /mine                             login  200   200    200     200    200    200      200
GET  /held/{hold_id}                   login  404   200    200     404    200    200      200
GET  /held/{hold_id}/html              login  404   404    200     404    404    404      404
GET  /held/{hold_id}/part/{n:int}      login  404   404    200     404    404    404      404
POST /held/{hold_id}/vote              login  404   404    303     404    404    404      404
POST /held/{hold_id}/unvote            login  404   409    409     404    403    403      403
POST /held/{hold_id}/settle            login  404   404    409     404    404    404      404
POST /held/{hold_id}/ask               login  404   404    303     404    404    404      404
POST /held/{hold_id}/confirm           login  404   409    404     404    404    404      404
POST /held/{hold_id}/withdraw          login  404   303    404     404    404    404      404
POST /held/{hold_id}/answer            login  404   303    404     404    404    404      404
POST /held/{hold_id}/plea              login  404   303    404     404    404    404      404
POST /held/{hold_id}/judge             login  404   409    404     404    404    404      404
GET  /still                            login  404   404    200     200    200    200      200
POST /freeze                           login  404   404    200     200    404    200      200
GET  /thaw/{freeze_id}                 login  404   404    200     200    404    200      200
POST /thaw/{freeze_id}                 login  404   404    303     303    404    303      303
GET  /history                          login  404   404    200     200    200    200      200
GET  /history/freezes                  login  404   404    200     200    200    200      200
GET  /history/{hold_id}                login  404   200    200     404    200    200      200
GET  /incident                         login  404   404    200     200    404    200      200
POST /incident                         login  404   404    200     404    404    200      200
GET  /mailings                         login  404   404    200     200    200    200      200
GET  /mailings/{mailing_id}            login  404   404    200     404    200    200      200
POST /mailings/{mailing_id}            login  404   404    303     404    404    404      404
GET  /mailings/{mailing_id}/returns    login  404   404    200     404    200    200      200
POST /mailings/{mailing_id}/people     login  404   404    403     404    404    404      404
POST /mailings/{mailing_id}/correct    login  404   404    422     404    404    404      404
GET  /policy                           login  404   404    200     200    200    200      200
GET  /policy/try                       login  404   404    200     200    200    200      200
POST /policy/try                       login  404   404    200     200    200    200      200
GET  /guide                            login  200   200    200     200    200    200      200
GET  /me                               login  200   200    200     200    200    200      200
POST /me/language                      login  303   303    303     303    303    303      303
POST /me/password                      login  403   403    403     403    403    403      403
GET  /me/factor                        login  200   200    200     200    200    200      200
POST /me/factor                        login  403   403    403     403    403    403      403
POST /me/factor/off                    login  403   403    403     403    403    403      403
POST /me/sso                           login  404   404    404     404    404    404      404
GET  /people                           login  404   404    404     404    404    404      200
POST /people                           login  404   404    404     404    404    404      200
POST /people/{account_id}/roles        login  404   404    404     404    404    404      303
POST /people/{account_id}/disable      login  404   404    404     404    404    404      303
POST /people/{account_id}/enable       login  404   404    404     404    404    404      303
POST /people/{account_id}/password     login  404   404    404     404    404    404      200
POST /people/{account_id}/factor-off   login  404   404    404     404    404    404      409
POST /people/{account_id}/delete       login  404   404    404     404    404    404      303
POST /people/{account_id}/sso          login  404   404    404     404    404    404      409
GET  /away                             login  404   404    200     200    404    404      200
POST /away                             login  404   404    303     303    404    404      404
POST /away/back                        login  404   404    303     303    404    404      404
POST /away/agree                       login  404   404    404     404    404    404      409
POST /away/refuse                      login  404   404    404     404    404    404      409
"""
"""The status for a message to one list and its mailing. 403 under /me: the password is asked for again. A link in the
path, below, is a credential of its own."""
WITHOUT_SESSION = {
    "GET /login", "POST /login", "POST /logout", "GET /login/sso", "GET /login/sso/back", "POST /login/sso/back",
    "GET /mine/{link}", *(f"POST /mine/{{link}}/{what}" for what in ("judge", "confirm", "unvote", "withdraw", "answer", "plea")),
}  # fmt: skip
"""Sign-in, and what a signed link opens: test_signing and test_links."""
REFUSED = (LOGIN, "403", "404")


def table(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(Route or operation, who -> status)."""
    head, *lines = text.strip().splitlines()
    people = head.split()
    for line in lines:
        words = line.split()
        yield " ".join(words[: -len(people)]), dict(zip(people, words[-len(people) :], strict=True))


def rows() -> Iterator[tuple[str, str, dict[str, str]]]:
    for route, statuses in table(EXPECTED):
        method, path = route.split()
        yield method, path, statuses


class Places:
    """What the routes are about: for each request a new one, since it may be changed."""

    def __init__(self, here: Stage) -> None:
        self.here, self.numbers = here, itertools.count()

    async def hold(self) -> Hold:
        n = next(self.numbers)
        more = {"X_Mailing": f"m{n}", "Message_ID": f"<m{n}@example.com>", "Subject": f"SV: word{n}"}
        head = {"MIME_Version": "1.0", "Content_Type": "multipart/mixed; boundary=b"}
        page = f"--b\r\nContent-Type: text/html\r\n\r\n<p>Bacon word{n}</p>"
        file = (
            "--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nBacon\r\n--b--"
        )
        return await holding.held(self.here, NEWS, body=f"{page}\r\n{file}", **more, **head)

    async def account(self) -> Account:
        return await self.here.person(f"z{next(self.numbers)}@example.com")

    async def freeze(self) -> str:
        id = f"F{next(self.numbers)}"
        await self.here.home.freeze(Selector.SENDER, "x@example.org", id=id)
        return id

    async def values(self, path: str) -> dict[str, str]:
        found = {"n": "1"}
        if "{freeze_id}" in path:
            found["freeze_id"] = await self.freeze()
        if "{account_id}" in path:
            found["account_id"] = (await self.account()).account_id
        if "{hold_id}" in path or "{mailing_id}" in path or path in ("/decide", "/decided", "/incident"):
            hold = await self.hold()
            found |= {"hold_id": hold.hold_id, "mailing_id": hold.mailing_id, "content": hold.content_sha256}
            found |= {"envelope": hold.envelope.sha256, "policy": self.here.home.in_force.sha256, "scope": hold.scope_text, "lists": " ".join(hold.lists)}  # fmt: skip
        return found


def filled(path: str, values: dict[str, str]) -> str:
    return re.sub(r"{(\w+)(?::\w+)?}", lambda found: values.get(found[1], "NOSUCH"), path)


def fields(path: str, values: dict[str, str], n: int) -> dict[str, Any]:
    """What a person who may do it would send."""
    seen = {name: values[name] for name in ("content", "envelope", "policy", "scope") if name in values}
    words = {"words": "Because", "question": "Why?", "comment": "A reason", "said": "right"}
    each: dict[str, dict[str, Any]] = {
        "/decide": {"choice": "reject", "hold": values.get("hold_id", "")},
        "/decided": {"choice": "reject", "seen": ":".join((values.get("hold_id", ""), seen.get("content", ""), seen.get("envelope", ""), "0", seen.get("scope", "")))},
        "/held/{hold_id}/vote": {"choice": "reject"} | seen,
        "/held/{hold_id}/settle": {"choice": "sent"},
        "/freeze": {"selector": "sender", "sender": "x@example.org", "reason": "A reason"},
        "/thaw/{freeze_id}": {"messages": "9"},
        "/incident": {"id": values.get("hold_id", "")},
        "/mailings/{mailing_id}": {"move": "disclose"},
        "/mailings/{mailing_id}/people": {"list": "news"},
        "/mailings/{mailing_id}/correct": {},
        "/policy/try": {"text": "From: anna@example.com\nSubject: x\n\nBacon", "to": NEWS},
        "/me/language": {"language": "en"},
        "/people": {"address": f"new{n}@example.com", "roles": "viewer"},
        "/people/{account_id}/roles": {"roles": "admin"},
        "/people/{account_id}/delete": {"sure": "yes"},
        "/away": {"until": "2026-03-09"},
        "/away/agree": {"person": EVA, "deputy": DPO},
        "/away/refuse": {"person": EVA, "deputy": DPO},
    }  # fmt: skip
    return words | ({"policy": values["policy"]} if "policy" in values else {}) | each.get(path, {})


async def written(here: Stage) -> int:
    """How many entries the journal has, without views: whatever changes something is journalled."""
    return await here.home.store.ask(
        lambda connection: connection.exec_driver_sql("SELECT count(*) FROM entry WHERE kind <> 'viewed'").scalar_one()
    )


def status_of(answer: Any) -> str:
    there = answer.headers.get("location", "")
    return LOGIN if there.startswith("/login") else MINE if there == "/mine" else str(answer.status_code)


def routes(here: Stage) -> set[str]:
    found = [route for route in walked(list(here.app.routes)) if not route.path.startswith(("/api/", "/static"))]
    return {f"{method} {route.path}" for route in found for method in set(route.methods or ()) - {"HEAD"}}


async def _takes(key: str, by: str) -> bool:
    return True


async def test_every_page_and_form_for_everybody(here: Stage) -> None:
    assert routes(here) == {f"{method} {path}" for method, path, _ in rows()} | WITHOUT_SESSION
    here.show_approvers()
    here.app.state.console = replace(here.app.state.console, take_alarm=_takes)
    places, browsers = Places(here), dict[str, Browser]()
    for name, who in WHO.items():
        browsers[name] = here.browser() if who is None else await here.signed_in(who[0], *who[1])
    wrong = []
    for method, path, expected in rows():
        for name, browser in browsers.items():
            values = await places.values(path)
            await browser.get("/login" if WHO[name] is None else "/me")
            before = await written(here)
            where = filled(path, values)
            if method == "GET":
                answer = await browser.get(where)
            else:
                answer = await browser.post(where, **fields(path, values, next(places.numbers)))
            status, changed = status_of(answer), await written(here) - before
            looks = method == "GET" and path != "/approvers"  # a look at how people decide is journalled
            if status != expected[name] or (changed and (status in REFUSED or looks)):
                wrong.append(f"{method} {path} by {name}: {status}, {changed} entries")
    assert not wrong, "\n".join(wrong)


async def _signs_out(here: Stage, account: Account, browser: Browser) -> None:
    token = browser.http.cookies["__Host-smtpguard"]
    await browser.get("/me")
    assert (await browser.post("/logout")).status_code == 303
    browser.http.cookies.set("__Host-smtpguard", token, domain="guard.example.com", path="/")


async def _is_late(here: Stage, account: Account, browser: Browser) -> None:
    here.home.clock.pass_(hours=2)


ENDED: dict[str, Callable[[Stage, Account, Browser], Any]] = {
    "signed out": _signs_out,
    "idle": _is_late,
    "new password": lambda here, account, browser: here.accounts.set_password(account, PASSWORD + "2", by="root"),
    "new roles": lambda here, account, browser: here.accounts.set_roles(account, [*Role][:2], by="root"),
    "disabled": lambda here, account, browser: here.accounts.disable(account, by="root"),
    "deleted": lambda here, account, browser: here.accounts.delete(account, by="root"),
}


@pytest.mark.parametrize("how", ENDED)
async def test_an_ended_session_opens_nothing(here: Stage, how: str) -> None:
    await here.person("root@example.com", *Role)
    account = await here.person(EVA, *Role)
    browser = here.browser()
    await browser.sign_in(EVA)
    assert (await browser.get("/me")).status_code == 200
    token, places = browser.http.cookies["__Host-smtpguard"], Places(here)
    await ENDED[how](here, account, browser)
    values = {"n": "1"}
    for path in ("/held/{hold_id}", "/people/{account_id}", "/thaw/{freeze_id}"):
        values |= await places.values(path)
    before, wrong = await written(here), []
    for method, path, _ in rows():
        assert browser.http.cookies["__Host-smtpguard"] == token
        where = filled(path, values)
        answer = await (browser.get(where) if method == "GET" else browser.post(where, **fields(path, values, 1)))
        if status_of(answer) != LOGIN:
            wrong.append(f"{method} {path}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)
    assert await written(here) == before
    assert await here.home.store.people.session(token_hash(token)) is None or how in ("idle",)


# -- the API


@pytest.mark.parametrize("scope", Scope)
async def test_a_scope_opens_its_operations_alone(here: Stage, scope: Scope) -> None:
    """For an account that may do everything."""
    asks = await program(here, EVA, *Role, scopes=[scope])
    for operation in OPERATIONS:
        mine, body = operation.scope in (None, scope), body_of(operation.name)
        if operation.name == "reportIncident":
            body = {"ids": ["NOSUCH"]}
        answer = await asks(operation.method, filled(operation.path, {}), body)
        assert (answer.status_code == 403) is not mine, operation.name


@pytest.mark.parametrize("role", Role)
async def test_a_role_limits_every_scope(here: Stage, role: Role) -> None:
    """A token keeps its scopes when its account loses the role that they ask for."""
    asks = await program(here, EVA, *Role)
    account = await here.accounts.get(EVA)
    await here.person("root@example.com", Role.ADMIN)
    await here.accounts.set_roles(account, [role], by="root")
    for operation in OPERATIONS:
        may = operation.scope is None or operation.scope.asks in ALLOWED[role]
        answer = await asks(operation.method, filled(operation.path, {}), body_of(operation.name))
        assert (answer.status_code == 403) is not may, operation.name


API_EXPECTED = """
                 writer decides others viewer operator admin
showHeld         200    200     404    200    200      200
approveHeld      403    200     404    403    403      403
unvoteHeld       200    200     404    403    403      403
rejectHeld       403    200     404    403    403      403
settleHeld       403    409     404    403    403      403
confirmHeld      409    403     404    403    403      403
withdrawHeld     200    403     404    403    403      403
readHeld         404    200     404    404    404      404
historyOfHeld    200    200     404    200    200      200
askAboutHeld     403    200     404    403    403      403
answerAboutHeld  200    403     404    403    403      403
pleadForHeld     200    403     404    403    403      403
showMailing      404    200     404    200    200      200
reportOnMailing  404    200     404    403    200      200
stopMailing      404    409     404    403    403      403
continueMailing  404    409     404    403    403      403
rejectMailing    404    409     404    403    403      403
reopenMailing    404    409     404    403    403      403
agreeToPeople    404    200     404    403    403      403
listPeople       404    403     404    403    403      403
listReturns      404    200     404    200    200      200
"""
"""The status for a message to one list and its mailing, with every scope that the roles allow. Here its writer has the
approver's role too, since a token without a role opens nothing."""


async def test_every_operation_on_a_message_or_mailing_for_everybody(here: Stage) -> None:
    expected, places, callers = dict(table(API_EXPECTED)), Places(here), dict[str, Program]()
    about = {o.name: o for o in OPERATIONS if "{hold_id}" in o.path or "{mailing_id}" in o.path}
    assert about.keys() == expected.keys()
    for name, who in WHO.items():
        if who is not None and name != "staff":
            callers[name] = await program(here, who[0], *(who[1] or (Role.APPROVER,)))
    wrong = []
    for operation in about.values():
        for name, asks in callers.items():
            values = await places.values(operation.path)
            body = body_of(operation.name)
            for key in body["seen"] if body and "seen" in body else ():
                text = values[key.removesuffix("_sha256")]
                body["seen"][key] = text.split() if key == "lists" else text
            if operation.name == "approveHeld":
                body["reach"] = 2
            before = await written(here)
            answer = await asks(operation.method, filled(operation.path, values), body)
            status, changed = str(answer.status_code), await written(here) - before
            if status != expected[operation.name][name] or (changed and (status != "200" or operation.method == "GET")):
                wrong.append(f"{operation.name} by {name}: {status}, {changed} entries")
    assert not wrong, "\n".join(wrong)


DEAD: dict[str, Callable[[Stage, Account, str], Any]] = {
    "revoked": lambda here, account, id: tokens(here).revoke(id, by="root"),
    "disabled": lambda here, account, id: here.accounts.disable(account, by="root"),
    "deleted": lambda here, account, id: here.accounts.delete(account, by="root"),
}


@pytest.mark.parametrize("how", [*DEAD, "expired", "none"])
async def test_a_token_that_ended_opens_nothing(here: Stage, how: str) -> None:
    await here.person("root@example.com", *Role)
    asks = await program(here, EVA, *Role)
    if how in DEAD:
        await DEAD[how](here, await here.accounts.get(EVA), asks.token.split("_")[1])
    elif how == "expired":
        here.home.clock.at += timedelta(days=30)
    else:
        asks = Program(here, "")
    before = await written(here)
    for operation in OPERATIONS:
        answer = await asks(operation.method, filled(operation.path, {}), body_of(operation.name))
        assert answer.status_code == 401, operation.name
    assert await written(here) == before
