"""The membership index of each list, in which every process looks people up.

An index is an immutable file of sorted 64-bit keyed digests, which every process maps into memory. It holds no readable
address. Its sections, in the machine's own byte order:

=========  ===============================================================================================================
header     128 octets: layout, key, number of people, when and from what it was built, checksums
heads      of each digest, in order, the 32 bits behind the first 16; where ``bits`` is less than 16, the first 32
table      2**bits + 1 positions: where the digests begin whose first ``bits`` bits are 0, 1, 2 and so on
tails      of each digest, in the same order, the last 16 bits; where ``bits`` is less than 16, the last 32
marks      2**marks_bits octets, about one a person: a digest sets the bit, named by its last three bits, of the octet that
           its first bits name
=========  ===============================================================================================================

Most look-ups are of people who are not on the list, and ``marks`` answers seven of eight of those with one access; a
bisection takes seven steps and waits for memory four times. Twenty lists of a million are asked about a hundred people
in a third of a millisecond. The rest is a bisection within the one place of the table where the digest could be. That
place gives the first bits of a digest, so they are not stored, which pays for the marks: seven octets a person instead
of eight.

numpy was measured. It sorts ten times as fast, which would save a sixth of a build, but asks twice as slowly:
searchsorted has no table and misses the caches twenty times a look-up. It would cost every process 18 MB and a tenth of
a second. One index of all lists together would be faster to ask, but would have to be rewritten whenever the smallest
list changes.

A checksum of header and table is verified at each opening. They lead to every other section, so no damage there can
make a look-up fail; it takes a millisecond whatever the size. Each refresh of the list verifies the whole file
(``verify``), since there damage can be mended: the list is read anew.

A file's mtime says when its sources were last read and unchanged: the oldest such time of any source; INCOMPLETE if one of them was
never read.
"""

from __future__ import annotations

import enum
import hashlib
import mmap
import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from smtpguard.lists.declared import ListInfo
from smtpguard.locale.phrase import Moment, Phrase

MAGIC = b"smtpgIDX"
LAYOUT = 2
OCTETS = 256
"""The ranges of a walk: each has the digests with the same first octet."""
INCOMPLETE = 0.0
"""The mtime of an index of which a source was never read, so that a "no" cannot be relied on."""
_FIELDS = struct.Struct("=8s I I I 4x 8s Q q 32s 8s I I")
HEADER_OCTETS = 128
_CHECKSUM_OCTETS = 16
LOW_END = (0, 1, 2, 3) if sys.byteorder == "little" else (3, 2, 1, 0)
"""The places of the 16-bit parts in a 64-bit number, the lowest part first."""

_NEVER = Phrase("it was never synced")


class BadIndex(Exception):
    """The file is no index of ours, is damaged, or was made under another key. The text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of an index. ``version`` names the set of people: same people, same version. ``fingerprint``: that of the source
    when it was read. ``bits``, ``marks_bits``: see the sections above."""

    bits: int
    marks_bits: int
    key_id: bytes
    people: int
    built_at: datetime
    fingerprint: bytes
    version: bytes
    table_crc: int
    body_crc: int

    def packed(self) -> bytes:
        fields = _FIELDS.pack(MAGIC, LAYOUT, self.bits, self.marks_bits, self.key_id, self.people, int(self.built_at.timestamp()),
                              self.fingerprint, self.version, self.table_crc, self.body_crc)  # fmt: skip
        return (fields + _checksum(fields)).ljust(HEADER_OCTETS, b"\0")

    @classmethod
    def read(cls, raw: bytes, name: str) -> Header:
        """Raises BadIndex."""
        fields, rest = raw[: _FIELDS.size], raw[_FIELDS.size :]
        if len(raw) < HEADER_OCTETS or fields[:8] != MAGIC:
            raise BadIndex(f"{name} is not a membership index")
        _, layout, bits, marks, key_id, people, built_at, fingerprint, version, table, body = _FIELDS.unpack(fields)
        if layout != LAYOUT:
            raise BadIndex(f"{name} has layout {layout}, not {LAYOUT}")
        if rest[:_CHECKSUM_OCTETS] != _checksum(fields) or any(rest[_CHECKSUM_OCTETS:]):
            raise BadIndex(f"{name} is damaged: its header does not match its checksum")
        return cls(bits=bits, marks_bits=marks, key_id=key_id, people=people, built_at=datetime.fromtimestamp(built_at, UTC),
                   fingerprint=fingerprint, version=version, table_crc=table, body_crc=body)  # fmt: skip

    @property
    def tail(self) -> int:
        return tail_bits(self.bits)

    def sections(self) -> tuple[int, int, int, int]:
        """Return the offsets of table, tails, marks and end of file. The heads begin after the header."""
        table = HEADER_OCTETS + 4 * self.people
        tails = table + 4 * ((1 << self.bits) + 1)
        marks = tails + self.tail // 8 * self.people
        return table, tails, marks, marks + (1 << self.marks_bits)


def tail_bits(bits: int) -> int:
    """Return the number of bits of a digest that its tail has. Its place in the table gives the first ``bits``."""
    return 16 if bits >= 16 else 32


class Index:
    """An open index. Immutable, and thread-safe; its use of the process's own memory does not grow with its size."""

    __slots__ = ("_end", "_heads", "_map", "_rest", "_table", "_tail", "_tails", "header", "marks", "shift")

    def __init__(self, path: Path, *key_ids: bytes) -> None:
        """Open the file. ``key_ids``: the keys under which it may have been made. Raises BadIndex and OSError."""
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise BadIndex(f"{path.name} is empty") from None
        self.header = header = Header.read(self._map[:HEADER_OCTETS], path.name)
        if header.key_id not in key_ids:
            raise BadIndex(f"{path.name} was made under another secret or other delimiters")
        table, tails, marks, end = header.sections()
        if len(self._map) != end:
            raise BadIndex(f"{path.name} is damaged: it is cut or has grown")
        whole = memoryview(self._map)
        if zlib.crc32(whole[table:tails]) != header.table_crc:
            raise BadIndex(f"{path.name} is damaged: its table does not match its checksum")
        self._heads = whole[HEADER_OCTETS:table].cast("I")
        self._table = whole[table:tails].cast("I")
        self._tails = whole[tails:marks].cast("H" if header.tail == 16 else "I")
        self.marks = whole[marks:end]
        self.shift = 64 - header.marks_bits
        self._end, self._tail, self._rest = 64 - header.bits, header.tail, (1 << header.tail) - 1

    @property
    def people(self) -> int:
        """The number of distinct digests."""
        return self.header.people

    @property
    def version(self) -> str:
        return self.header.version.hex()

    def __len__(self) -> int:
        return self.people

    def __contains__(self, digest: bytes) -> bool:
        return self.has(int.from_bytes(digest, "big"))

    def has(self, number: int) -> bool:
        """Return whether a person is in the index. ``number``: the digest as a big-endian integer."""
        return bool(self.marks[number >> self.shift] & (1 << (number & 7))) and self.holds(number)

    def holds(self, number: int) -> bool:
        """Return whether a person is in the index, without testing the marks. It is for callers that have tested them."""
        place = number >> self._end
        end = self._table[place + 1]
        head = number >> self._tail & 0xFFFFFFFF
        at = bisect_left(self._heads, head, self._table[place], end)
        while at < end and self._heads[at] == head:  # one; two with a probability of 1e-8
            if self._tails[at] == number & self._rest:
                return True
            at += 1
        return False

    def verify(self) -> None:
        """Verify the checksum of the whole file, which takes 0.1 s for ten million people. Raises BadIndex."""
        if zlib.crc32(memoryview(self._map)[HEADER_OCTETS:]) != self.header.body_crc:
            raise BadIndex("it is damaged: it does not match its checksum")

    def numbers(self, octet: int) -> array[int]:
        """Return the digests that begin with this octet, in order. Octets 0 to 255 give the whole index."""
        bits = self.header.bits
        if bits < 16:
            start, end = (self._first(octet << 56), self._first((octet + 1) << 56))
            found = array("Q", bytes(8 * (end - start)))
            halves = memoryview(found).cast("B").cast("I")
            low, high = (0, 1) if sys.byteorder == "little" else (1, 0)
            halves[low::2], halves[high::2] = self._tails[start:end], self._heads[start:end]
            return found
        step = bits - 16
        start, end = self._table[octet << step + 8], self._table[octet + 1 << step + 8]
        found = array("Q", bytes(8 * (end - start)))
        quarters, heads = memoryview(found).cast("B").cast("H"), self._heads[start:end].cast("B").cast("H")
        low, high = (0, 1) if sys.byteorder == "little" else (1, 0)
        quarters[LOW_END[0] :: 4] = self._tails[start:end]
        quarters[LOW_END[1] :: 4], quarters[LOW_END[2] :: 4] = heads[low::2], heads[high::2]
        at = 0
        for prefix in range(octet << 8, octet + 1 << 8):  # bits from the table
            to = self._table[prefix + 1 << step] - start
            quarters[4 * at + LOW_END[3] : 4 * to : 4] = array("H", [prefix]) * (to - at)
            at = to
        return found

    def _first(self, number: int) -> int:
        """Return the position of the first digest that is not less, in an index whose heads have the first bits."""
        return bisect_left(self._heads, number >> 32)


class IndexGroup:
    """Several indexes that are asked about one digest at a time. Marks of the same size are grouped, to be tested in one
    access."""

    __slots__ = ("_groups", "_names")

    def __init__(self, indexes: Iterable[tuple[str, Index]]) -> None:
        groups: dict[int, list[tuple[memoryview, int, Callable[[int], bool]]]] = {}
        named = list(indexes)
        for n, (_, index) in enumerate(named):
            groups.setdefault(index.shift, []).append((index.marks, n, index.holds))
        self._names = [name for name, _ in named]
        self._groups = tuple((shift, tuple(group)) for shift, group in groups.items())

    def names_with(self, number: int) -> tuple[str, ...]:
        """Return the names of the indexes that have a person, in the given order. ``number``: the digest as an integer."""
        bit = 1 << (number & 7)
        found = []
        for shift, group in self._groups:
            place = number >> shift
            for marks, n, holds in group:
                if marks[place] & bit and holds(number):
                    found.append(n)
        return tuple([self._names[n] for n in sorted(found)]) if found else ()


def walk(indexes: Iterable[Index]) -> Iterator[list[array[int]]]:
    """Yield the digests of several indexes, an octet at a time: equal digests come in the same step."""
    indexes = list(indexes)
    for octet in range(OCTETS):
        yield [index.numbers(octet) for index in indexes]


def changed(before: Index, after: Index) -> tuple[int, int]:
    """Return the number of people only in ``after``, and only in ``before``. It takes a second for a million."""
    both = sum(len({*old} & {*new}) for old, new in walk((before, after)))
    return after.people - both, before.people - both


def _checksum(fields: bytes) -> bytes:
    return hashlib.blake2b(fields, digest_size=_CHECKSUM_OCTETS).digest()


class State(enum.Enum):
    """The state of a list's index."""

    READY = "ready"
    STALE = "stale"  # a "yes" stays a yes; a "no" is not to be relied on
    MISSING = "missing"  # the members are unknown
    UNLISTED = "unlisted"  # no source of members is declared: only its address is known


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """The status of one list's index. ``why``: the problem in a phrase, "" if there is none."""

    state: State
    index: Index | None = None
    checked_at: datetime | None = None
    why: str = ""

    @property
    def people(self) -> int | None:
        """The number of people in the index; None without one."""
        return self.index.people if self.index is not None else None

    @property
    def stale(self) -> bool:
        """Return whether it cannot be relied on, although the list has members."""
        return self.state in (State.STALE, State.MISSING)


def index_path(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.index"


def sources_folder(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.sources"


def report_path(folder: Path, name: str) -> Path:
    """Return the path of the latest sync's report (sync.Report), beside the index."""
    return folder / f"{quote(name, safe='')}.json"


def too_old(checked_at: datetime, now: datetime, info: ListInfo) -> bool:
    """Return whether a "no" cannot be relied on. A time as far in the future comes from a wrong clock, and is too old."""
    return abs(now - checked_at) > timedelta(seconds=info.stale_after_seconds)


class OpenIndexes:
    """The open indexes of one process, with the stat of each that shows whether the file was replaced."""

    def __init__(self, folder: Path, *key_ids: bytes) -> None:
        self._folder = folder
        self._key_ids = key_ids
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._paths: dict[str, Path] = {}
        self.statuses: dict[str, IndexStatus] = {}

    def look(self, infos: Iterable[ListInfo], now: datetime) -> bool:
        """Look with one stat a list for replaced indexes and open them. Return whether any status has changed.

        The status of lists that are not among these stays.
        """
        before, found = self.statuses, {info.name: self._status(info, now) for info in infos}
        if all((was := before.get(name)) is status or was == status for name, status in found.items()):
            return False
        self.statuses = {**before, **found}
        return True

    def _status(self, info: ListInfo, now: datetime) -> IndexStatus:
        if not info.members:
            return IndexStatus(state=State.UNLISTED, why=Phrase("the list {name} declares no members", name=info.name))
        before = self.statuses.get(info.name)
        index = before.index if before else None
        path = self._paths.get(info.name) or self._paths.setdefault(info.name, index_path(self._folder, info.name))
        try:
            stat = path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            known = before if before is not None and self._stamps.get(info.name) == stamp else None
            checked = known.checked_at if known is not None and known.state is State.READY else None
            if known is not None and checked is not None and not too_old(checked, now, info):
                return known
            if index is None or self._stamps.get(info.name) != stamp:
                index = Index(path, *self._key_ids)
                self._stamps[info.name] = stamp
        except (OSError, BadIndex) as error:
            never = isinstance(error, FileNotFoundError)
            problem = _NEVER if never else getattr(error, "strerror", "") or str(error)
            if index is None:
                why = Phrase("the list {name} has no usable index: {problem}", name=info.name, problem=problem)
                return IndexStatus(state=State.MISSING, why=why)
            # the mapping stays valid until this process ends, but is not refreshed
            checked_at = before.checked_at if before else None
            why = Phrase(
                "the index of {name} is gone or damaged, and the one before it is in use: {problem}",
                name=info.name,
                problem=problem,
            )
            return IndexStatus(state=State.STALE, index=index, checked_at=checked_at, why=why)
        if stat.st_mtime == INCOMPLETE:
            why = Phrase("the index of {name} is not complete: one of its sources could never be read", name=info.name)
            return IndexStatus(state=State.STALE, index=index, why=why)
        checked_at = datetime.fromtimestamp(stat.st_mtime, UTC)
        if too_old(checked_at, now, info):
            read = Moment(checked_at)
            why = Phrase("the index of {name} is stale: its source was last read {time}", name=info.name, time=read)
            return IndexStatus(state=State.STALE, index=index, checked_at=checked_at, why=why)
        return IndexStatus(state=State.READY, index=index, checked_at=checked_at)
