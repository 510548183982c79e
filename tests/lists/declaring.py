"""Sources, lists and streams, declared as in a policy. Times are seconds, and may be shorter than a policy's; urls are
not checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from smtpguard.lists.declared import ListInfo, Stream
from smtpguard.lists.members import AnyExpands, AnyMembers, Expands, Members
from smtpguard.policy.compiling import list_info, stream
from smtpguard.policy.models import ListModel, StreamModel

_MEMBERS, _EXPANDS = TypeAdapter[Members](AnyMembers), TypeAdapter[Expands](AnyExpands)
_AS_GIVEN: Mapping[str, Any] = {
    "refresh": None, "stale_after": None, "timeout": None, "time_limit": None, "http": "http://localhost/", "sql": "sqlite://"
}  # fmt: skip
"""Keys that are not checked, each with a valid value if it must be there."""


def source(declaration: Mapping[str, Any]) -> Members:
    plain = {k: _AS_GIVEN.get(k, v) for k, v in declaration.items() if _AS_GIVEN.get(k, v) is not None}
    return _MEMBERS.validate_python(plain).model_copy(update={k: v for k, v in declaration.items() if k in _AS_GIVEN})


def expands(declaration: Mapping[str, Any]) -> Expands:
    return _EXPANDS.validate_python(declaration)


def lists_of(
    sections: Mapping[str, Mapping[str, Any]], streams: Mapping[str, Any] | None = None, delimiters: str = ""
) -> tuple[Mapping[str, ListInfo], Mapping[str, Stream]]:
    lists = {}
    for name, section in sections.items():
        members = section.get("members", [])
        several = members if isinstance(members, list) else [members]
        model = ListModel.model_validate({k: v for k, v in section.items() if k != "members"})
        lists[name] = model.model_copy(update={"members": [source(one) for one in several]})
    infos = {name: list_info(name, lists, delimiters) for name in lists}
    return infos, {n: stream(n, StreamModel.model_validate(s), delimiters) for n, s in (streams or {}).items()}
