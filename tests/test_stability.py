"""Nothing that docs/stability.md promises is missing. Only a major version may remove an option, key, route or kind."""

from __future__ import annotations

from smtpguard.config.documents import shipped
from tests.every import every
from tests.stable import PROMISED, ROOT, kept


@every("name", PROMISED)
def test_nothing_promised_is_missing(name: str) -> None:
    promised = kept(name)
    assert promised, "make generated writes the list"
    gone = promised - set(PROMISED[name]())
    assert not gone, f"gone, and promised in tests/stable/{name}.txt: {sorted(gone)}"


def test_each_list_has_its_known_lines() -> None:
    """Each list has a few well-known lines of its own, so that none has the content of another."""
    assert {"smtpguard held approve --as", "smtpguard check --json", "smtpguard explain --expect hold"} <= kept(
        "commands"
    )
    assert {"problem line", "held id", "replaypassed answer"} <= kept("json")
    assert "GET /api/v1/held" in kept("api")
    assert {"verdict", "approved", "freeze"} <= kept("journal")
    assert {"fact message.looks", "policy.enforce"} <= kept("policy")
    assert "settings.relay" in kept("settings")


def test_the_page_names_every_list() -> None:
    page = (ROOT / "docs" / "stability.md").read_text()
    assert all(f"tests/stable/{name}.txt" in page for name in PROMISED)


def test_the_sample_policy_names_its_version() -> None:
    assert "\nversion: 1\n" in (shipped() / "policy.yaml").read_text()
