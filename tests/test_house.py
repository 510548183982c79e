"""The structure of the package: which room may import which, no import cycles, and a docstring in every file. Also
links in the docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.every import every

HOUSE = Path(__file__).parent.parent / "smtpguard"

# Rooms, lowest first. A model imports models; rows and services also import their own kind, in each case from their
# room and the rooms before it. Rows and services may import any model, and services the store, which imports no
# service: it is one object, and a protocol for each noun of it would be all of it again.
ROOMS = (
    "locale",
    "mail",
    "config",
    "reading",
    "lists",
    "database",
    "journal",
    "policy",
    "accounts",
    "guard",
    "gathering",
    "notices",
    "freezes",
    "outbox",
    "mailings",
    "counts",
    "holds",
    "admission",
    "incidents",
    "returns",
    "observe",
    "store",
    "wire",
    "console",
    "processes",
    "demo",
)  # app and cli come last and may import every room
NOUNS = ROOMS[ROOMS.index("database") : ROOMS.index("wire")]
"""Rooms with models, rows and services. Rooms before these have only models, rooms after these only services."""
# Rooms that may import less than their place allows: room -> room -> files, None for all. Add an import here in the
# commit that needs it, with its reason.
ONLY: dict[str, dict[str, set[str] | None]] = {
    "mail": {},
    "config": {},
    "reading": {"mail": None},
    "lists": {"mail": None, "config": None},
    # codec: documents; config: files beside the database, and the file of its password; freezing: the gate, which the batch reads
    "database": {
        "mail": {"codec"},
        "config": {"statefiles", "fields", "problem"},
        "journal": None,
        "policy": {"freezing"},
    },
    # address, fold: a word that is searched is found in any spelling
    "journal": {
        "database": None,
        "config": {"statefiles"},
        "mail": {"codec", "constant", "address"},
        "reading": {"fold"},
    },
    # Count: an interval of people; the lists and streams that a policy declares, with their sources
    "policy": {"mail": None, "config": None, "reading": None, "lists": {"recipients", "declared", "members"}},
    "accounts": {
        "mail": {"codec"},
        "database": None,
        "journal": None,
        "policy": {"approvals"},
    },  # the policy or an account says who is away
    # address: what is masked; returns.model: why a breaker stopped a mailing
    "observe": {
        "mail": {"address"},
        "database": None,
        "journal": None,
        "policy": None,
        "outbox": None,
        "holds": None,
        "returns": {"model"},
    },
    # Unknown: a result of DKIM; verdict: the reply to the client
    "wire": {"mail": None, "policy": {"verdict", "facts"}},
    "processes": {"mail": {"reply", "envelope"}, "config": {"statefiles"}},  # to refuse a connection; the status file
    "demo": {},  # connects to the guard from outside, as clients do
}
_NETWORK = {"aiosmtpd", "socket"}
_SQL = {"sqlalchemy", "alembic", "sqlite3"}
NEVER = {  # libraries that a room must not import
    "mail": {"asyncio", *_NETWORK, *_SQL},
    "reading": {"asyncio", *_NETWORK, *_SQL},
    "policy": {"asyncio", *_NETWORK, *_SQL, "time", "logging", "structlog"},
    "console": {*_NETWORK, *_SQL},
}
NEVER_IN_NOUNS = {  # libraries that a kind of file must not import
    "model": {"asyncio", "yaml", *_NETWORK, *_SQL},
    "rows": {"aiosmtpd", "yaml"},
    "service": {"yaml", *_NETWORK, *_SQL},
}
MAY: dict[tuple[str, ...], set[str]] = {("observe", "witnessing"): {"socket"}}
"""What single files may import nevertheless. Syslog goes over a local socket of datagrams, for which asyncio has no call."""
# Protocols without input or output (sans-I/O): octets in, events and octets out.
SANS_IO = (
    "session",
    "events",
    "identity",
    "xforward",
    "grammar",
    "replies",
    "data",
    "sasl",
    "milterpackets",
    "conversation",
)
WAITING = {"asyncio", "socket", "select", "selectors", "time", "threading", "aiosmtpd"}
HOMELESS = {"utils", "helpers", "common", "types", "manager", "misc"}

FILES = sorted(HOUSE.rglob("*.py"))


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@cache
def parsed(path: Path) -> tuple[str | None, list[ast.AST]]:
    """The docstring of the file, and its imports and coroutines. All nodes of all files would be too much to keep."""
    wanted = (ast.Import, ast.ImportFrom, ast.AsyncFunctionDef)
    module = ast.parse(path.read_text())
    return ast.get_docstring(module), [node for node in ast.walk(module) if isinstance(node, wanted)]


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module that a file imports, as dotted parts. Includes imports for typing."""
    for node in parsed(path)[1]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            base = tuple((node.module or "").split("."))
            for alias in node.names:
                yield (*base, alias.name)


def ours(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules of smtpguard that a file imports, as dotted parts."""
    for target in imports(path):
        if target[0] == "smtpguard":
            yield next((cut for cut in (target[1:], target[1:-1]) if cut in KNOWN), ())


KNOWN = {module_of(path): path for path in FILES}


@cache
def kinds() -> dict[tuple[str, ...], str]:
    """The kind of each file. In NOUNS: rows if it imports SQL or works in a transaction (database), service if it
    awaits, else model. A file that imports a service is a service, and one that imports rows is rows. So neither
    gets into a model unseen."""
    found: dict[tuple[str, ...], str] = {}
    for name, path in KNOWN.items():
        libraries = {target[0] for target in imports(path)}
        waits = "asyncio" in libraries or any(isinstance(node, ast.AsyncFunctionDef) for node in parsed(path)[1])
        found[name] = "rows" if libraries & _SQL else "service" if waits else "model"
        if not name or name[0] not in NOUNS:
            found[name] = "model" if name and name[0] in ROOMS[: ROOMS.index("database")] else "service"
    uses = {name: set(ours(path)) for name, path in KNOWN.items() if name and name[0] in NOUNS}
    database = {name for name, kind in found.items() if name[:1] == ("database",) and kind == "rows"}
    found.update((name, "rows") for name, used in uses.items() if used & database)
    while more := {
        name: kind
        for name, used in uses.items()
        for kind in ("service", "rows")
        if found[name] == "model" and kind in {found[one] for one in used}
    }:
        found.update(more)
    return found


def wrong_imports(path: Path) -> Iterator[str]:
    """One sentence for each import that breaks the rules."""
    here = module_of(path)
    room = here[0] if here else ""
    if room not in ROOMS:
        return
    never = NEVER.get(room, set()) | (NEVER_IN_NOUNS[kinds()[here]] if room in NOUNS else set())
    for library in sorted({target[0] for target in imports(path)} & never - MAY.get(here, set())):
        yield f"{path}: {kinds()[here]} of {room} must not import {library}"
    for target in ours(path):
        if not target or (target[0] == room and kinds()[target] == kinds()[here]):
            continue
        names = f"{path}: {kinds()[here]} imports {kinds()[target]} {'.'.join(target)}"
        if target[0] not in ROOMS:
            yield f"{names}, which stands above it"
        elif target[0] == "store" and kinds()[here] == "service":
            continue
        elif kinds()[target] not in (kinds()[here], "model"):
            yield f"{names}: a model imports models, rows import no service, a service no rows"
        elif kinds()[target] == kinds()[here] and ROOMS.index(target[0]) > ROOMS.index(room):
            yield f"{names}, of a room behind it"
        elif target[0] not in (room, "locale") and room in ONLY:  # every room may import locale
            allowed = ONLY[room].get(target[0], set())
            if allowed is not None and not set(target[1:2]) & allowed:
                yield f"{names}, which {room} has no need of"


def test_rooms_import_only_allowed_rooms() -> None:
    assert [sentence for path in FILES for sentence in wrong_imports(path)] == []


@every("name", SANS_IO)
def test_protocols_do_no_io(name: str) -> None:
    """Nor does what they import of ours."""
    reached: list[tuple[str, ...]] = [("wire", name)]
    for module in reached:
        reached += {target for target in ours(KNOWN[module]) if target} - set(reached)
    waits = {module: {target[0] for target in imports(KNOWN[module])} & WAITING for module in reached}
    assert {module: libraries for module, libraries in waits.items() if libraries} == {}


def test_what_waits_in_tasks_reads_no_rows() -> None:
    """Services read the store as one object. Only what makes that object has rows and a loop."""
    looping = {name for name, path in KNOWN.items() if "asyncio" in {target[0] for target in imports(path)}}
    both = {name for name in looping if kinds()[name] == "rows" and name[0] != "store"}
    assert both == {("database", "access")}


def test_files_are_of_the_kind_of_their_name() -> None:
    called = {name: name[-1] for name in KNOWN if name[:1] and name[0] in NOUNS and name[-1] in NEVER_IN_NOUNS}
    assert len(called) > 10
    assert {name: kinds()[name] for name in called} == called
    assert {kinds()[name] for name in KNOWN if name[:1] == ("policy",)} == {"model"}, "rules, and nothing that acts"


def test_every_room_is_in_the_order() -> None:
    rooms = {path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()}
    assert rooms - {"app", "cli"} == set(ROOMS)
    assert set(ONLY) <= set(ROOMS)


def test_every_file_has_a_docstring() -> None:
    silent = [str(path) for path in FILES if not parsed(path)[0]]
    assert silent == [], "every file begins with a docstring"
    assert [str(path) for path in FILES if path.stem in HOMELESS] == [], "name a file by its subject"


def test_there_are_no_import_cycles() -> None:
    graph = {here: {target for target in ours(path) if target and target != here} for here, path in KNOWN.items()}
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


@every("page", PAGES)
def test_links_of_pages_resolve(page: Path) -> None:
    """Each page's links lead to existing files and headings. Links to other sites are not fetched."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name} points to {target}"
        if heading:
            assert heading in {anchor(line) for line in file.read_text().splitlines() if line.startswith("#")}, target


def anchor(line: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


@every("page", ["CONTRIBUTING.md", "docs/flow.md"])
def test_files_and_methods_that_a_page_for_developers_names_exist(page: str) -> None:
    text = (HOUSE.parent / page).read_text()
    named = re.findall(r"`([a-z_]+/(?:[a-z_]+/)*(?:[a-z_]+\.py)?)`", text)
    assert len(named) > 15
    assert [
        name
        for name in named
        if not name.endswith("x.py") and not any((top / name).exists() for top in (HOUSE, HOUSE.parent))
    ] == []
    code = "".join(file.read_text() for file in HOUSE.rglob("*.py"))
    for one, method in re.findall(r"`([A-Z]\w+)\.(\w+)`", text):
        assert re.search(rf"^class {one}\b(?:(?!^class )[\s\S])*? def {method}\(", code, re.M), f"{one}.{method}"


def test_flow_lists_every_room() -> None:
    """docs/flow.md lists every room."""
    text = (HOUSE.parent / "docs" / "flow.md").read_text().partition("## The rooms")[2]
    rooms = {path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()}
    named = {word for line in text.splitlines() if line.startswith("    ") for word in line.split()}
    assert rooms - named == {"demo"}, "which stands beside them"
    assert "`demo`" in text


def test_the_first_pages_link_to_all_others() -> None:
    """README.md and docs/index.md link to every page, and the site's navigation has every page."""
    index = HOUSE.parent / "docs" / "index.md"
    text = PAGES[0].read_text() + re.sub(r"\((\w[\w-]*\.md)[)#]", r"(docs/\1)", index.read_text())
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []
    assert "(docs/index.md)" in PAGES[0].read_text()
    navigation = (HOUSE.parent / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert [page.name for page in PAGES[1:] if not re.search(rf" {page.name}$", navigation, re.M)] == [], "mkdocs.yml"


def test_no_query_searches_serialised_json() -> None:
    """SQL selects by columns, and never searches JSON text. A migration may search what an earlier version wrote."""
    searched = re.compile(
        r"\.c\.(?:body|doc|line)\.\w*(?:contains|like|startswith|endswith)|\b(?:body|doc|line) I?LIKE\b"
    )
    rows = [path for name, path in KNOWN.items() if kinds()[name] == "rows" and "migrations" not in name]
    assert [str(path) for path in rows if searched.search(path.read_text())] == []
