"""The JSON Schema of the settings file, for editors that complete and check it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smtpguard.config.described import SETTINGS
from smtpguard.config.quantity import EXPECTED, WORKING_EXPECTED, in_short
from smtpguard.config.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def settings_schema() -> dict[str, Any]:
    schema = for_editors(Settings.model_json_schema(by_alias=True), SETTINGS)
    return {"$schema": DIALECT, "title": "smtpguard settings", **{k: v for k, v in schema.items() if k != "title"}}


def for_editors(schema: dict[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Add a description to each key, and defaults as people would write them, so that ``check`` accepts what an editor
    offers. ``texts``: see described."""
    for model, properties in sections(schema):
        for key, each in properties.items():
            own = texts.get(f"{model}.{key}") or texts.get(f"*.{key}")
            shapes = [each, *each.get("anyOf", ())]
            said = {shape.get("description") for shape in shapes}
            if own:
                each["description"] = own
            default = each.get("default")
            texts_only = all(shape.get("type", "string") in ("string", "null") for shape in shapes)
            if isinstance(default, int) and not isinstance(default, bool) and (EXPECTED in said or texts_only):
                each["default"] = in_short(default)
            elif isinstance(default, dict) and WORKING_EXPECTED in said:
                length = in_short(default["seconds"])
                each["default"] = f"{default['seconds'] // 3600} working hours" if default["working"] else length
            elif isinstance(default, dict) or (
                isinstance(default, list) and any(isinstance(one, dict) for one in default)
            ):
                del each["default"]  # its keys have defaults of their own
    return schema


def sections(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each model with its properties, "" for the whole file."""
    yield "", schema.get("properties", {})
    for name, model in schema.get("$defs", {}).items():
        if "properties" in model:
            yield name, model["properties"]
