"""A run that is killed and started again in its folder ends as one that never stopped."""

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from forked import finish
from resumable import SHORT, outcome


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_one_never_stopped(tmp_path):
    """kill -9 at 8 moments from start to end, of every day others: before a file is changed, in
    the middle of it, and some time later."""
    command = (*SHORT, "callbacks=ema", "callbacks.ema.decay=0.9")
    whole = tmp_path / "whole"
    whole.mkdir()
    assert finish(whole, *command) == 0
    expected = outcome(whole)
    today = str(date.today())
    draw = random.Random(today)
    changes = int((whole / "changes").read_text())
    kinds = ("before", "within", draw.uniform(0, 0.1), draw.uniform(0, 0.3))
    kills = [(draw.randrange(1, changes), kinds[i % len(kinds)]) for i in range(8)]

    def killed_and_resumed(number: int) -> dict:
        folder = tmp_path / str(number)
        folder.mkdir()
        die_at, how = kills[number]
        died = finish(folder, *command, die_at=die_at, how=how)
        expected_death = died in (-signal.SIGKILL, -signal.SIGXFSZ) or isinstance(how, float)
        assert expected_death, (today, kills[number], died)
        again = finish(folder, *command, log="again")
        assert again == 0, (today, kills[number], (folder / "again").read_text())
        assert not list(folder.rglob("*.part"))
        return outcome(folder)

    with ThreadPoolExecutor(2) as pool:
        for kill, found in zip(kills, pool.map(killed_and_resumed, range(8)), strict=True):
            assert found == expected, (today, kill)


@pytest.mark.slow
def test_a_run_killed_again_and_again_comes_to_its_end(tmp_path):
    """Killed two changes later at each start, a run goes on until it is done, to the same end."""
    whole, run = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, run):
        folder.mkdir()
    assert finish(whole, *SHORT) == 0
    starts = 1
    while finish(run, *SHORT, die_at=20 + 2 * starts) != 0:
        starts += 1
    assert starts > 3
    assert outcome(run) == outcome(whole)
