"""What a scene is: somebody does something, and what was told beforehand comes true or does not.

Here live the kinds of expectation and how each is checked: by what the client heard and by what the relay has, never by
what the guard thinks. Never here: the scenes (script), or how they are printed (cli.demo).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from smtpguard.demo.letters import Letter
from smtpguard.demo.stage import Answer, Stage


class Fate(enum.Enum):
    """What becomes of a mail."""

    RELAYED = "relayed"
    HELD = "held"
    REJECTED = "rejected"
    DEFERRED = "deferred"
    DONE = "done"  # no mail: a person's command


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """``fate`` is what must become of ``letter``. ``after`` runs once it is sent, and says what else must be true."""

    title: str
    fate: Fate
    letter: Letter | None = None
    patient: bool = False  # a 4xx is tried again for a while, as every MTA does
    before: Callable[[Stage], None] | None = None
    after: Callable[[Stage, Result], str | None] | None = None


@dataclass(slots=True)
class Result:
    """What became of a scene. ``wrong`` says in a sentence what did not come true; None: all went as told."""

    scene: Scene
    answer: Answer | None = None
    content: bytes = b""
    hold_id: str | None = None
    rules: list[str] = field(default_factory=list)
    reach: int | None = None
    lines: list[str] = field(default_factory=list)
    wrong: str | None = None


def play(stage: Stage, scenes: Iterator[Scene]) -> Iterator[Result]:
    """One scene after another; each result as it is known."""
    for scene in scenes:
        result = Result(scene)
        if scene.before is not None:
            scene.before(stage)
        if scene.letter is not None:
            _send(stage, scene.letter, result)
        if result.wrong is None and scene.after is not None:
            result.wrong = scene.after(stage, result)
        yield result


def _send(stage: Stage, letter: Letter, result: Result) -> None:
    result.content = stage.content(letter)
    had = len(stage.relay.taken)
    result.answer = stage.send(letter, result.content)
    if result.scene.patient:
        stage.until(lambda: _again(stage, letter, result))
    arrived = [taken for taken in stage.relay.taken[had:] if taken.content.endswith(result.content)]
    expected = result.scene.fate
    code, text = result.answer.code, result.answer.text
    if expected is Fate.HELD and "Held for review as" in text:
        result.hold_id = text.rpartition(" ")[2]
        row = next((row for row in stage.rows("held", "list") if row["id"] == result.hold_id), {})
        result.rules = list(row.get("rules", []))
        result.reach = row.get("reach")
    match expected:
        case Fate.RELAYED:
            fine = code == 250 and len(arrived) == 1 and set(arrived[0].recipients) == set(letter.recipients)
        case Fate.HELD:
            fine = code == 250 and result.hold_id is not None and not arrived
        case Fate.REJECTED:
            fine = 500 <= code < 600 and not arrived
        case _:
            fine = 400 <= code < 500 and not arrived
    if not fine:
        result.wrong = f"expected {expected.value}; the client heard {result.answer}; at the relay: {len(arrived)}"


def _again(stage: Stage, letter: Letter, result: Result) -> bool:
    """Whether the answer is no 4xx; else it is tried once more."""
    if result.answer is not None and 400 <= result.answer.code < 500:
        result.answer = stage.send(letter, result.content)
    return result.answer is not None and not 400 <= result.answer.code < 500
