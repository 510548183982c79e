"""Files on disk: secrets reach only the parts that need them."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from smtpguard.app import files
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.delivery import has_ended, worker
from smtpguard.app.files import (
    CannotStart,
    exposed_file,
    fleeting,
    folder_id,
    installation_secret,
    make_state,
    store_url,
)
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings, read_settings, settings_of
from smtpguard.config.yaml import load_yaml
from tests.every import every


def settings_in(folder: Path, text: str) -> Settings:
    (folder / "smtpguard.yaml").write_text(text)
    return read_settings(folder / "smtpguard.yaml")


@pytest.mark.parametrize("more", ["", "?sslmode=require"])
def test_the_stores_url_names_the_file_of_its_password(tmp_path: Path, more: str) -> None:
    url = f"postgresql://guard@db.example.com:5433/mail{more}"
    given = settings_in(tmp_path, f'store: {{url: "{url}", password_file: "a password&"}}\n')
    with pytest.raises(Broken, match="cannot be read: No such file"):
        store_url(given)
    (tmp_path / "a password&").write_text("p@ss/w:rd\n")
    named = f"{'&' if more else '?'}password_file={quote(str(tmp_path))}/a%20password%26"
    assert store_url(given) == f"{url}{named}"
    assert dict(make_url(store_url(given)).query)["password_file"] == f"{tmp_path}/a password&"


def test_without_a_password_file_the_url_is_unchanged(tmp_path: Path) -> None:
    given = settings_in(tmp_path, 'store: {url: "sqlite:///x.db"}\n')
    assert store_url(given) == f"sqlite:///{tmp_path}/x.db"


def test_a_state_folder_that_cannot_be_created_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(CannotStart, match=f"{tmp_path}/var: "):
        make_state(settings_in(tmp_path, "state: var\n"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_that_root_creates_get_the_folders_owner(tmp_path: Path) -> None:
    """Files that root creates before the first start get the folder's owner, such as indexes of a sync."""
    given = settings_in(tmp_path, "state: var\n")
    given.state.mkdir()
    os.chown(given.state, 12345, 12346)
    make_state(given)
    installation_secret(given)
    made = list(given.state.iterdir())
    assert len(made) == 3
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12346)}


def test_an_invalid_secret_is_one_error(tmp_path: Path) -> None:
    given = settings_in(tmp_path, "state: var\n")
    make_state(given)
    first = installation_secret(given)
    assert installation_secret(given) == first
    given.secret_file.write_bytes(b"short")
    with pytest.raises(CannotStart, match="does not hold 32 octets"):
        installation_secret(given)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(min_value=0, max_value=2**49), min_size=2, max_size=50))
def test_ids_rise_even_if_the_clock_goes_back(times: list[int]) -> None:
    clock = iter(times)
    new_id = ids(lambda: next(clock))
    made = [new_id() for _ in times]
    assert all(re.fullmatch("[0-9A-Z]{16}", one) for one in made)
    assert made == sorted(set(made))


def test_ids_of_different_processes_sort_by_time() -> None:
    assert ids(lambda: 1000)() < ids(lambda: 1001)()


def test_ids_of_two_processes_in_one_millisecond_differ() -> None:
    assert ids(lambda: 5)() != ids(lambda: 5)()


def test_more_ids_than_fit_a_millisecond_are_distinct() -> None:
    new_id = ids(lambda: 5)
    made = {new_id() for _ in range(5000)}
    assert len(made) == 5000


def test_the_clock_has_a_time_zone() -> None:
    assert SystemClock().now().tzinfo is not None


def test_a_worker_of_another_host_with_the_same_name_has_not_ended(tmp_path: Path) -> None:
    here, there = settings_in(tmp_path, "state: here\n"), settings_in(tmp_path, "state: there\n")
    for each in (here, there):
        make_state(each)
    ours, ended = worker(here), 2**22 + 1  # above the highest id of a process
    place, host = ours.rpartition(" ")[0], socket.gethostname()
    assert worker(here) == ours
    assert has_ended(ours, ours=ours), "an earlier process had our id"
    assert has_ended(f"{place} {ended}", ours=ours)
    assert not has_ended(f"{place} {os.getppid()}", ours=ours)
    assert not has_ended(f"{worker(there).rpartition(' ')[0]} {ended}", ours=ours)
    assert not has_ended(f"other.{place} {ended}", ours=ours), "a copy of the state folder"
    assert not has_ended(f"{host} {ended}", ours=ours), "of an earlier version, which may run on a namesake"
    assert not has_ended(f"{host} {os.getpid()}", ours=ours)


def test_a_folder_without_room_for_an_id_has_one_for_the_process(tmp_path: Path) -> None:
    given = settings_in(tmp_path, "state: var\n")
    make_state(given)
    (given.state / "id").mkdir()
    assert len({folder_id(given) for _ in range(2)} | {folder_id(given)}) == 3


MOUNTS = r"""
21 1 0:20 / / rw - overlay overlay rw
22 21 0:21 / /run rw,nosuid shared:2 - tmpfs tmpfs rw
23 21 8:1 / /var/lib/guard rw - ext4 /dev/sda1 rw
24 21 8:2 / /var/lib/guard\040two rw - ext4 /dev/sda2 rw
"""


@every(
    ("state", "database", "told"),
    [
        ("/run/guard", "/run/guard", ["/run/guard is on tmpfs, which a reboot ends: held mail and the journal are lost then"]),
        ("/srv/guard", "/srv/guard", ["/srv/guard is on overlay, which this container ends: held mail and the journal are lost then"]),
        ("/var/lib/guard/state", "/var/lib/guard", []),
        ("/var/lib/guard", "/run", ["/run is on tmpfs, which a reboot ends: held mail and the journal are lost then"]),
        ("/dev/shm/guard", "/dev/shm/guard", []),
        ("/run/guard", "/var/lib/guard", ["/run/guard is on tmpfs, which a reboot ends: the checkpoints are lost then"]),
        ("/run/guard\nsecret_file: /run/guard/secret", "", ["/run/guard is on tmpfs, which a reboot ends: the secret and the checkpoints are lost then"]),
    ],
)  # fmt: skip
def test_places_that_do_not_last_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, database: str, told: list[str]
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS.strip())
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "mounts")
    url = f"sqlite:///{database}/guard.db" if database else "postgresql://guard@db/guard"
    text = f"state: {state}\nstore: {{url: '{url}'}}\n"
    assert [sentence for _, sentence in fleeting(settings_of(load_yaml(text.encode()), tmp_path, {}))] == told


@every(("options", "kind", "told"), [("ro,nosuid", "tmpfs", False), ("rw", "tmpfs", True), ("ro", "ext4", True)])
def test_a_secret_that_a_container_got_read_only_in_memory_is_not_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str, kind: str, told: bool
) -> None:
    """Docker and Kubernetes let everybody in the container read it, and chmod fails."""
    secret = tmp_path / "password"
    secret.touch(0o644)
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    (tmp_path / "mounts").write_text(
        f"21 1 0:20 / / rw - overlay o rw\n22 21 0:21 / {secret} {options} - {kind} x rw\n"
    )
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "mounts")
    assert bool(exposed_file(secret)) == told
