"""Alias and virtual maps are read as Postfix reads them: compare with postalias and postmap on the same files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from smtpguard.lists.sources import maps

ALIASES = """\
# comment
simple: one@kund.se
several: one@kund.se, two@kund.se,three@kund.se
Folded: one@kund.se,
\ttwo@kund.se
    ,three@kund.se
# a comment within
  , four@kund.se
"in quotes": one@kund.se
pipe: "|/usr/bin/archive --list a,b", /var/mail/archive, one@kund.se
include: :include:/etc/postfix/some, one@kund.se
local: root, postmaster
"""
VIRTUAL = """\
# comment
kund.example anything
one@kund.example  one@kund.se two@kund.se
two@kund.example\tone@kund.se, two@kund.se,
   three@kund.se
  # a comment within
   four@kund.se
@catch.example one@kund.se
Mixed@Kund.example one@kund.se
"""


@pytest.mark.parametrize(
    ("tool", "text", "read"), [("postalias", ALIASES, maps.aliases), ("postmap", VIRTUAL, maps.virtual)]
)
def test_maps_are_read_as_by_postfix(tmp_path: Path, tool: str, text: str, read: object) -> None:
    command = shutil.which(tool) or shutil.which(tool, path="/usr/sbin")
    if command is None:
        pytest.skip("postfix is not installed")
    (tmp_path / "main.cf").write_text("compatibility_level = 3.10\n")
    path = tmp_path / "map"
    path.write_text(text)
    kind = next(k for k in ("lmdb", "hash", "cdb") if k in subprocess.run(
        ["/usr/sbin/postconf", "-c", tmp_path, "-m"], check=True, capture_output=True, text=True).stdout.split())  # fmt: skip
    subprocess.run([command, "-c", tmp_path, f"{kind}:{path}"], check=True, capture_output=True)
    listed = subprocess.run(
        [command, "-c", tmp_path, "-s", f"{kind}:{path}"], check=True, capture_output=True, text=True
    )
    theirs = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition(":\t" if tool == "postalias" else "\t")
        theirs[name.lower()] = _values(value)
    theirs.pop("@", None)  # the timestamp entry of postalias
    theirs.pop("yp_last_modified", None)
    theirs.pop("yp_master_name", None)
    ours = {entry.name.lower(): _values(", ".join(entry.values)) for entry in read(path)}  # type: ignore[operator]
    assert ours == theirs


def _values(text: str) -> list[str]:
    return text.replace(",", " ").replace('"', "").split()
