"""The documents of a policy, and those that are shipped with the product; and one document of all of them, which keeps every position.

A policy is its own file, the files in ``policy.d/`` and ``lists.d/`` beside it, and the vocabularies: the shipped ones,
and those in ``vocabularies/`` beside the policy. One of the same name replaces a shipped one.

A file in ``policy.d/`` adds to sections: a mapping there (groups, lists, streams and the like) gets more names, a
sequence (rules, expansions) gets more entries, in the order of file names. Nothing is replaced: a name in two files is
a mistake. A file in ``lists.d/`` is one list, which has the name of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from smtpguard import __version__
from smtpguard.config.problem import Broken, Problem, did_you_mean, one_of
from smtpguard.config.yaml import MAX_BYTES, Document, Mark, Place, load_yaml

POLICY = "policy.yaml"
VOCABULARIES = "vocabularies"
PARTS, LISTS = "policy.d", "lists.d"
"""Folders beside the policy whose files are parts of it."""


def shipped() -> Path:
    """The folder of shipped configuration: within the package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_config"
    return installed if installed.is_dir() else package.parent / "config"


def policy_files(path: Path) -> dict[str, Path]:
    """All files of the policy at ``path``, by document: ``policy.yaml``, whatever its file name, ``policy.d/NAME.yaml``,
    ``lists.d/NAME.yaml`` and ``vocabularies/NAME.yaml``."""
    beside = path.parent
    folders = (beside / PARTS, beside / LISTS, shipped() / VOCABULARIES, beside / VOCABULARIES)
    files = (file for folder in folders for file in sorted(folder.glob("*.yaml")))
    return {POLICY: path, **{f"{file.parent.name}/{file.name}": file for file in files}}


def policy_documents(path: Path) -> dict[str, bytes]:
    """Raises Broken for an unreadable file."""
    return {name: _read(file) for name, file in policy_files(path).items()}


def digest(documents: Mapping[str, bytes]) -> str:
    """The SHA-256 that identifies these documents: over names and contents, in the order of names."""
    total = sha256()
    for name in sorted(documents):
        total.update(f"{name}\0{len(documents[name])}\0".encode())
        total.update(documents[name])
    return total.hexdigest()


def vocabulary_names(documents: Iterable[str]) -> dict[str, str]:
    prefix = f"{VOCABULARIES}/"
    return {n.removeprefix(prefix).removesuffix(".yaml"): n for n in sorted(documents) if n.startswith(prefix)}


def _read(path: Path) -> bytes:
    try:
        if not (S_ISREG(mode := path.stat().st_mode) or S_ISDIR(mode)):  # opening a pipe would wait for its writer
            raise Broken([Problem(str(path), 1, 1, "a pipe or device", "a file")])
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as e:
        raise Broken([Problem(str(path), 1, 1, f"cannot be read: {e.strerror or e}")]) from None


MAPPINGS = ("groups", "people", "previews", "lists", "streams", "marks", "own_marks")
SEQUENCES = ("rules", "expansions")
MAIN_ONLY = frozenset(
    {"version", "enforce", "organization", "approvals", "mailings", "confirm", "reply_votes", "breakers"}
)
"""Sections of the policy's own file alone."""


def folder_of(where: str) -> str:
    """Return the folder of a file with its slash, "" for the current one."""
    return where.removesuffix(where.rpartition("/")[2])


def policy_document(documents: Mapping[str, bytes], where: str = POLICY) -> Document:
    """Return one document of all parts of the policy. ``where``: the name of the policy's own file in problems. Raises Broken."""
    parts = sorted(name for name in documents if name.startswith((f"{PARTS}/", f"{LISTS}/")))
    if not parts:
        return load_yaml(documents[POLICY], where)
    folder = folder_of(where)
    problems: list[Problem] = []
    loaded: list[tuple[str, Document]] = []
    for name in (POLICY, *parts):
        try:
            loaded.append((name, load_yaml(documents[name], where if name == POLICY else folder + name)))
        except Broken as e:
            problems += e.problems
    if problems:
        raise Broken(problems)
    whole = _Whole(loaded[0][1])
    for name, document in loaded[1:]:
        if name.startswith(f"{LISTS}/"):
            whole.add_list(name.removeprefix(f"{LISTS}/").removesuffix(".yaml"), document)
        else:
            whole.add(document)
    if whole.problems:
        raise Broken(whole.problems)
    return whole.document


class _Whole:
    """The policy's own document, to which the parts are added."""

    def __init__(self, own: Document) -> None:
        self.document = own
        self.problems: list[Problem] = []

    def add(self, part: Document) -> None:
        if part.value is None:
            return
        if not isinstance(part.value, dict):
            self.problems.append(part.problem((), "no mapping", "sections, as in the policy's own file"))
            return
        for section, value in part.value.items():
            place: Place = (section,)
            if section in MAPPINGS:
                self._names(section, value, part)
            elif section in SEQUENCES:
                self._entries(section, value, part)
            else:
                text, hint = f"{section} is allowed only in the policy's main file", ""
                if section not in MAIN_ONLY:
                    text, hint = f'unknown key "{section}"', did_you_mean(section, (*MAPPINGS, *SEQUENCES))
                self.problems.append(part.problem(place, text, one_of((*MAPPINGS, *SEQUENCES)), hint, key=True))

    def add_list(self, name: str, part: Document) -> None:
        """A file whose value is the section of one list."""
        there = self._section("lists", {})
        if there is None:
            return
        if name in there:
            self.problems.append(
                part.problem((), f"list {name} is already declared in {self._file(('lists', name))}", "another name")
            )
            return
        there[name] = {} if part.value is None else part.value
        self._take(part, (), ("lists", name))
        self.document.keys[("lists", name)] = _marked(part.values[()], part.file)

    def _names(self, section: str, value: Any, part: Document) -> None:
        if value is None:
            return
        there = self._section(section, {})
        if not isinstance(value, dict):
            self.problems.append(part.problem((section,), f"{section} is not a mapping", "a mapping of names"))
            return
        if there is None:
            return
        for name, one in value.items():
            if name in there:
                text = f"{name} of {section} is already declared in {self._file((section, name))}"
                self.problems.append(part.problem((section, name), text, "another name", key=True))
                continue
            there[name] = one
            self._take(part, (section, name), (section, name))

    def _entries(self, section: str, value: Any, part: Document) -> None:
        if value is None:
            return
        if section == "expansions" and isinstance(value, dict):
            entries: Iterator[tuple[Place, Any]] = iter([((section,), value)])
        elif isinstance(value, list):
            entries = (((section, n), one) for n, one in enumerate(value))
        else:
            self.problems.append(part.problem((section,), f"{section} is not a list", "a list"))
            return
        there = self._section(section, [])
        if there is None:
            return
        for place, one in entries:
            self._take(part, place, (section, len(there)))
            there.append(one)

    def _section(self, section: str, empty: Any) -> Any:
        """Return a section of the whole document, created if missing. None if it has a wrong type, which is reported elsewhere."""
        root, values = self.document.value, self.document.values
        if not isinstance(root, dict):
            return None
        if root.get(section) is None:
            root[section] = empty
            values.setdefault((section,), values[()])
        elif section == "expansions" and isinstance(root[section], dict):  # a single one, without a sequence around it
            values.update({(section, 0, *p[1:]): m for p, m in values.items() if p[:1] == (section,)})
            root[section] = [root[section]]
        elif type(root[section]) is not type(empty):
            return None
        return root[section]

    def _take(self, part: Document, old: Place, new: Place) -> None:
        """Copy the marks of everything at and below ``old``."""
        n = len(old)
        for marks, ours in ((part.values, self.document.values), (part.keys, self.document.keys)):
            ours |= {(*new, *place[n:]): _marked(mark, part.file) for place, mark in marks.items() if place[:n] == old}

    def _file(self, place: Place) -> str:
        return self.document.mark(place, key=True).file or self.document.file


def _marked(mark: Mark, file: str) -> Mark:
    return Mark(mark.line, mark.column, file)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """The policy in this host's files, beside the one in force. ``sha256``: of the file and its vocabularies, "" if they
    cannot be read. ``differing``: documents that differ from those in force. ``product``: shipped vocabularies that
    differ from those in force, after an upgrade say, and that no file replaces: they are reported, and do not make the
    file different. ``problem``: the first mistake in it."""

    path: Path
    sha256: str = ""
    differing: tuple[str, ...] = ()
    product: tuple[str, ...] = ()
    problem: str = ""

    @property
    def state(self) -> str:
        """``unusable``: it has mistakes, or cannot be read."""
        return "unusable" if self.problem else "differs" if self.differing else "same"

    @property
    def differs(self) -> bool:
        return self.state != "same"

    def __str__(self) -> str:
        if not self.differs and self.product:
            return (
                f"{self.path} is the same, and smtpguard {__version__} brings other vocabularies "
                f"({', '.join(Path(document).stem for document in self.product)}), which smtpguard reload would put in force"
            )
        if not self.differs:
            return f"{self.path} is the same"
        if self.problem:
            return f"{self.path} is not the same, and cannot be put in force: {self.problem}"
        where = "" if POLICY in self.differing else f" in {', '.join(self.differing)}"
        return f"{self.path} is another one{where}, which smtpguard reload would put in force"
