"""``smtpguard status`` of a real installation: while all is well, while parts fail, and while hardly anything answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.faults.machine import ANNA, Machine, synced
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import mail

PETER = "peter@partner.example"


def status_of(guard: Machine, exits: int | None = None) -> dict[str, Any]:
    done = guard.run("--json", "status", exits=exits)
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"exit": done.returncode}


def alarms(found: dict[str, Any]) -> list[str]:
    return [alarm["alarm"] for alarm in found["alarms"]]


def test_status_from_healthy_to_failing_and_back(tmp_path: Path) -> None:
    with Recorder() as relay:
        guard = Machine(tmp_path / "guard", relay.port)
        for _ in ("without a secret", "without a database"):
            before = status_of(guard, 1)
            assert (before["serves"], before["parts"], alarms(before)) == (False, [], [])
            assert "smtpguard serve" in before["store"]["problem"]
            assert "nothing has ever served here: start smtpguard serve\n" in guard.run("status", exits=1).stdout
            synced(guard)
        with guard:
            assert Mta(guard).deliver(mail(to=PETER, message_id="one@example.com"), ANNA, PETER).code == 250
            well = until(lambda: (found := status_of(guard))["exit"] == 0 and found, "all to be well; " + guard.said())
            assert alarms(well) == []
            assert {(part["part"], part["ready"]) for part in well["parts"]} >= {("proxy", True), ("delivery", True)}
            assert well["policy"]["enforced"] is True
            assert well["policy"]["file"] == "same"
            assert well["policy"]["since"]
            assert well["policy"]["by"]
            assert well["relay"] == {"name": f"127.0.0.1 port {relay.port}", "answers": True, "problem": None}
            assert (well["store"]["engine"], well["store"]["answers"]) == ("sqlite", True)
            assert [(each["list"], each["people"]) for each in well["lists"]] == [("ramadan-greetings", 150)]
            assert well["waiting"]["holds"] == 0
            assert well["checkpoint"]["entry"] > 0
            assert well["unknown"] == []
            people = guard.run("status").stdout
            assert "all is well" in people.splitlines()[0]
            assert "Freezes     none" in people

            guard.run("freeze", "--all", "--reason", "Wrong list")
            relay.call(relay.relay.stop())
            worse = status_of(guard, 1)
            assert alarms(worse) == ["frozen", "relay-away"]
            assert worse["freezes"][0]["reason"] == "Wrong list"
            assert worse["relay"]["answers"] is False
            people = guard.run("status", exits=1).stdout
            assert "2 things are critical" in people.splitlines()[0]
            assert "smtpguard thaw --all" in people
            [told] = [line for line in people.splitlines() if line.startswith("Freezes")]
            assert re.fullmatch(r"Freezes     everything \(by .+ since [-0-9]+ [0-9:]+ UTC: Wrong list\)", told)
            assert "; frozen: everything." in guard.run("report").stdout
            relay.call(relay.relay.start())
            guard.run("thaw", "--all")

            whole = guard.config.read_text()
            until(lambda: status_of(guard)["exit"] == 0, "it to be well again; " + guard.said())
            guard.config.write_text(whole + "consol: {}\n")
            assert status_of(guard, 0)["store"]["answers"] is True, "an error elsewhere hides nothing"
            assert "consol" in guard.run("status").stderr
            route = "{name: bulk, lists: [ramadan-greetings], relay: {host: 127.0.0.1, port: 9}}"
            guard.config.write_text(f"{whole}routes: [{route}]\n")
            routed = status_of(guard, 1)
            assert (routed["relay"]["answers"], alarms(routed)) == (True, ["relay-away"])
            assert [(row["route"], row["name"], row["answers"]) for row in routed["routes"]] == [
                ("bulk", "127.0.0.1 port 9", False)
            ]
            assert (
                "Route       bulk: 127.0.0.1 port 9 cannot be used: connecting to"
                in guard.run("status", exits=1).stdout
            )
            guard.config.write_text(whole.replace("store:", "stroe:"))
            broken = status_of(guard, 1)
            assert any("stroe" in problem for problem in broken["settings"])
            assert {part["part"] for part in broken["parts"]} >= {"proxy", "delivery"}
            guard.config.write_text(whole.replace("sqlite:///var/guard.db", "postgresql://127.0.0.1:9/guard"))
            away = status_of(guard, 1)
            assert away["store"]["answers"] is False
            assert "store-away" in alarms(away)
            assert away["relay"]["answers"] is True
            assert {part["part"] for part in away["parts"] if part["ready"]} >= {"proxy", "delivery"}
            guard.config.write_text(whole)
        after = status_of(guard, 1)
        assert (after["serves"], after["parts"]) == (False, [])


def test_a_killed_supervisor_is_noticed(tmp_path: Path) -> None:
    with Recorder() as relay:
        guard = Machine(tmp_path / "guard", relay.port)
        synced(guard)
        with guard:
            until(lambda: status_of(guard)["serves"], "it to be seen; " + guard.said())
            guard.kill_all()
            found = status_of(guard, 1)
            assert found["serves"] is False
            assert {part["part"] for part in found["parts"] if not part["running"]} >= {"proxy", "delivery"}
            assert ("part-away", "proxy") in [(alarm["alarm"], alarm["about"]) for alarm in found["alarms"]]
            assert "does not run" in guard.run("status", exits=1).stdout
            guard.start()
            until(lambda: status_of(guard)["exit"] == 0, "it to be well again; " + guard.said())


def test_parts_of_separate_supervisors_are_shown(tmp_path: Path) -> None:
    """With one state folder, ``status`` shows both trees, and one of them runs the alarms."""
    with Recorder() as relay, Recorder() as contact:
        alarms_to = {"alarms": f"{{relay: {{host: 127.0.0.1, port: {contact.port}, tls: none}}}}"}
        proxy = Machine(tmp_path / "guard", relay.port, only=["proxy"], settings=alarms_to)
        synced(proxy)
        delivery = Machine(tmp_path / "guard", relay.port, only=["delivery"], settings=alarms_to)
        with proxy, delivery:

            def both() -> Any:
                found = status_of(proxy)
                return found["exit"] == 0 and len({part["serve_pid"] for part in found["parts"]}) == 2 and found

            well = until(both, "both; " + proxy.said())
            assert {part["part"] for part in well["parts"] if part["ready"]} == {"proxy", "delivery", "alarms"}
            proxy.run("freeze", "--all", "--reason", "Wrong list")
            until(lambda: contact.messages, "the mail; " + proxy.said() + delivery.said())
            proxy.run("thaw", "--all")
            until(lambda: len(contact.messages) > 1, "the end")
            assert len(contact.messages) == 2, "one of them sends alarms"
