"""The walls of the house: who may import whom, no circles, and every file opens by saying what lives there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "smtpguard"

# Room -> what it may import of ours. A new arrow is a change here, in the same commit, with its reason.
ARROWS: dict[str, set[str]] = {
    "mail": set(),
    "config": set(),
    "audit": {"mail"},
    "reading": {"mail"},
    "lists": {"mail", "config"},
    "policy": {"mail", "reading", "config", "audit"},
    # reading.fingerprint: which mailing it is, the admission decides; lists.ownership: what root makes beside the database
    "store": {"mail", "audit", "policy", "reading", "lists"},
    "wire": {"mail", "reading", "policy"},  # reading.origin and facts.Unknown: the answers of DKIM; policy.verdict
    # The rooms that act, each above what it needs; none knows the store or the wire (guard.ports).
    "guard": {"mail", "reading", "lists", "policy", "audit"},
    "gathering": {"mail", "reading", "lists", "policy", "audit", "guard"},
    "holds": {"mail", "reading", "policy", "audit", "guard"},
    "notices": {"mail", "reading", "lists", "policy", "audit", "guard", "gathering", "holds"},
    "freezes": {"mail", "audit", "policy", "guard"},  # mail.transaction: the fence of the final dot
    "outbox": {"mail", "audit", "policy", "guard", "gathering", "notices", "freezes"},
    "mailings": {"mail", "audit", "lists", "policy", "guard", "gathering", "holds", "notices"},
    "approvals": {"mail", "reading", "audit", "policy", "guard", "holds", "notices", "outbox", "mailings"},
    "admission": {"mail", "reading", "lists", "policy", "audit", "guard", "gathering", "holds", "notices", "freezes"},
    # what a verdict's entry keeps, and what stands in no policy; it does nothing itself
    "hindsight": {"mail", "lists", "policy", "audit", "guard", "gathering", "admission"},
    "observe": {"audit"},
    # the services and what they speak of; what it asks of the record is in its ports, and its settings are app's to give
    "console": {
        "mail",
        "reading",
        "lists",
        "policy",
        "audit",
        "guard",
        "gathering",
        "holds",
        "notices",
        "freezes",
        "outbox",
        "mailings",
        "approvals",
    },
    "demo": set(),  # speaks to the guard as its clients and people do
    "processes": {"mail"},  # mail.reply and mail.client, to refuse a connection
}
# What stands at the top knows everybody: app, cli.
NARROW = {
    "processes": {"mail": {"reply", "client"}},
    "store": {
        # freezing: which freeze keeps a hold from going; sending: how far a release is, which only the outbox knows
        "policy": {
            "verdict",
            "approval",
            "admission",
            "facts",
            "freezing",
            "people",
            "mailing",
            "sending",
            "staging",
            # what an approval covers, the admission decides
            "cover",
            "slots",
        },
        "reading": {"fingerprint", "shown"},
        "lists": {"ownership"},
    },
    "wire": {"policy": {"verdict", "facts"}, "reading": {"origin"}},
    "hindsight": {"guard": {"inforce"}, "gathering": {"streams", "values"}, "admission": {"recordedfacts", "standing"}},
}
ACTING = ("guard", "gathering", "holds", "notices", "freezes", "outbox", "mailings", "approvals", "admission")
NEVER = {  # libraries that must not be met in a room
    "mail": {"asyncio", "sqlalchemy", "aiosmtpd", "socket"},
    "reading": {"asyncio", "sqlalchemy", "aiosmtpd", "socket"},
    "policy": {"asyncio", "sqlalchemy", "aiosmtpd", "socket", "time", "logging", "structlog"},
    "audit": {"asyncio", "sqlalchemy", "aiosmtpd", "socket"},
    **{room: {"aiosmtpd", "sqlalchemy", "socket", "yaml", "sqlite3"} for room in ACTING},
    "hindsight": {"asyncio", "aiosmtpd", "sqlalchemy", "socket", "yaml", "sqlite3"},
    "store": {"aiosmtpd"},
    "console": {"sqlalchemy", "aiosmtpd", "socket", "sqlite3"},
}
# What is fed and asked, and neither reads nor waits: octets in, events and octets out.
SANS_IO = (
    "session",
    "identity",
    "grammar",
    "data",
    "ehlo",
    "replies",
    "sasl",
    "milter/codec",
    "milter/packet",
    "milter/states",
)
WAITING = {"asyncio", "socket", "select", "selectors", "time", "threading", "aiosmtpd"}
HOMELESS = {"utils", "helpers", "common", "types", "manager", "misc"}

FILES = sorted(HOUSE.rglob("*.py"))


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module that a file imports, typing-only imports included, as dotted parts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            base = tuple((node.module or "").split("."))
            for alias in node.names:
                yield (*base, alias.name)


def wrong_imports(path: Path) -> Iterator[str]:
    """A sentence for each import that goes through a wall."""
    here = module_of(path)
    room = here[0] if here else ""
    if room not in ARROWS:
        return
    for target in imports(path):
        if target[0] in NEVER.get(room, set()):
            yield f"{path}: {room} must not import {target[0]}"
        if target[0] != "smtpguard" or len(target) < 2 or target[1] == room or target[1].startswith("__"):
            continue
        if target[1] not in ARROWS[room]:
            yield f"{path}: {room} must not import {target[1]}"
        narrow = NARROW.get(room, {}).get(target[1])
        if narrow is not None and not set(target[2:3]) & narrow:
            yield f"{path}: {room} may import only {narrow} of {target[1]}"


def test_walls() -> None:
    assert [sentence for path in FILES for sentence in wrong_imports(path)] == []


@pytest.mark.parametrize("name", SANS_IO)
def test_the_protocols_neither_read_nor_wait(name: str) -> None:
    assert {target[0] for target in imports(HOUSE / "wire" / f"{name}.py")} & WAITING == set()


def test_every_file_says_what_lives_there() -> None:
    silent = [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == [], "a file opens by saying what lives in it"
    assert [str(path) for path in FILES if path.stem in HOMELESS] == [], "a homeless function names a missing noun"


def test_no_circles() -> None:
    known = {module_of(p): p for p in FILES}
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for here, path in known.items():
        mine = graph.setdefault(here, set())
        for target in imports(path):
            if target[0] != "smtpguard":
                continue
            for cut in (target[1:], target[1:-1]):
                if cut and cut in known and cut != here:
                    mine.add(cut)
                    break
    done: set[tuple[str, ...]] = set()

    def walk(node: tuple[str, ...], path: tuple[tuple[str, ...], ...]) -> None:
        assert node not in path, "a circle: " + " -> ".join(".".join(n) for n in (*path[path.index(node) :], node))
        if node in done:
            return
        for following in sorted(graph.get(node, ())):
            walk(following, (*path, node))
        done.add(node)

    for node in sorted(graph):
        walk(node, ())


PAGES = [HOUSE.parent / "README.md", *sorted((HOUSE.parent / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    """Files and headings; other people's servers are not asked."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name} points to {target}"
        if heading:
            assert heading in {anchor(line) for line in file.read_text().splitlines() if line.startswith("#")}, target


def anchor(line: str) -> str:
    """Of a heading, as it is linked to."""
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


def test_every_page_and_file_that_is_named_in_the_straight_line_is_there() -> None:
    """docs/flow.md names the file that does each step."""
    text = (HOUSE.parent / "docs" / "flow.md").read_text()
    named = re.findall(r"`([a-z_]+/(?:[a-z_]+/)*(?:[a-z_]+\.py)?)`", text)
    assert len(named) > 15
    assert [name for name in named if not (HOUSE / name).exists()] == []


def test_the_map_has_every_room() -> None:
    """docs/flow.md, for whoever comes new."""
    text = (HOUSE.parent / "docs" / "flow.md").read_text().partition("## The rooms")[2]
    rooms = {path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()}
    named = {word for line in text.splitlines() if line.startswith("    ") for word in line.split()}
    assert rooms - named == {"demo"}, "which stands beside them"
    assert "`demo`" in text


def test_the_first_page_leads_to_all_others() -> None:
    text = PAGES[0].read_text()
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


def test_no_query_searches_serialised_json() -> None:
    """What SQL selects by is a column. A migration may look into what an earlier version wrote."""
    searched = re.compile(
        r"\.c\.(?:body|doc|line)\.\w*(?:contains|like|startswith|endswith)|\b(?:body|doc|line) I?LIKE\b"
    )
    store = [path for path in (HOUSE / "store").rglob("*.py") if "versions" not in path.parts]
    assert [path.name for path in store if searched.search(path.read_text())] == []
