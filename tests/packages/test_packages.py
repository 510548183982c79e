"""The files of a release, as far as reading them shows: the Debian package's scripts, the image, the compose file and
the locks.

tests/deb.sh installs, upgrades and removes the package on a clean root; tests/wheel.sh runs the wheel alone.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from smtpguard.cli import main
from tests.every import every

ROOT = Path(__file__).parent.parent.parent
PACKAGING = ROOT / "packaging"
SCRIPTS = [
    ROOT / "tests" / "deb.sh",
    PACKAGING / "deb.sh",
    PACKAGING / "release.sh",
    *(PACKAGING / "deb" / name for name in ("preinst", "postinst", "prerm", "postrm")),
]


def instructions() -> list[list[tuple[str, str]]]:
    """The Containerfile as stages of (word, rest) instructions."""
    text = re.sub(r"\\\n\s*", " ", (PACKAGING / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    stages: list[list[tuple[str, str]]] = [[]]
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    return stages


@every("script", SCRIPTS)
def test_scripts_are_plain_shell(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def test_the_package_leaves_settings_and_state() -> None:
    """The package contains no settings, so an upgrade neither asks about them nor overwrites them. Removal leaves the
    journal."""
    said = {name: (PACKAGING / "deb" / name).read_text() for name in ("postinst", "prerm", "postrm")}
    assert not re.search(r"^[^#\n]*\brm -r", re.sub(r"echo .*", "", said["postrm"]), flags=re.M)
    assert "enable" not in said["postinst"], "the package starts nothing"
    assert "/etc" not in re.sub(r"#.*", "", (PACKAGING / "deb.sh").read_text())


def test_the_socket_unit_and_the_sample_have_the_same_address() -> None:
    [place] = re.findall(r"^ListenStream=(.+)$", (PACKAGING / "deb" / "place.conf").read_text(), flags=re.M)
    [listener] = yaml.safe_load((ROOT / "config" / "smtpguard.yaml").read_text())["listen"]["smtp"]
    assert place == f"{listener['address']}:{listener['port']}"


def test_the_image_runs_unprivileged_with_a_health_check() -> None:
    first, build, image = instructions()
    assert [word for word, _ in first] == ["ARG"]
    assert "--require-hashes" in " ".join(rest for word, rest in build if word == "RUN")
    said = dict(image)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said["USER"]), (
        "by number, so that an orchestrator sees that it is not root"
    )
    assert not [rest for word, rest in image if word == "RUN" and "pip" in rest], "build tools are not in the image"
    assert json.loads(said["ENTRYPOINT"]) == ["smtpguard"]
    probe = json.loads(said["HEALTHCHECK"].partition("CMD ")[2])
    compile(probe[-1], "HEALTHCHECK", "exec")
    assert "/readyz" in probe[-1]
    assert said["VOLUME"] == "/var/lib/smtpguard"


def test_the_image_copies_existing_files() -> None:
    let = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for word, rest in instructions()[1] if word == "COPY" for name in shlex.split(rest)[:-1]]
    assert set(copied) == let
    assert all((ROOT / name).exists() for name in copied)
    assert (ROOT / ".containerignore").read_text() == (ROOT / ".dockerignore").read_text()


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PACKAGING / "compose.yaml").read_text())
    return found


def test_the_compose_file_starts_services_in_order(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"guard", "postgresql", "mailpit"}
    guard = services["guard"]
    assert guard["read_only"] is True
    assert guard["cap_drop"] == ["ALL"]
    assert guard["depends_on"]["postgresql"] == {"condition": "service_healthy"}
    assert "healthcheck" in services["postgresql"]
    assert services["postgresql"]["networks"] == ["store"], "it asks for no password"
    assert compose["networks"]["store"] == {"internal": True}
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), "this machine only"
        assert set(service["networks"]) <= set(compose["networks"])
    for mount in guard["volumes"]:
        source = mount.split(":")[0]
        assert source in compose["volumes"] or (PACKAGING / source).exists(), mount


def test_compose_accepts_the_file() -> None:
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("docker-compose is not installed")
    subprocess.run([tool, "-f", PACKAGING / "compose.yaml", "config", "--quiet"], check=True)


def test_the_settings_of_the_compose_file_are_fine(compose: dict[str, Any], tmp_path: Path) -> None:
    """The compose file's settings are valid, and agree with its services, networks and ports. The state folder is
    replaced."""
    shutil.copytree(ROOT / "config" / "lists", tmp_path / "lists")
    shutil.copy(ROOT / "config" / "policy.yaml", tmp_path)
    text = (PACKAGING / "compose" / "smtpguard.yaml").read_text()
    file = tmp_path / "smtpguard.yaml"
    file.write_text(text.replace("/var/lib/smtpguard", str(tmp_path / "state")))
    done = CliRunner().invoke(main, ["-c", str(file), "check"])
    assert done.exit_code == 0, done.output
    said = yaml.safe_load(text)
    assert said["relay"]["host"] in compose["services"]
    assert said["store"]["url"].split("@")[1].split("/")[0] in compose["services"]
    [listener] = said["listen"]["smtp"]
    assert listener["clients"] == [each["subnet"] for each in compose["networks"]["mail"]["ipam"]["config"]]
    inside = {int(port.rsplit(":", 1)[1]) for port in compose["services"]["guard"]["ports"]}
    assert inside == {listener["port"], said["console"]["port"]}


def test_every_lock_has_hashes_and_every_group_a_lock() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for group in groups:
        lock = (ROOT / f"requirements-{group}.lock").read_text()
        for wanted in (each for each in groups[group] if isinstance(each, str)):  # the other entries include a group
            name = re.split(r"[><=\[ ]", wanted)[0].lower()
            assert re.search(rf"^{re.escape(name)}==\S+ (?:;.*)?\\$", lock, flags=re.M), name
        assert lock.count("==") <= lock.count("--hash=sha256:")
