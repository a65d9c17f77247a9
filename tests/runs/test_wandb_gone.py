"""A wandb that cannot be reached costs a run its start and the seconds of its end, nothing else."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
from resumable import SHORT
from wandb_server import Server

from saformer.runs.logger import FINISH_SECONDS, build_logger, finish

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def account(tmp_path, monkeypatch):
    """Somebody with a key, whose settings are of this test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    wandb.teardown()  # it remembers the login, or that there was none, of earlier tests
    yield
    finish()
    wandb.teardown()  # and its service the server


@pytest.fixture
def server(monkeypatch):
    """A server that runs can be logged to."""
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server
        finish()
        server.shutdown()


def build(**options):
    Path("run").mkdir(exist_ok=True)
    config = {"kind": "wandb", "project": "test", **options}
    return build_logger(config, Path("run"), "run", "group", [], {})


@pytest.mark.slow
def test_a_server_that_never_answers_leaves_the_run_offline(server, caplog):
    """It accepts connections and is silent; after some seconds the run goes on, with one line."""
    server.silent.set()
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "saformer"):
        logger = build()
    assert logger.experiment.offline
    assert time.monotonic() - started < 100
    (line,) = caplog.messages
    assert line.startswith("wandb cannot be used online (")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["refuses", "silent"])
def test_a_server_that_goes_away_does_not_slow_the_training(server, end, tmp_path):
    """The training ends as without it; its end waits for `finish_timeout` and no longer."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *SHORT,
        "logger=wandb",
        "epochs=6",
        "plots=false",
    ]
    command += ["energy.enabled=false", "+logger.settings={finish_timeout:5.0}"]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        while "epoch 1/" not in (tmp_path / "out").read_text():
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.05)
        if end == "silent":
            server.silent.set()
        else:
            server.shutdown()
            server.server_close()
        while not Path("run/results.json").exists():
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.05)
        trained = time.monotonic()
        assert process.wait(120) == 0
        assert time.monotonic() - trained < 5 + 30
    assert server.runs and "Traceback" not in (tmp_path / "err").read_text()
    assert json.loads(Path("run/results.json").read_text())["epochs"] == 6
    assert list(Path("run/wandb").glob("run-*/run-*.wandb"))  # what `wandb sync` uploads


@pytest.mark.slow
def test_a_wandb_that_breaks_down_does_not_end_the_run(tmp_path, monkeypatch):
    """Its process is killed; the run says so once, and comes to its end."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = [sys.executable, str(ROOT / "train.py"), *SHORT, "logger=wandb", "plots=false"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        while "epoch 1/" not in (tmp_path / "out").read_text():
            assert process.poll() is None
            time.sleep(0.05)
        subprocess.run(["pkill", "-9", "-P", str(process.pid), "wandb-core"], check=True)
        assert process.wait(120) == 0
    assert (tmp_path / "out").read_text().count("wandb has failed, and the run continues") == 1
    assert json.loads(Path("run/results.json").read_text())["epochs"] == 3


@pytest.mark.slow
def test_runs_wait_at_most_a_minute_at_their_end(server):
    """By default; wandb itself would wait for ever. The user's own settings stand."""
    assert build().experiment.settings.finish_timeout == FINISH_SECONDS == 60
    finish()
    logger = build(settings={"finish_timeout": 3.0})
    assert logger.experiment.settings.finish_timeout == 3.0


@pytest.mark.slow
def test_a_resumed_run_is_one_run_of_wandb_also_offline(server, monkeypatch):
    """Two starts offline, uploaded together: one id, and the second appended to the first."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for steps in (range(0, 4), range(4, 8)):
        logger = build()
        for step in steps:
            logger.log_metrics({"val/top1": step / 10}, step)
        finish()
    monkeypatch.delenv("WANDB_MODE")
    folders = sorted(map(str, Path("run/wandb").glob("offline-run-*")))
    assert len(folders) == 2
    sync = [str(Path(sys.executable).with_name("wandb")), "sync", *folders]
    subprocess.run(sync, check=True, capture_output=True, timeout=120)
    assert len(server.runs) == 1
    assert [line["trainer/global_step"] for line in server.history] == list(range(8))
    assert [line["_step"] for line in server.history] == list(range(8))


@pytest.mark.slow
def test_a_resumed_run_is_one_run_of_wandb_online(server):
    """A second start appends to the first while it is logged."""
    for steps in (range(0, 4), range(4, 8)):
        logger = build()
        for step in steps:
            logger.log_metrics({"val/top1": step / 10}, step)
        finish()
    assert len(server.runs) == 1
    assert [line["trainer/global_step"] for line in server.history] == list(range(8))
