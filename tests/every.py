"""Run a table of cases as one test that reports every case that fails. For cases that share no state and are quick:
thousands of tests of one line each cost more than they check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


def every(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Like pytest.mark.parametrize, as one test. Fixtures are shared by all cases."""
    named = (names,) if isinstance(names, str) else names
    table = [(case,) if isinstance(names, str) else tuple(case) for case in cases]
    assert table, "no case"

    def made(test: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(test)
        fixtures = [p for p in signature.parameters.values() if p.name not in named]
        assert len(fixtures) + len(named) == len(signature.parameters), f"{test.__name__} does not take {named}"

        class Failed(list[str]):
            @contextmanager
            def noted(self, case: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
                try:
                    yield dict(zip(named, case, strict=True))
                except Exception as e:
                    self.append(f"{', '.join(map(repr, case))[:300]}: {type(e).__name__}: {e}")

            def told(self) -> None:
                assert not self, f"{len(self)} of {len(table)} cases:\n" + "\n".join(self[:20])

        @wraps(test)
        async def waits(**given: Any) -> None:
            failed = Failed()
            for case in table:
                with failed.noted(case) as values:
                    await test(**values, **given)
            failed.told()

        @wraps(test)
        def at_once(**given: Any) -> None:
            failed = Failed()
            for case in table:
                with failed.noted(case) as values:
                    test(**values, **given)
            failed.told()

        one: Any = waits if inspect.iscoroutinefunction(test) else at_once
        one.__signature__ = signature.replace(parameters=fixtures)
        return one  # type: ignore[no-any-return]

    return made
