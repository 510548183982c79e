"""The file of a backup: a tar archive compressed with Zstandard, with ``manifest.json``, then the members that it lists with size
and SHA-256."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import file_digest, sha256
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

SUFFIX = ".tar.zst"
MANIFEST = "manifest.json"
_FORMAT = 1
_CHUNK = 1 << 20


class BadBackup(Exception):
    """A file is no backup, is damaged, or cannot be made or restored here. The message has the first line of a program that
    failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The manifest of a backup. ``engine``: sqlite or postgresql. ``journal``: the id of its chain. ``entries``: the number of journal
    entries that were verified, None without verification. ``members``: octets and SHA-256, by name."""

    version: str
    made_at: datetime
    engine: str
    schema: str
    journal: str
    entries: int | None
    members: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def dumps(self) -> bytes:
        row = asdict(self) | {"format": _FORMAT, "made_at": self.made_at.isoformat(timespec="seconds")}
        return json.dumps(row, indent=1).encode()

    @classmethod
    def loads(cls, data: bytes) -> Manifest:
        """Read a manifest. Raises BadBackup."""
        try:
            row = json.loads(data)
            if row.pop("format") != _FORMAT:
                raise BadBackup("it was made by a newer smtpguard")
            members = {name: (int(size), str(digest)) for name, (size, digest) in row["members"].items()}
            return cls(**row | {"made_at": datetime.fromisoformat(row["made_at"]), "members": members})
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise BadBackup("its manifest cannot be read") from e


def members_in(work: Path) -> dict[str, tuple[int, str]]:
    """Return the octets and the SHA-256 of each file in a folder, by name."""
    names = sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())
    return {name: ((work / name).stat().st_size, _sha256(work / name)) for name in names}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def pack(work: Path, manifest: Manifest, part: Path) -> None:
    """Write the archive with these members of a folder."""
    with (
        _new_file(part) as raw,
        zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(raw, closefd=False) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        data = manifest.dumps()
        tar.addfile(_member(MANIFEST, len(data), manifest), io.BytesIO(data))
        for name, (size, _) in manifest.members.items():
            with (work / name).open("rb") as file:
                tar.addfile(_member(name, size, manifest), file)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a new file durably, readable for its owner only, and make its folder."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _member(name: str, size: int, manifest: Manifest) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(manifest.made_at.timestamp())
    return info


def manifest_of(file: Path) -> Manifest:
    """Read the manifest of a backup. Raises BadBackup and OSError."""
    with _archive(file) as tar:
        return _manifest(tar)


def extract(file: Path, folder: Path) -> Manifest:
    """Extract every member into ``folder``, which is created. Replaces no file. Raises BadBackup and OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return read(file, folder)


def read(file: Path, folder: Path | None = None) -> Manifest:
    """Read the whole file and compare it with its manifest; extract it into ``folder``, if given. Raises BadBackup and OSError."""
    with _archive(file) as tar:
        manifest = _manifest(tar)
        for name, (size, digest) in manifest.members.items():
            info = tar.next()
            if info is None or info.name != name or not info.isreg() or info.size != size or not _is_plain(name):
                raise BadBackup(f"{file} is incomplete: {name} is missing")
            source = tar.extractfile(info)
            assert source is not None  # a regular file
            seen = sha256()
            with Path(os.devnull).open("wb") if folder is None else _new_file(folder / name) as sink:
                while chunk := source.read(_CHUNK):
                    seen.update(chunk)
                    sink.write(chunk)
            if seen.hexdigest() != digest:
                raise BadBackup(f"{file} is damaged: {name} does not match its checksum")
    return manifest


@contextmanager
def _archive(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with (
            file.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as unpacked,
            tarfile.open(fileobj=unpacked, mode="r|") as tar,
        ):
            yield tar
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as e:
        raise BadBackup(f"{file} is not a backup of smtpguard, or is incomplete") from e


def _manifest(tar: tarfile.TarFile) -> Manifest:
    info = tar.next()
    source = tar.extractfile(info) if info is not None and info.name == MANIFEST and info.size < _CHUNK else None
    if source is None:
        raise BadBackup("it has no manifest")
    return Manifest.loads(source.read())


def _is_plain(name: str) -> bool:
    """Return whether a member's name cannot lead out of the folder that it is extracted to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
