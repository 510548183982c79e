"""The JSON Schema of the policy file, for editors that complete and check while one types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smtpguard.config.schema import DIALECT, for_editors
from smtpguard.policy.described import POLICY
from smtpguard.policy.facts import FACTS, Fact, Type
from smtpguard.policy.models import ListModel, PolicyModel

_NUMBER = "[0-9][0-9_]*(\\.[0-9]+)?"


def policy_schema() -> dict[str, Any]:
    """The schema of policy.yaml. A condition's schema is made from the table of facts."""
    schema = for_editors(PolicyModel.model_json_schema(by_alias=True), POLICY)
    rule = schema["$defs"]["RuleModel"]["properties"]
    for key in ("when", "unless"):
        rule[key] = {"$ref": "#/$defs/conditions", "description": rule[key]["description"]}
    schema["$defs"]["conditions"] = {
        "type": "object",
        "description": "Facts and what is asked of them; all must be so.",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {name: _condition(fact) for name, fact in FACTS.items()},
    }
    return {"$schema": DIALECT, "title": "smtpguard policy", **{k: v for k, v in schema.items() if k != "title"}}


def list_schema() -> dict[str, Any]:
    """The schema of a file in lists.d."""
    schema = for_editors(ListModel.model_json_schema(by_alias=True), POLICY)
    for key, each in schema["properties"].items():
        each["description"] = POLICY.get(f"ListModel.{key}", each.get("description", ""))
    return {"$schema": DIALECT, "title": "smtpguard list", **{k: v for k, v in schema.items() if k != "title"}}


def _condition(fact: Fact) -> Mapping[str, Any]:
    return {"description": fact.doc, **_SHAPES[fact.type](fact)}


def _word(fact: Fact) -> dict[str, Any]:
    word: dict[str, Any] = {"type": "string"}
    if fact.words:
        word["enum"] = list(fact.words)
    either = [{"enum": ["any", "none"]}] if fact.words and fact.type is Type.WORDS else []
    shapes: list[dict[str, Any]] = [word, {"type": "array", "items": word, "minItems": 1}, *either]
    keys = [] if fact.words else ["matches"]
    if fact.name == "sender.address":
        keys.append("group")
    shapes += [_only(key) for key in keys]
    return {"anyOf": shapes}


def _only(key: str) -> dict[str, Any]:
    return {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}


def _count(fact: Fact) -> dict[str, Any]:
    number = _NUMBER + ("\\s*%?" if fact.type is Type.SHARE else "")
    window = "\\s+in\\s+.+" if fact.windowed else ""
    comparison = f"^\\s*((>=|<=|==|=|>|<)\\s*{number}|between\\s+{number}\\s+and\\s+{number}){window}\\s*$"
    shapes: list[dict[str, Any]] = [{"type": "string", "pattern": comparison}]
    if fact.windowed:
        shapes.append(_bound(fact))
    else:
        shapes += [{"enum": ["any", "none"]}, {"type": "integer", "minimum": 0}]
    return {"anyOf": shapes}


def _bound(fact: Fact) -> dict[str, Any]:
    """``{at_least: 40, in: 1h, usual: x3}``."""
    share = fact.type is Type.SHARE
    names = {"type": "string"}
    properties: dict[str, Any] = {
        "at_least": {"type": ["number", "string"] if share else "integer", "description": "from so many on"},
        "in": {"type": "string", "description": "in a window of this length, like 1h or 7d"},
    }
    if fact.usual:
        properties["usual"] = {
            "type": "string",
            "pattern": "^x\\s*[0-9]+(\\.[0-9]+)?$",
            "description": "and only above so many times the most that was counted in any such window between 35 and 7 days ago, like x3",
        }
    if fact.by_list:
        properties["lists"] = {
            "anyOf": [names, {"type": "array", "items": names, "minItems": 1}],
            "description": "on one of these lists; special-category: on one that declares this sensitivity",
        }
    if fact.by_mailing:
        properties["mailing"] = {
            "const": "same",
            "description": "of them only those who were sent the same mailing as this message",
        }
    return {"type": "object", "properties": properties, "required": ["at_least", "in"], "additionalProperties": False}


_SHAPES = {
    Type.TRUTH: lambda fact: {"type": "boolean"},
    Type.WORD: _word,
    Type.WORDS: _word,
    Type.NETWORK: lambda fact: {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    },
    Type.COUNT: _count,
    Type.SHARE: _count,
}
