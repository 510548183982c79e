"""A writer's confirmation with real servers: swaks, Postfix, the guard, the notice, its page, Postfix, the recipient;
also in Chromium."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from smtpguard.accounts.model import Role
from smtpguard.holds.model import Hold, State
from tests.console.holding import ANNA, EVA
from tests.console.test_deciding import link_of
from tests.guard.asking import READERS, RULES, copy, put
from tests.guard.house import FakePassage
from tests.peers.browsing import DESKTOP, PHONES, Site, missing, site, violations
from tests.peers.chain import Chain, until
from tests.peers.postfix import free_port
from tests.peers.postfix import missing as no_postfix

FRIENDS = "friends@lists.example.com"
POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com], languages: [en]}
groups: {communications: [eva@example.com, omar@example.com]}
approvals: {from: [communications], each: 1}
lists:
  friends: {title: Friends, addresses: [friends@lists.example.com], members: {csv: friends.csv, column: email}, writers: [anna@example.com], origin: {clients: [127.0.0.1/32]}}
rules:
  - {id: to-friends, description: Few mails go to all friends, when: {recipients.list_addresses: any}, then: confirm}
"""


@pytest.fixture(scope="module")
def chain(certified: Path) -> Iterator[Chain]:
    if why := no_postfix():
        pytest.skip(why)
    port = free_port()
    console = f"{{address: 127.0.0.1, port: {port}, url: 'http://127.0.0.1:{port}'}}"
    with Chain(certified, policy=POLICY, settings={"console": console}) as made:
        made.guard.run("lists", "sync")
        yield made


def swaks(chain: Chain, subject: str) -> None:
    words = ["swaks", "--server", f"127.0.0.1:{chain.client.port}", "--from", ANNA, "--to", FRIENDS,
             "--header", f"Subject: {subject}", "--header", f"Message-ID: <{subject}@example.com>", "--body", f"Dear friends, {subject}."]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def mail_that_asks(chain: Chain, subject: str) -> str:
    """The text of the notice that asks Anna. It went through both Postfixes."""

    def come() -> list[str]:
        found = []
        for one in chain.recorder.messages:
            parsed = message_from_bytes(one.content, policy=default)
            if str(parsed["Subject"]).startswith("Is this meant? 120 people") and subject in str(parsed["Subject"]):
                body = parsed.get_body(("plain",))
                assert body is not None
                found.append(body.get_content())
        return found

    [text] = until(come, "the mail that asks")
    return str(text)


def test_a_swaks_message_is_released_by_its_number(chain: Chain) -> None:
    swaks(chain, "meant")
    text = mail_that_asks(chain, "meant")
    assert "on its way to 120 people on Friends." in " ".join(text.split())
    [url] = re.findall(r"http://127\.0\.0\.1:\d+/mine/\S+", text)
    [hold] = chain.guard.held("meant")
    assert (hold["state"], hold["confirm"]["asked"], hold["confirm"]["proof"]) == ("waiting", True, "origin")
    with httpx2.Client(timeout=120) as scanner:
        for _ in range(3):
            assert scanner.get(url).status_code == 200
            assert scanner.head(url).status_code in (200, 405)
            assert scanner.get(f"{url}/confirm?number=120").status_code == 303
    [same] = chain.guard.held("meant")
    assert same["confirm"]["asked"]
    assert chain.recorder.releases("meant@example.com") == []
    with httpx2.Client(
        timeout=120, headers={"Origin": url.partition("/mine")[0], "Sec-Fetch-Site": "same-origin"}
    ) as anna:

        def says(number: str) -> int:
            fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', anna.get(url).text))
            return anna.post(f"{url}/confirm", data=fields | {"number": number}).status_code

        assert says("12") == 422
        assert says("120") == 303
    until(lambda: chain.recorder.releases("meant@example.com"), "the message at its last hop")
    assert chain.recorder.releases("meant@example.com") == [f"{hold['id']}-release".encode()]
    [done] = chain.guard.held("meant")
    assert (done["confirm"]["asked"], done["confirm"]["people"]) == (False, 120)
    chain.guard.run("audit", "verify")


def test_a_withdrawn_message_reaches_no_one(chain: Chain) -> None:
    swaks(chain, "slip")
    mail_that_asks(chain, "slip")
    [hold] = chain.guard.held("slip")
    refused = chain.guard.run("held", "approve", hold["id"], "--as", EVA, exits=1)
    assert "only its writer can let it go until" in refused.stderr
    chain.guard.run("held", "withdraw", hold["id"], "--as", ANNA)
    assert chain.guard.held("slip")[0]["state"] == "withdrawn"
    assert chain.recorder.with_id("slip@example.com") == []


in_a_browser = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def web(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("confirming")) as made:
        await put(made.here.home, RULES, 'confirm: {a_person: "100 in 7d"}\n')
        yield made


async def asked(web: Site, name: str) -> Hold:
    transaction = copy(web.here.home, *READERS[:10], Subject=f"Offer {name}", X_Mailing=name, body=f"Dear {name}")
    await web.here.home.intake()(transaction, FakePassage())
    hold = await web.here.home.hold(transaction.id)
    assert hold.asks_writer
    return hold


async def looks_right(page: Page, name: str) -> None:
    """No serious accessibility violation, and no horizontal scrolling. SMTPGUARD_PICTURES names a folder for a
    screenshot."""
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{name} is {wide} px too wide"
    assert await violations(page) == []
    if folder := os.environ.get("SMTPGUARD_PICTURES"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@in_a_browser
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("size", "language"), [((1280, 800), "en-GB"), ((390, 844), "sv-SE")])
async def test_the_confirmation_page(web: Site, size: tuple[int, int], language: str) -> None:
    hold = await asked(web, f"{size[0]}")
    page = await web.visitor(language=language)
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await page.goto(f"/mine/{link_of(web.here, hold)}")
    await looks_right(page, f"asked-{size[0]}")
    assert await page.locator("#number").is_visible()
    await page.locator("#number").fill("9")
    await page.locator("form[action$='/confirm'] button.go").click()
    await expect(page.locator("#number")).to_have_attribute("aria-invalid", "true")
    await looks_right(page, f"wrong-{size[0]}")
    assert (await web.here.home.hold(hold.hold_id)).asks_writer
    second = await page.context.new_page()
    await second.goto(page.url.removesuffix("/confirm"))
    await page.locator("#number").fill("10")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_be_visible()
    await looks_right(page, f"confirmed-{size[0]}")
    assert (await web.here.home.hold(hold.hold_id)).state is State.APPROVED
    await second.locator("#number").fill("10")
    await second.locator("form[action$='/confirm'] button.go").click()
    await expect(second.get_by_role("alert")).to_be_visible()
    kinds = [kind for kind, _ in await web.here.home.events(hold.hold_id)]
    assert kinds.count("confirmed") == 1


@in_a_browser
@pytest.mark.asyncio(loop_scope="module")
async def test_the_pages_of_an_approver(web: Site) -> None:
    hold = await asked(web, "seen")
    page = await web.signed_in(EVA, Role.APPROVER)
    for path, said in (
        ("/held", "its writer is asked"),
        (f"/held/{hold.hold_id}", "Its writer is asked to confirm it."),
    ):
        await page.goto(path)
        await expect(page.get_by_text(said).first).to_be_visible()
        for size in (DESKTOP, PHONES[0]):
            await page.set_viewport_size(size)
            await looks_right(page, f"{path.strip('/').replace('/', '-')}-{size['width']}")
    assert await page.get_by_role("button", name="Send to").count() == 0
