"""Every wrong file gives exactly the problems beside it: all at once, with their places, and nothing else.

``policy-*.yaml`` are policies, ``settings-*.yaml`` are settings. A new mistake becomes a file here first.
"""

from __future__ import annotations

from pathlib import Path

from smtpguard.config.listeners import open_to_all
from smtpguard.config.problem import Broken, Problem, ordered
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.policy.parse import parse
from tests.every import every

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yaml"))
VOCABULARIES = {
    f"vocabularies/{name}.yaml": b"groups: [{terms: [" + term + b"]}]"
    for name, term in (("pork", b"bacon"), ("alcohol", b"wine"))
}


def problems(file: Path) -> tuple[Problem, ...]:
    try:
        if file.name.startswith("settings-"):
            document = load_yaml(file.read_bytes(), file.name)
            settings = settings_of(document, Path("/etc/smtpguard"), {})
            return ordered(open_to_all(document, settings.listen, settings.trust))
        return parse({"policy.yaml": file.read_bytes(), **VOCABULARIES}, where=file.name).warnings
    except Broken as e:
        return e.problems


@every("file", FILES)
def test_each_file_gives_exactly_its_expected_problems(file: Path) -> None:
    expected = file.with_suffix(".expected").read_text().splitlines()
    assert [str(p) for p in problems(file)] == expected
    assert expected, "a file without a problem does not belong here"


def test_each_expectation_has_its_file() -> None:
    assert {f.stem for f in HERE.glob("*.expected")} == {f.stem for f in FILES}
    assert len(FILES) >= 40
