"""Short trainings, and runs that were trained once for all tests of a module."""

import functools
import shutil

import pytest
from short_run import SHORT


@pytest.fixture
def train(cli):
    """Train into a folder; returns (exit code, stdout, stderr)."""

    def call(run: str, *overrides: str):
        return cli("train", *SHORT, f"hydra.run.dir={run}", *overrides)

    return call


@pytest.fixture(scope="module")
def trained(shared_run):
    """Runs that were trained once, by their words; tests copy them."""
    return functools.cache(lambda *words: shared_run(*SHORT, "hydra.run.dir=run", *words) / "run")


@pytest.fixture
def run(trained):
    """A run of SHORT, in the folder `run`."""
    shutil.copytree(trained(), "run")
