"""One limit shared by all processes: exact, fair, and complete again after one of them dies."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

from smtpguard.processes.relaylimit import Allowance, RelayConnectionLimit
from tests.every import every


class Part:
    """A part whose messages wait in queues both ways, as between processes. It uses all places that it gets, and gives
    up too many one by one."""

    def __init__(self, name: str, places: RelayConnectionLimit, *, cap: int = 100) -> None:
        self.name, self.tree, self.cap = name, places, cap
        self.allowance = Allowance(places.limit)
        self.allowance.send = lambda message: self.out.append(message["places"])
        self.allowance.changed = self.settle
        self.out: deque[Mapping[str, Any]] = deque()
        self.news: deque[Mapping[str, Any]] = deque()
        self.need = self.used = 0

    def settle(self) -> None:
        self.used = min(self.need, self.allowance.usable)
        self.allowance.tell(self.used, self.need - self.used)

    def end_one(self) -> bool:
        """End one transaction, if the part has too many places."""
        if self.allowance.most is None or self.used <= self.allowance.most:
            return False
        self.used -= 1
        self.allowance.closed(self.used)
        self.settle()
        return True

    def wants(self, n: int) -> None:
        self.need = n
        self.used = min(self.used, n)
        self.settle()


class Tree:
    def __init__(self, limit: int, **caps: int) -> None:
        self.places = RelayConnectionLimit(limit, 2, lambda name, news: self.parts[name].news.append(news))
        self.parts = {name: Part(name, self.places, cap=cap) for name, cap in caps.items()}

    def pass_on(self, rng: random.Random | None = None) -> None:
        """Deliver messages until none is left."""
        for _ in range(10_000):
            if not self.pass_one_on(rng) and not any(map(Part.end_one, self.parts.values())):
                return
        raise AssertionError("it never comes to rest")

    def pass_one_on(self, rng: random.Random | None = None) -> bool:
        ways = [(part, way) for part in self.parts.values() for way in ("out", "news") if getattr(part, way)]
        if not ways:
            return False
        part, way = rng.choice(ways) if rng else ways[0]
        if way == "out":
            self.places.said(part.name, part.out.popleft(), cap=part.cap)
        else:
            part.allowance.heard(part.news.popleft())
        assert self.places.held <= self.places.limit
        assert sum(each.used for each in self.parts.values()) <= self.places.limit
        return True

    def used(self) -> list[int]:
        return [part.used for part in self.parts.values()]


def test_free_connections_are_granted() -> None:
    tree = Tree(20, one=20, two=20)
    tree.parts["one"].wants(3)
    tree.pass_on()
    assert tree.used() == [3, 0]
    tree.parts["one"].wants(0)
    tree.pass_on()
    assert tree.places.held == 0


def test_a_part_with_all_connections_gives_some_up() -> None:
    tree = Tree(20, one=20, two=20)
    tree.parts["one"].wants(50)
    tree.pass_on()
    assert tree.used() == [20, 0]
    tree.parts["two"].wants(50)
    tree.pass_on()
    assert tree.used() == [10, 10]


def test_a_part_that_needs_few_gets_them() -> None:
    tree = Tree(20, one=20, two=20)
    tree.parts["one"].wants(50)
    tree.parts["two"].wants(2)
    tree.pass_on()
    assert tree.used() == [18, 2]


def test_delivery_gets_at_most_its_share() -> None:
    tree = Tree(20, one=20, two=20, delivery=5)
    tree.parts["delivery"].wants(20)
    tree.pass_on()
    assert tree.used() == [0, 0, 5]
    tree.parts["one"].wants(50)
    tree.parts["two"].wants(50)
    tree.pass_on()
    assert sum(tree.used()) == 20
    assert 1 <= tree.used()[2] <= 5
    assert min(tree.used()[:2]) >= 7


def test_delivery_is_not_starved() -> None:
    tree = Tree(2, one=2, delivery=1)
    tree.parts["one"].wants(50)
    tree.pass_on()
    tree.parts["delivery"].wants(3)
    tree.pass_on()
    assert tree.used() == [1, 1]


def test_fewer_connections_than_parts_rotate() -> None:
    tree = Tree(1, one=1, two=1, three=1)
    had: set[str] = set()
    for part in tree.parts.values():
        part.wants(5)
    rng = random.Random(1)
    for _ in range(200):
        if not tree.pass_one_on(rng):
            for part in tree.parts.values():
                part.end_one()
        had.update(name for name, part in tree.parts.items() if part.used)
    assert had == {"one", "two", "three"}


def test_connections_of_a_dead_process_are_free() -> None:
    tree = Tree(20, one=20, two=20)
    tree.parts["one"].wants(20)
    tree.pass_on()
    tree.parts["two"].wants(20)
    dead = tree.parts["one"]
    tree.places.said("two", tree.parts["two"].out.popleft(), cap=20)
    tree.places.ended("one")
    dead.news.clear()
    dead.out.clear()
    dead.used = 0
    tree.pass_on()
    assert tree.used() == [0, 20]
    tree.parts["one"] = Part("one", tree.places)  # restarted
    tree.parts["one"].wants(3)
    tree.pass_on()
    assert tree.used() == [3, 17]


@every("seed", range(200))
def test_the_limit_and_fairness_hold_in_any_order(seed: int) -> None:
    """In any order of messages and needs, there are never more connections than the limit, and in the end each has a
    fair share."""
    rng = random.Random(seed)
    limit = rng.randint(1, 12)
    tree = Tree(limit, one=limit, two=limit, delivery=max(1, limit // 4))
    for _ in range(40):
        part = rng.choice(list(tree.parts.values()))
        match rng.randrange(4):
            case 3:
                part.end_one()
            case 0:
                part.wants(rng.randint(0, 15))
            case 1 if part.out:
                tree.places.said(part.name, part.out.popleft(), cap=part.cap)
            case 2 if part.news:
                part.allowance.heard(part.news.popleft())
        assert tree.places.held <= limit
        assert sum(each.used for each in tree.parts.values()) <= limit
    for part in tree.parts.values():
        part.wants(0)
    tree.pass_on(rng)
    assert tree.places.held == 0
    tree.parts["one"].wants(100)
    tree.pass_on(rng)
    assert tree.parts["one"].used == limit
