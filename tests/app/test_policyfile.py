"""The policy file compared with the policy in force after an upgrade: changed files of the product are not the user's
change."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.app import policies
from smtpguard.app.policies import compare_file, stamps
from smtpguard.app.policycheck import never_found
from smtpguard.config import documents
from smtpguard.config.documents import PolicyFile, policy_documents, shipped
from smtpguard.config.settings import Settings
from smtpguard.config.yaml import load_yaml
from tests.every import every

POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com]}
groups: {some: [eva@example.com]}
approvals: {from: [some]}
"""
PORK = "title: {en: pork}\ngroups: [{language: en, terms: [bacon]}]\n"


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the product's vocabularies."""
    made = tmp_path / "product" / "vocabularies"
    made.mkdir(parents=True)
    (made / "pork.yaml").write_text(PORK)
    (made / "alcohol.yaml").write_text(PORK.replace("bacon", "wine"))
    for module in (documents, policies):
        monkeypatch.setattr(module, "shipped", lambda: tmp_path / "product")
    return made


@pytest.fixture
def settings(tmp_path: Path, product: Path) -> Settings:
    etc = tmp_path / "etc"
    (etc / "vocabularies").mkdir(parents=True)
    (etc / "policy.yaml").write_text(POLICY)
    return Settings(policy=etc / "policy.yaml", state=tmp_path / "var")


def summary(found: PolicyFile) -> tuple[str, bool, tuple[str, ...], tuple[str, ...]]:
    return found.state, found.differs, found.differing, found.product


def test_new_vocabularies_of_an_upgrade_are_not_a_changed_policy_file(settings: Settings, product: Path) -> None:
    in_force = policy_documents(settings.policy)
    (product / "pork.yaml").write_text(PORK.replace("bacon", "bacon, ham"))
    (product / "tobacco.yaml").write_text(PORK.replace("bacon", "cigar"))
    (product / "alcohol.yaml").unlink()
    found = compare_file(settings, in_force)
    brought = tuple(f"vocabularies/{name}.yaml" for name in ("alcohol", "pork", "tobacco"))
    assert summary(found) == ("same", False, (), brought)
    assert "brings other vocabularies (alcohol, pork, tobacco), which smtpguard reload would put in force" in str(found)


def test_a_change_by_the_admin_makes_the_file_differ(settings: Settings, product: Path) -> None:
    in_force = policy_documents(settings.policy)
    (product / "pork.yaml").write_text(PORK.replace("bacon", "bacon, ham"))
    (settings.policy.parent / "vocabularies" / "alcohol.yaml").write_text(PORK.replace("bacon", "beer"))
    found = compare_file(settings, in_force)
    assert summary(found) == ("differs", True, ("vocabularies/alcohol.yaml",), ("vocabularies/pork.yaml",))
    settings.policy.write_text(POLICY + "rules: []\n")
    assert compare_file(settings, in_force).differing == ("policy.yaml", "vocabularies/alcohol.yaml")


def test_files_beside_the_policy_replace_the_products(settings: Settings, product: Path) -> None:
    own = Settings(policy=product.parent / "policy.yaml", state=settings.state)
    own.policy.write_text(POLICY)
    in_force = policy_documents(own.policy)
    (product / "pork.yaml").write_text(PORK.replace("bacon", "ham"))
    assert summary(compare_file(own, in_force)) == ("differs", True, ("vocabularies/pork.yaml",), ())


@every("part", ["policy.d", "lists.d", "vocabularies"])
def test_a_change_in_any_file_of_the_policy_is_noticed(part: str, tmp_path: Path) -> None:
    """A process looks again only then."""
    folder = tmp_path / part
    folder.mkdir()
    settings = Settings(policy=folder.with_name("policy.yaml"), state=tmp_path / "var")
    settings.policy.write_text(POLICY)
    before, file = stamps(settings), folder / "news.yaml"
    file.write_text("{}\n")
    added = stamps(settings)
    file.write_text("title: News\n")
    assert len({before, added, stamps(settings)}) == 3


@every("file", sorted((shipped() / "vocabularies").glob("*.yaml")))
def test_each_term_of_the_product_is_findable(file: Path) -> None:
    """No term of the product's vocabularies is unreachable; ``check`` does not test these again."""
    assert list(never_found(file.stem, load_yaml(file))) == []
