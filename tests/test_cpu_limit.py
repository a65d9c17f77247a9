"""The everyday tests stay quick because one that is not fails."""

import cpu_limit
import pytest


def spend(item: pytest.Item) -> None:
    """Spend more than the limit of an item."""
    with pytest.MonkeyPatch.context() as patch:  # and not of the test that calls this
        patch.setattr(cpu_limit, "LIMIT", 0.001)
        within = cpu_limit.within_limit(item)
        next(within)
        sum(range(10**6))
        next(within, None)


def test_a_test_that_takes_long_fails_in_one_line(request):
    """It is named, with the seconds that it took and what to do."""
    with pytest.raises(pytest.fail.Exception) as failed:
        spend(request.node)
    assert str(failed.value).startswith(f"{request.node.nodeid} took 0.")
    assert "mark it slow" in str(failed.value) and "\n" not in str(failed.value)


@pytest.mark.slow
def test_a_slow_one_may(request):
    """The marker lets it pass."""
    spend(request.node)
