"""Bound and inherited sockets, and the exact counting of connections."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.processes.connections import Connections
from smtpguard.processes.listeners import CannotListen, Wanted, inherited, open_all
from smtpguard.processes.refusing import refuse_backlog
from tests.loopback import needs_ipv6


def test_an_inherited_socket_is_used_for_its_port() -> None:
    given_ = socket.create_server(("127.0.0.1", 0))
    port = given_.getsockname()[1]
    listeners = open_all(
        [Wanted(address="127.0.0.1", port=0), Wanted(address="0.0.0.0", port=port, implicit_tls=True)], [given_]
    )
    try:
        assert listeners[1].socket is given_
        assert listeners[1].implicit_tls, "the settings of the listener apply"
        assert listeners[0].socket.getsockname()[1] != port
        assert listeners[1].name == f"127.0.0.1:{port}"
    finally:
        for each in listeners:
            each.socket.close()


def test_clients_in_an_inherited_backlog_survive_a_stop() -> None:
    """At a stop, connections waiting at an inherited socket are left for the next process; at an own socket, they get
    421."""
    with contextlib.ExitStack() as undo:
        manager = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        place = manager.getsockname()
        [kept] = open_all(
            [Wanted(address="127.0.0.1", port=place[1])], [socket.socket(fileno=os.dup(manager.fileno()))]
        )
        [ours] = open_all([Wanted(address="127.0.0.1", port=0)])
        waits = undo.enter_context(socket.create_connection(place, timeout=120))
        hears = undo.enter_context(socket.create_connection(ours.socket.getsockname(), timeout=120))
        for listener in (kept, ours):
            refuse_backlog(listener)
            listener.close()
        assert hears.recv(100).startswith(b"421 ")
        manager.settimeout(120)
        next_, _ = manager.accept()
        with next_:
            next_.sendall(b"220 next")
            assert waits.recv(100) == b"220 next"


def test_an_unused_inherited_socket_is_an_error() -> None:
    given_ = socket.create_server(("127.0.0.1", 0))
    name = f"127.0.0.1:{given_.getsockname()[1]}"
    with pytest.raises(CannotListen, match=f"{name} matches no entry of listen.smtp"):
        open_all([Wanted(address="127.0.0.1", port=0)], [given_])
    assert given_.fileno() == -1, "and nothing stays open"


def test_a_port_in_use_leaves_no_socket_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotListen, match="the port is in use"):
        open_all([Wanted(address="127.0.0.1", port=0), Wanted(address="127.0.0.1", port=taken.getsockname()[1])])


@needs_ipv6
def test_ipv6_is_bound() -> None:
    [listener] = open_all([Wanted(address="::1", port=0)])
    with listener.socket:
        assert listener.name.startswith("[::1]:")


def test_only_sockets_for_this_process_are_inherited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given_:
        first = os.dup(given_.fileno())
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp"}
        [sock] = inherited(environ, first)
        assert sock.getsockname() == given_.getsockname()
        assert environ == {}, "children do not inherit them"
        sock.close()
        assert inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, first) == []
        assert inherited({}, first) == []


def test_trusted_clients_have_no_limit_of_their_own() -> None:
    table = Connections(total=4, per_client=1, trusted=(ipaddress.ip_network("10.0.0.0/8"),))
    for _ in range(2):
        assert table.admits("10.1.1.1")
        table.opened("p", "10.1.1.1", "smtp")
    assert table.admits("::ffff:10.1.1.1"), "the same, mapped into IPv6"
    table.opened("p", "192.0.2.1", "smtp")
    assert not table.admits("192.0.2.1")
    assert table.admits("192.0.2.2")
    table.opened("p", "192.0.2.2", "smtp")
    assert not table.admits("10.1.1.1"), "the total holds for everybody"


def test_a_network_of_ipv6_is_one_client() -> None:
    table = Connections(total=9, per_client=2)
    first = table.opened("p", "2001:db8::1", "smtp")
    table.opened("p", "2001:db8::2", "smtp")
    assert not table.admits("2001:db8::3")
    assert table.admits("2001:db8:0:1::1")
    table.closed(first)
    assert table.admits("2001:db8::3")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ocm"),
            st.integers(0, 8),
            st.sampled_from("ab"),
            st.sampled_from(["192.0.2.1", "2001:db8::2"]),
            st.sampled_from(["smtp", "milter"]),
        )
    )
)
def test_counts_equal_open_connections(steps: list[tuple[str, int, str, str, str]]) -> None:
    table = Connections(total=5, per_client=3)
    model: dict[int, tuple[str, str, str]] = {}
    for step, number, part, client, listener in steps:
        if step == "o":
            clients = [c for _, c, _ in model.values()]
            allowed = len(model) < 5 and clients.count(client) < 3
            assert table.admits(client) == allowed
            if allowed:
                model[table.opened(part, client, listener)] = (part, client, listener)
        elif step == "c":
            table.closed(number)
            model.pop(number, None)
        elif number in model:
            table.moved(number, part)
            model[number] = (part, *model[number][1:])
        assert len(table) == len(model)
        for each in "ab":
            assert table.load(each) == sum(p == each for p, _, _ in model.values())
            assert sorted(table.of(each)) == sorted(n for n, (p, _, _) in model.items() if p == each)
        for name in ("smtp", "milter"):
            assert table.by_listener[name] == sum(at == name for _, _, at in model.values())


class TestUnixSockets:
    def test_a_unix_socket_has_mode_and_group_and_is_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "milter.sock"
        group = "daemon" if os.geteuid() == 0 else grp.getgrgid(os.getegid()).gr_name
        smtp, milter = open_all(
            [
                Wanted(address="127.0.0.1", port=0),
                Wanted(part="milter", taker="proxy", unix=path, mode=0o620, group=group),
            ]
        )
        assert (smtp.index, milter.index) == (0, 0), "each in its own part's settings"
        assert (smtp.number, milter.number) == (0, 1), "one part takes both"
        assert milter.name == str(path)
        assert not milter.in_clear, "a refusal in SMTP would be no milter protocol"
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        assert path.group() == group
        smtp.close()
        milter.close()
        assert not path.exists()
        milter.close()

    def test_a_stale_unix_socket_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "milter.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        [listener] = open_all([Wanted(part="milter", unix=path)])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        listener.close()

    def test_the_socket_of_a_live_process_is_not_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "milter.sock"
        [first] = open_all([Wanted(part="milter", unix=path)])
        with pytest.raises(CannotListen, match="another process does"):
            open_all([Wanted(part="milter", unix=path)])
        assert path.exists()
        first.close()

    def test_a_successors_socket_is_not_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "milter.sock"
        [first] = open_all([Wanted(part="milter", unix=path)])
        path.unlink()
        [second] = open_all([Wanted(part="milter", unix=path)])
        first.close()
        assert path.exists()
        second.close()

    @pytest.mark.parametrize(
        ("path", "group", "why"),
        [("nowhere/m.sock", None, "No such file"), ("m.sock", "no-such-group", "there is no group no-such-group"),
         ("x" * 120, None, "too long"), ("file", None, "in use")],
    )  # fmt: skip
    def test_failures_are_reported(self, tmp_path: Path, path: str, group: str | None, why: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(CannotListen, match=why):
            open_all([Wanted(part="milter", unix=tmp_path / path, group=group)])

    def test_an_inherited_unix_socket_is_not_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "milter.sock"
        given_ = socket.socket(socket.AF_UNIX)
        given_.bind(str(path))
        given_.listen()
        [listener] = open_all([Wanted(part="milter", unix=path)], [given_])
        assert listener.socket is given_
        listener.close()
        assert path.exists(), "it is the service manager's"
