"""Answer offline questions about list indexes: which source has an address, and which addresses two lists share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.index import BadIndex, Index, walk
from smtpguard.lists.report import latest
from smtpguard.lists.sync import called, source_key, source_path


def by_source(
    info: ListInfo, digests: Collection[bytes], *, folder: Path, base: Path, key_ids: Sequence[bytes]
) -> tuple[str, ...]:
    """The labels of this list's sources that have this person, by any of ``digests``. Empty if no source has an index
    of its own."""
    report = latest(folder, info.name)
    names = []
    for declaration in info.members:
        key = source_key(declaration)
        try:
            index = Index(source_path(folder, info.name, key), *key_ids)
        except (OSError, BadIndex):
            continue
        if any(digest in index for digest in digests):
            known = report.of(key) if report is not None else None
            names.append(known.label if known is not None else called(declaration, base))
    return tuple(names)


def overlaps(indexes: Mapping[str, Index]) -> Mapping[tuple[str, str], int]:
    """How many people each two lists have in common. Memory holds one octet's range of all indexes at a time."""
    found = dict.fromkeys(combinations(indexes, 2), 0)
    for arrays in walk(indexes.values()):
        once: set[int] = set()
        twice: set[int] = set()
        for numbers in arrays:
            these = set(numbers)
            twice |= once & these
            once |= these
        if not twice:
            continue
        shared = {name: twice.intersection(numbers) for name, numbers in zip(indexes, arrays, strict=True)}
        for one, other in found:
            found[one, other] += len(shared[one] & shared[other])
    return found
