"""JSON Schema of the settings file, for editors that complete and check as one types.

Never here: the policy's (policy.schema).
"""

from __future__ import annotations

from typing import Any

from smtpguard.config.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def settings_schema() -> dict[str, Any]:
    schema = Settings.model_json_schema(by_alias=True)
    return {"$schema": DIALECT, "title": "smtpguard settings", **{k: v for k, v in schema.items() if k != "title"}}
