"""The files that make up a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.config.documents import policy_documents, shipped, vocabulary_names
from smtpguard.config.problem import Broken


def test_a_vocabulary_beside_the_policy_replaces_the_products(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes(b"version: 1\n")
    (tmp_path / "vocabularies").mkdir()
    (tmp_path / "vocabularies/pork.yaml").write_bytes(b"ours")
    (tmp_path / "vocabularies/weapons.yaml").write_bytes(b"more")
    (tmp_path / "vocabularies/notes.txt").write_bytes(b"no vocabulary")
    documents = policy_documents(tmp_path / "rules.yaml")
    assert documents["policy.yaml"] == b"version: 1\n"
    assert documents["vocabularies/pork.yaml"] == b"ours"
    assert documents["vocabularies/alcohol.yaml"] == (shipped() / "vocabularies/alcohol.yaml").read_bytes()
    product = {path.stem for path in (shipped() / "vocabularies").glob("*.yaml")}
    assert {"alcohol", "pork"} <= product
    assert set(vocabulary_names(documents)) == product | {"weapons"}


def test_a_missing_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="cannot be read: No such file"):
        policy_documents(tmp_path / "policy.yaml")
    (tmp_path / "policy.yaml").mkdir()
    with pytest.raises(Broken, match="cannot be read: Is a directory"):
        policy_documents(tmp_path / "policy.yaml")
