"""Keeps the everyday tests quick: one without the marker `slow` may take so many CPU seconds.

CPU seconds, and not those of a clock, because other programs take few of them away: where all cores
are busy, the same work takes up to half as many more. So this is 5 seconds of a quiet machine.
"""

import gc
import os
import time
from collections.abc import Iterator

import pytest

LIMIT = 8.0
WORKER = "PYTEST_XDIST_WORKER" in os.environ
"""Whether this process is one of those that run the whole suite."""


def pytest_sessionstart() -> None:
    """Import what most tests need before the first of them, which would else pay for it alone."""
    if WORKER:
        import saformer.energy.report
        import saformer.runs.experiment  # noqa: F401

        gc.freeze()  # it stays, and need not be looked through again and again


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    return (yield from within_limit(item)) if WORKER else (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from within_limit(item)) if WORKER else (yield)


def within_limit(item: pytest.Item) -> Iterator[None]:
    """Fail a test, in one line, for what it spent between its start and its end."""
    before = _spent()
    yield
    spent = _spent() - before
    if spent > LIMIT and item.get_closest_marker("slow") is None:
        pytest.fail(
            f"{item.nodeid} took {spent:.1f} s of CPU: make it shorter than {LIMIT:g}, "
            "or mark it slow",
            pytrace=False,
        )


def _spent() -> float:
    """CPU seconds of this process and of those that it started and waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
