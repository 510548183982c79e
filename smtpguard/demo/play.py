"""Play a scene: a person does something, and each expectation is met or not.

This file has the kinds of expectation and their checks. They use what the client was answered and what the relay has,
never the guard's own view.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smtpguard.demo.messages import DemoMessage
from smtpguard.demo.stage import Answer, Stage


class Disposition(enum.Enum):
    """What happens to a message."""

    RELAYED = "relayed"
    HELD = "held"
    REJECTED = "rejected"
    DEFERRED = "deferred"
    DONE = "done"  # no mail: a person's command


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """``disposition``: what must happen to ``message``. ``after`` runs once it is sent, and checks everything else."""

    title: str
    disposition: Disposition
    message: DemoMessage | None = None
    because: str = ""  # why a message passes, in plain words; for others the guard gives the reason
    found: bool = False  # whether to show the evidence in the message as well
    again: bool = False  # the same message as in an earlier scene
    patient: bool = False  # retry a 4xx for a while, as every MTA does
    before: Callable[[Stage], None] | None = None
    after: Callable[[Stage, Result], str | None] | None = None


@dataclass(slots=True)
class Result:
    """The result of a scene. ``found``: the evidence in the message. ``wrong``: a sentence on what failed; None if all
    is as expected."""

    scene: Scene
    answer: Answer | None = None
    content: bytes = b""
    hold_id: str | None = None
    rules: list[str] = field(default_factory=list)  # the purpose of each, in words
    found: list[str] = field(default_factory=list)
    reach: int | None = None
    lines: list[str] = field(default_factory=list)
    wrong: str | None = None


def play(stage: Stage, scenes: Iterator[Scene]) -> Iterator[Result]:
    """Play one scene after another, and yield each result."""
    for scene in scenes:
        result = Result(scene)
        if scene.before is not None:
            scene.before(stage)
        if scene.message is not None:
            _send(stage, scene.message, result)
        if result.wrong is None and scene.after is not None:
            result.wrong = scene.after(stage, result)
        yield result


def _send(stage: Stage, message: DemoMessage, result: Result) -> None:
    result.content = stage.content(message)
    had = len(stage.relay.taken)
    result.answer = stage.send(message, result.content)
    if result.scene.patient:
        stage.until(lambda: _again(stage, message, result))
    arrived = [taken for taken in stage.relay.taken[had:] if taken.content.endswith(result.content)]
    expected = result.scene.disposition
    code, text = result.answer.code, result.answer.text
    if expected is Disposition.HELD and "Held for review as" in text:
        result.hold_id = text.rpartition(" ")[2]
    if result.hold_id is not None and not result.scene.again:
        row = next(iter(stage.rows("held", "show", result.hold_id)), {})
        result.rules = [stage.descriptions.get(rule, rule) for rule in row.get("rules", [])]
        result.found = _found(row.get("reasons", [])) if result.scene.found else []
        result.reach = row.get("reach")
    match expected:
        case Disposition.RELAYED:
            fine = code == 250 and len(arrived) == 1 and set(arrived[0].recipients) == set(message.recipients)
        case Disposition.HELD:
            fine = code == 250 and result.hold_id is not None and not arrived
        case Disposition.REJECTED:
            fine = 500 <= code < 600 and not arrived
        case _:
            fine = 400 <= code < 500 and not arrived
    if not fine:
        result.wrong = f"expected {expected.value}; the client heard {result.answer}; at the relay: {len(arrived)}"


def _again(stage: Stage, message: DemoMessage, result: Result) -> bool:
    """Whether the answer is no 4xx; else retry once."""
    if result.answer is not None and 400 <= result.answer.code < 500:
        result.answer = stage.send(message, result.content)
    return result.answer is not None and not 400 <= result.answer.code < 500


def _found(reasons: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first pieces of evidence in the message, each once."""
    looks = [r["detail"] for r in reasons if r["fact"] == "message.looks" and r["detail"]][:1]
    topics = [r["detail"] for r in reasons if r["fact"] == "message.unsuitable_topics" and r["detail"]][:1]
    phrases = [text.split("; ")[1:][:most] for detail, most in ((looks, 3), (topics, 2)) for text in detail]
    return [phrase for several in phrases for phrase in several]
