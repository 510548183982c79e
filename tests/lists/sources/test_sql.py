"""Members from SQLite, and from a real PostgreSQL with its own account: streamed, read-only, with a timeout."""

from __future__ import annotations

import sqlite3
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from smtpguard.lists.sources import SourceError, Tally
from smtpguard.lists.sources.opening import opened
from tests.every import every
from tests.lists.declaring import source as declared
from tests.lists.sources.conftest import Members, dripping
from tests.store.servers import a_server

PASSWORD = "s%cret/@: of tests"
MANY = 60_000


@pytest.fixture
def crm(tmp_path: Path) -> Path:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE customers (id INTEGER, Email TEXT, changed INTEGER)")
        rows = [(1, "lena@kund.se", 1), (2, None, 1), (3, "  ", 1), (4, "nobody", 1), (5, "Olle <olle@kund.se>", 1)]
        database.executemany("INSERT INTO customers VALUES (?, ?, ?)", rows)
    database.close()
    return path


def lite(query: str, **more: Any) -> dict[str, Any]:
    return {"sql": "sqlite:///crm.db", "query": query, **more}


def test_rows_without_an_address_are_reported_by_place(crm: Path, members: Members) -> None:
    found, tally = members(lite("SELECT email FROM customers ORDER BY id"))
    assert found == ["lena@kund.se", "olle@kund.se"]
    assert tally.rows == 5
    assert [str(row) for row in tally.shown] == [
        "row 2: no address", "row 3: no address", "row 4: not a mailbox: expected local-part@domain",
    ]  # fmt: skip


def test_a_text_in_another_encoding_is_a_bad_row(crm: Path, members: Members) -> None:
    latin = "SELECT CAST(x'616e6ee9406b756e642e7365' AS TEXT) UNION ALL SELECT x'6f6c6c65406b756e642e7365'"
    found, tally = members(lite(latin))
    assert found == ["olle@kund.se"]
    assert [str(row) for row in tally.shown] == ["row 1: characters in another encoding than expected"]


def test_the_column_is_the_first_or_the_named_one(crm: Path, members: Members) -> None:
    query = "SELECT id, Email FROM customers WHERE email LIKE '%@kund.se%' AND email NOT LIKE ':x' -- 100 %"
    assert members(lite(query, column="email"))[0] == ["lena@kund.se", "olle@kund.se"]
    with pytest.raises(SourceError, match='no column "mejl": it gives id, Email'):
        members(lite(query, column="mejl"))


def test_the_version_query_decides_whether_to_read(crm: Path, tmp_path: Path) -> None:
    asked = lite("SELECT email FROM customers", version="SELECT max(changed), count(*) FROM customers")

    def fingerprint(**more: Any) -> bytes:
        return opened(declared({**asked, **more}), tmp_path).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    assert fingerprint(query="SELECT email FROM customers WHERE id > 1") != before
    with closing(sqlite3.connect(crm)) as database, database:
        database.execute("UPDATE customers SET changed = 2 WHERE id = 1")
    database.close()
    assert fingerprint() != before
    assert fingerprint(version=None) != fingerprint(version=None), "without a version it is always read"
    source = opened(declared(asked), tmp_path)
    before = source.fingerprint()
    with closing(sqlite3.connect(crm)) as database, database:
        database.execute("UPDATE customers SET changed = 3 WHERE id = 1")
    database.close()
    assert source.fingerprint() == before, "a table that keeps changing can be read"


@every(
    ("declaration", "why"),
    [
        (lite("SELECT mejl FROM customers"), "the database crm.db: no such column: mejl"),
        (lite("SELEKT 1"), "syntax error"),
        (lite("DELETE FROM customers"), "readonly database"),
        (lite("PRAGMA query_only = OFF"), "no rows|readonly"),
        ({**lite("SELECT 1"), "sql": "sqlite:///none.db"}, r"none\.db: No such file"),
        ({**lite("SELECT email FROM customers"), "sql": "sqlite:///notes.txt"}, "file is not a database"),
        ({**lite("SELECT 1"), "sql": "klingon://db.example.com/crm"}, "SQLAlchemy knows no database klingon"),
        ({**lite("SELECT 1"), "sql": "no url"}, "no url that SQLAlchemy understands"),
        ({**lite("SELECT 1"), "sql": "oracle+oracledb://reader@db.example.com/crm"}, "the driver oracledb is not installed: pip"),
        ({**lite("SELECT 1"), "password_file": "none"}, "the secret in .*none cannot be read"),
    ],
)  # fmt: skip
def test_failures_are_reported(
    crm: Path, tmp_path: Path, members: Members, declaration: dict[str, Any], why: str
) -> None:
    (tmp_path / "notes.txt").write_text("no database at all, but a text that is long enough to be taken for one " * 20)
    with pytest.raises(SourceError, match=why):
        members(declaration)
    assert not (tmp_path / "none.db").exists()
    with closing(sqlite3.connect(crm)) as database, database:
        assert database.execute("SELECT count(*) FROM customers").fetchone() == (5,)
    database.close()


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x || '@kund.se' FROM n WHERE x < 0"


def test_an_endless_query_times_out(crm: Path, members: Members) -> None:
    with pytest.raises(SourceError, match=r"no end within 0.1 s \(time_limit\)"):
        members(lite(ENDLESS, time_limit=0.1))
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(SourceError, match="stopped before its end"):
        members(lite(ENDLESS), stop=stop.is_set)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with a_server() as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            admin.execute(
                "CREATE TABLE customers AS SELECT n AS id, 'k' || n || '@kund.se' AS email FROM generate_series(1, 25) n"
            )
            admin.execute("CREATE TABLE secrets AS SELECT 1 AS email")
            admin.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
            admin.execute("GRANT SELECT, INSERT ON customers TO reader")
            admin.execute(
                "CREATE FUNCTION grow() RETURNS text LANGUAGE sql AS "
                "$$ INSERT INTO customers VALUES (99, 'x@kund.se') RETURNING email $$"
            )
            (hba,) = admin.execute("SHOW hba_file").fetchone() or ("",)
            Path(hba).write_text("local all reader scram-sha-256\n" + Path(hba).read_text())
            admin.execute("SELECT pg_reload_conf()")
        yield server.get_uri()


@pytest.fixture
def real(postgresql: str, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "wrong").write_text("guessed")
    url = make_url(postgresql).set(username="reader", password=None).render_as_string(hide_password=False)
    return {"sql": url, "query": "SELECT email FROM customers ORDER BY id", "password_file": "password"}


def test_postgresql_is_read(real: dict[str, Any], members: Members) -> None:
    assert members(real)[0] == [f"k{n}@kund.se" for n in range(1, 26)]
    assert (
        members({**real, "query": "SELECT email FROM customers WHERE email LIKE 'k1%' AND email::text <> ':x'"})[1].rows
        == 11
    )


def test_postgresql_rows_are_streamed(real: dict[str, Any], tmp_path: Path) -> None:
    query = f"SELECT 'k' || n || '@kund.se' AS email, repeat('x', 200) FROM generate_series(1, {MANY}) n"
    source = opened(declared({**real, "query": query}), tmp_path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.cells(Tally())) == MANY
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"password_file": "wrong"}, 'password authentication failed for user "reader"'),
        ({"query": "SELECT grow()"}, "cannot execute INSERT in a read-only transaction"),
        ({"query": "INSERT INTO customers VALUES (99, 'x@kund.se') RETURNING email"}, "syntax error"),
        ({"query": "SELECT email FROM secrets"}, "permission denied for table secrets"),
        ({"query": "SELECT mejl FROM customers"}, 'column "mejl" does not exist'),
        ({"query": "SELECT email::int FROM customers"}, 'invalid input syntax for type integer: "..."$'),
        ({"query": "SELECT pg_sleep(20)::text", "timeout": 1}, "statement timeout"),
        ({"query": "SELECT pg_sleep(20)::text", "time_limit": 0.2}, r"no end within 0.2 s \(time_limit\)"),
        ({"query": "SELECT CASE WHEN n < 4999 THEN 'k@kund.se' ELSE (1 / (n - 4999))::text END FROM generate_series(1, 9999) n"}, "division by zero"),
    ],
)  # fmt: skip
def test_failures_of_postgresql_are_reported(
    real: dict[str, Any], members: Members, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(SourceError, match=why) as told:
        members({**real, **change})
    assert PASSWORD not in str(told.value)


def test_an_unreachable_postgresql_is_an_error(members: Members) -> None:
    gone = {"sql": "postgresql://reader@127.0.0.1:1/crm", "query": "SELECT 1", "timeout": 2}
    with pytest.raises(SourceError, match=r"the database crm at 127\.0\.0\.1: .*(refused|failed)"):
        members(gone)


def test_a_postgresql_that_drips_its_first_answer_is_cut_off(members: Members) -> None:
    """Before the query: SQLAlchemy asks the database for its version and more."""
    ready = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"
    with dripping(ready, then=b"T") as port:
        url = f"postgresql://reader@127.0.0.1:{port}/crm?sslmode=disable&gssencmode=disable"
        with pytest.raises(SourceError, match=r"no end within 0.3 s \(time_limit\)"):
            members({"sql": url, "query": "SELECT 1", "time_limit": 0.3})


def test_a_query_to_postgresql_stops_when_asked_to(real: dict[str, Any], members: Members) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(SourceError, match="stopped before its end"):
        members({**real, "query": "SELECT pg_sleep(20)::text"}, stop=stop.is_set)
