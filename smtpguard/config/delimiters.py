"""Sub-addressing in the settings: delimiters for all domains, or delimiters for each of some domains.

Both become one text, which mail.address reads: the delimiters that count everywhere, then, each after a space,
``domain=delimiters`` for the domains that have others.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import idna
from pydantic import BeforeValidator, WithJsonSchema

from smtpguard.config.problem import Invalid

EVERYWHERE = "*"
DEFAULT = "+"
_SIGNS = frozenset("!#$%&'*+/=?^_`{|}~.-")
_DOMAIN = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\Z")


def _delimiters(value: Any) -> str:
    if isinstance(value, str):
        return _signs(value)
    if not isinstance(value, dict):
        raise Invalid(
            "no delimiters",
            'characters, like "+"; or characters for each domain, like {"*": "+", lists.example.com: "-"}',
        )
    everywhere = _signs(value.get(EVERYWHERE, DEFAULT))
    others = sorted((_domain(name), _signs(signs)) for name, signs in value.items() if name != EVERYWHERE)
    return " ".join([everywhere, *(f"{domain}={signs}" for domain, signs in others)])


def _signs(text: Any) -> str:
    if not isinstance(text, str) or len(text) > 8 or not set(text) <= _SIGNS:
        raise Invalid(f'"{text}" is not a set of delimiters', 'characters of a local part, like "+" or "+-"')
    return text


def _domain(name: Any) -> str:
    text = str(name)
    stem = text.removeprefix("*.")
    try:
        ascii_domain = text[: len(text) - len(stem)] + idna.encode(stem, uts46=True).decode().lower()
    except (UnicodeError, ValueError):
        ascii_domain = text.lower()
    if not _DOMAIN.match(ascii_domain):
        raise Invalid(
            f'"{text}" is no domain name', 'a name like "lists.example.com", "*.example.com", or "*" for all others'
        )
    return ascii_domain


Delimiters = Annotated[
    str,
    BeforeValidator(_delimiters),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}],
                    "description": "characters, or characters for each domain"}),
]  # fmt: skip
