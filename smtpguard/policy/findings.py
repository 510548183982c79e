"""The problems that one pass over a document finds, each with its position."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from smtpguard.config.problem import Invalid, Problem, Severity, Undeclared
from smtpguard.config.yaml import Document, Place


@dataclass(slots=True, kw_only=True)
class Findings:
    """``sound``: nothing that declares a name was dropped from the document as invalid. Otherwise an unknown name may
    have been declared there, and is not reported."""

    document: Document
    sound: bool
    problems: list[Problem] = field(default_factory=list)

    def problem(self, place: Place, text: str, expected: str = "", hint: str = "", *, key: bool = False) -> None:
        self.problems.append(self.document.problem(place, text, expected, hint, key=key))

    def warn(self, place: Place, text: str, hint: str = "", *, key: bool = False) -> None:
        problem = self.document.problem(place, text, hint=hint, key=key)
        self.problems.append(replace(problem, severity=Severity.WARNING))

    def invalid(self, error: Invalid, place: Place, *, key: bool = False) -> None:
        if self.sound or not isinstance(error, Undeclared):
            self.problem(place, error.text, error.expected, error.hint, key=key)
