"""Members of lists in a real Mailman core: in pages, by role, with any delivery mode; and its refusals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.lists.members import OfMailman
from smtpguard.lists.sources import SourceError, Tally, addresses, mailman
from smtpguard.lists.sources.opening import never, opened
from tests.lists.declaring import source as declared
from tests.peers.mailman import DOMAIN, PASSWORD, Mailman, missing

pytestmark = pytest.mark.xdist_group("mailman")

Read = Callable[..., tuple[list[str], Tally]]


@pytest.fixture(scope="module")
def core() -> Iterator[Mailman]:
    if why := missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="mailman-") as folder, Mailman(Path(folder)) as running:
        (running.folder / "wrong").write_text("guessed")
        customers = running.list("customers")
        for n in range(7):
            running.subscribe(customers, f"k{n}@kund.se", display_name=f"Kund {n}")
        running.subscribe(customers, f"nested@{DOMAIN}")
        running.subscribe(customers, "eva@example.com", role="owner")
        running.subscribe(customers, "omar@example.com", role="moderator")
        running.list("empty")
        yield running


@pytest.fixture
def read(core: Mailman) -> Read:
    def of(**options: Any) -> tuple[list[str], Tally]:
        declaration = {"mailman": core.root, "list_id": f"customers.{DOMAIN}", "password_file": "password", **options}
        tally = Tally()
        source = opened(declared(declaration), core.folder)
        try:
            return sorted(str(a) for a in addresses(source, tally)), tally
        finally:
            source.close()

    return of


EVERYBODY = [*(f"k{n}@kund.se" for n in range(7)), f"nested@{DOMAIN}"]


@pytest.mark.parametrize("page", [1, 3, 8, 1000])
def test_members_are_read_in_pages(read: Read, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(mailman, "PAGE", page)
    found, tally = read()
    assert found == EVERYBODY
    assert (tally.rows, tally.bad) == (8, 0)


def test_a_list_has_an_id_and_an_address(read: Read) -> None:
    assert read(list_id=f"customers@{DOMAIN}")[0] == EVERYBODY


def test_members_are_selected_by_role(read: Read) -> None:
    assert read(roles=["owner", "moderator"])[0] == ["eva@example.com", "omar@example.com"]
    assert read(list_id=f"empty.{DOMAIN}")[0] == []


def test_members_without_delivery_are_included(core: Mailman, read: Read) -> None:
    id_ = core.list("paused")
    for email, status in (("by.user@kund.se", "by_user"), ("by.bounces@kund.se", "by_bounces")):
        member = core.subscribe(id_, email)
        core.change(member, "/preferences", {"delivery_status": status})
    core.subscribe(id_, "digest@kund.se", delivery_mode="mime_digests")
    assert read(list_id=id_)[0] == ["by.bounces@kund.se", "by.user@kund.se", "digest@kund.se"]


def test_every_list_of_the_server_is_found(core: Mailman) -> None:
    lists = dict(mailman.Core(OfMailman(mailman=core.root, password_file="password"), core.folder, never).lists())
    assert lists[f"customers@{DOMAIN}"] == f"customers.{DOMAIN}"
    assert f"empty@{DOMAIN}" in lists


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"password_file": "wrong"}, r"answers 401 .*: the credentials are not accepted \(see password_file\)"),
        ({"user": "somebody"}, "answers 401"),
        ({"password_file": "none"}, "the secret in .*none cannot be read"),
        ({"list_id": f"none.{DOMAIN}"}, "answers 404 .*: there is no such resource"),
        ({"mailman": "http://127.0.0.1:1/3.1"}, "cannot be reached"),
    ],
)
def test_failures_are_reported_without_secrets(read: Read, options: dict[str, Any], why: str) -> None:
    with pytest.raises(SourceError, match=why) as told:
        read(**options)
    assert PASSWORD not in str(told.value)


def test_a_wrong_url_is_an_error(core: Mailman, read: Read) -> None:
    with pytest.raises(SourceError, match=r"404|its REST API"):
        read(mailman=core.root.removesuffix("/3.1"))
