"""Loggers, with real wandb runs that need neither a network nor an account."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from saformer.errors import SettingError
from saformer.runs.logger import build_logger, finish


@pytest.fixture(autouse=True)
def stranger(tmp_path, monkeypatch):
    """Somebody without a wandb login; WANDB_MODE is not set."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    wandb.teardown()  # it remembers the login, or that there was none, of earlier tests
    yield
    finish()


def build(config, run_dir: Path):
    run_dir.mkdir(parents=True, exist_ok=True)
    return build_logger(config, run_dir, run_dir.name, "group", ["T=4"], {"model": {"dim": 4}})


SCRIPT = """
import os, sys
from pathlib import Path
from saformer.runs.logger import build_logger, finish

assert build_logger({"kind": "none"}, Path("."), "run", "group", [], {}) is None
finish()
print("wandb" in sys.modules)

for name in ("a", "b"):
    folder = Path(name)
    folder.mkdir()
    try:
        logger = build_logger(
            {"kind": "wandb", "project": "test"}, folder, name, "group", ["T=4"], {"dim": 4}
        )
        for step, top1 in enumerate((0.25, 0.75, 0.5)):
            logger.log_metrics({"val/top1": top1}, step)
        print(logger.version, logger.experiment.summary["val/top1"]["max"])
    finally:
        finish()
    assert "WANDB_MODE" not in os.environ
"""


@pytest.mark.slow
def test_no_logger_imports_no_wandb_and_two_jobs_make_two_runs():
    """In one process without login or terminal: a job without a logger does not import wandb, then
    each of two jobs logs offline, in a run of its own, and says so in one line."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    imported, *jobs = done.stdout.splitlines()
    assert imported == "False"
    ids = []
    for name, printed in zip("ab", jobs, strict=True):
        run_id, best = printed.split()
        ids.append(run_id)
        assert float(best) == 0.75
        (folder,) = Path(name, "wandb").glob(f"offline-run-*-{run_id}")
        assert f"no wandb login found: logging offline (`wandb sync {folder}`" in done.stderr
    assert ids[0] != ids[1]
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.slow
def test_an_unreachable_server_does_not_stop_the_run(monkeypatch, caplog, tmp_path):
    """With a key but no server the run goes on offline and names the reason in one line."""
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "saformer"):
        logger = build({"kind": "wandb", "project": "test"}, tmp_path / "run")
    assert logger.experiment.offline
    (line,) = caplog.messages
    assert line.startswith("wandb cannot be used online (")
    assert "`wandb sync run/wandb/offline-run-" in line


@pytest.mark.slow
def test_a_wandb_that_does_not_end_holds_up_no_run(monkeypatch, tmp_path):
    """Where the process of the failed login misses its end, the run goes on without waiting."""
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    real, never, waited = wandb.teardown, threading.Event(), []
    monkeypatch.setattr(wandb, "teardown", lambda: (real(), waited.append(never.wait(120))))
    monkeypatch.setattr("saformer.runs.logger.TEARDOWN_SECONDS", 5)
    try:
        assert build({"kind": "wandb", "project": "test"}, tmp_path / "run").experiment.offline
        assert not waited
    finally:
        never.set()


def test_wandb_can_be_disabled(monkeypatch, tmp_path):
    """WANDB_MODE=disabled wins over the settings and leaves no run."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = build({"kind": "wandb", "project": "test", "mode": "offline"}, tmp_path / "run")
    assert isinstance(logger, WandbLogger)
    logger.log_metrics({"val/top1": 0.5}, 0)
    assert not list((tmp_path / "run").rglob("*.wandb"))


def test_an_agent_names_the_run(monkeypatch, tmp_path):
    """`wandb agent` says which run of its sweep it starts; else the folder is the name."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_ID", "ofasweep")
    assert build({"kind": "wandb", "project": "test"}, tmp_path / "run").version == "ofasweep"
    finish()
    monkeypatch.delenv("WANDB_RUN_ID")
    ids = {build({"kind": "wandb", "project": "test"}, tmp_path / "run").version, finish()}
    ids |= {build({"kind": "wandb", "project": "test"}, tmp_path / "run").version}
    assert len(ids - {None}) == 1 and "ofasweep" not in ids


def test_csv_keeps_the_file_of_an_earlier_start(tmp_path):
    """A resumed run writes beside its first metrics.csv, not over it."""
    for value in (1.0, 2.0):
        logger = build({"kind": "csv"}, tmp_path / "run")
        assert isinstance(logger, CSVLogger)
        logger.log_metrics({"val/top1": value}, 0)
        logger.save()
    files = sorted((tmp_path / "run").rglob("metrics.csv"))
    assert [path.read_text().splitlines()[1] for path in files] == ["0,1.0", "0,2.0"]


@pytest.mark.parametrize(
    ("config", "mode", "message"),
    [
        ({"kind": "wandbb"}, None, "logger.kind must be one of wandb, csv, none, not wandbb"),
        ({"kind": "wandb", "projct": "x"}, None, "logger.projct is not an argument of wandb.init"),
        ({"kind": "wandb"}, "offlin", "WANDB_MODE must be one of .*, not offlin"),
        ({"kind": "wandb", "mode": "off"}, None, "logger.mode must be one of .*, not off"),
        (
            {"kind": "csv", "project": "x"},
            None,
            "logger.project must be left out with logger.kind=csv, not x",
        ),
    ],
)
def test_wrong_settings_are_named(config, mode, message, monkeypatch, tmp_path):
    """A mistake in the logger's settings is told with the name of the setting."""
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(SettingError, match=message):
        build(config, tmp_path / "run")
